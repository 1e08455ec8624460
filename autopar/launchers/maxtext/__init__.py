"""MaxText on GPUs: one YAML over its ``base.yml``."""

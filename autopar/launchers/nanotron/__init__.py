"""nanotron: one YAML file."""

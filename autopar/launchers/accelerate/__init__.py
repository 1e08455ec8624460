"""Hugging Face Accelerate: the YAML of ``accelerate launch``."""

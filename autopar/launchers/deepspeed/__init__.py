"""DeepSpeed: one JSON file."""

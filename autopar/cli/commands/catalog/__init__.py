"""What is known by name: models, GPUs and clusters, a command each."""

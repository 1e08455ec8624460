"""torchtitan: a config function in Python, and the command that picks it."""

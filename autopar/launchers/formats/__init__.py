"""Shell scripts, JSON and YAML: parsed safely, with the line of each word."""

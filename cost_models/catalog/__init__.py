"""Models, GPUs, frameworks and calibrations as TOML, each number with its source."""

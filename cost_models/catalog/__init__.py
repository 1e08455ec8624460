"""Models, GPUs, clusters, frameworks and calibrations as data files, each number with its source.

Imports ``specs`` alone.  A new GPU, model or cluster is a TOML file in the folder of its kind; only
a new kind of file needs a reader here.
"""

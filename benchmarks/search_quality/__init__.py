"""How good searches are, against exact frontiers: see :mod:`benchmarks.search_quality.__main__`."""

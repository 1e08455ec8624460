"""How wrong predictions are on runs left out of the fit; see :mod:`benchmarks.accuracy.figures`."""

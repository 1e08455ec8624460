"""The calibration's fit to measured runs, and its constants beside measured kernels.

``python -m benchmarks.fit`` rebuilds the shipped calibration, ``python -m benchmarks.fit.kernels``
says how far its constants are from kernels that were measured alone.
"""

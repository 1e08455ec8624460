"""Fits to what was measured: the calibration's to runs, the kernels' to micro-benchmarks.

``python -m benchmarks.fit`` rebuilds the shipped calibration.
"""

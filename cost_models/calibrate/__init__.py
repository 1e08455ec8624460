"""Measured runs, the constants fitted to them, and how sure a prediction is.

Imports ``specs``, ``counting``, ``equations`` and ``catalog``.  A new measured source needs rows
(see ``benchmarks/data``) and no code; a new fitted constant needs a prior in the catalog.
"""

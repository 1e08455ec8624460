"""Uneven pipelines: how many layers each chunk gets, and how many of them it recomputes.

Imports ``rules``, ``space`` and the result.  Exact where that can be done without a solver, CP-SAT
with a clock where not.
"""

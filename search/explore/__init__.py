"""Optuna where a sweep would take too long, alone or as many workers on one storage.

Imports ``rules``, ``space``, ``frontier``, ``sweep`` and ``feasible``; the only room that knows
Optuna.  A new kind of storage or sampler belongs here.
"""

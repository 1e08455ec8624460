"""Clusters of several pools of GPUs: which pool runs which replicas or which stages.

Imports every room but ``explore`` and ``replay``.  Another way to share a job out among pools is
a module beside ``replicas`` and ``stages``.
"""

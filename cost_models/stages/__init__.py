"""One strategy's pipeline taken apart: what a layer, a chunk and a stage cost by themselves.

For whoever assigns layers to stages, replays a step, or mixes GPUs.  Imports ``specs``,
``counting`` and ``equations``, and prices with these alone: no second set of equations.
"""

"""One layer on one rank: the machine's kernels, the exchanges between ranks, seconds of a block.

Imports ``specs``, ``counting`` and of ``equations`` what knows no layers (``compute``,
``collectives``).  A new kind of block is added to ``layer_time`` with its equations, a new
exchange to ``exchanges``.
"""

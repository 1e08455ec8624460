"""The equations: seconds of kernels, collectives and pipelines, bytes of a rank, one step.

Everything works on arrays of strategies and reads its calibrated numbers from ``constants``.
Imports ``specs`` and ``counting``.  A new term gets its symbol, unit and source in the table of
the module that it belongs to, and meets the others in ``step`` or ``memory`` alone.
"""

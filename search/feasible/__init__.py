"""CP-SAT over layouts: which are legal and could fit, and why none is.

Imports ``rules``, ``space`` and ``sweep``; the only room with ``stages`` that knows OR-Tools.
"""

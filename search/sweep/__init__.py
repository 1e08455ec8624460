"""Branch and bound over every legal strategy of a space: counted, bounded, priced, with proof.

Imports ``rules``, ``space`` and ``frontier``.  A tighter lower bound, or a cut that proves more,
belongs here, with a property test that it never lies above a price.
"""

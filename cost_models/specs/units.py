"""SI inside, GiB only where a person reads; every quantity's unit is in its name."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Constant = float | Floats
"""A calibrated number, or one per strategy while many runs are fitted at once."""

GIB = 1024.0**3
GB = 1e9
TERA = 1e12
MICRO = 1e-6


def gib(size_bytes: float) -> float:
    """Bytes as GiB, for a person to read.

    >>> gib(85899345920)
    80.0
    """
    return size_bytes / GIB

"""Which layers: a short notation for sets of layer indices in the catalog's files.

==================  ==============================================
``"all"``           every layer
``"even"``          layers 0, 2, 4, ...
``"odd"``           layers 1, 3, 5, ...
``"3-60"``          layers 3 to 60, both included
``"0, 3-5, 9"``     any of these after one another, between commas
``[0, 3, 4, 5, 9]`` the indices themselves
==================  ==============================================

Layers count from 0.
"""

import re
from typing import Any

from cost_models.specs.errors import SpecError
from cost_models.specs.model import MAX_LAYERS

_RANGE = re.compile(r"(\d{1,6})(?:\s*-\s*(\d{1,6}))?")
_WORDS = {"all": (0, 1), "even": (0, 2), "odd": (1, 2)}
"""First layer and step."""
_NOTATION = 'write "all", "even", "odd", a range such as "3-60", or these between commas'


def parse_layers(value: Any, n_layers: int) -> tuple[int, ...]:
    """The indices that ``value`` stands for, ascending; raises SpecError where it makes no sense.

    >>> parse_layers("0, 3-5", 6)
    (0, 3, 4, 5)
    """
    if n_layers > MAX_LAYERS:
        raise SpecError(f"needs n_layers <= {MAX_LAYERS}, got {n_layers}")
    if isinstance(value, list):
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in value):
            raise SpecError(f"must be a list of layer indices, got {value!r}")
        return tuple(value)
    if not isinstance(value, str):
        raise SpecError(f"must name layers, got {value!r}", hint=_NOTATION)
    indices: set[int] = set()
    for part in value.lower().split(","):
        word = part.strip()
        if word in _WORDS:
            first, step = _WORDS[word]
            indices.update(range(first, n_layers, step))
            continue
        found = _RANGE.fullmatch(word)
        if not found:
            raise SpecError(f"{word!r} names no layers", hint=_NOTATION)
        start = int(found[1])
        end = int(found[2] or found[1])
        if end < start or end >= n_layers:
            raise SpecError(f"{word!r} must lie within layers 0-{n_layers - 1}, lower end first")
        indices.update(range(start, end + 1))
    return tuple(sorted(indices))

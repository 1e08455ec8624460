"""The text in which a person names an axis's values: ``4,8``, ``1-16``, ``none,full``, ``on``."""

from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import COLUMN_KINDS, Label, Recompute
from search.rules.rule import LAYOUT_AXES

KNOB_AXES = tuple(name for name in COLUMN_KINDS if name not in LAYOUT_AXES)
"""The inner choices, made for one layout."""
AXES = (*LAYOUT_AXES, *KNOB_AXES)


def axis_called(name: str) -> str:
    """The axis of this name, dashes or underscores; raises SpecError with the near miss."""
    key = name.lower().replace("-", "_")
    if key in AXES:
        return key
    close = get_close_matches(key, AXES, n=1)
    raise SpecError(
        f"unknown axis {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(AXES)}",
    )


def _whole(axis: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        raise SpecError(
            f"{axis} must be whole numbers, got {text!r}", hint="write 8, 4,8 or 1-16"
        ) from None
    if value < 1:
        raise SpecError(f"{axis} must be >= 1, got {value}")
    return value


def _whole_numbers(axis: str, text: str, candidates: Sequence[int]) -> list[int]:
    low, dash, high = text.partition("-")
    if not dash or not low:
        return [_whole(axis, text)]
    first, last = _whole(axis, low), _whole(axis, high)
    if first > last:
        raise SpecError(f"{axis} range {text!r} runs backwards", hint=f"write {last}-{first}")
    found = [value for value in candidates if first <= value <= last]
    if not found:
        listed = ", ".join(map(str, candidates))
        raise SpecError(f"{axis} {text} holds no candidate", hint=f"candidates: {listed}")
    return found


def _switch(axis: str, text: str) -> bool:
    if text not in ("on", "off"):
        raise SpecError(f"{axis} must be on or off, got {text!r}")
    return text == "on"


def _share(axis: str, text: str) -> float:
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise SpecError(
            f"{axis} must be shares, got {text!r}", hint="write 0.5 or 50%, or several: 0,0.5,1"
        ) from None
    if not 0 <= value <= 1:
        raise SpecError(f"{axis} must lie between 0 and 1, got {text}")
    return value


def _recompute_layers(axis: str, text: str) -> int | float:
    """A count of layers, a share of a rank's layers below 1, or 0 for all of them."""
    if text == "all" or text == "100%" or text == "0":
        return 0
    return _share(axis, text) if text.endswith("%") else _whole(axis, text)


def parse_axis(axis: str, text: str, candidates: Sequence[Any]) -> tuple[Any, ...]:
    """The values that ``text`` names, ranges filled from ``candidates``, in order given."""
    kind = COLUMN_KINDS[axis]
    parts = [part.strip().lower() for part in text.split(",")]
    if not all(parts):
        raise SpecError(f"{axis} has an empty value in {text!r}")
    values: list[Any] = []
    for part in parts:
        if axis == "recompute_layers":
            values.append(_recompute_layers(axis, part))
        elif axis == "dp_shard" and part == "all":
            values.append(0)
        elif issubclass(kind, (Label, Recompute)):
            values.append(kind.parse(part))
        else:
            values += _PARSERS[kind](axis, part, candidates)
    return tuple(dict.fromkeys(values))


_PARSERS: Mapping[type, Callable[[str, str, Sequence[Any]], list[Any]]] = {
    bool: lambda axis, text, _: [_switch(axis, text)],
    float: lambda axis, text, _: [_share(axis, text)],
    int: _whole_numbers,
}

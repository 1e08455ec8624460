"""Layers by pipeline stage and by kind, in the little languages that Megatron uses.

A pipeline layout names what each stage holds, ``|`` between stages: ``E`` the
embedding, ``t`` a layer, ``m`` a multi-token-prediction module, ``L`` head and loss;
``t*9`` is nine of them and ``(t*9|)*14`` repeats a group.  A pattern of layers is a list
of 0 and 1 in Python: ``([0]*3+[1]*58)``.
"""

import re
from collections.abc import Sequence
from itertools import groupby

from cost_models.specs.errors import SpecError

_LARGEST = 100_000
"""Characters or layers that a written layout may unfold to."""
_GROUP = re.compile(r"\(([^()]+)\)\*(\d+)")
_REPEAT = re.compile(r"(.)\*(\d+)")
_TERM = re.compile(r"\[([\s\d,]*)\](?:\*(\d+))?")
_NESTED = re.compile(r"\(([^()]*)\)(?:\*(\d+))?")


def write_layout(stage_layers: Sequence[int], mtp_layers: int = 0) -> str:
    """The layout of these stages; the modules for multi-token prediction go to the last.

    >>> write_layout((8, 9, 9, 9, 9, 8), mtp_layers=1)
    'Et*8|(t*9|)*4t*8mL'
    """
    stages = [_repeat("t", n) for n in stage_layers]
    ends = {0: "E" + stages[0]}
    last = len(stages) - 1
    ends[last] = ends.get(last, stages[last]) + _repeat("m", mtp_layers) + "L"
    if last == 0:
        return ends[0]
    middle = ""
    for stage, run in groupby(stages[1:-1]):
        count = len(list(run))
        middle += f"({stage}|)*{count}" if count > 2 else f"{stage}|" * count
    return f"{ends[0]}|{middle}{ends[last]}"


def _repeat(letter: str, count: int) -> str:
    return letter if count == 1 else f"{letter}*{count}" if count else ""


def read_layout(text: str) -> tuple[tuple[int, ...], int]:
    """Layers of each stage, and how many ``m`` there are.

    >>> read_layout("Et*8|(t*9|)*4t*8mL")
    ((8, 9, 9, 9, 9, 8), 1)
    """
    plain = text.replace(",", "").replace(" ", "")
    for pattern in (_GROUP, _REPEAT):
        if sum(int(n) for _, n in pattern.findall(plain)) > _LARGEST:
            raise SpecError(f"pipeline layout {text!r} is too long")
        plain = pattern.sub(lambda m: m.group(1) * int(m.group(2)), plain)
        if len(plain) > _LARGEST:
            raise SpecError(f"pipeline layout {text!r} is too long")
    wrong = set(plain) - set("EtmL|")
    if wrong:
        raise SpecError(
            f"pipeline layout {text!r} has an unknown letter {min(wrong)!r}",
            hint="E embedding, t layer, m multi-token prediction, L loss, | between stages",
        )
    return tuple(stage.count("t") for stage in plain.split("|")), plain.count("m")


def write_pattern(chosen: Sequence[int], length: int) -> str:
    """A list with 1 at the chosen indices, its shortest period written once.

    >>> write_pattern(range(3, 61), 61), write_pattern((0, 2, 4, 6), 8)
    ('([0]*3+[1]*58)', '([1]+[0])*4')
    """
    mask = [0] * length
    for index in chosen:
        mask[index] = 1
    period = next(p for p in range(1, length + 1) if length % p == 0 and _repeats(mask, p))
    if period == 1:
        return f"[{mask[0]}]*{length}"
    terms = []
    for value, run in groupby(mask[:period]):
        count = len(list(run))
        terms.append(f"[{value}]*{count}" if count > 1 else f"[{value}]")
    body = f"({'+'.join(terms)})"
    return body if period == length else f"{body}*{length // period}"


def _repeats(mask: Sequence[int], period: int) -> bool:
    return all(value == mask[i % period] for i, value in enumerate(mask))


def read_pattern(text: str, length: int, *, field: str) -> tuple[int, ...]:
    """Indices of the 1s of such a list, or of every layer that an integer period chooses.

    >>> read_pattern("([0]*3+[1]*2)", 5, field="moe_layer_freq"), read_pattern("2", 4, field="x")
    ((3, 4), (0, 2))
    """
    plain = text.replace(" ", "")
    if plain.isdigit():
        if not 0 < int(plain) <= length:
            raise SpecError(f"{field} must be 1 to {length}, got {text!r}")
        return tuple(range(0, length, int(plain)))
    bits = _unfold(plain, field)
    if len(bits) != length or set(bits) - {"0", "1"}:
        raise SpecError(f"{field} must give 0 or 1 for {length} layers, got {text!r}")
    return tuple(i for i, bit in enumerate(bits) if bit == "1")


def _unfold(text: str, field: str) -> list[str]:
    """The list that sums and products of lists make, as text."""

    def term(match: re.Match[str]) -> str:
        items = match.group(1).strip(",").split(",") if match.group(1) else []
        return _times(",".join(items), match.group(2), field)

    plain = _TERM.sub(term, text)
    while "(" in plain:
        shorter = _NESTED.sub(
            lambda m: _times(",".join(m.group(1).split("+")), m.group(2), field), plain
        )
        if shorter == plain:
            raise SpecError(f"{field} is not a list of 0 and 1: {text!r}")
        plain = shorter
    return [bit for bit in plain.replace("+", ",").split(",") if bit]


def _times(items: str, count: str | None, field: str) -> str:
    number = int(count) if count else 1
    if number * (len(items) + 1) > _LARGEST:
        raise SpecError(f"{field} is too long")
    return ",".join([items] * number)

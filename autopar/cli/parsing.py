"""Numbers as they are typed: ``4096``, ``4M``, ``256-1024``, ``256,512``."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    WholeType = click.ParamType[int]
    AmountType = click.ParamType[float]
    CountsType = click.ParamType["GpuCounts"]
else:  # the types of older clicks are not generic
    WholeType = AmountType = CountsType = click.ParamType

MOST_GPUS = 1_000_000
MOST_TOKENS = 10**12
LONGEST_SEQUENCE = 10**8

_SUFFIXES = {"k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9}


class Whole(WholeType):
    """A whole number between 1 and a bound that no real input reaches."""

    name = "n"

    def __init__(self, most: int, *, least: int = 1, suffixes: bool = False) -> None:
        self.most = most
        self.least = least
        self.suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that was typed."""
        number = self._number(str(value).strip().lower())
        if number is None:
            self.fail(f"must be a whole number, got {value!r}", param, ctx)
        if number < self.least:
            self.fail(f"must be >= {self.least}, got {value}", param, ctx)
        if number > self.most:
            self.fail(f"must be <= {self.most:,d}, got {value}", param, ctx)
        return int(number)

    def _number(self, text: str) -> float | None:
        factor = 1.0
        if self.suffixes and text[-1:] in _SUFFIXES:
            factor, text = _SUFFIXES[text[-1]], text[:-1]
        try:
            number = float(text.replace("_", "")) * factor
        except ValueError:
            return None
        return number if number == round_or_nan(number) else None


def round_or_nan(number: float) -> float:
    """The nearest whole number; not a number for what has none."""
    return float(round(number)) if math.isfinite(number) else math.nan


class Amount(AmountType):
    """A finite number that is not negative."""

    name = "x"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that was typed."""
        try:
            number = float(value)
        except ValueError:
            self.fail(f"must be a number, got {value!r}", param, ctx)
        if not math.isfinite(number) or number < 0:
            self.fail(f"must be >= 0, got {value}", param, ctx)
        return number


@dataclass(frozen=True, slots=True)
class GpuCounts:
    """How many GPUs: one number, several, or everything sensible between two."""

    text: str
    listed: tuple[int, ...]
    """The numbers as they were typed; the two ends of a range."""
    is_range: bool = False

    @property
    def single(self) -> int | None:
        """The number, where there is only one."""
        return self.listed[0] if len(self.listed) == 1 else None


class GpuCountsType(CountsType):
    """``512``, ``256,512`` or ``256-1024``."""

    name = "n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> GpuCounts:
        """The numbers that were typed."""
        if isinstance(value, GpuCounts):
            return value
        text = str(value).strip()
        whole = Whole(MOST_GPUS)
        low, dash, high = text.partition("-")
        if dash and low:
            ends = tuple(whole.convert(part, param, ctx) for part in (low, high))
            if ends[0] > ends[1]:
                self.fail(f"range {text} runs backwards, write {ends[1]}-{ends[0]}", param, ctx)
            return GpuCounts(text, ends, is_range=True)
        counts = [whole.convert(part, param, ctx) for part in text.split(",")]
        return GpuCounts(text, tuple(dict.fromkeys(counts)))

"""Numbers as people read them: GiB, seconds, millions."""

from collections.abc import Sequence

from cost_models.specs.units import TERA, gib

_PREFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
_TIMES = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))


def short_count(number: float) -> str:
    """A count to three or four digits.

    >>> short_count(70_553_706_496), short_count(4_194_304), short_count(512)
    ('70.6B', '4.19M', '512')
    """
    for size, prefix in _PREFIXES:
        if number >= size:
            value = number / size
            return f"{value:.{2 if value < 10 else 1 if value < 1000 else 0}f}{prefix}"
    return f"{number:g}"


def plain_count(number: int) -> str:
    """A count with its thousands apart.

    >>> plain_count(1234567)
    '1,234,567'
    """
    return f"{number:,d}"


def percent(share: float) -> str:
    """A share with one decimal.

    >>> percent(0.4567)
    '45.7%'
    """
    return f"{100 * share:.1f}%"


def whole_percent(share: float) -> str:
    """A share without decimals.

    >>> whole_percent(0.4567)
    '46%'
    """
    return f"{100 * share:.0f}%"


def gib_words(size_bytes: float, decimals: int = 1) -> str:
    """Bytes of one GPU in GiB.

    >>> gib_words(85899345920)
    '80.0 GiB'
    """
    return f"{gib(size_bytes):.{decimals}f} GiB"


def terabytes(size_bytes: float) -> str:
    """Bytes over many GPUs, in decimal TB as papers print them.

    >>> terabytes(7.3e12)
    '7.30 TB'
    """
    return f"{size_bytes / TERA:.2f} TB"


def seconds(time_s: float) -> str:
    """A time to about four digits in the unit that suits it.

    >>> seconds(4.3217), seconds(0.0312), seconds(1234.5)
    ('4.322 s', '31.20 ms', '1234.5 s')
    """
    return seconds_alike([time_s])[0]


def seconds_alike(times_s: Sequence[float], *, anchor_s: float | None = None) -> list[str]:
    """Times in one unit with equally many decimals, four digits for the least or the anchor.

    >>> seconds_alike([7.942, 10.0912])
    ['7.942 s', '10.091 s']
    """
    least = min(times_s, default=0.0) if anchor_s is None else anchor_s
    scale, unit = next(((scale, unit) for scale, unit in _TIMES if least >= scale), _TIMES[0])
    decimals = next((d for d, bound in ((3, 10), (2, 100)) if least / scale < bound), 1)
    return [f"{time_s / scale:.{decimals}f} {unit}" for time_s in times_s]


def interval(low: float | None, value: float, high: float | None) -> str:
    """Half the width of an interval as a share of the value, or nothing without one.

    >>> interval(9.0, 10.0, 11.5)
    '±12%'
    """
    if low is None or high is None or not value:
        return ""
    return f"±{100 * (high - low) / (2 * value):.0f}%"

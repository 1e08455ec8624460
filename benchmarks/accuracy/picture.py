"""The accuracy of every source in one picture, as SVG: readable on light and on dark pages.

Left, the median error of the step time; right, the share of runs inside the 80 % interval,
beside the 80 % that it should be.  Every source was left out of the fit whole.
"""

from collections.abc import Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape

INK, BAR, MISS = "#6e7781", "#2f81f7", "#d29922"
"""Greys and colours that stand out from white and from black alike."""
WIDTH, TOP, ROW = 760, 44, 19
NAME_END, ERROR_START, ERROR_WIDTH = 240, 250, 210
SHARE_START, SHARE_WIDTH = 530, 170
WANTED_SHARE = 0.8


def rows_of(figures: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Each source and its figures of the step time, most runs first; a slow regime by itself."""
    found = []
    sources = figures["left_out_source"]["by_source"]
    for name, kinds in sorted(sources.items(), key=lambda pair: -pair[1]["step_time"]["n"]):
        found.append((name, kinds["step_time"]))
        if kinds.get("step_time_slow_regime"):
            found.append((f"{name}, slow regime", kinds["step_time_slow_regime"]))
    return found


def picture(figures: Mapping[str, Any]) -> str:
    """The whole picture."""
    rows = rows_of(figures)
    height = TOP + ROW * len(rows) + 8
    title = "Median error and coverage of the 80 % interval by source, each left out of the fit"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="{INK}">',
        f"<title>{title}</title>",
        f'<text x="{ERROR_START}" y="16" font-weight="bold">median error of the step time</text>',
        f'<text x="{SHARE_START}" y="16" font-weight="bold">runs in the 80 % interval</text>',
        f'<text x="{NAME_END}" y="16" text-anchor="end" font-weight="bold">source (runs)</text>',
        f'<text x="{_share_x(WANTED_SHARE):.1f}" y="33" text-anchor="middle">80 %</text>',
        f'<line x1="{_share_x(WANTED_SHARE):.1f}" x2="{_share_x(WANTED_SHARE):.1f}" y1="{TOP - 6}" '
        f'y2="{height - 6}" stroke="{INK}" stroke-dasharray="3 3"/>',
    ]
    for place, (name, found) in enumerate(rows):
        lines += _row(name, found, TOP + ROW * place)
    return "\n".join([*lines, "</svg>"]) + "\n"


def _share_x(share: float) -> float:
    return SHARE_START + SHARE_WIDTH * share


def _row(name: str, found: Mapping[str, Any], y: int) -> Iterator[str]:
    error, share = found["median_error"], found["coverage_80"]
    width = max(ERROR_WIDTH * min(error, 1.0), 1.0)
    colour = BAR if share >= WANTED_SHARE else MISS
    base = y + 13
    yield (
        f'<text x="{NAME_END}" y="{base}" text-anchor="end">{escape(name)} ({found["n"]})</text>'
    )
    yield f'<rect x="{ERROR_START}" y="{y + 3}" width="{width:.1f}" height="12" fill="{BAR}"/>'
    yield f'<text x="{ERROR_START + width + 5:.1f}" y="{base}">{100 * error:.1f} %</text>'
    yield (
        f'<line x1="{SHARE_START}" x2="{_share_x(share):.1f}" y1="{y + 9}" y2="{y + 9}" '
        f'stroke="{INK}" stroke-opacity="0.4"/>'
    )
    yield f'<circle cx="{_share_x(share):.1f}" cy="{y + 9}" r="4.5" fill="{colour}"/>'
    yield f'<text x="{WIDTH - 4}" y="{base}" text-anchor="end">{100 * share:.0f} %</text>'

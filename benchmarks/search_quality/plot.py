"""What is missing of the exact hypervolume, against evaluations or seconds, with its spread."""

import io
from collections.abc import Sequence
from statistics import median
from typing import Literal

from benchmarks.search_quality.measure import GOAL, Mark

COLUMNS = 3
LEAST = 1e-4
"""What is missing beyond this is drawn here: the axis is logarithmic."""


def svg(marks: Sequence[Mark], against: Literal["evaluations", "wall_s"]) -> str:
    """A panel for each instance; lines are medians of the seeds, bands their extremes.

    Raises
    ------
    ImportError
        Without Matplotlib.
    """
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "autopar"  # the same bytes for the same marks
    from matplotlib import pyplot as plt

    instances = list(dict.fromkeys(mark.instance for mark in marks))
    algorithms = list(dict.fromkeys(mark.algorithm for mark in marks))
    n_rows = -(-len(instances) // COLUMNS)
    figure, panels = plt.subplots(
        n_rows,
        COLUMNS,
        figsize=(4.2 * COLUMNS, 2.8 * n_rows + 0.8),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    palette = plt.colormaps["tab10"](range(10))
    colours = {name: palette[k % 10] for k, name in enumerate(algorithms)}
    for panel in panels.flat[len(instances) :]:
        panel.set_visible(False)
    for panel, instance in zip(panels.flat, instances, strict=False):
        for name in algorithms:
            some = [m for m in marks if m.instance == instance and m.algorithm == name]
            if not some:
                continue
            x, middle, low, high = _curve(some, against)
            panel.plot(x, middle, label=name, color=colours[name], linewidth=1.4, zorder=2)
            panel.fill_between(x, low, high, color=colours[name], alpha=0.18, linewidth=0)
        panel.axhline(1.0 - GOAL, color="black", linewidth=0.8, linestyle=":")
        panel.set_xscale("log")
        panel.set_yscale("log")
        panel.set_ylim(LEAST * 0.8, 1.2)
        panel.set_title(instance, fontsize=9)
    words = {"evaluations": "strategies priced", "wall_s": "seconds, start included"}
    figure.supxlabel(f"{words[against]} (dotted: {GOAL:.1%} is found)", fontsize=10)
    figure.supylabel("share of the exact hypervolume that is missing", fontsize=10)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=5, fontsize=9, frameon=False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def _curve(
    marks: Sequence[Mark], against: Literal["evaluations", "wall_s"]
) -> tuple[list[float], list[float], list[float], list[float]]:
    """Abscissa, median, best and worst of the seeds at each number of evaluations."""
    steps: dict[int, list[Mark]] = {}
    for mark in marks:
        steps.setdefault(mark.evaluations, []).append(mark)
    seeds = len({mark.seed for mark in marks})
    whole = {n: some for n, some in sorted(steps.items()) if len(some) == seeds} or steps
    missing = [[max(1.0 - m.hypervolume, LEAST) for m in some] for some in whole.values()]
    return (
        [median(getattr(m, against) for m in some) for some in whole.values()],
        [median(some) for some in missing],
        [min(some) for some in missing],
        [max(some) for some in missing],
    )

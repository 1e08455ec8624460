"""How wrong the predictions are: tables for people, ``autopar/validate/1`` for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.words import percent, plain_count

VALIDATE_SCHEMA = "autopar/validate/1"

_HEADS = {"source": "source", "gpu": "GPU", "framework": "framework", "model": "model"}
_RANKED = ("median_spearman", "median_regret", "p90_regret")

LEGEND = (
    "error: |predicted / measured - 1| of the step time, median and mean; bias: median of "
    "predicted / measured - 1; in 80%: measured within the 80% interval; rho, regret: Spearman "
    "and cost of our pick, median over sweeps; OOM: balanced accuracy"
)


def validate_document(
    rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, Any]:
    """Every row of the table and the figures over all of them."""
    return {"schema": VALIDATE_SCHEMA, "rows": list(rows), "summary": dict(summary)}


def figures_table(key: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    """One group of runs a line; runs in the slow regime stand below their group."""
    columns = (
        Column(_HEADS.get(key, key), style="bold"),
        Column("runs", right=True),
        Column("error", right=True),
        Column("mean", right=True, keep=6),
        Column("bias", right=True),
        Column("in 80%", right=True, keep=7),
        Column("sweeps", right=True, keep=4),
        Column("rho", right=True, keep=5),
        Column("regret", right=True, keep=5),
        Column("p90", right=True, keep=3),
        Column("memory", right=True, keep=6),
        Column("error", right=True, keep=6),
        Column("in 80%", right=True, keep=2),
        Column("OOM", right=True, keep=4),
    )
    rows: list[tuple[str, ...]] = []
    for name, figures in groups.items():
        rows.append(_cells(name, figures))
        if "step_time_slow_regime" in figures:
            slow = {"step_time": figures["step_time_slow_regime"]}
            rows.append(_cells("  slow regime", slow))
    return Table(columns, tuple(rows)).without_empty()


def _cells(name: str, figures: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    time, sweeps = figures["step_time"], figures.get("sweeps", {})
    memory, failures = figures.get("memory", {}), figures.get("out_of_memory", {})
    rho = sweeps.get("median_spearman")
    return (
        name,
        _count(time),
        _share(time, "median_error"),
        _share(time, "mean_error"),
        _share(time, "bias", sign=True),
        _share(time, "coverage_80", whole=True),
        _count(sweeps),
        "" if rho is None else f"{rho:.3f}",
        *(_share(sweeps, figure) for figure in _RANKED[1:]),
        _count(memory),
        _share(memory, "median_error"),
        _share(memory, "coverage_80", whole=True),
        _share(failures, "balanced_accuracy"),
    )


def _count(figures: Mapping[str, Any]) -> str:
    return plain_count(figures["n"]) if figures.get("n") else ""


def _share(
    figures: Mapping[str, Any], name: str, *, sign: bool = False, whole: bool = False
) -> str:
    value = figures.get(name)
    if value is None:
        return ""
    if whole:
        return f"{value:.0%}"
    return f"{100 * value:+.1f}%" if sign else percent(value)


def calibration_table(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """Figures of left-out runs under the old constants and under those of one's own."""
    return figures_table("constants", {"before": before, "after, on runs left out": after})


def reliability_table(figures: Mapping[str, Any]) -> Table:
    """What became of layouts by their predicted probability to fit."""
    columns = (
        Column("probability to fit"),
        Column("runs", right=True),
        Column("predicted", right=True),
        Column("did fit", right=True),
    )
    rows = tuple(
        (
            f"{row['from']:.2f} to {row['to']:.2f}",
            plain_count(row["n"]),
            percent(row["predicted"]),
            percent(row["observed"]),
        )
        for row in figures["reliability"]
    )
    return Table(columns, rows)


def print_validation(printer: Printer, summary: Mapping[str, Any]) -> None:
    """Every table, one after the other."""
    figures = summary["figures"]
    printer.table(figures_table("all runs", {"all": figures["all"]}))
    for key in _HEADS:
        printer.line()
        printer.table(figures_table(key, figures[f"by_{key}"]))
    failures = figures["all"]["out_of_memory"]
    if failures["n"]:
        printer.line()
        printer.table(reliability_table(failures))
        printer.line(safe_line(failures))


def safe_line(failures: Mapping[str, Any]) -> str:
    """How many of the layouts that were called safe were not."""
    if not failures["n_called_safe"]:
        return "no layout was called safe (probability to fit >= 95%)"
    return (
        f"of {plain_count(failures['n_called_safe'])} layouts called safe (probability to fit "
        f">= 95%), {percent(failures['failed_among_safe'])} ran out of memory"
    )

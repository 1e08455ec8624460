"""Runs as tables: what is printed, and what is committed beside the CSV."""

import csv
import datetime
import io
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.search_quality.exact import Exact
from benchmarks.search_quality.instances import Instance
from benchmarks.search_quality.measure import GOAL, Mark
from benchmarks.search_quality.seeded import Beginning
from cost_models.specs.errors import SpecError

NOTHING = "-"


def to_csv(marks: Sequence[Mark]) -> str:
    """One line for every mark; figures with six digits."""
    out = io.StringIO()
    names = [field.name for field in fields(Mark)]
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    for mark in marks:
        table.writerow({name: _cell(value) for name, value in asdict(mark).items()})
    return out.getvalue()


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else "" if value is None else value


def read_csv(path: Path) -> list[Mark]:
    """The marks that :func:`to_csv` wrote.

    Raises
    ------
    SpecError
        For a file that holds none.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_mark(row) for row in csv.DictReader(file)]
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except (KeyError, ValueError, TypeError, csv.Error):
        raise SpecError(f"{path}: no CSV of this benchmark") from None


def _mark(row: Mapping[str, str]) -> Mark:
    return Mark(
        instance=row["instance"],
        algorithm=row["algorithm"],
        seed=int(row["seed"]),
        evaluations=int(row["evaluations"]),
        wall_s=float(row["wall_s"]),
        hypervolume=float(row["hypervolume"]),
        wide=float(row["wide"]),
        regret=float(row["regret"]),
        goal_at=int(row["goal_at"]) if row["goal_at"] else None,
    )


def last(marks: Sequence[Mark]) -> dict[tuple[str, str], list[Mark]]:
    """The end of every run, by instance and algorithm."""
    runs: dict[tuple[str, str, int], Mark] = {}
    for mark in marks:
        runs[mark.instance, mark.algorithm, mark.seed] = mark
    found: dict[tuple[str, str], list[Mark]] = {}
    for (instance, algorithm, _), mark in runs.items():
        found.setdefault((instance, algorithm), []).append(mark)
    return found


def conditions(budget: int, limit_s: float | None) -> str:
    """Date, versions and machine of a run that is just over."""
    names = ("autopar", "numpy", "scipy", "optuna", "ortools")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = f", load {os.getloadavg()[0]:.1f} at its end" if hasattr(os, "getloadavg") else ""
    limit = "" if limit_s is None else f", or {limit_s:g} s of a run if they come first"
    return (
        f"Measured {datetime.datetime.now(datetime.UTC).date().isoformat()} by "
        f"`python -m benchmarks.search_quality`: {versions}, python {platform.python_version()}; "
        f"{os.cpu_count()} cores{load}. Up to {budget} evaluations a run{limit}."
    )


def instance_table(instances: Sequence[Instance], exact: Mapping[str, Exact]) -> str:
    """What the problems are, and what their exact frontiers took."""
    lines = [
        "| instance | kind | legal strategies | exact frontier | fastest step | found in |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for instance in instances:
        known = exact[instance.name]
        lines.append(
            f"| {instance.name} | {instance.kind} | {instance.census.legal:,} "
            f"| {len(known.step_time_s)} | {known.step_time_s.min():.4g} s "
            f"| {known.seconds:.1f} s |"
        )
    return "\n".join(lines)


def default_table(
    marks: Sequence[Mark], name: str, started: Mapping[str, Beginning], seeds: int
) -> str:
    """The seeded default search on every instance, with what its bounds cost."""
    lines = [
        f"| instance | hypervolume (median of {seeds}) | worst seed | wide | regret "
        f"| {GOAL:.1%} after | at worst | seeds | bounds computed | in |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for (instance, algorithm), ends in last(marks).items():
        if algorithm != name:
            continue
        begun = started[instance]
        reached = [math.inf if end.goal_at is None else end.goal_at for end in ends]
        lines.append(
            f"| {instance} | {_percent(median(e.hypervolume for e in ends))} "
            f"| {_percent(min(e.hypervolume for e in ends))} "
            f"| {_percent(median(e.wide for e in ends))} | {regret_cell(ends)} "
            f"| {_count(median(reached))} | {_count(max(reached))} | {len(begun.points)} "
            f"| {begun.n_bounds:,} | {begun.seconds:.1f} s |"
        )
    return "\n".join(lines)


def compared(marks: Sequence[Mark], cell: Callable[[Sequence[Mark]], str]) -> str:
    """Instances down, algorithms with their seeds across; a cell of the runs' ends."""
    ends = last(marks)
    instances = list(dict.fromkeys(instance for instance, _ in ends))
    algorithms = list(dict.fromkeys(algorithm for _, algorithm in ends))
    seeds = {
        name: max(len(e) for (_, one), e in ends.items() if one == name) for name in algorithms
    }
    heads = [f"{name} ({seeds[name]})" for name in algorithms]
    lines = [
        f"| instance | {' | '.join(heads)} |",
        f"|---|{'--:|' * len(algorithms)}",
    ]
    for instance in instances:
        cells = [
            cell(ends[instance, name]) if (instance, name) in ends else NOTHING
            for name in algorithms
        ]
        lines.append(f"| {instance} | {' | '.join(cells)} |")
    return "\n".join(lines)


def hypervolume_cell(ends: Sequence[Mark]) -> str:
    """Median ratio, with the spread of the seeds."""
    ratios = [end.hypervolume for end in ends]
    spread = f" ({_percent(min(ratios))} to {_percent(max(ratios))})" if len(ratios) > 1 else ""
    return _percent(median(ratios)) + spread


def regret_cell(ends: Sequence[Mark]) -> str:
    """Median regret."""
    value = median(end.regret for end in ends)
    return f"{100.0 * abs(value):.1f} %" if math.isfinite(value) else "none fits"


def effort_cell(ends: Sequence[Mark]) -> str:
    """Evaluations and seconds of a run, median."""
    seconds = median(end.wall_s for end in ends)
    return f"{median(end.evaluations for end in ends):.0f} in {seconds:.1f} s"


def _percent(share: float) -> str:
    return f"{math.floor(1e4 * share + 1e-6) / 100.0:.2f} %"  # 100 % is all of it


def _count(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "not reached"

"""What experts ship, priced beside the best of the same problem.

``data/expert_layouts.csv`` holds layouts that vendors and papers publish, each with its source
and with what was assumed where the source is silent.  The problem is the layout's own: model,
GPUs, batch, sequence, precision, framework; the best is the exact search's in the core space
that also holds the layout's values.  Where it wins, the changes that lead there say through
which knob (:mod:`autopar.answers.improvement`).
"""

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autopar.answers.improvement import Improvement, Step, improve
from autopar.job.completion import Described
from autopar.job.inputs import as_precision
from autopar.job.job import Job
from autopar.launchers.knobs import effective
from autopar.report.views.improve import change_words
from autopar.report.words import gib_words
from cost_models.specs.strategy import Recompute, Schedule, Sharding, Strategy

LAYOUTS = Path(__file__).parents[1] / "data" / "expert_layouts.csv"
NOTABLE = 0.1
"""Share of the step by which the best has to win for its knobs to be named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An expert's layout and the best of its problem."""

    row: Mapping[str, str]
    found: Improvement

    @property
    def comparable(self) -> bool:
        """By our rules and our memory model the layout would run."""
        return self.found.fits and not self.found.broken

    @property
    def best_s(self) -> float | None:
        """The fastest step there is; None where nothing fits."""
        frontier = self.found.searched.frontier
        return frontier[0].step_time_s if frontier else None

    @property
    def gain(self) -> float:
        """Share of the expert's step that the best saves."""
        best = self.best_s
        return 0.0 if best is None else 1.0 - best / self.found.yours.step_time_s


def expert_rows(path: Path = LAYOUTS) -> list[dict[str, str]]:
    """The layouts as they are in the file."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def job_of(row: Mapping[str, str]) -> Described:
    """The problem of a layout, with the layout."""
    job = Job.of(
        row["model"],
        int(row["gpus"]),
        gpu=row["gpu"],
        launcher=row["launcher"],
        seq_len=int(row["seq_len"]),
        global_batch=int(row["global_batch"]),
        framework=row["framework"],
    )
    model, cluster = job.problem.model, job.problem.cluster
    degrees: dict[str, Any] = {
        name: int(row[name]) for name in ("tp", "pp", "vpp", "cp", "ep", "etp")
    }
    dp = cluster.n_gpus // (degrees["tp"] * degrees["pp"] * degrees["cp"])
    usual = "interleaved" if degrees["vpp"] > 1 else "1f1b"
    strategy = Strategy(
        **degrees,
        dp=dp,
        dp_shard=dp,
        micro_batch_size=int(row["micro_batch_size"]),
        schedule=Schedule.parse(row["schedule"] or usual),
        sharding=Sharding.parse(row["sharding"]),
        recompute=Recompute.parse(row["recompute"]),
        recompute_layers=int(row["recompute_layers"] or 0),
        precision=as_precision(row["precision"], cluster),
        sequence_parallel=degrees["tp"] > 1,
        overlap_grad_reduce=True,
        overlap_param_gather=True,
        overlap_p2p=True,
    )
    return Described(
        job=job,
        title=row["name"],
        strategy=effective(strategy, model),
        notes={},
        ignored=(),
    )


def judged_experts(rows: Iterable[Mapping[str, str]] | None = None) -> Iterator[Verdict]:
    """Every layout beside the best of its problem."""
    for row in expert_rows() if rows is None else rows:
        job = job_of(row)
        yield Verdict(row=row, found=improve(job))


def expert_table(verdicts: Iterable[Verdict]) -> str:
    """One line a layout; the knobs where the best wins by over :data:`NOTABLE`."""
    lines = [
        "## What experts ship",
        "",
        "Both sides are predictions, with the errors that `benchmarks.accuracy` reports, and the "
        "recipes leave knobs to their base that are taken as `expert_layouts.csv` says. A layout "
        "that our rules or our memory model refuse is not compared.",
        "",
        "| source | layout | GPUs | step | memory | best | saved | through |",
        "|---|---|---|--:|--:|--:|--:|---|",
    ]
    for verdict in verdicts:
        row, found = verdict.row, verdict.found
        if not verdict.comparable:
            best, saved, through = "", "", _why_not(found)
        else:
            best = f"{verdict.best_s:.4g} s"
            saved = f"{100.0 * verdict.gain:.1f} %"
            through = _knobs(found) if verdict.gain > NOTABLE else ""
        lines.append(
            f"| {row['source']} | {row['name']} | {int(row['gpus']):,} {row['gpu']} "
            f"| {found.yours.step_time_s:.4g} s | {gib_words(found.yours.memory_bytes)} "
            f"| {best} | {saved} | {through} |"
        )
    return "\n".join(lines)


def _why_not(found: Improvement) -> str:
    if found.broken:
        return "not compared: " + ", ".join(rule.name for rule, _ in found.broken)
    return "not compared: by our memory model it does not fit"


def _knobs(found: Improvement) -> str:
    """The changes that save most, until three quarters of the gain are named."""
    steps = sorted(found.steps, key=lambda step: -step.gain_s)
    whole = sum(step.gain_s for step in steps)
    named: list[str] = []
    told = 0.0
    for step in steps:
        if step.gain_s <= 0 or told >= 0.75 * whole:
            break
        told += step.gain_s
        named.append(f"{change_words(step)} ({_share(step, found)})")
    return "; ".join(named)


def _share(step: Step, found: Improvement) -> str:
    return f"{-100.0 * step.gain_s / found.yours.step_time_s:.1f} %"

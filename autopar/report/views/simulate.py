"""A replayed step: time against the closed form, each rank's bubble, memory over time."""

from typing import Any

import numpy as np

from autopar.job.job import Job
from autopar.report.documents import job_document, specs_document
from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.views.estimate import strategy_line
from autopar.report.words import gib_words, percent, seconds, seconds_alike
from cost_models.specs.units import gib
from search.replay.replay_step import StepReplay
from search.versions import versions

SIMULATION_SCHEMA = "autopar/simulation/1"

MOST_RANKS = 8
"""Ranks that a person wants to see; the ends and some between."""
CHART = 48
"""Characters of a chart."""
_LEVELS = " ▁▂▃▄▅▆▇█"


def shown_ranks(pp: int) -> list[int]:
    """The first, the last and some between.

    >>> shown_ranks(4), shown_ranks(64)
    ([0, 1, 2, 3], [0, 9, 18, 27, 36, 45, 54, 63])
    """
    spread = np.unique(np.linspace(0, pp - 1, min(pp, MOST_RANKS)).round())
    return [int(rank) for rank in spread]


def memory_chart(replay: StepReplay, rank: int, most_bytes: float, width: int = CHART) -> str:
    """One character for each slice of the step, as high as the most that is held in it."""
    times, held = replay.simulation.memory(rank)
    end_s = float(replay.simulation.last_s.max())
    static = float(np.asarray(replay.simulation.pipeline.static_bytes)[rank])
    column = np.minimum(times / max(end_s, 1e-300) * width, width - 1).astype(int)
    highest = np.zeros(width)
    np.maximum.at(highest, column, held)
    level = static
    for i in range(width):
        mine = held[column == i]
        highest[i] = max(highest[i], level)
        level = float(mine[-1]) if len(mine) else level
    share = highest / max(most_bytes, 1.0)
    return "".join(_LEVELS[round(float(x) * (len(_LEVELS) - 1))] for x in np.clip(share, 0, 1))


def ranks_table(replay: StepReplay) -> Table:
    """Work, waiting and memory of the pipeline's ranks."""
    simulation = replay.simulation
    peak = simulation.peak_bytes
    columns = (
        Column("rank", right=True),
        Column("layers", right=True),
        Column("busy", right=True),
        Column("bubble", right=True),
        Column("peak GiB", right=True),
        Column("memory over the step", keep=1, style="cyan"),
    )
    layers = rank_layers(replay)
    ranks = shown_ranks(simulation.pipeline.pp)
    busy = seconds_alike([float(simulation.busy_s[r]) for r in ranks], anchor_s=replay.pipeline_s)
    rows = tuple(
        (
            str(rank),
            str(layers[rank]),
            work,
            percent(float(simulation.bubble_fraction[rank])),
            f"{gib(float(peak[rank])):.1f}",
            memory_chart(replay, rank, float(peak.max())),
        )
        for rank, work in zip(ranks, busy, strict=True)
    )
    return Table(columns, rows)


def rank_layers(replay: StepReplay) -> list[int]:
    """Layers on every pipeline rank."""
    counts = np.bincount(replay.cost.rank, np.array(replay.cost.layers), replay.priced.strategy.pp)
    return [int(n) for n in counts]


def print_simulation(printer: Printer, replay: StepReplay) -> None:
    """The whole replay in a screen."""
    simulation, closed = replay.simulation, replay.priced
    bubble = float(simulation.bubble_fraction.mean())
    printer.line(strategy_line(closed.strategy), style="bold")
    printer.line()
    printer.line(
        f"step time {seconds(replay.step_time_s)} replayed, {seconds(closed.step_time_s)} in "
        f"closed form ({100 * (replay.ratio - 1):+.2f}%)",
        style="bold",
    )
    printer.line(
        f"  pipeline {seconds(replay.pipeline_s)} ({seconds(replay.closed_pipeline_s)} in closed "
        f"form), {percent(bubble)} of it bubble on average"
    )
    printer.line(
        f"  then gradients {seconds(float(replay.cost.grad_sync_s.max()))} exposed, optimizer "
        f"{seconds(float(replay.cost.optimizer_s.max()))}"
    )
    peak = float(simulation.peak_bytes.max())
    printer.line(
        f"memory {gib_words(peak)} at the peak on rank {int(simulation.peak_bytes.argmax())}, "
        f"{gib_words(closed.memory_bytes)} in closed form",
        style="bold",
    )
    printer.line()
    printer.table(ranks_table(replay))


def simulation_document(replay: StepReplay, job: Job) -> dict[str, Any]:
    """The replay for programs, in SI units; lists are by pipeline rank."""
    simulation, problem = replay.simulation, replay.problem
    return {
        "schema": SIMULATION_SCHEMA,
        **specs_document(problem),
        "launcher": job.launcher or problem.launcher.name,
        **job_document(job),
        "versions": versions(),
        "strategy": replay.priced.strategy.to_json(),
        "n_micro_batches": replay.cost.n_micro_batches,
        "step_time_s": replay.step_time_s,
        "closed_form_step_time_s": replay.priced.step_time_s,
        "pipeline_s": replay.pipeline_s,
        "closed_form_pipeline_s": replay.closed_pipeline_s,
        "closed_form_memory_bytes": replay.priced.memory_bytes,
        "peak_bytes": simulation.peak_bytes.tolist(),
        "busy_s": simulation.busy_s.tolist(),
        "bubble_fraction": simulation.bubble_fraction.tolist(),
        "grad_sync_s": replay.cost.grad_sync_s.tolist(),
        "optimizer_s": replay.cost.optimizer_s.tolist(),
        "n_layers": rank_layers(replay),
    }

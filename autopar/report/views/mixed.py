"""A mixed cluster's frontier: each row with what every pool does."""

from typing import Any

from autopar.report.documents import workload_document
from autopar.report.strategy_words import (
    layout_words,
    other_words,
    recompute_words,
    sharding_words,
)
from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.views.catalog import cluster_document, model_document
from autopar.report.views.search import workload_line
from autopar.report.words import plain_count, seconds_alike, short_count
from cost_models.specs.cluster import Cluster
from cost_models.specs.units import gib
from search.pools.pools import PoolResult
from search.pools.rows import PooledRow, PoolPart
from search.rules import launcher_called
from search.versions import versions

MIXED_SCHEMA = "autopar/search-mixed/1"


def pools_words(pools: tuple[Cluster, ...]) -> str:
    """The machines of every pool."""
    return " + ".join(f"{pool.n_gpus} x {pool.gpu.name}" for pool in pools)


def part_words(part: PoolPart, family: str) -> str:
    """What one pool does, in a few words."""
    if family == "stages":
        layers = ",".join(map(str, part.layers))
        return f"{part.gpu}: layers {layers}"
    return f"{part.gpu}: {part.replicas} x {part.micro_batches} micro-batches"


def mixed_table(rows: list[PooledRow]) -> Table:
    """Rows by rank, fastest first."""
    columns = (
        Column("#", right=True, style="dim"),
        Column("family"),
        Column("layout", style="bold"),
        Column("mbs", right=True),
        Column("sharding"),
        Column("recompute"),
        Column("other", keep=1),
        Column("GiB by pool", right=True),
        Column("step", right=True, style="bold"),
        Column("$/step", right=True),
        Column("pools"),
    )
    steps = seconds_alike(
        [row.step_time_s for row in rows],
        anchor_s=min((row.step_time_s for row in rows), default=1.0),
    )
    cells = tuple(
        (
            str(rank),
            row.family,
            layout_words(row.strategy),
            str(row.strategy.micro_batch_size),
            sharding_words(row.strategy),
            recompute_words(row.strategy),
            other_words(row.strategy.with_(stage_layers=None)),
            " ".join(f"{gib(part.memory_bytes):.1f}" for part in row.parts),
            step,
            "" if row.usd_per_step is None else f"{row.usd_per_step:.2f}",
            "; ".join(part_words(part, row.family) for part in row.parts),
        )
        for rank, (row, step) in enumerate(zip(rows, steps, strict=True), start=1)
    )
    return Table(columns, cells).without_empty()


def print_mixed(printer: Printer, result: PoolResult, *, top: int) -> None:
    """The whole answer of a search over several pools."""
    model = result.model
    precisions = sorted({row.strategy.precision.label for row in result.frontier})
    printer.line(
        f"{model.name} ({short_count(model.n_parameters)} parameters) on "
        f"{pools_words(result.pools)}"
    )
    printer.line(
        workload_line(
            result.workload, ", ".join(precisions), launcher_called(result.launcher).title
        )
    )
    printer.line(f"{plain_count(result.legal)} strategies on all GPUs; {result.detail}")
    printer.line()
    printer.table(mixed_table(result.frontier[:top]))
    hidden = len(result.frontier) - top
    if hidden > 0:
        printer.line(f"{hidden} more on the frontier: --top {len(result.frontier)}")


def mixed_document(result: PoolResult) -> dict[str, Any]:
    """What a search over several pools found, for programs."""
    return {
        "schema": MIXED_SCHEMA,
        "model": model_document(result.model),
        "pools": [cluster_document(pool) for pool in result.pools],
        "workload": workload_document(result.workload),
        "launcher": result.launcher,
        "versions": versions(),
        "legal": result.legal,
        "detail": result.detail,
        "frontier": [
            {"rank": rank, **row.to_json()} for rank, row in enumerate(result.frontier, start=1)
        ],
    }


__all__ = ["mixed_document", "mixed_table", "print_mixed"]

"""One strategy, whole: where its seconds go and what its bytes are."""

from collections.abc import Mapping

from autopar.report.strategy_words import (
    layout_words,
    other_words,
    recompute_words,
    schedule_words,
    sharding_words,
)
from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.words import (
    gib_words,
    interval,
    percent,
    seconds,
    seconds_alike,
    terabytes,
    whole_percent,
)
from cost_models.specs.cluster import Cluster
from cost_models.specs.strategy import Strategy
from search.result import Priced

_BAR = 24
_MODEL_STATE = ("weights", "gradients", "optimizer")

_LABELS = {
    "gemm": "matrix products",
    "attention": "attention",
    "memory_bound": "memory-bound kernels",
    "recompute": "recompute",
    "tp_comm": "tensor-parallel comm",
    "cp_comm": "context-parallel comm",
    "ep_comm": "expert-parallel comm",
    "pp_comm": "pipeline comm",
    "fsdp_comm": "weight gathering",
    "dp_comm": "gradient reduction",
    "bubble": "pipeline bubble",
    "optimizer": "optimizer",
    "offload": "offload",
    "launch": "launch overhead",
    "overlap_price": "price of overlap",
    "straggler": "stragglers",
    "communication_buffers": "communication buffers",
    "framework": "framework, allocator",
}


def label(term: str) -> str:
    """A term of a breakdown in words."""
    return _LABELS.get(term, term.replace("_", " "))


def strategy_line(strategy: Strategy) -> str:
    """The whole strategy in one line."""
    words = [
        layout_words(strategy),
        f"micro-batch {strategy.micro_batch_size}",
        schedule_words(strategy) if strategy.pp > 1 else "no pipeline",
        "replicated" if strategy.sharding.label == "none" else sharding_words(strategy),
        "no recompute"
        if strategy.recompute.label == "none"
        else f"recompute {recompute_words(strategy)}",
        other_words(strategy),
    ]
    return ", ".join(word for word in words if word)


def breakdown_table(terms: Mapping[str, float], write: Mapping[str, str], *, bars: bool) -> Table:
    """Terms that are not zero, each with its share of the sum."""
    total = sum(terms.values())
    longest = max(terms.values(), default=0.0)
    columns = (
        Column(""),
        Column("", right=True),
        Column("", right=True),
        Column("", keep=1, style="cyan"),
    )
    rows = tuple(
        (
            "  " + label(name),
            write[name],
            percent(value / total),
            _bar(value / longest) if bars else "",
        )
        for name, value in terms.items()
        if value > 0
    )
    return Table(columns, rows)


def _bar(share: float) -> str:
    """A bar of whole blocks and one in eighths."""
    whole, eighths = divmod(round(share * _BAR * 8), 8)
    part = chr(0x2590 - eighths) if eighths else ""
    return chr(0x2588) * whole + part


def print_estimate(
    printer: Printer, row: Priced, cluster: Cluster, totals: Mapping[str, float]
) -> None:
    """Time, memory of the fullest GPU, and memory over all GPUs."""
    bars = printer.is_terminal
    printer.line(strategy_line(row.strategy), style="bold")
    printer.line()
    spread = interval(row.step_time_low_s, row.step_time_s, row.step_time_high_s)
    printer.line(
        f"step time {seconds(row.step_time_s)}{f' {spread} (80% interval)' if spread else ''}, "
        f"{row.tokens_per_s_per_gpu:.0f} tokens/s/GPU, MFU {percent(row.mfu)}",
        style="bold",
    )
    alike = seconds_alike(list(row.time_breakdown_s.values()), anchor_s=row.step_time_s)
    times = dict(zip(row.time_breakdown_s, alike, strict=True))
    printer.rows(breakdown_table(row.time_breakdown_s, times, bars=bars))
    if row.hidden_communication_s > 0:
        hidden = seconds_alike([row.hidden_communication_s], anchor_s=row.step_time_s)[0]
        printer.line(f"  and {hidden} of communication under compute")
    printer.line()
    printer.line(memory_line(row, cluster), style="bold")
    sizes = {n: gib_words(value, 2) for n, value in row.memory_breakdown_bytes.items()}
    printer.rows(breakdown_table(row.memory_breakdown_bytes, sizes, bars=bars))
    printer.line()
    printer.lines(totals_lines(row, totals))


def memory_line(row: Priced, cluster: Cluster) -> str:
    """The fullest GPU against what a job may use."""
    usable = cluster.usable_memory_bytes
    verdict = (
        "fits"
        if row.memory_bytes <= usable
        else f"does not fit, {gib_words(row.memory_bytes - usable)} too much"
    )
    where = f", on pipeline stage {row.fullest_rank + 1}" if row.strategy.pp > 1 else ""
    chance = "" if row.fit_probability is None else f" (probability {row.fit_probability:.0%})"
    return (
        f"memory {gib_words(row.memory_bytes)} of {gib_words(usable)} "
        f"({whole_percent(row.memory_bytes / usable)}){where}: {verdict}{chance}"
    )


def totals_lines(row: Priced, totals: Mapping[str, float]) -> list[str]:
    """Bytes over all GPUs of the job."""
    state = sum(totals[name] for name in _MODEL_STATE)
    figures = (terabytes(totals[name]).removesuffix(" TB") for name in _MODEL_STATE)
    parts = " + ".join(map(" ".join, zip(_MODEL_STATE, figures, strict=True)))
    gpus = "1 GPU" if row.world_size == 1 else f"all {row.world_size} GPUs"
    return [
        f"over {gpus}: {terabytes(sum(totals.values()))}",
        f"  model state  {terabytes(state)} = {parts}",
        f"  activations  {terabytes(totals['activations'])}",
        f"  logits       {terabytes(totals['logits'])}",
    ]

"""What a person reads after a search: one line of how, the frontier, what to do next."""

from collections.abc import Container, Iterable, Mapping, Sequence

from autopar.job.job import Job
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
    interval,
    percent,
    plain_count,
    seconds_alike,
    short_count,
    whole_percent,
)
from cost_models.calibrate.calibration import load_calibration, relatives
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.units import gib
from cost_models.specs.workload import Workload
from search.result import Priced, SearchResult
from search.rules import Problem, Rule, launcher_called

_MOST_RULES = 3
_OTHER = "other"
_INTERVAL = "±"


def problem_lines(result: SearchResult) -> list[str]:
    """What is trained on what, defaults included."""
    precisions = sorted({row.strategy.precision.label for row in result.frontier})
    worlds = sorted({row.world_size for row in result.frontier})
    return [
        problem_line(result.model, result.cluster, ", ".join(map(str, worlds))),
        workload_line(
            result.workload, ", ".join(precisions), launcher_called(result.launcher).title
        ),
    ]


def print_heading(
    printer: Printer,
    problem: Problem,
    strategy: Strategy,
    notes: Iterable[str] = (),
    broken: Iterable[tuple[Rule, str]] = (),
) -> None:
    """What one strategy is asked about, and the rules that it breaks."""
    printer.lines((f"note: {sentence}" for sentence in notes), style="yellow")
    printer.line(problem_line(problem.model, problem.cluster))
    printer.line(workload_line(problem.workload, strategy.precision.label, problem.launcher.title))
    printer.lines((f"broken: {rule.name}: {why}" for rule, why in broken), style="yellow")


def note_lines(job: Job) -> list[str]:
    """What is to be known before the answer."""
    return [f"note: {sentence}" for sentence in job.notes]


def problem_line(model: ModelSpec, cluster: Cluster, gpus: str = "") -> str:
    """The model and the machines."""
    active = f", {short_count(model.n_active_parameters)} active" if model.is_moe else ""
    return (
        f"{model.name} ({short_count(model.n_parameters)} parameters{active}) "
        f"on {gpus or cluster.n_gpus} x {cluster.gpu.name}{_unmeasured(cluster.gpu.architecture)}"
    )


def _unmeasured(architecture: str) -> str:
    """That the shipped calibration has no run of the GPU's kind, and what stands for it."""
    if load_calibration().has_seen(architecture):
        return ""
    relative = relatives().get(architecture)
    instead = f"kernels as on {relative}, " if relative else ""
    return f" (no {architecture} in the calibration: {instead}wider intervals)"


def workload_line(workload: Workload, precision: str, launcher: str) -> str:
    """The batch and the software."""
    return (
        f"batch {plain_count(workload.global_batch_size)} x "
        f"{plain_count(workload.sequence_length)} tokens "
        f"({short_count(workload.tokens_per_step)}), {precision}, {workload.optimizer.name}, "
        f"as {workload.framework.name} runs it, rules of {launcher}"
    )


def searched_line(result: SearchResult) -> str:
    """How the space shrank, by what, and what is proved."""
    counts = result.counts
    pruned = sorted(counts.pruned_by.items(), key=lambda item: -item[1])
    named = [f"{rule} {short_count(n)}" for rule, n in pruned[:_MOST_RULES] if n]
    more = sum(1 for _, n in pruned[_MOST_RULES:] if n)
    by = f" (pruned by {', '.join(named)}{f', {more} more' if more else ''})" if named else ""
    cut = f", {short_count(counts.cut_by_bound)} cut by bounds" if counts.cut_by_bound else ""
    proof = "frontier complete" if result.certificate.complete else "frontier not proved complete"
    return (
        f"{short_count(counts.space)} strategies: {short_count(counts.legal)} legal, "
        f"{short_count(counts.fits)} fit, {short_count(counts.priced)} priced{cut}{by}; "
        f"{proof} ({result.certificate.method})"
    )


def frontier_table(ranked: Mapping[int, Priced], usable_bytes: float) -> Table:
    """Rows by rank; columns that never say anything are left out."""
    rows = list(ranked.values())
    worlds = len({row.world_size for row in rows}) > 1
    columns = (
        Column("#", right=True, style="dim"),
        Column("GPUs", right=True),
        Column("layout", style="bold"),
        Column("mbs", right=True),
        Column("schedule"),
        Column("sharding", keep=8),
        Column("recompute", keep=7),
        Column(_OTHER, keep=1),
        Column("GiB", right=True),
        Column("used", right=True, keep=5),
        Column("step", right=True, style="bold"),
        Column(_INTERVAL, right=True, keep=6),
        Column("$/step", right=True),
        Column("tok/s/GPU", right=True, keep=4),
        Column("MFU", right=True),
    )
    steps = seconds_alike(
        [row.step_time_s for row in rows], anchor_s=min(row.step_time_s for row in rows)
    )
    cells = tuple(
        (
            str(rank),
            str(row.world_size) if worlds else "",
            layout_words(row.strategy),
            str(row.strategy.micro_batch_size),
            schedule_words(row.strategy),
            sharding_words(row.strategy),
            recompute_words(row.strategy),
            other_words(row.strategy),
            f"{gib(row.memory_bytes):.1f}",
            whole_percent(row.memory_bytes / usable_bytes),
            step,
            interval(row.step_time_low_s, row.step_time_s, row.step_time_high_s),
            "" if row.usd_per_step is None else f"{row.usd_per_step:.2f}",
            f"{row.tokens_per_s_per_gpu:.0f}",
            percent(row.mfu),
        )
        for (rank, row), step in zip(ranked.items(), steps, strict=True)
    )
    return Table(columns, cells).without_empty()


def print_search(
    printer: Printer,
    result: SearchResult,
    job: Job | None = None,
    *,
    top: int,
    again: Sequence[str],
) -> None:
    """The whole answer of a search that found something.

    ``again`` is what to type next.
    """
    ranked = top_rows(result.frontier, top)
    if job is not None:
        printer.lines(note_lines(job), style="yellow")
    printer.lines(problem_lines(result))
    printer.line(searched_line(result))
    printer.line()
    table = frontier_table(ranked, result.cluster.usable_memory_bytes)
    printer.table(table)
    shown = {column.head for column in table.fitted(printer.width).columns}
    printer.lines(knob_lines(ranked, shown))
    if _INTERVAL in shown:
        printer.line(f"{_INTERVAL}: 80% interval of the step time")
    hidden = len(result.frontier) - len(ranked)
    if hidden > 0:
        printer.line(f"{hidden} more on the frontier: --top {len(result.frontier)}")
    printer.line()
    printer.lines(again, whole=True)


def top_rows(frontier: Sequence[Priced], top: int) -> dict[int, Priced]:
    """The first rows under their ranks; with several numbers of GPUs, some of each."""
    worlds = sorted({row.world_size for row in frontier})
    shown: dict[int, Priced] = {}
    for world in worlds:
        alike = [(rank, row) for rank, row in enumerate(frontier, 1) if row.world_size == world]
        shown.update(alike[: max(1, top // len(worlds))])
    return dict(sorted(shown.items()))


def knob_lines(ranked: Mapping[int, Priced], shown: Container[str]) -> list[str]:
    """The knobs that the table had no room for, rows alike together."""
    ranks: dict[str, list[int]] = {}
    for rank, row in ranked.items():
        words = [
            "" if "sharding" in shown else sharding_words(row.strategy),
            "" if "recompute" in shown else f"recompute {recompute_words(row.strategy)}",
            "" if _OTHER in shown else other_words(row.strategy),
        ]
        ranks.setdefault(" ".join(word for word in words if word), []).append(rank)
    return [f"{_ranges(found)}: {words}" for words, found in ranks.items() if words]


def _ranges(numbers: Sequence[int]) -> str:
    """Ranks in few characters.

    >>> _ranges([1, 2, 3, 5, 9, 10])
    '#1-3, 5, 9-10'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = (str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
    return "#" + ", ".join(texts)


def nothing_lines(result: SearchResult) -> list[str]:
    """Why there is no frontier, and what would lead to one."""
    text = result.explanation or "no strategy is legal and fits"
    return [line for line in text.splitlines() if line.strip()]

"""An explanation in sentences, and the two strategies term by term."""

from collections.abc import Mapping
from typing import Any

from autopar.answers.explanation import Explanation
from autopar.report.documents import (
    job_document,
    row_document,
    specs_document,
)
from autopar.report.strategy_words import changes
from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.views.estimate import label, memory_line, strategy_line
from autopar.report.words import gib_words, percent, plain_count, seconds
from search.result import Priced, SearchResult
from search.rules import RULES

EXPLAIN_SCHEMA = "autopar/explain/1"
_BIGGEST = 3
_NO_RULES: Mapping[str, str] = {
    "memory": "The fullest GPU has room for its peak.",
    "one_stage_needs_no_schedule": "Without a pipeline every schedule is the same.",
    "knobs_spelled_once": "Knobs without effect are spelled in one way.",
}
"""What removes strategies beside the launcher's rules."""


def print_explanation(printer: Printer, found: Explanation) -> None:
    """Illegal, too large, slower, or the best there is."""
    printer.line(strategy_line(found.strategy), style="bold")
    printer.line()
    if found.broken:
        _print_broken(printer, found)
    elif found.row is not None and found.excess_bytes > 0:
        _print_too_large(printer, found, found.row)
    elif found.row is not None:
        printer.line(f"legal; {memory_line(found.row, found.problem.cluster)}")
        _print_against_winner(printer, found, found.row)


def _print_broken(printer: Printer, found: Explanation) -> None:
    count = len(found.broken)
    launcher = found.problem.launcher.title
    printer.line(
        f"illegal: {launcher} refuses it for {count} {'reason' if count == 1 else 'reasons'}"
    )
    for rule, why in found.broken:
        printer.line(f"  {rule.name}: {why}")
        printer.line(f"    {rule.sentence}", style="dim")
    _print_way_out(printer, found)


def _print_too_large(printer: Printer, found: Explanation, row: Priced) -> None:
    printer.line(f"legal; {memory_line(row, found.problem.cluster)}")
    biggest = sorted(row.memory_breakdown_bytes.items(), key=lambda item: -item[1])[:_BIGGEST]
    printer.line(
        "  most of it: " + ", ".join(f"{label(name)} {gib_words(size)}" for name, size in biggest)
    )
    _print_way_out(printer, found)


def _print_way_out(printer: Printer, found: Explanation) -> None:
    printer.line()
    same = found.same_layout
    if same is not None:
        knobs = changes(found.strategy, same.strategy, moe=found.problem.model.is_moe)
        printer.line(f"the same degrees work with: {knobs}")
        printer.line(f"  {gib_words(same.memory_bytes)}, {seconds(same.step_time_s)} a step")
    else:
        printer.line("no setting of the other knobs makes these degrees legal and fit")
    winner = found.winner
    if winner is None:
        printer.line(found.searched.explanation or "nothing else fits either")
    else:
        printer.line(f"the fastest that fits: {strategy_line(winner.strategy)}")
        printer.line(f"  {gib_words(winner.memory_bytes)}, {seconds(winner.step_time_s)} a step")


def _print_against_winner(printer: Printer, found: Explanation, row: Priced) -> None:
    winner = found.winner
    if winner is None or winner.step_time_s >= row.step_time_s:
        printer.line(f"{seconds(row.step_time_s)} a step: nothing in the searched space is faster")
        return
    lost = row.step_time_s - winner.step_time_s
    printer.line(
        f"{seconds(row.step_time_s)} a step, {seconds(lost)} "
        f"({percent(lost / winner.step_time_s)}) slower than {strategy_line(winner.strategy)}"
    )
    printer.line()
    printer.table(comparison_table(row, winner))
    printer.line()
    knobs = changes(row.strategy, winner.strategy, moe=found.problem.model.is_moe)
    printer.line(f"knobs to change: {knobs}")


def comparison_table(row: Priced, winner: Priced) -> Table:
    """Seconds of both, the largest loss first; terms that neither has are left out."""
    columns = (
        Column("where the time goes", style="bold"),
        Column("this", right=True),
        Column("fastest", right=True),
        Column("loss", right=True),
    )
    mine, best = row.time_breakdown_s, winner.time_breakdown_s
    losses = sorted(time_losses(row, winner).items(), key=lambda item: -item[1])
    rows = [
        (label(n), _three(mine[n]), _three(best.get(n, 0.0)), f"{loss:+.3f} s")
        for n, loss in losses
        if mine[n] or best.get(n)
    ]
    total = row.step_time_s - winner.step_time_s
    rows.append(("total", _three(row.step_time_s), _three(winner.step_time_s), f"{total:+.3f} s"))
    return Table(columns, tuple(rows))


def time_losses(row: Priced, winner: Priced) -> dict[str, float]:
    """Seconds that each term of ``row`` takes beyond the same term of ``winner``."""
    best = winner.time_breakdown_s
    return {name: value - best.get(name, 0.0) for name, value in row.time_breakdown_s.items()}


def _three(time_s: float) -> str:
    return f"{time_s:.3f} s"


def pruned_table(result: SearchResult) -> Table:
    """What every rule took out of the space, the largest first."""
    sentences: dict[str, str] = {rule.name: rule.sentence for rule in RULES}
    sentences |= _NO_RULES
    columns = (
        Column("rule", style="bold"),
        Column("strategies", right=True),
        Column("what it says", keep=1, wraps=True),
    )
    pruned = sorted(result.counts.pruned_by.items(), key=lambda item: -item[1])
    rows = tuple((name, plain_count(n), sentences.get(name, "")) for name, n in pruned if n)
    return Table(columns, rows)


def explanation_document(found: Explanation) -> dict[str, Any]:
    """The same for programs."""
    row, winner = found.row, found.winner
    document: dict[str, Any] = {
        "schema": EXPLAIN_SCHEMA,
        **specs_document(found.problem),
        "launcher": found.job.name,
        **job_document(found.job),
        "versions": found.searched.versions,
        "strategy": found.strategy.to_json(),
        "legal": not found.broken,
        "broken_rules": [
            {"rule": rule.name, "why": why, "sentence": rule.sentence} for rule, why in found.broken
        ],
        "fits": row is not None and found.excess_bytes <= 0,
        "excess_bytes": found.excess_bytes if row is not None else None,
        "row": row_document(row, 1) if row is not None else None,
        "fastest": row_document(winner, 1) if winner is not None else None,
        "same_degrees": None if found.same_layout is None else row_document(found.same_layout, 1),
    }
    if row is not None and winner is not None:
        document["time_lost_s"] = time_losses(row, winner)
    return document

"""What a person reads after `autopar improve`: two plans, and the way from one to the other."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autopar.answers.improvement import Improvement, Step
from autopar.answers.schemas import IMPROVE_SCHEMA
from autopar.job.completion import Described
from autopar.launchers.knobs import printable, shown
from autopar.report.documents import (
    job_document,
    row_document,
    specs_document,
)
from autopar.report.table import Column, Table
from autopar.report.terminal import Printer
from autopar.report.views.estimate import memory_line, strategy_line
from autopar.report.views.search import searched_line
from autopar.report.words import gib_words, percent, seconds, seconds_alike
from search.result import Priced
from search.versions import versions

_MOST_FIELDS = 8


def read_lines(job: Described) -> list[str]:
    """Whose files were read, what they leave open, and what was ignored."""
    lines = [f"read {printable(job.title)} as files of {job.launcher}"]
    lines += [f"note: {name}: {printable(str(text))}" for name, text in job.notes.items()]
    if job.ignored:
        some = ", ".join(printable(name) for name in job.ignored[:_MOST_FIELDS])
        more = len(job.ignored) - _MOST_FIELDS
        lines.append(f"ignored: {some}{f' and {more} more (--json has them)' if more > 0 else ''}")
    return lines


def read_document(job: Described) -> dict[str, Any]:
    """The same for programs."""
    return {
        "launcher": job.launcher,
        "files": job.title,
        "notes": dict(job.notes),
        "ignored": list(job.ignored),
    }


def print_improvement(printer: Printer, found: Improvement) -> None:
    """Yours, the better one, and every change between them."""
    cluster = found.job.problem.cluster
    printer.lines((f"broken: {rule.name}: {why}" for rule, why in found.broken), style="yellow")
    printer.line(f"yours:  {strategy_line(found.yours.strategy)}")
    printer.line(f"        step time {seconds(found.yours.step_time_s)}, {_memory(found.yours)}")
    if found.broken or not found.fits:
        printer.line(f"        {memory_line(found.yours, cluster)}")
    printer.line(searched_line(found.searched))
    if found.better is None:
        printer.line()
        printer.line(nothing_better(found), style="bold")
        return
    gain = found.yours.step_time_s - found.better.step_time_s
    printer.line(f"better: {strategy_line(found.better.strategy)}", style="bold")
    printer.line(
        f"        step time {seconds(found.better.step_time_s)}, {_memory(found.better)}: "
        f"{_share(gain, found.yours)}",
        style="bold",
    )
    printer.line()
    printer.table(way_table(found))


def nothing_better(found: Improvement) -> str:
    """Why there is no better plan."""
    if not found.searched.frontier:
        return "nothing in the space is legal and fits"
    kept = f" with {', '.join(found.kept)} kept" if found.kept else ""
    return f"nothing faster fits{kept}: the fastest of the space is no better"


def way_table(found: Improvement) -> Table:
    """One change a line, in the order in which they save most."""
    columns = (
        Column("#", right=True, style="dim"),
        Column("change", style="bold"),
        Column("saves", right=True),
        Column("", right=True),
        Column("step", right=True),
        Column("GiB", right=True),
    )
    total = found.yours.step_time_s
    steps = seconds_alike([step.row.step_time_s for step in found.steps], anchor_s=total)
    gains = seconds_alike([step.gain_s for step in found.steps], anchor_s=total)
    cells = [
        (
            str(number),
            change_words(step),
            gain,
            percent(step.gain_s / total),
            after,
            gib_words(step.row.memory_bytes).removesuffix(" GiB"),
        )
        for number, (step, gain, after) in enumerate(
            zip(found.steps, gains, steps, strict=True), start=1
        )
    ]
    whole = sum(step.gain_s for step in found.steps)
    together = seconds_alike([whole], anchor_s=total)[0]
    cells.append(("", "together", together, percent(whole / total), "", ""))
    return Table(columns, tuple(cells))


def change_words(step: Step) -> str:
    """What changes, in words; what follows from it in brackets."""
    said = [name for name in step.changes if name not in _FOLLOW] or list(step.changes)
    follows = [name for name in step.changes if name not in said]
    words = ", ".join(_change(name, step.changes[name]) for name in said)
    behind = ", ".join(_change(name, step.changes[name]) for name in follows)
    return f"{words} ({behind})" if behind else words


_FOLLOW = ("dp", "dp_shard", "stage_layers")


def _change(name: str, values: tuple[Any, Any]) -> str:
    before, after = (shown(value) for value in values)
    if name == "stage_layers":
        return f"layers {'listed' if values[1] else 'even'}"
    return f"{name} {before} -> {after}"


def _memory(row: Priced) -> str:
    return gib_words(row.memory_bytes)


def _share(gain: float, yours: Priced) -> str:
    share = gain / yours.step_time_s
    return (
        f"{percent(share)} less time" if gain >= 0 else f"{percent(-share)} more time, but it runs"
    )


def improve_document(found: Improvement) -> dict[str, Any]:
    """All of it for programs; ``better`` is null where nothing is."""
    problem = found.job.problem
    usable = problem.cluster.usable_memory_bytes
    return {
        "schema": IMPROVE_SCHEMA,
        **specs_document(problem),
        "launcher": found.job.launcher,
        "versions": versions(),
        **job_document(found.job.job),
        "read": read_document(found.job),
        "kept": list(found.kept),
        "yours": {
            **found.yours.to_json(),
            "legal": not found.broken,
            "broken_rules": {rule.name: why for rule, why in found.broken},
            "fits": found.yours.memory_bytes <= usable,
        },
        "better": None if found.better is None else row_document(found.better, 1),
        "steps": [_step_document(step) for step in found.steps],
        "gain_s": sum(step.gain_s for step in found.steps),
        "counts": asdict(found.searched.counts),
        "certificate": asdict(found.searched.certificate),
    }


def _step_document(step: Step) -> Mapping[str, Any]:
    strategy = step.row.strategy
    old = strategy.with_(**{name: values[0] for name, values in step.changes.items()})
    before, after = old.to_json(), strategy.to_json()
    return {
        "changes": {name: {"from": before[name], "to": after[name]} for name in step.changes},
        "step_time_s": step.row.step_time_s,
        "memory_bytes": step.row.memory_bytes,
        "gain_s": step.gain_s,
    }

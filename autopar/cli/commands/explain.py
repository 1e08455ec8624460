"""``autopar explain``: why a strategy is illegal, does not fit, or is slower than the fastest."""

from typing import Any

import click

from autopar import api
from autopar.answers.explanation import explain_strategy
from autopar.cli.examples import ExampleCommand
from autopar.cli.options import (
    axis_texts,
    json_option,
    problem_options,
    space_option,
    strategy_options,
)
from autopar.cli.question import job_of, one_count, strategy_of
from autopar.job.job import SEARCHED
from autopar.report.documents import search_document
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.progress import Bar
from autopar.report.terminal import Printer, narrate
from autopar.report.views.explain import explanation_document, print_explanation, pruned_table
from autopar.report.views.search import (
    note_lines,
    nothing_lines,
    print_heading,
    problem_line,
    searched_line,
)


@click.command(
    "explain",
    cls=ExampleCommand,
    examples=(
        "autopar explain --gpus 512 --model 70b --tp 8 --pp 4 --sharding zero1",
        "autopar explain --gpus 512 --model 70b",
    ),
)
@problem_options
@strategy_options
@space_option("Where the fastest is looked for.")
@json_option
def command(**options: Any) -> int:
    """Why a strategy is illegal, does not fit, or is slower than the fastest that fits.

    Without any axis: what each rule took out of the whole space.
    """
    check_writable("--json", options["json_path"])
    if axis_texts(options) or options["stage_layers"]:
        _one_strategy(options)
    else:
        _whole_space(options)
    if options["json_path"] not in (None, STDOUT):
        narrate(f"wrote {options['json_path']}")
    return 0


def _one_strategy(options: dict[str, Any]) -> None:
    job, problem, strategy = strategy_of(options, rules=SEARCHED)
    with Bar("searching") as progress:
        found = explain_strategy(job, strategy, progress=progress)
    path = options["json_path"]
    if path is not None:
        write_text("--json", path, json_text(explanation_document(found)))
    if path != STDOUT:
        printer = Printer()
        print_heading(printer, problem, strategy, job.notes)
        print_explanation(printer, found)


def _whole_space(options: dict[str, Any]) -> None:
    one_count(options["gpus"])
    job = job_of(options)
    with Bar("searching") as progress:
        result = api.search(job, progress=progress)
    path = options["json_path"]
    if path is not None:
        write_text("--json", path, json_text(search_document(result, job.said, job.notes)))
    if path != STDOUT:
        printer = Printer()
        printer.lines(note_lines(job), style="yellow")
        printer.line(problem_line(result.model, result.cluster))
        printer.line(searched_line(result))
        printer.line()
        printer.table(pruned_table(result))
        if not result.frontier:
            printer.line()
            printer.lines(nothing_lines(result))

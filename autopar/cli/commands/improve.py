"""``autopar improve``: a better plan for a job that exists, change by change."""

from collections.abc import Mapping
from shlex import quote
from typing import Any

import click

from autopar.answers.improvement import Improvement, improve
from autopar.cli.examples import ExampleCommand
from autopar.cli.group import NOTHING_FITS, complain
from autopar.cli.options import (
    axis_options,
    from_option,
    json_option,
    problem_options,
    space_option,
)
from autopar.cli.question import described_by
from autopar.job.completion import Described
from autopar.job.said import command_line
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.progress import Bar
from autopar.report.terminal import Printer, narrate
from autopar.report.views.improve import (
    improve_document,
    nothing_better,
    print_improvement,
    read_lines,
)
from autopar.report.views.search import print_heading


@click.command(
    "improve",
    cls=ExampleCommand,
    examples=(
        "autopar improve --from train.sh",
        "autopar improve --from ds_config.json --model 8b --gpus 64 --keep tp,micro_batch_size",
        "autopar improve --from train.sh --json better.json",
    ),
)
@from_option
@click.option("--keep", default="", metavar="KNOB,KNOB", help="Knobs that stay as they are.")
@space_option("How much is open beside what the job has.")
@problem_options
@axis_options
@json_option
def command(**options: Any) -> int:
    """A better plan for a job that exists, and what each change of it saves.

    The model, the GPUs, the batch, the sequence and the precision stay.  What is typed
    beside --from replaces what the files say.
    """
    check_writable("--json", options["json_path"])
    if not options["sources"]:
        raise click.UsageError("--from is missing")
    job = described_by(options)
    keep = [name for name in options["keep"].split(",") if name.strip()]
    with Bar("searching") as progress:
        found = improve(job, keep=keep, progress=progress)
    path = options["json_path"]
    if path is not None:
        write_text("--json", path, json_text(improve_document(found)))
    if path != STDOUT:
        _print(found, options)
        if path is not None:
            narrate(f"wrote {path}")
    if not found.searched.frontier:
        return complain(nothing_better(found), code=NOTHING_FITS)
    return 0


def _print(found: Improvement, options: Mapping[str, Any]) -> None:
    printer, job = Printer(), found.job
    printer.lines(read_lines(job), style="dim")
    print_heading(printer, job.problem, job.strategy, job.job.notes)
    print_improvement(printer, found)
    if found.better is not None:
        printer.line()
        printer.lines(_next_lines(found.job, options["json_path"]), whole=True)


def _next_lines(job: Described, written: str | None) -> list[str]:
    """What to type to get the better plan's files."""
    again = command_line("improve", {**job.job.said, "json": "better.json"})
    document = quote(written or "better.json")
    first = [] if written else [f"  {again}"]
    return ["next:", *first, f"  autopar emit {document} --launcher {job.launcher} --out DIR"]

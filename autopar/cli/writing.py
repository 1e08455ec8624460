"""What commands that write launchers' files have in common."""

import sys
from collections.abc import Callable, Mapping
from shlex import quote
from typing import Any, TypeVar

import click

from autopar.answers.emission import Others, emit_plan, require_model, start_command
from autopar.job.inputs import as_model
from autopar.launchers import dossier, wrapper
from autopar.launchers.knobs import printable
from autopar.launchers.plan import Plan
from autopar.report.documents import emit_document
from autopar.report.files import STDOUT, write_text
from autopar.report.folder import check_folder, write_folder
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate

F = TypeVar("F", bound=Callable[..., Any])


def emit_options(command: F) -> F:
    """Where the files go, and what starts them."""
    for option in (
        click.option("--force", "replace", is_flag=True, help="Replace files of the same name."),
        click.option("--out", metavar="DIR", help="Directory for the files."),
        click.option(
            "--wrap",
            metavar="KIND",
            help="Add what starts them: torchrun, slurm, trainjob, jobset, skypilot.",
        ),
    ):
        command = option(command)
    return command


def check_emission(options: dict[str, Any]) -> None:
    """Hold --emit, --out and --wrap against each other; --emit names whose rules to obey."""
    name, out = options["emit"], options["out"]
    if name is None:
        given = next((o for o in ("out", "wrap") if options[o] is not None), None)
        if given is not None:
            raise click.UsageError(f"--{given} goes with --emit")
        return
    dossier(name)
    if out is None:
        raise click.UsageError("--emit needs --out")
    if options["wrap"] is not None:
        wrapper(options["wrap"])
    check_folder("--out", out)
    if options["launcher"] is None:
        options["launcher"] = name


def check_model(options: Mapping[str, Any]) -> None:
    """Raise SpecError where --launcher names one that cannot express the model at all."""
    if options["launcher"] not in (None, "any"):
        require_model(options["launcher"], as_model(options["model"]))


def write_plan(
    plan: Plan,
    name: str,
    *,
    rank: int,
    others: Others,
    options: Mapping[str, Any],
    beside: bool = False,
) -> int:
    """Write the files of a plan and say what is in them; returns the exit code.

    ``beside`` says it on standard error, where the answer is something else.
    """
    from autopar.answers.intervals import with_intervals  # brings SciPy, which help does not need

    plan = with_intervals(plan)
    emission = emit_plan(plan, name, wrapper=options["wrap"], others=others)
    out, path = options["out"], options.get("json_path")
    written = write_folder("--out", out, emission.files, force=options["replace"])
    if path is not None:
        document = emit_document(emission, plan, rank=rank, wrapper=options["wrap"], out=out)
        write_text("--json", path, json_text(document))
    for warning in emission.warnings:
        narrate(f"warning: {warning}")
    if path == STDOUT:
        return 0
    printer = Printer(sys.stderr if beside else None)
    verb = "wrote" if written else "unchanged"
    names = " ".join(printable(quote(f"{out}/{file}")) for file in emission.files)
    printer.line(f"{verb} {names} (rank {rank}, {emission.targets})", whole=True)
    printer.lines(f"not expressed: {item}" for item in emission.not_expressed)
    printer.line(f"next: cd {quote(out)} && {start_command(emission)}", whole=True)
    if path is not None:
        narrate(f"wrote {path}")
    return 0

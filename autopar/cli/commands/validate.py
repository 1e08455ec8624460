"""``autopar validate``: predictions against measured runs."""

from pathlib import Path
from typing import Any

import click

from autopar import api
from autopar.cli.examples import ExampleCommand
from autopar.cli.group import complain
from autopar.cli.options import calibration_option, json_option
from autopar.cli.parsing import Whole
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.validate import LEGEND, print_validation, validate_document
from cost_models.calibrate.validation import RunTable, read_run_table

SOME_UNREADABLE = 1


@click.command(
    "validate",
    cls=ExampleCommand,
    examples=(
        "autopar validate runs.csv",
        "autopar validate runs.csv --calibrate-on 5 --json report.json",
    ),
)
@click.argument("runs", metavar="RUNS.csv")
@click.option(
    "--calibrate-on",
    type=Whole(10**6),
    metavar="N",
    help="Let N runs of each source adjust the constants for its other runs.",
)
@click.option(
    "--seed",
    type=Whole(2**32 - 1, least=0),
    default=0,
    show_default=True,
    metavar="S",
    help="Which N runs those are.",
)
@calibration_option
@json_option
def command(**options: Any) -> int:
    """How far predictions are from measured runs, by source, GPU, framework and model.

    A row that cannot be read is named with file, line and column; the others count all
    the same.  Exit codes: 1 where some row could not be read, 2 where none could.
    """
    json_path = options["json_path"]
    check_writable("--json", json_path)
    table = read_run_table(Path(options["runs"]))
    name_refusals(table)
    found = api.validate(
        table,
        calibration=options["calibration"],
        calibrate_on=options["calibrate_on"] or 0,
        seed=options["seed"],
    )
    if json_path is not None:
        write_text("--json", json_path, json_text(validate_document(found.rows, found.summary)))
    if json_path != STDOUT:
        print_validation(Printer(), found.summary)
        narrate(LEGEND)
        if json_path is not None:
            narrate(f"wrote {json_path}")
    return SOME_UNREADABLE if any(refusal.unreadable for refusal in table.refusals) else 0


def name_refusals(table: RunTable) -> None:
    """Each row that is not priced, and each column that nobody reads."""
    if table.unknown_columns:
        narrate(f"{table.path}:1: columns kept but not read: {', '.join(table.unknown_columns)}")
    for refusal in table.refusals:
        if refusal.unreadable:
            complain(table.place(refusal), refusal.hint)
        else:
            narrate(f"skipped: {table.place(refusal)}")

"""``autopar calibrate``: the constants, fitted to measured runs of one's own."""

import hashlib
from pathlib import Path
from typing import Any

import click

from autopar.cli.commands.validate import SOME_UNREADABLE, name_refusals
from autopar.cli.examples import ExampleCommand
from autopar.cli.group import WRONG_INPUT, complain
from autopar.cli.options import json_option
from autopar.job.inputs import as_calibration
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.validate import calibration_table
from cost_models.calibrate.calibration import to_json
from cost_models.calibrate.validation import calibrate_table, read_run_table


@click.command(
    "calibrate",
    cls=ExampleCommand,
    examples=(
        "autopar calibrate runs.csv --out calibration.json",
        "autopar calibrate more.csv --from calibration.json --out calibration2.json",
    ),
)
@click.argument("runs", metavar="RUNS.csv")
@click.option("--out", metavar="PATH", required=True, help="Where the calibration goes.")
@click.option(
    "--from",
    "start",
    metavar="PATH",
    help="The calibration to start from instead of the shipped one.",
)
@json_option
def command(**options: Any) -> int:
    """Fit the constants to runs of your own, starting from what is known already.

    Five runs are enough to help and hundreds are not too many; constants that they say
    nothing about stay as they are.  `autopar search --calibration PATH` uses the result.
    An interrupted fit leaves the old file as it was.
    """
    path, out, json_path = Path(options["runs"]), options["out"], options["json_path"]
    check_writable("--out", out)
    check_writable("--json", json_path)
    start = as_calibration(options["start"])
    table = read_run_table(path)
    name_refusals(table)
    if not table.runs:
        return complain(f"{path}: no row can be priced", code=WRONG_INPUT)
    provenance = {
        "runs": path.name,
        "runs_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "fitted_by": "autopar calibrate",
        "started_from": dict(start.provenance),
    }
    found = calibrate_table(table, start, provenance)
    write_text("--out", out, json_text(to_json(found.calibration)))
    if json_path is not None:
        write_text("--json", json_path, json_text(found.document()))
    if STDOUT not in (out, json_path):
        Printer().table(calibration_table(found.before, found.after))
        narrate(f"wrote {out}")
    return SOME_UNREADABLE if any(refusal.unreadable for refusal in table.refusals) else 0

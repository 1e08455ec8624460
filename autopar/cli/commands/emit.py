"""``autopar emit``: the files that start a strategy, from a document of --json."""

from pathlib import Path
from typing import Any

import click

from autopar.answers.stored import read_answer
from autopar.cli.examples import ExampleCommand
from autopar.cli.options import json_option
from autopar.cli.parsing import Whole
from autopar.cli.writing import emit_options, write_plan
from autopar.report.again import with_command
from autopar.report.files import check_writable
from autopar.report.folder import check_folder
from cost_models.specs.errors import SpecError

_MOST_ROWS = 10**6


@click.command(
    "emit",
    cls=ExampleCommand,
    examples=(
        "autopar emit result.json --launcher megatron --wrap slurm --out run",
        "autopar emit result.json --rank 3 --launcher torchtitan --out run --force",
    ),
)
@click.argument("result", metavar="RESULT.json")
@click.option(
    "--rank",
    type=Whole(_MOST_ROWS),
    default=1,
    show_default=True,
    metavar="N",
    help="Which row of the frontier.",
)
@click.option(
    "--launcher", metavar="NAME", help="Whose files.  [default: whose rules were searched]"
)
@emit_options
@json_option
def command(**options: Any) -> int:
    """The files that start a strategy, from a document that --json wrote.

    Each says which version of the launcher it is for, what is predicted, and which knobs
    the launcher cannot express.
    """
    check_writable("--json", options["json_path"])
    if options["out"] is None:
        raise click.UsageError("--out is missing")
    check_folder("--out", options["out"])
    answer = read_answer(Path(options["result"]))
    name = answer.launcher if options["launcher"] is None else options["launcher"]
    if name == "any":
        raise SpecError(f"{answer.path}: searched for no launcher", hint="say one: --launcher")
    rank = options["rank"]
    plan = with_command(answer.plan(rank), answer.said)
    return write_plan(plan, name, rank=rank, others=answer.others(rank), options=options)

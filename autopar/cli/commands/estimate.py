"""``autopar estimate``: one strategy, with its full breakdown of time and memory."""

from typing import Any

import click

from autopar.cli.examples import ExampleCommand
from autopar.cli.group import complain_broken
from autopar.cli.options import from_option, json_option, problem_options, strategy_options
from autopar.cli.question import described_by, strategy_of
from autopar.report.documents import estimate_document
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.estimate import print_estimate
from autopar.report.views.improve import read_document, read_lines
from autopar.report.views.search import print_heading
from cost_models.equations.totals import job_memory_bytes
from search.plan import price_strategies
from search.rules import broken_rules


@click.command(
    "estimate",
    cls=ExampleCommand,
    examples=(
        "autopar estimate --model 70b --gpus 512 --tp 4 --pp 4 --sharding zero1",
        "autopar estimate --model 405b --tp 8 --seq-len 8192 --global-batch 4 --micro-batch-size 4",
        "autopar estimate --from train.sh",
    ),
)
@from_option
@problem_options
@strategy_options
@click.option("--force", is_flag=True, help="Price it even where it breaks rules.")
@json_option
def command(**options: Any) -> int:
    """One strategy, with its full breakdown of time and memory.

    Data parallel takes the GPUs that the other degrees leave.  A strategy that breaks
    rules is refused with all of them; see also `autopar explain`.

    With --from, the strategy is the one of a launcher's files, priced whatever it breaks.
    """
    check_writable("--json", options["json_path"])
    read = described_by(options) if options["sources"] else None
    if read is None:
        job, problem, strategy = strategy_of(options)
    else:
        job, problem, strategy = read.job, read.problem, read.strategy
    broken = broken_rules(problem, strategy)
    if broken and read is None and not options["force"]:
        return complain_broken(broken, "--force prices it all the same")
    row = price_strategies(problem, [strategy], job.constants)[0]
    totals = job_memory_bytes(
        problem.model, problem.cluster, problem.workload, strategy, job.constants
    )
    path = options["json_path"]
    if path is not None:
        names = [rule.name for rule, _ in broken]
        document = estimate_document(job, problem, row, totals, names)
        if read is not None:
            document["read"] = read_document(read)
        write_text("--json", path, json_text(document))
        if path == STDOUT:
            return 0
        narrate(f"wrote {path}")
    printer = Printer()
    if read is not None:
        printer.lines(read_lines(read), style="dim")
    print_heading(printer, problem, strategy, job.notes, broken)
    print_estimate(printer, row, problem.cluster, totals)
    return 0

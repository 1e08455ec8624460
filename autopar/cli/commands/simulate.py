"""``autopar simulate``: one step of one strategy, replayed as events."""

from typing import Any

import click

from autopar.cli.examples import ExampleCommand
from autopar.cli.group import complain_broken
from autopar.cli.options import json_option, problem_options, strategy_options
from autopar.cli.question import strategy_of
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_line, json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.search import print_heading
from autopar.report.views.simulate import print_simulation, simulation_document
from search.replay.replay_step import replay_step
from search.rules import broken_rules


@click.command(
    "simulate",
    cls=ExampleCommand,
    examples=(
        "autopar simulate --model 70b --gpus 512 --tp 4 --pp 8 --vpp 10 --sharding zero1",
        "autopar simulate --model 8b --gpus 8 --pp 4 --stage-layers 8,9,9,6 --trace step.json",
    ),
)
@problem_options
@strategy_options
@click.option("--force", is_flag=True, help="Replay it even where it breaks rules.")
@click.option(
    "--trace",
    "trace_path",
    metavar="PATH|-",
    help="Write every event for Perfetto or chrome://tracing.",
)
@json_option
def command(**options: Any) -> int:
    """One step of one strategy, replayed as events.

    Every forward, backward and weight-gradient pass of every micro-batch finds its own
    time: what the closed form says of bubbles and memory is put to the test.
    """
    path, trace = options["json_path"], options["trace_path"]
    check_writable("--json", path)
    check_writable("--trace", trace)
    if path == trace == STDOUT:
        raise click.UsageError("--json - and --trace - both want standard output")
    job, problem, strategy = strategy_of(options)
    broken = broken_rules(problem, strategy)
    if broken and not options["force"]:
        return complain_broken(broken, "--force replays it all the same")
    replay = replay_step(problem, strategy, job.constants)
    if trace is not None:
        write_text("--trace", trace, json_line(replay.simulation.trace()))
    if path is not None:
        write_text("--json", path, json_text(simulation_document(replay, job)))
    for written in (trace, path):
        if written not in (None, STDOUT):
            narrate(f"wrote {written}")
    if STDOUT in (path, trace):
        return 0
    printer = Printer()
    print_heading(printer, problem, strategy, job.notes, broken)
    print_simulation(printer, replay)
    return 0

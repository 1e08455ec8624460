"""``autopar search``: the Pareto frontier of memory against step time."""

from collections.abc import Mapping
from typing import Any

import click

from autopar import api
from autopar.answers.emission import others_of, plan_of
from autopar.answers.sizes import OBJECTIVES, search_sizes
from autopar.cli.continued import is_continued
from autopar.cli.examples import ExampleCommand
from autopar.cli.group import NOTHING_FITS, WRONG_INPUT, complain_all
from autopar.cli.how import how_options, how_words
from autopar.cli.mixed import pools_of, search_several
from autopar.cli.options import axis_options, csv_option, json_option, problem_options, space_option
from autopar.cli.parsing import Whole
from autopar.cli.question import counts_of, job_of, said_in
from autopar.cli.writing import check_emission, check_model, emit_options, write_plan
from autopar.job.job import Job
from autopar.report.again import next_lines, with_command
from autopar.report.documents import rows_csv, search_document
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.progress import Bar
from autopar.report.terminal import Printer, narrate
from autopar.report.views.search import nothing_lines, print_search
from search.result import SearchResult


@click.command(
    "search",
    cls=ExampleCommand,
    examples=(
        "autopar search --gpus 512 --model 70b",
        "autopar search --gpus 64-256 --model 8b --objective gpus",
        "autopar search --gpus 96 --model 8x7b --tp 1-8 --sharding zero1,fsdp --json out.json",
        "autopar search --storage trials.log --study llama",
    ),
)
@problem_options
@space_option("How much is open where no axis is given.")
@axis_options
@click.option(
    "--top",
    type=Whole(10**6),
    default=10,
    show_default=True,
    metavar="N",
    help="Rows of the table.",
)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    metavar="gpus|cost",
    help="A third axis, for --gpus like 256,512 or 256-1024.  [default there: gpus]",
)
@how_options
@click.option("--emit", metavar="NAME", help="Write the best row's files for this launcher.")
@emit_options
@json_option
@csv_option
def command(**options: Any) -> int:
    """The Pareto frontier of memory against step time, ranked by time.

    Axes take one value, several (4,8) or a range (1-16); what is not given is searched.
    With --storage and --study alone, an exploration goes on as it was asked for.
    """
    json_path, csv_path = options["json_path"], options["csv_path"]
    check_writable("--json", json_path)
    check_writable("--csv", csv_path)
    if json_path == csv_path == STDOUT:
        raise click.UsageError("--json - and --csv - both want standard output")
    check_emission(options)
    continued = is_continued(options)
    if not continued:
        check_model(options)
    pools = pools_of(options)
    if pools:
        return search_several(options, pools)
    if continued:
        job, _ = api.job_of_study(options["storage"], options["study"])
    else:
        job = job_of(options)
    with Bar("searching") as progress:
        result = _search(None if continued else job, options, progress)
    if not result.counts.legal:
        return complain_all(nothing_lines(result), WRONG_INPUT)
    if options["emit"] is not None and result.frontier:
        _emit(result, job.said, options)
    if json_path is not None:
        write_text("--json", json_path, json_text(search_document(result, job.said, job.notes)))
    if csv_path is not None:
        write_text("--csv", csv_path, rows_csv(result.frontier))
    if STDOUT not in (json_path, csv_path) and result.frontier:
        again = next_lines(result, said_in(options), job.said)
        print_search(Printer(), result, job, top=options["top"], again=again)
    for path in (json_path, csv_path):
        if path not in (None, STDOUT):
            narrate(f"wrote {path}")
    return 0 if result.frontier else complain_all(nothing_lines(result), NOTHING_FITS)


def _emit(result: SearchResult, said: Mapping[str, Any], options: dict[str, Any]) -> None:
    """The best row's files; what is said of them goes beside the answer."""
    best = with_command(plan_of(result, result.frontier[0]), said)
    quiet = {**options, "json_path": None}
    write_plan(
        best, options["emit"], rank=1, others=others_of(result, 1), options=quiet, beside=True
    )


def _search(job: Job | None, options: dict[str, Any], progress: Bar) -> SearchResult:
    """Search one number of GPUs, or several with a third axis to the frontier."""
    if job is None:
        words = {name: options[name] for name in ("storage", "study", "trials", "refine")}
        return api.search_study(**words, timeout_s=options["timeout"], progress=progress)
    how = how_words(options)
    gpus, objective = options["gpus"], options["objective"]
    if objective is None and (gpus is None or gpus.single is not None):
        return api.search(job, **how, progress=progress)
    counts = counts_of(gpus, job.problem.cluster)
    return search_sizes(job, counts, objective=objective or "gpus", progress=progress, **how)

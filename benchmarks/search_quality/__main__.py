"""How good searches are, against exact frontiers.

``python -m benchmarks.search_quality`` runs every built-in search on every instance of
``data/search_instances.toml`` and prints tables of its hypervolume ratio and its regret;
``--out DIR`` writes them with a CSV and plots.  ``-a`` names searches, built-in or by import
path (:mod:`benchmarks.search_quality.algorithms` says of what kind), ``-i`` instances.
``--beside`` takes the CSV of another run: its marks stand beside this one's, or alone where
``-a`` names nothing.
``--exact`` finds the exact frontiers again and keeps them.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from autopar.report.files import check_writable, write_text
from benchmarks.search_quality import plot, report
from benchmarks.search_quality.algorithms import BUILT_IN, DEFAULT, Algorithm, algorithm_called
from benchmarks.search_quality.exact import Exact, exact_of, keep, read_kept
from benchmarks.search_quality.experts import expert_table, judged_experts
from benchmarks.search_quality.instances import Instance, chosen, load_suite
from benchmarks.search_quality.measure import Mark, run
from benchmarks.search_quality.seeded import beginning
from benchmarks.search_quality.task import Prices
from cost_models.specs.errors import SpecError

NAME = "search_quality"
WRONG_INPUT = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-a", "--algorithm", "names", multiple=True, metavar="NAME|PATH", help="Repeatable.")
@click.option("-i", "--instance", "wanted", multiple=True, metavar="NAME", help="Repeatable.")
@click.option("--budget", default=500, type=click.IntRange(1), help="Evaluations of a run.")
@click.option("--seeds", default=10, type=click.IntRange(1), help="Runs of each search.")
@click.option(
    "--baseline-seeds",
    type=click.IntRange(1),
    help="Runs of each search but the seeded default, where fewer do.",
)
@click.option("--limit", "limit_s", type=float, help="Seconds of a run at most.")
@click.option("--beside", metavar="CSV", help="Marks of another run; alone: draw them.")
@click.option("--experts/--no-experts", default=False, help="Price what experts ship, too.")
@click.option("--out", metavar="DIR", help="Write tables, CSV and plots there.")
@click.option("--exact", "again", is_flag=True, help="Find the exact frontiers again, keep them.")
def command(
    names: tuple[str, ...],
    wanted: tuple[str, ...],
    budget: int,
    seeds: int,
    baseline_seeds: int | None,
    limit_s: float | None,
    beside: str | None,
    experts: bool,
    out: str | None,
    again: bool,
) -> None:
    """Compare searches with exact frontiers."""
    suite = load_suite()
    instances = chosen(wanted, suite)
    if again:
        keep(suite.values())
        return
    paths = _paths(out)
    every = () if beside is not None else BUILT_IN
    algorithms = _ready([algorithm_called(name) for name in names or every])
    kept = read_kept()
    exact = {instance.name: exact_of(instance, kept) for instance in instances}
    here = {instance.name for instance in instances}
    earlier = [] if beside is None else report.read_csv(Path(beside))
    ours = {one.name for one in algorithms}
    marks = [m for m in earlier if m.instance in here and m.algorithm not in ours]
    for instance in instances:
        prices = Prices(instance)
        for one in algorithms:
            few = baseline_seeds if one.name != DEFAULT else None
            marks += run(
                instance,
                exact[instance.name],
                one,
                seeds=range(few or seeds),
                budget=budget,
                limit_s=limit_s,
                prices=prices,
            )
            click.echo(f"{instance.name}: {one.name}", err=True)
    text = _text(instances, exact, marks, budget, limit_s)
    if experts:
        text += "\n" + expert_table(judged_experts()) + "\n"
    click.echo(text, nl=False)
    if paths is not None:
        _write(paths, text, marks)


def _ready(algorithms: Sequence[Algorithm]) -> list[Algorithm]:
    """Those that can run here; the others are named."""
    for one in algorithms:
        if one.missing is not None:
            click.echo(f"{one.name} skipped: {one.missing}", err=True)
    return [one for one in algorithms if one.missing is None]


def _paths(out: str | None) -> dict[str, str] | None:
    """Files to write, tried before the work."""
    if out is None:
        return None
    endings = ("md", "csv", "evaluations.svg", "seconds.svg")
    paths = {ending: str(Path(out) / f"{NAME}.{ending}") for ending in endings}
    for path in paths.values():
        check_writable("--out", path)
    return paths


def _text(
    instances: Sequence[Instance],
    exact: dict[str, Exact],
    marks: Sequence[Mark],
    budget: int,
    limit_s: float | None,
) -> str:
    parts = [
        report.conditions(budget, limit_s),
        "## Instances\n\n" + report.instance_table(instances, exact),
    ]
    if any(mark.algorithm == DEFAULT for mark in marks):
        started = {instance.name: beginning(instance, "bounds") for instance in instances}
        seeds = len({mark.seed for mark in marks if mark.algorithm == DEFAULT})
        parts.append(
            f"## The seeded default search, {DEFAULT}\n\n"
            "Its seeds are the frontier of the sweep's lower bounds. A bound is no evaluation, "
            "but it is most of one, and about as many of them are computed as in the exact "
            "sweep: what is saved is prices, not arithmetic. Every seed is an evaluation.\n\n"
            + report.default_table(marks, DEFAULT, started, seeds)
        )
    parts += [
        "## Hypervolume ratio at the end\n\n"
        "Median of the seeds, whose number is in brackets, and their extremes.\n\n"
        + report.compared(marks, report.hypervolume_cell),
        "## Regret of the fastest step at the end\n\n" + report.compared(marks, report.regret_cell),
        "## Evaluations and seconds of a run\n\n" + report.compared(marks, report.effort_cell),
    ]
    return "\n\n".join(parts) + "\n"


def _write(paths: dict[str, str], text: str, marks: Sequence[Mark]) -> None:
    write_text("--out", paths["md"], text)
    write_text("--out", paths["csv"], report.to_csv(marks))
    try:
        write_text("--out", paths["evaluations.svg"], plot.svg(marks, "evaluations"))
        write_text("--out", paths["seconds.svg"], plot.svg(marks, "wall_s"))
    except ImportError:
        click.echo("no plots: Matplotlib is not installed (autopar[benchmarks])", err=True)


def main(words: Sequence[str] | None = None) -> None:
    """Run, or say in one line what is wrong with the input."""
    try:
        command.main(args=list(words) if words is not None else None, standalone_mode=False)
    except (SpecError, click.ClickException) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        hint = getattr(error, "hint", None)
        sys.stderr.write(f"error: {said}\n" + (f"hint: {hint}\n" if hint else ""))
        sys.exit(WRONG_INPUT)
    except click.Abort:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()

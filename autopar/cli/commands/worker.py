"""``autopar worker``: one more process for an exploration that is kept in a storage."""

from shlex import quote

import click

from autopar import api
from autopar.cli.examples import ExampleCommand
from autopar.cli.parsing import Amount, Whole
from autopar.report.progress import Bar
from autopar.report.words import plain_count


@click.command(
    "worker",
    cls=ExampleCommand,
    examples=(
        "autopar worker --storage postgresql://autopar@db/autopar --study llama",
        "autopar worker --storage grpc://head-node:13000 --study llama --timeout 3600",
    ),
)
@click.option(
    "--storage",
    required=True,
    metavar="URL|PATH",
    help="Where the study is: a database, grpc://HOST:PORT, or a journal file.",
)
@click.option("--study", required=True, metavar="NAME", help="Its name there.")
@click.option(
    "--trials",
    type=Whole(10**9),
    metavar="N",
    help="Strategies that this worker prices.  [default: until the study has enough]",
)
@click.option("--timeout", type=Amount(), metavar="SECONDS", help="When it stops at the latest.")
def command(storage: str, study: str, trials: int | None, timeout: float | None) -> int:
    """One more process for an exploration that is kept in a storage.

    `autopar search --storage URL --study NAME` makes the study and writes the whole problem
    into it; a worker needs nothing else.  Any number of them on any number of machines share
    its trials; one that is killed loses the trial that it was at.
    """
    with Bar("exploring") as progress:
        worked = api.work(storage, study, trials=trials, timeout_s=timeout, progress=progress)
    click.echo(
        f"study {worked.study!r} in {worked.storage}: {plain_count(worked.priced)} of "
        f"{plain_count(worked.budget)} strategies priced, {plain_count(worked.here)} of them here"
    )
    click.echo("next:")
    click.echo(f"  autopar search --storage {quote(worked.storage)} --study {quote(worked.study)}")
    return 0

"""``autopar clusters``: the clusters that are known by name."""

import click

from autopar.cli.examples import ExampleCommand
from autopar.cli.options import json_option
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.catalog import CLUSTERS_LEGEND, clusters_document, clusters_table
from cost_models.catalog.gpus import cluster_names, load_nodes


@click.command(
    "clusters",
    cls=ExampleCommand,
    examples=(
        "autopar clusters",
        "autopar clusters aws-p5 path/to/cluster.toml",
    ),
)
@click.argument("names", nargs=-1)
@json_option
def command(names: tuple[str, ...], json_path: str | None) -> None:
    """The clusters that are known by name, or those in NAMES: catalog names or files."""
    check_writable("--json", json_path)
    nodes = {name: load_nodes(name) for name in names or cluster_names()}
    if json_path is not None:
        write_text("--json", json_path, json_text(clusters_document(nodes)))
    if json_path == STDOUT:
        return
    Printer().table(clusters_table(nodes))
    narrate(CLUSTERS_LEGEND)

"""``autopar gpus``: the GPUs that are known by name, and where each number is from."""

import click

from autopar.cli.examples import ExampleCommand
from autopar.cli.options import json_option
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.catalog import GPUS_LEGEND, gpus_document, gpus_table, source_lines
from cost_models.catalog.gpus import gpu_names, gpu_template, load_gpu
from cost_models.specs.errors import SpecError


@click.command(
    "gpus",
    cls=ExampleCommand,
    examples=(
        "autopar gpus",
        "autopar gpus h100 --sources",
        "autopar gpus h100 --toml",
    ),
)
@click.argument("names", nargs=-1)
@click.option("--sources", is_flag=True, help="Where each number is from.")
@click.option("--toml", is_flag=True, help="The file of one GPU, to start one's own from.")
@json_option
def command(names: tuple[str, ...], *, sources: bool, toml: bool, json_path: str | None) -> None:
    """The GPUs that are known by name, or those in NAMES: catalog names or files."""
    if toml:
        if len(names) != 1:
            raise SpecError("--toml prints the file of one GPU", hint="autopar gpus h100 --toml")
        click.echo(gpu_template(names[0]), nl=False)
        return
    check_writable("--json", json_path)
    gpus = [load_gpu(name) for name in names or gpu_names()]
    if json_path is not None:
        write_text("--json", json_path, json_text(gpus_document(gpus)))
    if json_path == STDOUT:
        return
    printer = Printer()
    if sources:
        printer.lines(source_lines(gpus))
        return
    printer.table(gpus_table(gpus))
    narrate(GPUS_LEGEND)

"""``autopar models``: the models that are known by name."""

import click

from autopar.cli.examples import ExampleCommand
from autopar.cli.options import json_option
from autopar.report.files import STDOUT, check_writable, write_text
from autopar.report.json_text import json_text
from autopar.report.terminal import Printer, narrate
from autopar.report.views.catalog import models_document, models_table
from cost_models.catalog.models import load_model, model_aliases, model_names


@click.command(
    "models",
    cls=ExampleCommand,
    examples=(
        "autopar models",
        "autopar models 70b path/to/config.json",
    ),
)
@click.argument("names", nargs=-1)
@json_option
def command(names: tuple[str, ...], json_path: str | None) -> None:
    """The models that are known by name, or those in NAMES: catalog names or files."""
    check_writable("--json", json_path)
    models = [load_model(name) for name in names or model_names()]
    models.sort(key=lambda model: model.n_parameters)
    if json_path is not None:
        write_text("--json", json_path, json_text(models_document(models, model_aliases())))
    if json_path == STDOUT:
        return
    printer = Printer()
    printer.table(models_table(models, model_aliases()))
    narrate("--model also takes a path to a Hugging Face config.json or a TOML file")

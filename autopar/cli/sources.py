"""Commands that read other programs' files: the options that go with --from."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import click

from autopar.cli.options import axis_texts
from autopar.cli.problem import one_count
from autopar.cli.strategy import one_value
from autopar.job.completion import Job, Wanted, complete
from autopar.job.foreign import gather
from autopar.job.inputs import as_cluster, as_model
from cost_models.specs.errors import SpecError
from cost_models.specs.units import GIB

F = TypeVar("F", bound=Callable[..., Any])

SOURCE_HELP = "A launcher's file, directory or quoted command; - is stdin. May be given again."


def from_option(command: F) -> F:
    """Files to read, several of them if need be."""
    return click.option(
        "--from", "sources", multiple=True, metavar="FILE|COMMAND", help=SOURCE_HELP
    )(command)


def job_of(options: Mapping[str, Any]) -> Job:
    """The job that the files describe; what was typed goes before what they say."""
    sources = gather(options["sources"])
    if options["global_batch"] is not None and options["tokens_per_batch"] is not None:
        raise SpecError(
            "--global-batch and --tokens-per-batch say the same thing", hint="give one of them"
        )
    gpus = one_count(options["gpus"])
    cluster = as_cluster(options["cluster"], options["gpu"], gpus or 1)
    if options["reserve_gib"] is not None:
        cluster = replace(cluster, reserved_bytes=options["reserve_gib"] * GIB)
    knobs = {name: one_value(name, text) for name, text in axis_texts(options).items()}
    if options["precision"] is not None:
        knobs["precision"] = one_value("precision", options["precision"])
    wanted = Wanted(
        launcher=options["launcher"],
        model=as_model(options["model"]) if _was_typed("model") else None,
        gpus=gpus,
        knobs=knobs,
        **{name: options[name] for name in _SAID},
    )
    return complete(sources, wanted, cluster)


_SAID = ("seq_len", "global_batch", "tokens_per_batch", "framework", "optimizer")


def _was_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT

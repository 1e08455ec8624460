"""``autopar search --storage URL --study NAME`` alone: the study says what is asked."""

from collections.abc import Mapping
from typing import Any

import click
from click.core import ParameterSource

from cost_models.specs.errors import SpecError

_STUDY = ("storage", "study")
_WRITING = ("top", "json_path", "csv_path", "emit", "wrap", "out", "replace")
_FREE = frozenset((*_STUDY, "trials", "timeout", "refine", *_WRITING))
"""Options that say nothing about the problem."""


def is_continued(options: Mapping[str, Any]) -> bool:
    """Nobody says how many GPUs, but where a study is that knows.

    Raises
    ------
    SpecError
        Where something else of the problem is said all the same.
    """
    alone = options["gpus"] is None and options["cluster"] is None
    if not alone or any(options[name] is None for name in _STUDY):
        return False
    context = click.get_current_context()
    typed = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT)
    for param in context.command.params:
        name = str(param.name)
        if name not in _FREE and context.get_parameter_source(name) in typed:
            raise SpecError(
                f"{param.opts[0]} is the study's own, or --gpus is missing",
                hint="give --storage and --study alone, or all of the problem",
            )
    return True

"""``autopar search --storage URL --study NAME`` alone: the study says what is asked."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from autopar.job.job import Job
from cost_models.specs.errors import SpecError
from search.result import SearchResult

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


def study_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`autopar.api.search_study`."""
    return {
        "storage": options["storage"],
        "study": options["study"],
        "trials": options["trials"],
        "timeout_s": options["timeout"],
        "refine": options["refine"],
    }


def problem_said(result: SearchResult) -> dict[str, Any]:
    """The study's problem as one types it, empty where no words lead to the same one.

    A study keeps specs, not words: a model of a file of one's own has no name to say.
    """
    workload = result.workload
    said: dict[str, Any] = {
        "model": result.model.name,
        "gpu": result.cluster.gpu.name,
        "gpus": result.cluster.n_gpus,
        "seq_len": workload.sequence_length,
        "global_batch": workload.global_batch_size,
        "optimizer": workload.optimizer.name,
        "framework": workload.framework.name,
        "launcher": result.launcher,
    }
    try:
        problem = Job.of(**said).problem
    except SpecError:
        return {}
    same = problem == replace(
        problem, model=result.model, cluster=result.cluster, workload=workload
    )
    return said if same else {}

"""From typed options to the one job that every command asks."""

from collections.abc import Mapping
from typing import Any

import click

from autopar.answers.sizes import sizes_between
from autopar.cli.options import axis_texts
from autopar.cli.parsing import GpuCounts
from autopar.job.completion import Described, complete
from autopar.job.foreign import gather
from autopar.job.job import PRICED, Job, Words, one_strategy
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategy
from search.rules import Problem

_NO_QUESTION = (
    *("json_path", "csv_path", "trace_path", "top"),
    *("emit", "wrap", "out", "replace"),
)
"""Options that say what becomes of the answer."""
_ALWAYS = ("model", "launcher")
"""Said again even where the first is a default, and --emit stands for the second."""


def said_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """What was typed, by option, so that it can be typed again."""
    said: dict[str, Any] = {}
    machine = options.get("gpus") or options.get("cluster")
    elsewhere = options.get("sources") or (options.get("study") and not machine)
    for param in click.get_current_context().command.params:
        name = str(param.name)
        value = options.get(name)
        usual = name in _ALWAYS and not elsewhere
        if value is not None and name not in _NO_QUESTION and (usual or was_typed(name)):
            said[name] = value.text if isinstance(value, GpuCounts) else value
    return said


def was_typed(name: str) -> bool:
    """The user gave this option; its value is no default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def job_of(options: Mapping[str, Any]) -> Job:
    """The question of a search, on the most GPUs that were named."""
    gpus = options["gpus"]
    if gpus is None and options["cluster"] is None:
        raise SpecError("--gpus is missing", hint="--gpus 512, or a --cluster file with n_gpus")
    most = None if gpus is None else max(gpus.listed)
    return Job.of(options["model"], most, said=said_in(options), **words_of(options))


def strategy_of(
    options: Mapping[str, Any], *, rules: str = PRICED
) -> tuple[Job, Problem, Strategy]:
    """The question about one strategy; it says how many GPUs where nobody does."""
    words = words_of(options)
    knobs = {**(words.pop("fixed", None) or {}), "stage_layers": options.get("stage_layers")}
    gpus = one_count(options["gpus"])
    said = said_in(options)
    return one_strategy(options["model"], knobs, gpus, said=said, rules=rules, **words)


def described_by(options: Mapping[str, Any]) -> Described:
    """The job in the files of --from; what was typed goes before what they say."""
    model = options["model"] if was_typed("model") else None
    gpus = one_count(options["gpus"])
    words = words_of(options)
    if options.get("stage_layers") is not None:
        words["fixed"] = {**(words.get("fixed") or {}), "stage_layers": options["stage_layers"]}
    sources = gather(options["sources"])
    return complete(sources, model, gpus, said=said_in(options), **words)


def words_of(options: Mapping[str, Any]) -> Words:
    """The options that are words of a job; each axis goes into ``fixed``."""
    if options["global_batch"] is not None and options["tokens_per_batch"] is not None:
        raise SpecError(
            "--global-batch and --tokens-per-batch say the same thing", hint="give one of them"
        )
    names = [name for name in Words.__annotations__ if options.get(name) is not None]
    words: Words = {name: options[name] for name in names}  # type: ignore[assignment]
    fixed = axis_texts(options)
    if fixed:
        words["fixed"] = fixed
    return words


def counts_of(gpus: GpuCounts | None, cluster: Cluster) -> list[int]:
    """All numbers of GPUs that the user named, ranges by whole nodes."""
    if gpus is None:
        return [cluster.n_gpus]
    if gpus.is_range:
        return sizes_between(gpus.listed[0], gpus.listed[-1], cluster.gpus_per_node)
    return sorted(gpus.listed)


def one_count(gpus: GpuCounts | None) -> int | None:
    """How many GPUs, where a range makes no sense."""
    if gpus is None or gpus.single is not None:
        return None if gpus is None else gpus.single
    raise SpecError(f"--gpus must be one number here, got {gpus.text}")

"""From typed options to the words that :mod:`autopar.api` takes."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from shlex import quote
from typing import Any

from autopar.answers.sizes import sizes_between
from autopar.cli.options import axis_texts
from autopar.cli.parsing import GpuCounts
from autopar.cli.strategy import one_value, strategy_of
from autopar.job.inputs import as_cluster, as_model, as_precision, as_workload
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategy
from cost_models.specs.units import GIB
from search.result import SearchResult
from search.rules import Problem, launcher_called

_MACHINE = ("gpu", "cluster")
_WORKLOAD = ("seq_len", "global_batch", "tokens_per_batch", "optimizer", "framework")
_OWN = ("gpus", *_MACHINE, *_WORKLOAD, "launcher", "precision", "reserve_gib", "calibration")


def space_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`autopar.api.search`, as far as the user said them."""
    one_count(options["gpus"])
    return {"model": options["model"], "cluster": machine(options), **search_words(options)}


def search_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """The workload and the axes, as far as the user said them."""
    _say_the_batch_once(options)
    return {
        "fixed": axis_texts(options),
        **_said(options, (*_WORKLOAD, "launcher", "precision", "calibration")),
    }


def machine(options: Mapping[str, Any]) -> Cluster:
    """The cluster, as large as the largest number of GPUs that the user named."""
    gpus = options["gpus"]
    if gpus is None and options["cluster"] is None:
        raise SpecError("--gpus is missing", hint="--gpus 512, or a --cluster file with n_gpus")
    most = None if gpus is None else max(gpus.listed)
    return _reserved(as_cluster(options["cluster"], options["gpu"], most), options)


def counts_of(gpus: GpuCounts | None, cluster: Cluster) -> list[int]:
    """All numbers of GPUs that the user named, ranges by whole nodes."""
    if gpus is None:
        return [cluster.n_gpus]
    if gpus.is_range:
        return sizes_between(gpus.listed[0], gpus.listed[-1], cluster.gpus_per_node)
    return sorted(gpus.listed)


def problem_of(options: Mapping[str, Any], *, launcher: str) -> tuple[Problem, Strategy]:
    """One strategy, and what it is an answer to; it says how many GPUs where nobody does."""
    _say_the_batch_once(options)
    model = as_model(options["model"])
    gpus = one_count(options["gpus"])
    cluster = as_cluster(options["cluster"], options["gpu"], gpus or _from_file(options))
    if options["cluster"] is not None:
        gpus = cluster.n_gpus
    rules = launcher_called(launcher)
    typed = options["precision"]
    precision = as_precision(None, cluster) if typed is None else one_value("precision", typed)
    strategy = strategy_of(options, gpus, launcher=rules, moe=model.is_moe, precision=precision)
    cluster = replace(cluster, n_gpus=strategy.world_size)
    cluster = _reserved(cluster, options)
    workload = as_workload(model, cluster, **_said(options, _WORKLOAD))
    return Problem(model, cluster, workload, rules), strategy


def one_count(gpus: GpuCounts | None) -> int | None:
    """How many GPUs, where a range makes no sense."""
    if gpus is None or gpus.single is not None:
        return None if gpus is None else gpus.single
    raise SpecError(f"--gpus must be one number here, got {gpus.text}")


def command_words(options: Mapping[str, Any], result: SearchResult) -> str:
    """The problem's options as they were typed, for the next command about the best row."""
    best = result.frontier[0]
    typed = {name: options[name] for name in ("model", *_OWN) if options.get(name) is not None}
    if len({row.world_size for row in result.frontier}) > 1 and "tokens_per_batch" not in typed:
        typed["global_batch"] = result.workload.global_batch_size
    for name, value in (("gpus", best.world_size), ("precision", best.strategy.precision.label)):
        if name in typed:
            typed[name] = value
    return " ".join(f"--{name.replace('_', '-')} {quote(str(typed[name]))}" for name in typed)


def _say_the_batch_once(options: Mapping[str, Any]) -> None:
    if options["global_batch"] is not None and options["tokens_per_batch"] is not None:
        raise SpecError(
            "--global-batch and --tokens-per-batch say the same thing", hint="give one of them"
        )


def _from_file(options: Mapping[str, Any]) -> int | None:
    """None leaves the count to the cluster file; without one, the strategy will say."""
    return None if options["cluster"] is not None else 1


def _said(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: options[name] for name in names if options.get(name) is not None}


def _reserved(cluster: Cluster, options: Mapping[str, Any]) -> Cluster:
    """The cluster with some memory left alone, where the user asked for that."""
    if options["reserve_gib"] is None:
        return cluster
    return replace(cluster, reserved_bytes=options["reserve_gib"] * GIB)

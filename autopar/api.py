"""What ``import autopar`` offers: search, estimate and explain, by names or by specs."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autopar.job.inputs import (
    as_cluster,
    as_framework,
    as_model,
    as_precision,
    as_space,
    as_workload,
    constants_for,
)
from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Strategy
from cost_models.specs.workload import Workload
from search.explore.options import Explore
from search.plan import How, Method, price_strategies, search_strategies
from search.replay.replay_step import StepReplay, replay_step
from search.result import Priced, SearchResult
from search.rules import Problem, broken_rules
from search.space.space import Space

if TYPE_CHECKING:
    from search.explore.explore import Worked


def search(
    model: ModelSpec | str = "70b",
    gpus: int | None = None,
    *,
    gpu: str | None = None,
    cluster: Cluster | str | Path | None = None,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    precision: Precision | str | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
    space: Space | str = "core",
    fixed: Mapping[str, Any] | None = None,
    launcher: str = "megatron",
    constants: Constants | None = None,
    calibration: str | Path | None = None,
    seed: int = 0,
    top: int | None = None,
    method: Method = "auto",
    trials: int | None = None,
    timeout_s: float | None = None,
    sampler: str | None = None,
    storage: str | None = None,
    study: str | None = None,
    verify_cut: int = 0,
    refine: bool = True,
    progress: Callable[[float], None] | None = None,
) -> SearchResult:
    """The Pareto frontier of memory against step time for one model on one cluster.

    Names stand for specs everywhere: ``search("70b", 512, gpu="h100")``.  ``fixed``
    narrows axes of the space: ``fixed={"tp": "4,8", "sharding": "zero1"}``; ``calibration``
    names a file from ``autopar calibrate``.

    ``method="explore"`` asks Optuna for ``trials`` strategies, at most ``timeout_s``
    seconds long, with any of its samplers by name or import path; ``storage`` (a URL or
    the path of a journal file) and ``study`` keep the trials, and continue them.
    ``verify_cut`` prices a sample of what the sweep's bounds cut.  ``refine`` deals layers
    to pipeline stages by what they cost, instead of as evenly as they divide.

    Raises
    ------
    SpecError
        For words that are not known and numbers that cannot be.
    """
    spec = as_model(model)
    machine = as_cluster(cluster, gpu, gpus)
    recipe = as_framework(framework)
    workload = as_workload(
        spec,
        machine,
        seq_len=seq_len,
        global_batch=global_batch,
        tokens_per_batch=tokens_per_batch,
        optimizer=optimizer,
        framework=recipe,
    )
    given = as_precision(precision, machine)

    def space_for(problem: Problem) -> Space:
        return as_space(space, problem, given, fixed)

    words: dict[str, Any] = {"trials": trials, "timeout_s": timeout_s, "sampler": sampler}
    words |= {"storage": storage, "study": study}
    options = Explore(**{name: value for name, value in words.items() if value is not None})
    return search_strategies(
        spec,
        machine,
        workload,
        space_for(Problem.of(spec, machine, workload, launcher)),
        constants or constants_for(machine, recipe, calibration),
        launcher=launcher,
        seed=seed,
        top=top,
        how=How(
            method=method,
            explore=options,
            verify_cut=verify_cut,
            refine=refine,
            some_layers=not {"recompute_layers", "recompute-layers"} & set(fixed or ()),
        ),
        space_for=space_for,
        progress=progress,
    )


def search_study(
    storage: str,
    study: str,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    top: int | None = None,
    refine: bool = True,
    progress: Callable[[float], None] | None = None,
) -> SearchResult:
    """Continue an exploration that is kept in a storage, from there alone; its frontier.

    Model, cluster, axes, calibration, sampler and seed are the study's.  ``trials`` is how
    many strategies it is to hold at the end, by default what was asked for so far.

    Raises
    ------
    SpecError
        Where there is no such study, or where another version made it.
    """
    from search.explore.explore import asked_by  # brings Optuna

    asked = asked_by(storage, study)
    words: dict[str, Any] = {"trials": trials, "timeout_s": timeout_s}
    given = {name: value for name, value in words.items() if value is not None}
    problem, axes = asked.problem, asked.space.axes
    open_layers = Space.core(problem).axes["recompute_layers"] == axes["recompute_layers"]
    return search_strategies(
        problem.model,
        problem.cluster,
        problem.workload,
        asked.space,
        asked.constants,
        launcher=problem.launcher.name,
        seed=asked.seed,
        top=top,
        how=How(
            method="explore",
            explore=replace(asked.options, **given),
            refine=refine,
            some_layers=open_layers,
        ),
        progress=progress,
    )


def work(
    storage: str,
    study: str,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> "Worked":
    """Take part in an exploration that ``search`` keeps in a storage, until it has enough.

    Everything that is asked is in the study; ``trials`` and ``timeout_s`` let this worker
    leave earlier.

    Raises
    ------
    SpecError
        Where there is no such study, or where it is not this version's.
    """
    from search.explore.explore import work as explored  # brings Optuna

    return explored(storage, study, trials=trials, timeout_s=timeout_s, progress=progress)


def _strategy(strategy: Strategy | Mapping[str, Any]) -> Strategy:
    return strategy if isinstance(strategy, Strategy) else Strategy.from_json(strategy)


def _problem(
    model: ModelSpec | str, strategy: Strategy, launcher: str, **words: Any
) -> tuple[Problem, Strategy]:
    """The problem that a strategy is an answer to; it says how many GPUs where nobody does."""
    spec = as_model(model)
    gpus = words.pop("gpus")
    cluster = words.pop("cluster")
    machine = as_cluster(cluster, words.pop("gpu"), strategy.world_size if gpus is None else gpus)
    workload = as_workload(spec, machine, **words)
    return Problem.of(spec, machine, workload, launcher), strategy


def estimate(
    model: ModelSpec | str,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    gpu: str | None = None,
    cluster: Cluster | str | Path | None = None,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
    launcher: str = "any",
    constants: Constants | None = None,
    calibration: str | Path | None = None,
) -> Priced:
    """One strategy's step time and memory, each with its breakdown.

    ``strategy`` is a :class:`Strategy` or a mapping of its short keys.  The GPUs are as
    many as the strategy uses unless ``gpus`` says otherwise.
    """
    problem, one = _problem(
        model,
        _strategy(strategy),
        launcher,
        gpus=gpus,
        gpu=gpu,
        cluster=cluster,
        seq_len=seq_len,
        global_batch=global_batch,
        tokens_per_batch=tokens_per_batch,
        optimizer=optimizer,
        framework=framework,
    )
    _require_all_gpus(problem, one)
    recipe = problem.workload.framework
    numbers = constants or constants_for(problem.cluster, recipe, calibration)
    return price_strategies(problem, [one], numbers)[0]


def _require_all_gpus(problem: Problem, one: Strategy) -> None:
    if one.world_size != problem.cluster.n_gpus:
        raise SpecError(
            f"the strategy uses {one.world_size} GPUs (dp {one.dp} x tp {one.tp} x pp {one.pp} "
            f"x cp {one.cp}), but there are {problem.cluster.n_gpus}"
        )


def simulate(
    model: ModelSpec | str,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    gpu: str | None = None,
    cluster: Cluster | str | Path | None = None,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
    launcher: str = "any",
    constants: Constants | None = None,
    calibration: str | Path | None = None,
) -> StepReplay:
    """One step of one strategy, replayed operation by operation beside its closed form.

    ``result.step_time_s`` is the replayed step, ``result.priced`` what :func:`estimate`
    says, ``result.simulation`` holds events, memory over time and the trace.
    """
    problem, one = _problem(
        model,
        _strategy(strategy),
        launcher,
        gpus=gpus,
        gpu=gpu,
        cluster=cluster,
        seq_len=seq_len,
        global_batch=global_batch,
        tokens_per_batch=tokens_per_batch,
        optimizer=optimizer,
        framework=framework,
    )
    _require_all_gpus(problem, one)
    recipe = problem.workload.framework
    numbers = constants or constants_for(problem.cluster, recipe, calibration)
    return replay_step(problem, one, numbers)


def explain(
    model: ModelSpec | str,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    gpu: str | None = None,
    cluster: Cluster | str | Path | None = None,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
    launcher: str = "megatron",
) -> list[str]:
    """Every rule that the strategy breaks, ``name: why`` with its numbers; none where legal."""
    problem, one = _problem(
        model,
        _strategy(strategy),
        launcher,
        gpus=gpus,
        gpu=gpu,
        cluster=cluster,
        seq_len=seq_len,
        global_batch=global_batch,
        tokens_per_batch=tokens_per_batch,
        optimizer=optimizer,
        framework=framework,
    )
    return [f"{rule.name}: {why}" for rule, why in broken_rules(problem, one)]


__all__ = [
    "Cluster",
    "ModelSpec",
    "Priced",
    "SearchResult",
    "SpecError",
    "Strategy",
    "Workload",
    "estimate",
    "explain",
    "search",
    "search_study",
    "simulate",
    "work",
]

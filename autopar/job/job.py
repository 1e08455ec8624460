"""One question: what is trained, on what, by which launcher, and how much of it is open."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypedDict, Unpack

from autopar.job.inputs import (
    as_cluster,
    as_framework,
    as_model,
    as_precision,
    as_space,
    as_workload,
    constants_for,
    framework_of,
)
from autopar.job.said import texts_of, words_in
from autopar.job.strategy import complete_strategy
from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Strategy
from cost_models.specs.units import GIB
from search.rules import Problem, broken_rules, launcher_called
from search.space.axes import AXES
from search.space.space import Space

SEARCHED, PRICED = "megatron", "any"
"""Whose rules a search and one strategy obey where no launcher is said."""


class Words(TypedDict, total=False):
    """What may be said of a job beside its model and its GPUs; None leaves it unsaid.

    Names stand for specs everywhere.  ``fixed`` narrows axes of the space:
    ``{"tp": "4,8", "sharding": "zero1"}``; ``calibration`` names a file from
    ``autopar calibrate``, ``constants`` are such numbers themselves.  ``launcher`` says
    whose rules hold and, unless ``framework`` does, whose runs are priced.
    """

    gpu: str | None
    cluster: Cluster | str | Path | None
    reserve_gib: float | None
    seq_len: int | None
    global_batch: int | None
    tokens_per_batch: float | None
    precision: Precision | str | None
    optimizer: Optimizer | str | None
    framework: Framework | str | None
    launcher: str | None
    constants: Constants | None
    calibration: str | Path | None
    space: Space | str | None
    fixed: Mapping[str, Any] | None
    seed: int | None


WORDS: tuple[str, ...] = ("gpus", *Words.__annotations__)
_WORKLOAD = ("seq_len", "global_batch", "tokens_per_batch", "optimizer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What was asked, looked up and checked once; every command asks one of these."""

    problem: Problem
    """Model, cluster and workload, and the rules of the launcher."""
    launcher: str | None
    """As it was said: two launchers may share their rules."""
    precision: Precision | None
    """None for what the GPU is trained with where nobody says."""
    constants: Constants
    space: Space | str = "core"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    said: Mapping[str, Any] = field(default_factory=dict)
    """The words, as they can be typed again; see :mod:`autopar.job.said`."""
    notes: tuple[str, ...] = ()
    """Sentences that belong above the answer."""

    @classmethod
    def of(
        cls,
        model: ModelSpec | str = "70b",
        gpus: int | None = None,
        *,
        said: Mapping[str, Any] | None = None,
        **words: Unpack[Words],
    ) -> Self:
        """The job that these words describe; ``said`` is how they were typed, if they were.

        Raises
        ------
        SpecError
            For words that are not known and numbers that cannot be.
        """
        given: dict[str, Any] = {n: value for n, value in words.items() if value is not None}
        unknown = [name for name in given if name not in WORDS]
        if unknown:
            raise SpecError(f"unknown word {unknown[0]!r}", hint=f"known: {', '.join(WORDS)}")
        spec = as_model(model)
        cluster = cluster_of(gpus, given)
        launcher = given.get("launcher")
        framework = as_framework(given.get("framework") or framework_of(launcher))
        workload = as_workload(
            spec,
            cluster,
            framework=framework,
            **{name: given[name] for name in _WORKLOAD if name in given},
        )
        precision = given.get("precision")
        job = cls(
            problem=Problem.of(spec, cluster, workload, launcher or SEARCHED),
            launcher=launcher,
            precision=None if precision is None else as_precision(precision, cluster),
            constants=given.get("constants")
            or constants_for(cluster, framework, given.get("calibration")),
            space=given.get("space", "core"),
            fixed=given.get("fixed", {}),
            seed=given.get("seed", 0),
            said=texts_of({"model": model, "gpus": gpus, **given}) if said is None else said,
            notes=_notes(launcher, framework),
        )
        job.space_for(job.problem)  # an unknown axis or space is an error before any work
        return job

    def typed(self) -> dict[str, Any]:
        """What was said of the job alone; empty where those words lead to another one."""
        words = words_in(self.said, ("model", *WORDS))
        try:
            other = Job.of(**words)
        except (SpecError, ValueError):
            return {}
        problem = self.problem
        same = (other.problem, other.constants) == (problem, self.constants)
        if not same or other.space_for(problem) != self.space_for(problem):
            return {}
        return {name: value for name, value in self.said.items() if name in {*words, *AXES}}

    @property
    def name(self) -> str:
        """The launcher whose rules a search obeys, as it was said."""
        return self.launcher or SEARCHED

    def space_for(self, problem: Problem) -> Space:
        """What is open for this model, or for a problem that differs in GPUs or batch."""
        precision = as_precision(self.precision, problem.cluster)
        fixed = {name: v for name, v in self.fixed.items() if name != "stage_layers"}
        return as_space(self.space, problem, precision, fixed)

    def freely(self) -> Problem:
        """The problem of one strategy: rules of the launcher that was said, or of any."""
        return self.problem if self.launcher else replace(self.problem, launcher=_ANY)

    def on(self, gpus: int) -> Self:
        """The same job, batch and all, on another number of GPUs."""
        problem = self.problem
        cluster = replace(problem.cluster, n_gpus=gpus)
        return replace(self, problem=replace(problem, cluster=cluster))


_ANY = launcher_called(PRICED)


def cluster_of(gpus: int | None, words: Mapping[str, Any]) -> Cluster:
    """The GPUs that the words name, without the memory that is to be left alone."""
    cluster = as_cluster(words.get("cluster"), words.get("gpu"), gpus)
    reserve = words.get("reserve_gib")
    return cluster if reserve is None else replace(cluster, reserved_bytes=reserve * GIB)


def one_strategy(
    model: ModelSpec | str | Job,
    strategy: Strategy | Mapping[str, Any],
    gpus: int | None = None,
    *,
    said: Mapping[str, Any] | None = None,
    rules: str = PRICED,
    **words: Unpack[Words],
) -> tuple[Job, Problem, Strategy]:
    """A job and one whole strategy for it; the strategy says how many GPUs where nobody does.

    ``strategy`` may say some knobs only, as text or as values: the others follow, see
    :func:`autopar.job.strategy.complete_strategy`.  ``rules`` are whose hold where no
    launcher is said.

    Raises
    ------
    SpecError
        For words that are not known, and for a strategy on other GPUs than the job's.
    """
    if isinstance(model, Job):
        require_no_words(gpus, words)
        known: int | None = model.problem.cluster.n_gpus
        spec, cluster, launcher = model.problem.model, model.problem.cluster, model.launcher
        precision = as_precision(model.precision, cluster)
    else:
        spec, launcher = as_model(model), words.get("launcher")
        named = words.get("cluster")
        cluster = as_cluster(named, words.get("gpu"), 1 if named is None and not gpus else gpus)
        known = gpus if named is None else cluster.n_gpus
        precision = as_precision(words.get("precision"), cluster)
    if not isinstance(strategy, Strategy):
        rule_book = launcher_called(launcher or rules)
        strategy = complete_strategy(
            strategy, known, launcher=rule_book, moe=spec.is_moe, precision=precision
        )
    world = strategy.world_size
    if known is not None and world != known:
        raise SpecError(
            f"the strategy uses {world} GPUs (dp {strategy.dp} x tp {strategy.tp} x "
            f"pp {strategy.pp} x cp {strategy.cp}), but there are {known}"
        )
    if isinstance(model, Job):
        job = model
    else:
        typed = said if said is not None else texts_of({"model": model, "gpus": gpus, **words})
        job = Job.of(spec, world if words.get("cluster") is None else gpus, said=typed, **words)
    job = replace(job, precision=strategy.precision)
    return job, (job.freely() if rules == PRICED else job.problem), strategy


def require_legal(problem: Problem, strategy: Strategy) -> None:
    """Raise SpecError with every rule that the strategy breaks, each with its numbers."""
    broken = broken_rules(problem, strategy)
    if broken:
        raise SpecError("; ".join(f"{rule.name}: {why}" for rule, why in broken))


def require_no_words(gpus: int | None, words: Mapping[str, Any]) -> None:
    """Raise SpecError where a whole job is given, and words beside it."""
    more = [name for name, value in {"gpus": gpus, **words}.items() if value is not None]
    if more:
        raise SpecError(f"a Job is asked as it is, got {more[0]} beside it", hint="Job.of(...)")


def _notes(launcher: str | None, framework: Framework) -> tuple[str, ...]:
    """What is odd about the pair of them, if a person named both."""
    own = framework_of(launcher)
    if launcher is None or launcher == "any" or own == framework.name:
        return ()
    return (
        f"priced as {framework.name} runs it, as --framework asks, though jobs of {launcher} "
        f"run as {own} does",
    )

"""Optuna's samplers, from nothing or from the points that an exploration starts from.

The loop of :mod:`search.explore.run` without its storage and its workers: the same slots,
seeds and constraints, and so the same trials.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter

import optuna
from optuna.distributions import BaseDistribution, IntDistribution

from benchmarks.search_quality.instances import Instance
from benchmarks.search_quality.task import Task
from search.explore.explore import quiet
from search.explore.run import constrain
from search.explore.sampler import Slotted
from search.explore.start import points_of, solver_ends


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where the runs on an instance start, worked out once, and what that took."""

    points: tuple[Mapping[str, int], ...]
    seconds: float
    n_bounds: int = 0
    """Lower bounds that were computed; no bound is an evaluation."""


_KNOWN: dict[tuple[str, str], Beginning] = {}


def beginning(instance: Instance, seeds: str) -> Beginning:
    """The start by ``bounds``, by the ``solver``, or from nothing."""
    key = (instance.key, seeds)
    if key not in _KNOWN:
        start = perf_counter()
        if seeds == "bounds":
            least = instance.bounds()
            points = points_of(instance.codec, least.strategies.rows())
            _KNOWN[key] = Beginning(points, perf_counter() - start, least.n_bounds)
        elif seeds == "solver":
            points = points_of(instance.codec, solver_ends(instance.question))
            _KNOWN[key] = Beginning(points, perf_counter() - start)
        else:
            _KNOWN[key] = Beginning((), 0.0)
    return _KNOWN[key]


def sampled(task: Task, budget: int, seed: int, *, name: str, seeds: str) -> None:
    """Ask the sampler, tell it what its strategies cost."""
    start = beginning(task.instance, seeds)
    task.charge(start.seconds)
    box: dict[str, BaseDistribution] = {
        axis: IntDistribution(0, size - 1) for axis, size in task.box.items()
    }
    with quiet():
        sampler = Slotted(name, seed, start.points, lambda _, trial: trial.number)
        study = optuna.create_study(directions=["minimize", "minimize"], sampler=sampler)
        for _ in range(budget):
            trial = study.ask(box)
            cost = task.evaluate(trial.params)
            constrain(trial, cost.over_bytes)
            study.tell(trial, (cost.memory_bytes, cost.step_time_s))

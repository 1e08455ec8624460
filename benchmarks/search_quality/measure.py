"""Runs of searches, and what their traces are worth against the exact frontier.

    hypervolume ratio  H(strategies that fit) / H(exact frontier)                         (1)
    regret             fastest step found / fastest step there is - 1                     (2)

H is the area of :mod:`search.frontier.hypervolume` up to all usable memory and twice the fastest
step there is; ``wide`` is (1) up to the slowest step of the exact frontier instead, where what
needs little memory counts for more.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from benchmarks.search_quality.algorithms import Algorithm
from benchmarks.search_quality.exact import Exact
from benchmarks.search_quality.instances import Instance
from benchmarks.search_quality.task import Evaluation, Prices, Spent, Task
from cost_models.specs.units import Floats
from search.frontier.hypervolume import hypervolume

GOAL = 0.995
"""Share of the exact hypervolume that the seeded default search is to reach."""
MARKS = (10, 20, 50, 100, 200, 300, 500, 1000, 2000, 5000, 10000)
"""Numbers of evaluations after which a run is looked at, beside its last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One line of the CSV: a run after so many evaluations."""

    instance: str
    algorithm: str
    seed: int
    evaluations: int
    wall_s: float
    hypervolume: float
    """(1)."""
    wide: float
    regret: float
    """(2); inf where nothing that fits was found."""
    goal_at: int | None
    """Evaluations after which the whole run had the goal; None where it never had."""


def run(
    instance: Instance,
    exact: Exact,
    algorithm: Algorithm,
    *,
    seeds: Iterable[int],
    budget: int,
    limit_s: float | None,
    prices: Prices,
) -> Iterator[Mark]:
    """The marks of an algorithm's runs on an instance."""
    for seed in seeds:
        task = Task(prices, budget, limit_s)
        with suppress(Spent):
            algorithm.search(task, budget, seed)
        yield from marks(instance, exact, algorithm.name, seed, task.trace)


def marks(
    instance: Instance, exact: Exact, algorithm: str, seed: int, trace: Sequence[Evaluation]
) -> Iterator[Mark]:
    """One trace, looked at now and then."""
    costs = [one.cost for one in trace]
    memory = np.array([c.memory_bytes if c.fits else np.inf for c in costs])
    seconds = np.array([c.step_time_s if c.fits else np.inf for c in costs])
    near, far = exact.near(instance.usable_bytes), exact.far(instance.usable_bytes)

    def ratio(n: int, reference: tuple[float, float]) -> float:
        whole = hypervolume(exact.memory_bytes, exact.step_time_s, reference)
        return hypervolume(memory[:n], seconds[:n], reference) / whole if whole else 1.0

    goal_at = _first(len(trace), lambda n: ratio(n, near) >= GOAL)
    for n in sorted({*(mark for mark in MARKS if mark < len(trace)), len(trace)} - {0}):
        yield Mark(
            instance=instance.name,
            algorithm=algorithm,
            seed=seed,
            evaluations=n,
            wall_s=trace[n - 1].at_s,
            hypervolume=ratio(n, near),
            wide=ratio(n, far),
            regret=_regret(seconds[:n], exact),
            goal_at=goal_at,
        )


def _regret(seconds: Floats, exact: Exact) -> float:
    return float(seconds.min() / exact.step_time_s.min() - 1.0)


def _first(most: int, reached: Callable[[int], bool]) -> int | None:
    """The least number that has it; whoever has it keeps it."""
    if not most or not reached(most):
        return None
    return bisect_left(range(1, most + 1), True, key=reached) + 1

"""Searches that are no samplers of Optuna's: a grid, and SciPy's simulated annealing."""

from itertools import product
from math import log, prod
from random import Random
from typing import Any

import numpy as np
from scipy.optimize import dual_annealing

from benchmarks.search_quality.task import Task

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of memory against time, each with a part of the budget."""
PENALTY = 10.0
"""Added to the logarithms for a strategy that does not fit, with its excess."""


def grid(task: Task, budget: int, seed: int) -> None:
    """The finest evenly spaced grid with no more points than the budget, in random order.

    Axes get levels in turn, those with the most positions first.
    """
    levels = dict.fromkeys(task.box, 1)
    order = sorted(task.box, key=lambda name: -task.box[name])
    growing = True
    while growing:
        growing = False
        for name in order:
            more = levels | {name: levels[name] + 1}
            if levels[name] < task.box[name] and prod(more.values()) <= budget:
                levels, growing = more, True
    places = [
        [round(place) for place in np.linspace(0, task.box[name] - 1, levels[name])]
        if levels[name] > 1
        else [0]
        for name in task.box
    ]
    points = list(product(*places))
    Random(seed).shuffle(points)  # noqa: S311  no secret
    for point in points:
        task.evaluate(dict(zip(task.box, point, strict=True)))


def annealing(task: Task, budget: int, seed: int) -> None:
    """SciPy's dual annealing on weighted sums of log memory and log time, one after the other.

    Without its local search, which needs a slope that steps between whole numbers lack.
    """
    names = list(task.box)
    bounds = [(0.0, task.box[name] - 1e-9) for name in names]
    share = budget // len(WEIGHTS)
    for number, weight in enumerate(WEIGHTS):

        def value(x: Any, weight: float = weight) -> float:
            point = {name: int(at) for name, at in zip(names, x, strict=True)}
            cost = task.evaluate(point)
            sum_ = weight * log(cost.memory_bytes) + (1.0 - weight) * log(cost.step_time_s)
            if cost.fits:
                return sum_
            return sum_ + PENALTY + cost.over_bytes / task.instance.usable_bytes

        dual_annealing(
            value,
            bounds,
            maxiter=budget,
            maxfun=share,
            no_local_search=True,
            rng=np.random.default_rng((seed, number)),
        )

"""The frontier once more by the plainest means: every point of the product, one at a time."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import Recompute, Sharding, Strategies, Strategy
from search.frontier.pareto import near_pareto
from search.rules import Problem, broken_rules, rules_for
from search.rules.pipeline import STAGED_SCHEDULES
from search.space.axes import AXES
from search.space.canonical import canonical_strategy
from search.space.space import Space
from search.sweep.blocks import blocks
from search.sweep.layouts import grow_layouts

CONSTANTS = replace(prior_constants(), framework_bytes=1e6, communicator_bytes=1e5)
"""Overheads that leave room on a tiny GPU."""


def _uses_all(space: Space, degrees: tuple[int, ...]) -> bool:
    return math.prod(degrees) == space.world_size


def _spelled(space: Space, problem: Problem) -> Iterator[Strategy]:
    """Every raw point of the product that uses all GPUs, as a strategy."""
    degrees = [axis for axis in AXES if axis in ("tp", "pp", "cp", "dp")]
    others = [axis for axis in AXES if axis not in degrees]
    for split, rest in product(
        [split for split in product(*(space.axes[a] for a in degrees)) if _uses_all(space, split)],
        product(*(space.axes[axis] for axis in others)),
    ):
        point: dict[str, Any] = dict(zip((*degrees, *others), (*split, *rest), strict=True))
        alone = point["pp"] == 1
        if alone and point["schedule"] in (*STAGED_SCHEDULES, *sorted(space.axes["schedule"])[1:]):
            continue
        whole = 1 if point["sharding"] == Sharding.NONE else point["dp"]
        if point["sharding"] != Sharding.HSDP:
            point["dp_shard"] = whole
        elif point["dp_shard"] < 2:
            continue
        largest = math.ceil(problem.model.n_layers / point["pp"])
        layers = point["recompute_layers"]
        if isinstance(layers, float):
            layers = min(largest, math.ceil(layers * largest / point["vpp"]) * point["vpp"])
        point["recompute_layers"] = 0 if layers == largest else layers
        if point["recompute"] != Recompute.FULL:
            point["recompute_layers"] = 0
        yield Strategy(**point)


def legal_strategies(space: Space, problem: Problem) -> list[Strategy]:
    """What every rule allows, each strategy in one spelling, its schedule in the space."""
    distinct = {canonical_strategy(s, moe=space.moe) for s in _spelled(space, problem)}
    asked = [s for s in distinct if s.pp == 1 or s.schedule in space.axes["schedule"]]
    return [s for s in asked if not broken_rules(problem, s)]


def price_one(problem: Problem, strategy: Strategy, constants: Constants) -> tuple[float, float]:
    """Memory and step time of one strategy alone."""
    cost = step_cost(
        problem.model, problem.cluster, problem.workload, Strategies.of(strategy), constants
    )
    return float(cost.memory.total_bytes[0]), float(cost.step_time_s[0])


def not_beaten(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """Costs that no other is at least as good as in both and better in one."""
    return {
        (memory, time)
        for memory, time in points
        if not any(m <= memory and t <= time and (m, t) != (memory, time) for m, t in points)
    }


def block_frontier(
    space: Space, problem: Problem, constants: Constants
) -> tuple[Strategies, int, int]:
    """Near-frontier, legal and fitting counts of a space priced whole, without any bound."""
    rules = rules_for(problem.launcher.name)
    layouts, _ = grow_layouts(space, problem, rules)
    found, legal, fits = [], 0, 0
    for block in blocks(space, problem, layouts, rules):
        cost = step_cost(
            problem.model,
            problem.cluster,
            problem.workload,
            block.strategies,
            constants,
            breakdown=False,
        )
        memory, seconds = cost.memory.total_bytes.reshape(-1), cost.step_time_s.reshape(-1)
        usable = block.legal.reshape(-1) & (memory <= problem.cluster.usable_memory_bytes)
        legal += int(np.count_nonzero(block.legal))
        fits += int(np.count_nonzero(usable))
        rows = np.flatnonzero(usable)
        if len(rows):
            found.append(block.strategies.take(rows[near_pareto(memory[rows], seconds[rows])]))
    return Strategies.concatenate(found), legal, fits

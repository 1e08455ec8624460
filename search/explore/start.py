"""Where an exploration starts, and what its start proves about its end."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from search.explore.codec import Codec
from search.explore.record import StudyProblem, StudyStart
from search.explore.run import price
from search.feasible.feasible import extreme_layouts, find_layouts
from search.frontier.hypervolume import hypervolume
from search.rules import rules_for
from search.sweep.bound_frontier import BoundFrontier, bound_frontier
from search.sweep.census import Census
from search.sweep.least_memory import leanest, memory_model, min_memory

MOST_SEEDS = 250
"""Points that a study starts from: half the trials of an exploration of the default budget."""
SLOW = 2.0
"""Times the fastest step: what is slower dominates nothing of a hypervolume."""


def box_of(codec: Codec) -> dict[str, int]:
    """Positions on every axis that is explored."""
    return {axis.name: axis.size for axis in codec.axes}


def start(asked: StudyProblem, codec: Codec, census: Census) -> StudyStart:
    """Where a new study begins: at the best of the bounds, at the solver's ends, or anywhere."""
    seeds: list[Strategy] = []
    least: BoundFrontier | None = None
    if asked.options.seeds == "bounds":
        least = bound_frontier(asked.problem, asked.constants, census)
        seeds = least.strategies.rows()
    if asked.options.seeds == "solver" or (least is not None and not least.complete):
        seeds = [*solver_ends(asked), *seeds]
    points = points_of(codec, seeds)
    first = codec.strategy(points[0] if points else {})
    return StudyStart(
        box=box_of(codec),
        points=points,
        price=price(asked.problem, asked.constants, first)[0],
        least=_steps(least) if least is not None and least.complete else (),
    )


def points_of(codec: Codec, seeds: Sequence[Strategy]) -> tuple[Mapping[str, int], ...]:
    """The first of the strategies as distinct points, in their order."""
    points = {json.dumps(p, sort_keys=True): p for p in map(codec.point, seeds[:MOST_SEEDS])}
    return tuple(points.values())


def _steps(least: BoundFrontier) -> tuple[tuple[float, float], ...]:
    return tuple(zip(least.memory_bytes.tolist(), least.least_s.tolist(), strict=True))


def solver_ends(asked: StudyProblem) -> list[Strategy]:
    """The solver's layouts that fit at the ends of the range, with their leanest knobs."""
    problem, space = asked.problem, asked.space
    rules, memory = rules_for(problem.launcher.name), memory_model(asked.constants)
    found = find_layouts(
        space,
        problem,
        rules,
        min_memory_bytes=min_memory(space, problem, rules, memory),
        capacity_bytes=problem.cluster.usable_memory_bytes,
    )
    if found.memory_bytes is None or not len(found.strategies):
        return []
    ends = extreme_layouts(found.strategies, found.memory_bytes)
    return leanest(space, problem, rules, Strategies.of(ends), memory).strategies.rows()


def least_share(
    start: StudyStart, asked: StudyProblem, memory: Floats, seconds: Floats
) -> float | None:
    """Share of the exact frontier's hypervolume that is certain to be found; None if none is."""
    if not start.least:
        return None
    reference = (asked.problem.cluster.usable_memory_bytes, SLOW * float(seconds.min()))
    least_memory, least_s = np.array(start.least).T
    return hypervolume(memory, seconds, reference) / hypervolume(least_memory, least_s, reference)

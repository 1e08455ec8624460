"""The exhaustive sweep: every legal strategy of a space, priced or proved dominated."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cost_models.constants import Constants
from cost_models.step import step_cost
from cost_models.strategy import Strategies
from search.blocks import blocks
from search.layouts import grow_layouts
from search.result import Certificate, Counts, pareto_mask
from search.rules import Problem, rules_for
from search.space import Space

Progress = Callable[[float], None]
"""Told now and then which share of the work is done, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: flat columns that hold the frontier, and what was counted."""

    candidates: Strategies
    counts: Counts
    certificate: Certificate


def sweep(
    problem: Problem, space: Space, constants: Constants, *, progress: Progress | None = None
) -> Swept:
    """The strategies of ``space`` that no other beats in both memory and step time."""
    rules = rules_for(problem.launcher.name)
    layouts, removed = grow_layouts(space, problem, rules)
    capacity = problem.cluster.usable_memory_bytes
    found: list[Strategies] = []
    legal = fits = done = 0
    for block in blocks(space, problem, layouts, rules):
        s = block.strategies
        cost = step_cost(
            problem.model, problem.cluster, problem.workload, s, constants, breakdown=False
        )
        memory = cost.memory.total_bytes
        usable = block.legal & (memory <= capacity)
        legal += int(np.count_nonzero(block.legal))
        fits += int(np.count_nonzero(usable))
        index = np.flatnonzero(usable)
        mask = pareto_mask(memory.reshape(-1)[index], cost.step_time_s.reshape(-1)[index])
        found.append(s.take(index[mask]))
        done += s.shape[0]
        if progress is not None:
            progress(min(done / len(layouts), 1.0))
    candidates = Strategies.concatenate(found) if found else Strategies().flat()
    candidates = candidates if found else candidates.take(np.zeros(0, dtype=np.int64))
    pruned = {name: count * space.knob_size for name, count in removed.items() if count}
    pruned["memory"] = legal - fits
    counts = Counts(
        space=space.size,
        legal=legal,
        fits=fits,
        priced=fits,
        layouts=len(layouts),
        pruned_by=pruned,
    )
    return Swept(candidates, counts, Certificate(complete=True, method="sweep"))

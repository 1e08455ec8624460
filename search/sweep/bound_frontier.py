"""The frontier of the lower bounds: which strategies are worth pricing, and what they could add.

The sweep of :mod:`search.sweep.branch_and_bound` with the bound of
:mod:`cost_models.equations.bound` in place of the price: memory is exact, time can only be
longer.  No strategy is priced.  The exact frontier lies nowhere below this one, so that

    hypervolume(priced) <= hypervolume(exact frontier) <= hypervolume(bound frontier)    (1)

and their quotient says how much of it whatever was priced has at least.

In spaces of more than :data:`MOST_ENTRIES` the first blocks of layouts are bounded and the
others are not; (1) then says nothing.
"""

from dataclasses import dataclass, field
from itertools import accumulate
from math import prod

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from search.frontier.hypervolume import in_order_of_gain
from search.frontier.pareto import Incumbents, pareto_mask
from search.rules import Problem
from search.sweep.branch_and_bound import SweepProblem
from search.sweep.census import Census
from search.sweep.memory_halves import MEMORY
from search.sweep.sweep import Block, blocks_of, scout, sweep_blocks

MOST_ENTRIES = 500_000_000
"""Entries of the memory grid that are bounded: seconds, on two cores."""


@dataclass(frozen=True, slots=True)
class RelaxedProblem(SweepProblem):
    """The relaxation of a sweep problem: prices are their lower bounds, and are counted."""

    calls: list[int] = field(default_factory=list)
    """RelaxedProblem of each call; appending is safe in threads."""

    def seconds(self, strategies: Strategies, *, bound: bool) -> Floats:
        """Lower bounds of step times, asked for as such or not."""
        del bound
        self.calls.append(prod(strategies.shape))
        return SweepProblem.seconds(self, strategies, bound=True)

    def layout_bound_s(self, strategies: Strategies) -> Floats:
        """The layout nodes' own bound."""
        self.calls.append(prod(strategies.shape))
        return SweepProblem.layout_bound_s(self, strategies)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundFrontier:
    """Strategies whose bounds no other's beat, what could add most first."""

    strategies: Strategies
    memory_bytes: Floats
    """Exact."""
    least_s: Floats
    """Lower bounds of the step times."""
    complete: bool
    """The bounds are of the whole space, and hold."""
    n_bounds: int
    """RelaxedProblem that were computed."""


def bound_frontier(
    problem: Problem, constants: Constants, census: Census, *, threads: int = 2
) -> BoundFrontier:
    """The frontier of the bounds of a space, or of its first blocks where it is vast."""
    return frontier_of_bounds(RelaxedProblem(problem, constants), census, threads=threads)


def frontier_of_bounds(q: RelaxedProblem, census: Census, *, threads: int = 2) -> BoundFrontier:
    """The same for bounds of one's own."""
    incumbents = Incumbents()
    scout(q, census, incumbents)
    blocks = blocks_of(census.grids)
    entries = accumulate(_entries(block) for block in blocks)
    some = [b for b, sum_ in zip(blocks, entries, strict=True) if sum_ <= MOST_ENTRIES] or blocks[
        :1
    ]
    sweep_blocks(q, some, incumbents, threads=threads)
    strategies = incumbents.strategies
    memory = least = np.zeros(0)
    if len(strategies):
        memory, least = q.bytes(strategies), q.seconds(strategies, bound=True)
    rows = np.flatnonzero(pareto_mask(memory, least))
    capacity = q.problem.cluster.usable_memory_bytes
    rows = rows[in_order_of_gain(memory[rows], least[rows], capacity)]
    return BoundFrontier(
        strategies=strategies.take(rows),
        memory_bytes=memory[rows],
        least_s=least[rows],
        complete=q.bounded and len(some) == len(blocks),
        n_bounds=sum(q.calls),
    )


def _entries(block: Block) -> int:
    g, rows = block
    return len(rows) * prod(axis.size for axis in g.axes if axis.name in MEMORY)

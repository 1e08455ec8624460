"""Each layout's best case: the least memory that any of its legal knobs leaves it.

Knobs that memory does not read stay at one value, and rules that read those knobs are
set aside.  What is left can only be leaner than the truth, so a layout that does not fit
here fits nowhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.equations.constants import Constants
from cost_models.equations.memory import peak_memory_bytes
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from search.rules.rule import Problem, Rule
from search.space.axes import KNOB_AXES
from search.space.space import Space
from search.sweep.knob_axes import LAYOUT, classes, grid, knob_axes
from search.sweep.legality import ENTRIES, LegalGrid, legal_grid
from search.sweep.rows import Rows, flat_axes

MEMORY_KNOBS = (
    "sharding",
    "dp_shard",
    "reshard_after_forward",
    "recompute",
    "recompute_layers",
    "sequence_parallel",
    "optimizer_offload",
    "activation_offload",
    "precision",
)

MemoryModel = Callable[[Problem, Strategies], NDArray[np.float64]]
"""Bytes on the worst GPU of each strategy; shapes broadcast."""


def memory_model(constants: Constants) -> MemoryModel:
    """The cost model's peak memory, of the strategies' shape, with these constants."""

    def memory(problem: Problem, strategies: Strategies) -> Floats:
        peak = peak_memory_bytes(problem.model, problem.workload, strategies, constants)
        return np.broadcast_to(peak, strategies.shape)

    return memory


@dataclass(frozen=True, slots=True)
class Leanest:
    """The leanest strategy of every layout, in the layouts' order."""

    strategies: Strategies
    memory_bytes: Floats
    """Infinite where no knobs are legal."""

    def best(self) -> Strategy | None:
        """The leanest of all, the earliest of equals; None if there is none."""
        if not len(self.memory_bytes) or not np.isfinite(self.memory_bytes).any():
            return None
        return self.strategies.row(int(np.argmin(self.memory_bytes)))


def memory_space(space: Space) -> Space:
    """The same space with the knobs that memory does not read at one value."""
    still = {axis: space.axes[axis][:1] for axis in KNOB_AXES if axis not in MEMORY_KNOBS}
    return space.with_(**still)


def leanest(
    space: Space,
    problem: Problem,
    rules: Sequence[Rule],
    layouts: Strategies,
    memory: MemoryModel,
) -> Leanest:
    """The least memory of each layout, and the knobs that reach it."""
    small = memory_space(space)
    still = set(KNOB_AXES) - set(MEMORY_KNOBS)
    reading = [rule for rule in rules if not still & set(rule.knobs)]
    layouts = layouts.flat()
    least = np.full(len(layouts), np.inf)
    columns = {name: np.array(c) for name, c in layouts.columns.items()}
    for facts, members in classes(small, layouts):
        some = layouts.take(members)
        axes = knob_axes(small, facts, some, problem.model.n_layers)
        legal = legal_grid(problem, some, axes, reading)
        alive = legal.alive()
        g, rows = legal.only(alive), members[alive[LAYOUT]]
        step = max(1, ENTRIES // prod(axis.size for axis in g.axes))
        for start in range(0, len(rows), step):
            here = rows[start : start + step]
            least[here], knobs = _leanest_of(g.rows(slice(start, start + step)), problem, memory)
            for name in KNOB_AXES:
                columns[name][here] = knobs[name]
    return Leanest(Strategies(**columns), least)


_ORDER = ("kept", "precision", "sequence_parallel", "sharding", "optimizer_offload")
"""Axes from the slowest to the fastest; of choices that hold the same the first is taken."""


def _leanest_of(
    g: LegalGrid, problem: Problem, memory: MemoryModel
) -> tuple[Floats, dict[str, NDArray[Any]]]:
    """The least memory of each of the grid's layouts, all alive, and the knobs that reach it."""
    strategies = grid(g.layouts, g.axes)
    wide = [name for name in g.sizes if name != LAYOUT]
    order = [name for name in _ORDER if name in wide]
    order += [name for name in wide if name not in order]
    legal = np.broadcast_to(g.mask((*wide, LAYOUT)), strategies.shape)
    bytes_used = np.where(legal, memory(problem, strategies), np.inf)
    turned = bytes_used.transpose([*map(wide.index, order), len(wide)])
    n = len(g.layouts)
    pick = np.argmin(turned.reshape(-1, n), axis=0)
    index = {axis.name: np.zeros(n, dtype=np.int64) for axis in g.axes}
    if order:
        index |= dict(zip(order, np.unravel_index(pick, turned.shape[:-1]), strict=True))
    chosen = Rows({**index, LAYOUT: np.arange(n)}, n)
    knobs = flat_axes(g, chosen, tuple(axis.name for axis in g.axes))
    return turned.reshape(-1, n)[pick, np.arange(n)], knobs


def min_memory(
    space: Space, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> Callable[[Strategies], Floats]:
    """``find_layouts``'s ``min_memory_bytes`` from a memory model."""
    return lambda layouts: leanest(space, problem, rules, layouts, memory).memory_bytes

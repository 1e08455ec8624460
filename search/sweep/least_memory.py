"""Each layout's best case: the least memory that any of its legal knobs leaves it.

Knobs that memory does not read stay at one value, and rules that read those knobs are
set aside.  What is left can only be leaner than the truth, so a layout that does not fit
here fits nowhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.equations.constants import Constants
from cost_models.equations.memory import peak_memory_bytes
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats, Ints
from search.rules.rule import LAYOUT_AXES, Problem, Rule
from search.space.axes import KNOB_AXES
from search.space.space import Space
from search.sweep.blocks import blocks

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


def _keys(space: Space, layouts: Strategies) -> Ints:
    """One number for each layout: its place in the raw product of the axes."""
    keys = np.zeros(layouts.shape, dtype=np.int64)
    for axis in LAYOUT_AXES:
        values = np.sort(np.asarray(space.axes[axis], dtype=np.int64))
        keys = keys * len(values) + np.searchsorted(values, layouts.columns[axis])
    return np.asarray(keys.reshape(-1), dtype=np.int64)


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
    least = np.full(len(layouts), np.inf)
    columns = {name: np.array(c) for name, c in layouts.flat().columns.items()}
    keys = _keys(space, layouts)
    order = np.argsort(keys, kind="stable")
    for block in blocks(small, problem, layouts, reading):
        grid = block.strategies
        bytes_used = np.where(block.legal, memory(problem, grid), np.inf)
        pick = np.argmin(bytes_used, axis=1)
        value = bytes_used[np.arange(len(pick)), pick]
        rows = order[np.searchsorted(keys[order], _keys(space, grid.take(_first_column(grid))))]
        better = value < least[rows]
        least[rows[better]] = value[better]
        for name in KNOB_AXES:
            columns[name][rows[better]] = grid.columns[name].reshape(-1)[pick[better]]
    return Leanest(Strategies(**columns), least)


def _first_column(grid: Strategies) -> Ints:
    return np.asarray(np.arange(grid.shape[0]) * grid.shape[1], dtype=np.int64)


def min_memory(
    space: Space, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> Callable[[Strategies], Floats]:
    """``find_layouts``'s ``min_memory_bytes`` from a memory model."""
    return lambda layouts: leanest(space, problem, rules, layouts, memory).memory_bytes

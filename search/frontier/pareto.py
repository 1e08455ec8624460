"""What is beaten and what is not: masks of batches, and a frontier that grows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from search.rules.rule import Mask

SLACK = 1e-9
"""Relative difference of step times below which two strategies count as equally fast.

A bound is computed in another order than what it bounds, so that the last digits of both
may differ; whoever is within the slack is kept and judged at the end.
"""


class Staircase:
    """The best step time known for every amount of memory."""

    def __init__(self, memory_bytes: ArrayLike = (), step_time_s: ArrayLike = ()) -> None:
        self._steps, self._best = _steps(np.asarray(memory_bytes), np.asarray(step_time_s))

    def best_time(self, memory_bytes: ArrayLike) -> Floats:
        """Seconds of the fastest known strategy that needs no more memory; inf for none."""
        place = np.searchsorted(self._steps, memory_bytes, side="right")
        return np.concatenate([[np.inf], self._best])[place]

    def beats(self, memory_bytes: ArrayLike, step_time_s: ArrayLike) -> Mask:
        """Where a known strategy is faster, beyond the slack, and needs no more memory.

        With lower bounds for arguments: everything that they bound is beaten.
        """
        return np.asarray(self.best_time(memory_bytes) < np.asarray(step_time_s) * (1.0 - SLACK))

    def lower(self, memory_bytes: ArrayLike, step_time_s: ArrayLike) -> None:
        """Take in more points."""
        memory = np.append(self._steps, memory_bytes)
        self._steps, self._best = _steps(memory, np.append(self._best, step_time_s))


class Incumbents(Staircase):
    """A staircase with the strategies behind it, and those within :data:`SLACK` of the best."""

    def __init__(self) -> None:
        super().__init__()
        self._memory: Floats = np.zeros(0)
        self._time: Floats = np.zeros(0)
        self._strategies: Strategies | None = None

    def __len__(self) -> int:
        return len(self._memory)

    def add(self, memory_bytes: Floats, step_time_s: Floats, strategies: Strategies) -> None:
        """Take in flat strategies with their cost; what is then beaten is forgotten."""
        keep = near_pareto(memory_bytes, step_time_s)
        keep &= ~self.beats(memory_bytes, step_time_s)
        if not keep.any():
            return
        parts = [strategies.take(keep)]
        if self._strategies is not None:
            parts.insert(0, self._strategies)
        memory = np.concatenate([self._memory, memory_bytes[keep]])
        time = np.concatenate([self._time, step_time_s[keep]])
        rows = near_pareto(memory, time)
        self._memory, self._time = memory[rows], time[rows]
        self._strategies = Strategies.concatenate(parts).take(rows)
        self.lower(self._memory, self._time)

    @property
    def strategies(self) -> Strategies:
        """Everything kept, as flat columns."""
        if self._strategies is None:
            return Strategies().flat().take(np.zeros(0, dtype=np.int64))
        return self._strategies


def near_pareto(memory_bytes: Floats, step_time_s: Floats) -> Mask:
    """Rows that no other row beats by more than the slack in time, ties among them.

    Rows far behind fall to a few good ones first, so that only the rest is sorted.
    """
    alive = np.ones(len(memory_bytes), dtype=np.bool_)
    if len(alive) > _SMALL:
        some = np.unique(np.linspace(0, len(alive) - 1, _SMALL).astype(np.int64))
        some = np.union1d(some, [np.argmin(memory_bytes), np.argmin(step_time_s)])
        steps, best = _steps(memory_bytes[some], step_time_s[some])
        alive = _within(steps, best, memory_bytes, step_time_s)
    rows = np.flatnonzero(alive)
    steps, best = _steps(memory_bytes[rows], step_time_s[rows])
    alive[rows] = _within(steps, best, memory_bytes[rows], step_time_s[rows])
    return alive


_SMALL = 512


def _steps(memory: Floats, time: Floats) -> tuple[Floats, Floats]:
    mask = pareto_mask(memory, time)
    order = np.argsort(memory[mask])
    return memory[mask][order], time[mask][order]


def _within(steps: Floats, best: Floats, memory: Floats, time: Floats) -> Mask:
    place = np.searchsorted(steps, memory, side="right")
    return np.asarray(np.concatenate([[np.inf], best])[place] >= time * (1.0 - SLACK))


def pareto_mask(*objectives: ArrayLike) -> Mask:
    """Rows that no other row beats: at most as large in all objectives, smaller in one.

    Of equal rows the first stays.  Two objectives take one sort; more take a pass over
    the survivors for each survivor.
    """
    columns = [np.asarray(values, dtype=np.float64) for values in objectives]
    if len(columns) == 2:
        return _pareto_mask_of_two(*columns)
    table: NDArray[np.float64] = np.stack(columns, axis=1)
    order = np.lexsort((np.arange(len(table)), *columns[::-1]))
    mask = np.zeros(len(table), dtype=np.bool_)
    waiting = order
    while len(waiting):
        # the first in lexical order is beaten by nothing behind it
        first, waiting = waiting[0], waiting[1:]
        mask[first] = True
        waiting = waiting[~(table[first] <= table[waiting]).all(axis=1)]
    return mask


def _pareto_mask_of_two(memory: Floats, time: Floats) -> Mask:
    order = np.lexsort((np.arange(len(time)), memory, time))
    best = np.minimum.accumulate(np.concatenate([[np.inf], memory[order][:-1]]))
    mask = np.zeros(len(time), dtype=np.bool_)
    mask[order[memory[order] < best]] = True
    return mask

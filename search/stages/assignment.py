"""Layers assigned to pipeline ranks exactly, without a solver, where that can be done.

*All layers alike.*  With f_r what rank r takes beside its layers and a one layer's time,
the slowest rank is fastest where every layer in turn goes to the rank that is done with it
first, of those that have room: any other way gives some rank a layer that ends later.  That
time t leaves rank r at most (t - f_r) / a layers; assigned once more within these limits, each
to the rank that holds least with it, they leave the fullest rank as empty as t allows.

*One chunk on each rank.*  Under limits on time and memory a chunk that begins at a layer
ends no further than some other.  Taking the furthest end each time reaches the model's end
if anything does; a bisection on the limit finds the least.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heapreplace
from itertools import pairwise

import numpy as np

from cost_models.specs.units import Floats, Ints
from search.stages.problem import Assignment, Proof, StagePlan, StageProblem

EPSILON = 1e-9
"""Share of a layer that is rounding."""
BISECTIONS = 52
"""As many as a float has digits."""


def assign_alike(problem: StageProblem, *, last_may_be_empty: bool = False) -> StagePlan:
    """The fastest layout of layers that are alike, and of those the leanest.

    ``last_may_be_empty`` allows a last chunk with nothing but the head.

    >>> plan = assign_alike(StageProblem(n_layers=10, pp=4, layer_s=1.0, chunk_s=[1, 0, 0, 2],
    ...                                capacity_bytes=1.0))
    >>> plan.stage_layers, plan.slowest_s, plan.proof.value
    ((3, 3, 3, 1), 4.0, 'optimal')
    """
    least = np.full(problem.n_chunks, problem.min_layers)
    if last_may_be_empty and problem.n_chunks > 1:
        least[-1] = 0
    ranks = _Ranks(problem, least)
    fastest = ranks.assign(lambda r, n: (ranks.seconds(r, n), ranks.bytes(r, n)), ranks.room)
    if fastest is None:
        return StagePlan(proof=Proof.INFEASIBLE)
    slowest_s = float(ranks.times(fastest).max())
    most = np.floor((slowest_s - ranks.fixed_s) / ranks.layer_s + EPSILON).astype(np.int64)
    within = np.minimum(ranks.room, most)
    leanest = ranks.assign(lambda r, n: (ranks.bytes(r, n), ranks.seconds(r, n)), within)
    layers = ranks.spread(fastest if leanest is None else leanest)
    answer = Assignment(tuple(layers.tolist()), (0,) * problem.n_chunks)
    return StagePlan.of(problem, Proof.OPTIMAL, answer, slowest_s)


def relaxed(problem: StageProblem) -> StagePlan:
    """The plan for the layers of the commonest kind alone, assigned to ranks at will.

    All layers in their order take no less: its ``slowest_s`` is a lower bound, and where
    nothing fits here nothing does.
    """
    names = ("layer_s", "layer_bytes", "activation_bytes", "recomputed_bytes", "recompute_s")
    table = np.stack([problem.row(name) for name in names])
    kinds, counts = np.unique(table, axis=1, return_counts=True)
    common = kinds[:, int(np.argmax(counts))].tolist()
    values = dict(zip(names, common, strict=True))
    fewer = replace(problem, n_layers=int(counts.max()), min_layers=0, **values)
    return assign_alike(fewer)


def assign_in_order(problem: StageProblem) -> StagePlan:
    """The fastest layout with one chunk on each rank, and of those the leanest.

    >>> plan = assign_in_order(StageProblem(n_layers=5, pp=2, layer_s=[1, 1, 1, 2, 3],
    ...                                   capacity_bytes=1.0))
    >>> plan.stage_layers, plan.slowest_s
    ((4, 1), 5.0)
    """
    layers = _line_of(problem).assign(problem.row("capacity_bytes").tolist())
    if layers is None:
        return StagePlan(proof=Proof.INFEASIBLE)
    answer = Assignment(layers, (0,) * problem.n_chunks)
    return StagePlan.of(problem, Proof.OPTIMAL, answer, 0.0)


def _least(holds: Callable[[float], bool], high: float) -> float:
    """The least value up to ``high`` where ``holds`` does, to the last digits."""
    low = 0.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


@dataclass(frozen=True, slots=True)
class Line:
    """Ranks in model order with one chunk each; what a layer costs may differ by rank."""

    seconds: Sequence[Sequence[float]]
    """For each rank, time of the layers before each layer, shape (layers + 1,)."""
    held: Sequence[Sequence[float]]
    """For each rank, bytes of the layers before each layer, shape (layers + 1,)."""
    fixed_s: Sequence[float]
    """Time of each rank beside its layers."""
    fixed_bytes: Sequence[float]
    min_layers: int = 1

    def assign(self, capacity_bytes: Sequence[float]) -> tuple[int, ...] | None:
        """Layers of each rank: the slowest as fast as can be, then the fullest as empty."""
        most_s = max(f + s[-1] for f, s in zip(self.fixed_s, self.seconds, strict=True))
        if self._ends(most_s, capacity_bytes) is None:
            return None
        slowest_s = _least(lambda limit: self._ends(limit, capacity_bytes) is not None, most_s)

        def within(limit: float) -> list[int] | None:
            return self._ends(slowest_s, [min(room, limit) for room in capacity_bytes])

        ends = within(_least(lambda limit: within(limit) is not None, max(capacity_bytes)))
        return None if ends is None else tuple(b - a for a, b in pairwise([0, *ends]))

    def _ends(self, limit_s: float, room: Sequence[float]) -> list[int] | None:
        """Ends of all chunks within the limits; None where there are none."""
        ends, begin, n = [], 0, len(self.seconds[0]) - 1
        for k, (seconds, held) in enumerate(zip(self.seconds, self.held, strict=True)):
            end = min(
                bisect_right(seconds, limit_s - self.fixed_s[k] + seconds[begin]),
                bisect_right(held, room[k] - self.fixed_bytes[k] + held[begin]),
                n + 1 - self.min_layers * (len(room) - 1 - k),
            )
            if end - 1 - begin < self.min_layers:
                return None
            begin = end - 1
            ends.append(begin)
        return ends if begin == n else None


def _line_of(problem: StageProblem) -> Line:
    state, kept = (before(problem.row(n)) for n in ("layer_bytes", "activation_bytes"))
    return Line(
        seconds=[before(problem.row("layer_s")).tolist()] * problem.pp,
        held=[(state + f * kept).tolist() for f in problem.row("in_flight").tolist()],
        fixed_s=problem.row("chunk_s").tolist(),
        fixed_bytes=problem.row("chunk_bytes").tolist(),
        min_layers=problem.min_layers,
    )


def before(table: Floats) -> Floats:
    """Sum of the values before each place, and of all."""
    return np.concatenate([[0.0], np.cumsum(table)])


class _Ranks:
    """What each rank takes and holds with a number of layers."""

    def __init__(self, problem: StageProblem, least: Ints) -> None:
        self._problem, self._least = problem, least
        self._chunk_s = problem.row("chunk_s")
        pp, rank = problem.pp, problem.rank
        self.layer_s = max(float(problem.row("layer_s")[0]), 1e-300)
        self.fixed_s = np.bincount(rank, problem.row("chunk_s"), pp).astype(np.float64)
        self.fixed_bytes = np.bincount(rank, problem.row("chunk_bytes"), pp).astype(np.float64)
        self._start = np.bincount(rank, least, pp).astype(np.int64)
        self._turns = [self._in_turn(np.flatnonzero(rank == r)) for r in range(pp)]
        each = problem.row("layer_bytes")[0]
        each = each + problem.row("in_flight") * problem.row("activation_bytes")[0]
        self._bytes = [
            fixed + np.concatenate([[0.0], np.cumsum(each[turns])])
            for fixed, turns in zip(self.fixed_bytes.tolist(), self._turns, strict=True)
        ]
        capacity = problem.row("capacity_bytes").tolist()
        self.room = np.array(
            [
                int(np.searchsorted(held, most, side="right")) - 1
                for held, most in zip(self._bytes, capacity, strict=True)
            ]
        )

    def seconds(self, rank: int, count: int) -> float:
        """Time of a rank with ``count`` layers."""
        return float(self.fixed_s[rank]) + count * self.layer_s

    def bytes(self, rank: int, count: int) -> float:
        """Memory of a rank with ``count`` layers."""
        return float(self._bytes[rank][count])

    def times(self, counts: Ints) -> Floats:
        """Time of every rank."""
        return np.asarray(self.fixed_s + counts * self.layer_s)

    def assign(self, cost: Callable[[int, int], tuple[float, float]], most: Ints) -> Ints | None:
        """Each layer to the rank where it costs least, up to ``most``; None without room."""
        counts = self._start.copy()
        n = self._problem.n_layers
        if (counts > most).any() or most.sum() < n:
            return None
        heap = [(cost(r, c + 1), r) for r, c in enumerate(counts.tolist()) if c < most[r]]
        heapify(heap)
        for _ in range(n - int(counts.sum())):
            rank = heap[0][1]
            counts[rank] += 1
            count = int(counts[rank])
            if count < most[rank]:
                heapreplace(heap, (cost(rank, count + 1), rank))
            else:
                heappop(heap)
        return counts

    def spread(self, counts: Ints) -> Ints:
        """Layers of every chunk."""
        layers = np.zeros(self._problem.n_chunks, dtype=np.int64)
        for turns, count in zip(self._turns, counts.tolist(), strict=True):
            np.add.at(layers, turns[:count], 1)
        return layers

    def _in_turn(self, chunks: Ints) -> Ints:
        """Chunk of a rank's first, second, ... layer: the one that is done first.

        Of equals the last: it holds fewest micro-batches, and the first are what a pipeline
        fills and drains through.
        """
        behind = chunks[::-1]
        turns = np.repeat(behind, self._least[behind]).tolist()
        ready = [(self._time(int(k), int(self._least[k]) + 1), -int(k)) for k in behind]
        heapify(ready)
        layers = self._least.copy()
        while len(turns) < self._problem.n_layers:
            k = -ready[0][1]
            turns.append(k)
            layers[k] += 1
            heapreplace(ready, (self._time(k, int(layers[k]) + 1), -k))
        return np.array(turns, dtype=np.int64)

    def _time(self, chunk: int, layers: int) -> float:
        """Time of a chunk, rounded so that equals are equal."""
        each = self.layer_s
        return round(float(self._chunk_s[chunk]) / each + layers, 6)

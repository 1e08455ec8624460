"""What a chunk or a rank can hold at most under a time: bounds that speed the solver up.

All of them follow from the constraints in :mod:`search.stages.model`; they only say it
sooner.  The reach of a chunk that begins at layer b is the furthest layer at which it may
end; walking through the reaches from either end bounds where every chunk begins.  The
count of a rank bounds how many layers of the commonest kind it takes beside given numbers
of the other kinds, wherever they lie in the model.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np

from cost_models.specs.units import Ints

MOST_KINDS = 3
MOST_ROWS = 20_000
"""Beyond these a table of counts would cost more than it saves."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StageUnits:
    """A stage problem in whole units of time and memory; layers L, chunks C, ranks R."""

    layer_time: Ints
    """Shape (L,)."""
    again_time: Ints
    """Shape (L,): more when recomputed."""
    chunk_time: Ints
    """Shape (C,)."""
    layer_held: Ints
    """Shape (C, L)."""
    layer_saved: Ints
    """Shape (C, L): less when recomputed."""
    chunk_held: Ints
    """Shape (C,)."""
    capacity: Ints
    """Shape (R,)."""
    rank: Ints
    """Shape (C,): rank of each chunk."""
    min_layers: int
    recomputed: int | None = None
    """Layers that every chunk recomputes if it has so many; None is free."""

    @property
    def most_time(self) -> int:
        """Time that no rank exceeds."""
        return int(self.layer_time.sum() + self.again_time.sum() + self.chunk_time.sum())

    def times(self, stage_layers: tuple[int, ...], again: tuple[int, ...]) -> Ints:
        """Time of each chunk of a layout."""
        end = np.cumsum(stage_layers)
        begin = end - np.asarray(stage_layers)
        layer, more = before(self.layer_time), before(self.again_time)
        time = self.chunk_time + layer[end] - layer[begin]
        return np.asarray(time + more[begin + np.asarray(again)] - more[begin])

    def slowest_rank(self, stage_layers: tuple[int, ...], again: tuple[int, ...]) -> int:
        """Time of the slowest rank of a layout."""
        times = self.times(stage_layers, again)
        return max(int(times[self.rank == rank].sum()) for rank in range(len(self.capacity)))


def before(table: Ints) -> Ints:
    """Sum of the values before each place, shape (L + 1,)."""
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(table)])


def reach(units: StageUnits, k: int, rank_time: int, chunk_time: int) -> Ints:
    """Furthest end of chunk k for each begin, shape (L + 1,); -1 where it cannot begin."""
    n = len(units.layer_time)
    mates = (units.rank == units.rank[k]) & (np.arange(len(units.rank)) != k)
    time_left = min(rank_time - int(units.chunk_time[mates].sum()), chunk_time)
    time_left -= int(units.chunk_time[k])
    room = int(units.capacity[units.rank[k]] - units.chunk_held[mates].sum() - units.chunk_held[k])
    layer, again = before(units.layer_time), before(units.again_time)
    held, saved = before(units.layer_held[k]), before(units.layer_saved[k])
    alike = all(
        (row == row[0]).all()
        for row in (units.layer_time, units.again_time, units.layer_held[k], units.layer_saved[k])
    )
    begin, end = np.arange(1 if alike else n + 1)[:, None], np.arange(n + 1)[None, :]
    if units.recomputed is None:
        missing = held[end] - held[begin] - room
        kept = np.maximum(np.searchsorted(saved, saved[begin] + np.maximum(missing, 0)), begin)
    else:
        kept = np.minimum(begin + units.recomputed, end)
    kept_in = np.minimum(kept, end)
    fits = held[end] - held[begin] - (saved[kept_in] - saved[begin]) <= room
    fits &= layer[end] - layer[begin] + again[kept_in] - again[begin] <= time_left
    fits &= (kept <= end) & (end >= begin + units.min_layers)
    furthest = np.where(fits.any(axis=1), n - np.argmax(fits[:, ::-1], axis=1), -1)
    if not alike:
        return furthest
    shifted = np.minimum(furthest[0] + np.arange(n + 1), n)
    lasts = np.arange(n + 1) + units.min_layers <= n
    return np.where((furthest[0] >= 0) & lasts, shifted, -1)


def begins(reaches: list[Ints]) -> list[tuple[int, int]] | None:
    """Earliest and latest begin of each chunk and of the end; None where there is no way."""
    n = len(reaches[0]) - 1
    latest = [0]
    for ends in reaches:
        latest.append(int(ends[: latest[-1] + 1].max()))
        if latest[-1] < 0:
            return None
    if latest[-1] < n:
        return None
    earliest = [n]
    for k in range(len(reaches) - 1, -1, -1):
        enough = np.flatnonzero(reaches[k] >= earliest[-1])
        if not len(enough):
            return None
        earliest.append(int(enough[0]))
    return [(low, min(high, n)) for low, high in zip(earliest[::-1], latest, strict=True)]


@dataclass(frozen=True)
class Kinds:
    """Layers sorted by what they take; the commonest kind is the last."""

    indicator: list[Ints]
    """For each kind, 1 where a layer is of it."""
    example: list[int]
    """A layer of each kind."""

    @classmethod
    def of(cls, units: StageUnits) -> "Kinds | None":
        """Kinds of a problem; None if there are too many to help."""
        rows = np.vstack([units.layer_time, units.again_time, units.layer_held, units.layer_saved])
        _, first, which, counts = np.unique(
            rows, axis=1, return_index=True, return_inverse=True, return_counts=True
        )
        if len(counts) > MOST_KINDS:
            return None
        order = np.argsort(counts, kind="stable").tolist()
        which = which.reshape(-1)
        return cls([(which == i).astype(np.int64) for i in order], [int(first[i]) for i in order])

    def most(self, units: StageUnits, rank: int, rank_time: int) -> list[tuple[int, ...]] | None:
        """Rows of counts of the rarer kinds, and the most of the commonest beside them."""
        chunks = np.flatnonzero(units.rank == rank)
        held = units.layer_held[chunks][:, self.example].min(axis=0)
        saved = units.layer_saved[chunks][:, self.example].max(axis=0)
        time, again = units.layer_time[self.example], units.again_time[self.example]
        time_left = rank_time - int(units.chunk_time[chunks].sum())
        room = int(units.capacity[rank] - units.chunk_held[chunks].sum())
        counts = [int(indicator.sum()) for indicator in self.indicator]
        pairs = [[(n, r) for n in range(c + 1) for r in range(n + 1)] for c in counts[:-1]]
        if int(np.prod([len(p) for p in pairs])) * counts[-1] > MOST_ROWS:
            return None
        n = np.arange(counts[-1] + 1)
        best: dict[tuple[int, ...], int] = {}
        for combination in product(*pairs):
            taken = np.array([c[0] for c in combination] + [0], dtype=np.int64)
            redone = np.array([c[1] for c in combination] + [0], dtype=np.int64)
            missing = n * held[-1] + (taken @ held - redone @ saved) - room
            more = -(-np.maximum(missing, 0) // max(int(saved[-1]), 1))
            more = np.maximum(more, self._forced(units, n, len(chunks)))
            spent = n * time[-1] + more * again[-1] + taken @ time + redone @ again
            fits = np.flatnonzero((more <= n) & (spent <= time_left))
            if len(fits) and (saved[-1] > 0 or missing[fits].max() <= 0):
                key = tuple(int(c[0]) for c in combination)
                best[key] = max(best.get(key, 0), int(fits[-1]))
        return [(*key, most) for key, most in best.items()]

    def _forced(self, units: StageUnits, n: Ints, n_chunks: int) -> Ints:
        """Fewest of n layers that a rank recomputes where every chunk must do the same."""
        if units.recomputed is None or len(self.example) > 1:
            return np.zeros_like(n)
        others = (n_chunks - 1) * units.min_layers
        elsewhere = (n_chunks - 1) * min(units.recomputed, units.min_layers)
        return np.minimum(elsewhere + np.clip(n - others, 0, units.recomputed), n)

"""A layout to start the solver from; it need not fit.

Ranks first: as many layers as each may take, less where that is too many, the slowest
ones first.  A rank's layers are spread evenly over its chunks, and it recomputes as few as
its memory asks for, the chunks in turn.
"""

import numpy as np

from cost_models.specs.units import Ints
from search.stages.bounds import StageUnits, before


def guess(units: StageUnits, most: list[int] | None) -> tuple[Ints, Ints]:
    """Layers and recomputed layers of each chunk; ``most`` is each rank's, if known."""
    layers = _spread(units, most) if most is not None else _by_time(units)
    return layers, _recompute(units, layers)


def _spread(units: StageUnits, most: list[int]) -> Ints:
    """Layers alike: share them out by what the ranks may take."""
    counts = np.array(most)
    fixed = np.bincount(units.rank, units.chunk_time, len(most))
    least = units.min_layers * np.bincount(units.rank, minlength=len(most))
    for _ in range(int(counts.sum()) - len(units.layer_time)):
        time = np.where(counts > least, fixed + counts * units.layer_time[0], -1)
        counts[int(time.argmax())] -= 1
    layers = np.zeros(len(units.rank), dtype=np.int64)
    for rank, count in enumerate(counts.tolist()):
        chunks = np.flatnonzero(units.rank == rank)
        by_room = chunks[np.argsort(units.chunk_time[chunks], kind="stable")]
        layers[chunks] = count // len(chunks)
        layers[by_room[: count % len(chunks)]] += 1
    return layers


def _by_time(units: StageUnits) -> Ints:
    """Layers unlike: cut the model where the chunks' shares of its time end."""
    n, n_chunks = len(units.layer_time), len(units.rank)
    sums = before(units.layer_time)
    share = (sums[-1] + units.chunk_time.sum()) / n_chunks
    wanted = np.cumsum(np.maximum(share - units.chunk_time, 0))
    ends = np.searchsorted(sums, wanted / max(wanted[-1], 1) * sums[-1])
    cuts = [0]
    for k in range(n_chunks - 1):
        low = cuts[-1] + units.min_layers
        cuts.append(min(max(int(ends[k]), low), n - units.min_layers * (n_chunks - 1 - k)))
    return np.diff([*cuts, n])


def _recompute(units: StageUnits, layers: Ints) -> Ints:
    """As few recomputed layers as the memory of each rank asks for."""
    if units.recomputed is not None:
        return np.minimum(units.recomputed, layers)
    end = np.cumsum(layers)
    begin = end - layers
    again = np.zeros_like(layers)
    for rank, capacity in enumerate(units.capacity.tolist()):
        chunks = np.flatnonzero(units.rank == rank).tolist()
        missing = -capacity
        for k in chunks:
            missing += int(units.chunk_held[k] + units.layer_held[k, begin[k] : end[k]].sum())
        while missing > 0 and (again[chunks] < layers[chunks]).any():
            k = min((k for k in chunks if again[k] < layers[k]), key=lambda k: int(again[k]))
            missing -= int(units.layer_saved[k, begin[k] + again[k]])
            again[k] += 1
    return again

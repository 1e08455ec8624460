"""The order in which each pipeline rank works, per schedule, as launchers fix it.

An order is an integer array of shape (operations, 3) with columns kind, chunk and
micro-batch.  It says nothing about time: :mod:`search.replay.simulate` replays it.

Where the chunks of rank r of p lie in the model, first to last stage:

- looped (1F1B, GPipe, ZB-1p, ZB-2p, interleaved): chunk k is stage k * p + r
- folded (ZB-V): chunk 0 is stage r, chunk 1 is stage 2 * p - 1 - r
- mirrored (DualPipe): two copies of the model run in opposite directions: chunk 0 is
  stage r of the first copy, chunk 1 stage p - 1 - r of the second; the first half of
  the micro-batches takes the first copy

References
----------
.. [1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
   Clusters Using Megatron-LM," SC 2021. arXiv:2104.04473
.. [2] P. Qi et al., "Zero Bubble Pipeline Parallelism," arXiv:2401.10241, Sections 2, 3, 6
.. [3] DeepSeek-AI, "DeepSeek-V3 Technical Report," arXiv:2412.19437, Section 3.2.1
"""

from collections import deque
from enum import IntEnum

import numpy as np

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Ints


class Kind(IntEnum):
    """What a rank does with one micro-batch in one chunk."""

    F = 0
    """Forward."""
    B = 1
    """Gradient of the input."""
    W = 2
    """Gradient of the weights."""
    BW = 3
    """Both gradients in one go: the input's leaves when the weights' is done."""


SPLIT = frozenset({Schedule.ZB_1P, Schedule.ZB_2P, Schedule.ZB_V})
"""Schedules that place W apart from B wherever it fills a gap."""


def check_schedule(schedule: Schedule, n_micro_batches: int, pp: int, n_chunks: int) -> None:
    """Raise SpecError where the schedule does not exist for these sizes."""
    name, m = schedule.label, n_micro_batches
    for what, value in (("n_micro_batches", m), ("pp", pp), ("n_chunks", n_chunks)):
        if int(value) != value or value < 1:
            raise SpecError(f"pipeline.{what} must be a whole number >= 1, got {value}")
    wanted = {Schedule.INTERLEAVED: 0, Schedule.ZB_V: 2, Schedule.DUALPIPE: 2}.get(schedule, 1)
    if wanted and n_chunks != wanted:
        raise SpecError(f"{name} has {wanted} chunks on each rank, got {n_chunks}")
    if schedule == Schedule.INTERLEAVED and n_chunks > 1 and m % pp:
        raise SpecError(f"{name} needs micro-batches in whole groups of pp = {pp}, got {m}")
    if schedule == Schedule.DUALPIPE and (pp % 2 or m % 2 or m < 2 * pp):
        raise SpecError(
            f"{name} needs an even pp and an even number of micro-batches, 2 * pp or more; "
            f"got pp = {pp} and {m}"
        )


def stage_of(schedule: Schedule, pp: int, n_chunks: int) -> Ints:
    """Model-order stage of each chunk, shape (pp, n_chunks).

    >>> stage_of(Schedule.ZB_V, 2, 2).tolist()
    [[0, 3], [1, 2]]
    """
    rank = np.arange(pp)[:, None]
    if schedule == Schedule.ZB_V:
        return np.hstack([rank, 2 * pp - 1 - rank])
    if schedule == Schedule.DUALPIPE:
        return np.hstack([rank, pp - 1 - rank])
    return np.asarray(rank + pp * np.arange(n_chunks)[None, :])


def n_stages(schedule: Schedule, pp: int, n_chunks: int) -> int:
    """How many stages a micro-batch passes through on its way forward."""
    return pp if schedule == Schedule.DUALPIPE else pp * n_chunks


def fixed_order(schedule: Schedule, n_micro_batches: int, pp: int, n_chunks: int) -> list[Ints]:
    """One order per rank, for the schedules whose order does not depend on times.

    One rank alone has nobody to wait for: it takes one micro-batch after the other.

    >>> order = fixed_order(Schedule._1F1B, 3, 2, 1)[0]
    >>> " ".join(f"{Kind(kind).name}{micro_batch}" for kind, _, micro_batch in order)
    'F0 F1 BW0 F2 BW1 BW2'
    """
    if schedule == Schedule.DUALPIPE:
        return [_dualpipe(n_micro_batches, pp, rank) for rank in range(pp)]
    if schedule == Schedule.GPIPE and pp > 1:
        return [one_f_one_b(n_micro_batches, n_micro_batches, Kind.BW)] * pp
    if n_chunks == 1:
        return [one_f_one_b(n_micro_batches, pp - rank, Kind.BW) for rank in range(pp)]
    return [_interleaved(n_micro_batches, pp, n_chunks, rank) for rank in range(pp)]


def one_f_one_b(n_micro_batches: int, n_ahead: int, backward: Kind) -> Ints:
    """``n_ahead`` forwards, then backward and forward in turn, then the other backwards."""
    micro_batch = np.arange(n_micro_batches)
    chunk = np.zeros_like(micro_batch)
    forwards = np.stack([np.full_like(chunk, Kind.F), chunk, micro_batch], axis=1)
    backwards = np.stack([np.full_like(chunk, backward), chunk, micro_batch], axis=1)
    return _alternate(forwards, backwards, n_ahead)


def _alternate(forwards: Ints, backwards: Ints, n_ahead: int) -> Ints:
    """Merge two equally long columns of work with ``n_ahead`` forwards before the first backward.

    Sorting by a key does it: forward i comes before backward j where i < j + n_ahead.
    """
    index = np.arange(len(forwards))
    keys = np.concatenate([2 * index, 2 * (index + n_ahead) - 1])
    return np.concatenate([forwards, backwards])[np.argsort(keys, kind="stable")]


def _interleaved(n_micro_batches: int, pp: int, n_chunks: int, rank: int) -> Ints:
    """Megatron's order [1]: groups of pp micro-batches visit the chunks in turn."""
    index = np.arange(n_micro_batches * n_chunks)
    group, within = np.divmod(index, pp * n_chunks)
    chunk, offset = np.divmod(within, pp)
    micro_batch = group * pp + offset
    forwards = np.stack([np.full_like(chunk, Kind.F), chunk, micro_batch], axis=1)
    backwards = np.stack([np.full_like(chunk, Kind.BW), n_chunks - 1 - chunk, micro_batch], axis=1)
    return _alternate(forwards, backwards, 2 * (pp - rank - 1) + (n_chunks - 1) * pp + 1)


def zb_v_order(n_micro_batches: int, pp: int, rank: int) -> Ints:
    """F and B of the V-shaped schedule [2], where F, B and W last equally long.

    Laid out for as many micro-batches as fill the pipeline; those beyond the last fall out.
    """
    total = max(2 * pp - 1, n_micro_batches)
    todo = _Counter()
    for _ in range(2 * (pp - rank) - 1):
        todo.put(Kind.F, 0)
    for _ in range(rank):
        todo.put(Kind.F, 1).put(Kind.F, 0)
    for _ in range(pp - rank):
        todo.put(Kind.F, 1).put(Kind.B, 1)
    while todo.count(Kind.F, 1) < todo.count(Kind.F, 0) or todo.count(Kind.F, 0) < total:
        if todo.count(Kind.F, 0) < total:
            todo.put(Kind.F, 0)
        todo.put(Kind.B, 0).put(Kind.F, 1).put(Kind.B, 1)
    for _ in range(rank):
        todo.put(Kind.B, 0).put(Kind.B, 1)
    for _ in range(pp - rank):
        todo.put(Kind.B, 0)
    order = todo.order()
    return order[order[:, 2] < n_micro_batches]


class _Counter:
    """Operations in the order given, micro-batches counted up per kind and chunk."""

    def __init__(self, first: tuple[int, int] = (0, 0)) -> None:
        self._first = first
        self._rows: list[tuple[int, int, int]] = []
        self._counts: dict[tuple[int, int], int] = {}
        self._weights: deque[tuple[int, int]] = deque()

    def count(self, kind: Kind, chunk: int) -> int:
        """How many of them so far."""
        return self._counts.get((kind, chunk), 0)

    def put(self, kind: Kind, chunk: int) -> "_Counter":
        """Append the next micro-batch of this kind; B and BW count together."""
        counted = Kind.B if kind == Kind.BW else kind
        number = self.count(counted, chunk)
        self._counts[counted, chunk] = number + 1
        micro_batch = self._first[chunk] + number
        self._rows.append((kind, chunk, micro_batch))
        if kind == Kind.B:
            self._weights.append((chunk, micro_batch))
        return self

    def put_weight(self) -> "_Counter":
        """Append the W that has waited longest."""
        self._rows.append((Kind.W, *self._weights.popleft()))
        return self

    def order(self) -> Ints:
        """The rows as an array."""
        return np.array(self._rows, dtype=np.int64).reshape(-1, 3)


def _dualpipe(n_micro_batches: int, pp: int, rank: int) -> Ints:
    """DeepSeek's eight phases [3]; near and far are the directions with the shorter way in."""
    half, depth = pp // 2, min(rank, pp - 1 - rank)
    near, far = (0, 1) if rank < half else (1, 0)
    inner = half - depth - 1
    todo = _Counter(first=(0, n_micro_batches // 2))
    for _ in range(2 * inner):
        todo.put(Kind.F, near)
    for _ in range(depth + 1):
        todo.put(Kind.F, near).put(Kind.F, far)
    for _ in range(inner):
        todo.put(Kind.B, far).put_weight().put(Kind.F, far)
    for _ in range(n_micro_batches // 2 - pp + depth + 1):
        todo.put(Kind.F, near).put(Kind.BW, far).put(Kind.F, far).put(Kind.BW, near)
    for _ in range(inner):
        todo.put(Kind.BW, far).put(Kind.F, far).put(Kind.BW, near)
    for i in range(2 * (depth + 1)):
        todo.put(Kind.B if i > depth else Kind.BW, near if i % 2 else far)
    for _ in range(inner):
        todo.put_weight().put(Kind.B, near)
    for _ in range(depth + 1):
        todo.put_weight()
    return todo.order()

"""Where to put W: the Zero Bubble heuristic.

The order of F and B is fixed; each rank then walks through it and puts a waiting W
wherever one helps (arXiv:2401.10241, Section 3.1):

- the next input is so late that a whole W fits before it;
- it is later by less than a W, but this rank has idled more than its ``budget``
  already, so that some other rank is the one to set the step's length;
- the next F would hold more activations than the limit.

All that is left comes last.  Budgets and the number of forwards before the first
backward are tried in turn, and the shortest step wins.
"""

from collections import deque

import numpy as np

from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Floats, Ints
from search.replay.chains import Chains, Operations
from search.replay.schedules import Kind, one_f_one_b, zb_v_order

EPSILON = 1e-9
"""Share of a W by which it may overrun a gap: rounding, not time."""

TRIES = 4
"""Walks per order of F and B: budget 0, none, then what the last walk idled."""


def zero_bubble_orders(
    chains: Chains, *, activation_bytes: Floats, weight_grad_bytes: Floats
) -> list[Ints]:
    """Orders with W for ZB-1p, ZB-2p and ZB-V.

    A rank may hold p (ZB-2p: 2 * p) micro-batches' activations of all its chunks.
    """
    if not activation_bytes.any():
        activation_bytes = weight_grad_bytes = np.ones_like(activation_bytes)
    limit = activation_bytes.sum(axis=1) * chains.pp * (1 + (chains.schedule == Schedule.ZB_2P))
    best_s, best = float("inf"), []
    for order in _forward_backward_orders(chains):
        works = [chains.work(rank, rows) for rank, rows in enumerate(order)]
        budget_s = 0.0
        for _ in range(TRIES):
            ranks = [
                _Rank(chains, rank, order[rank], works[rank], activation_bytes, weight_grad_bytes)
                for rank in range(chains.pp)
            ]
            _fill(ranks, limit.tolist(), budget_s, 2 * chains.depth * chains.n_micro_batches)
            span_s = max(rank.clock_s - rank.first_s for rank in ranks)
            if span_s < best_s:
                best_s, best = span_s, [rank.order() for rank in ranks]
            budget_s = float("inf") if budget_s == 0 else max(rank.idle_s for rank in ranks)
    return best


def _forward_backward_orders(chains: Chains) -> list[list[Ints]]:
    """Orders of F and B worth trying."""
    m, pp = chains.n_micro_batches, chains.pp
    if chains.schedule == Schedule.ZB_V:
        return [[zb_v_order(m, pp, rank) for rank in range(pp)]]
    aheads = [tuple(pp - rank for rank in range(pp))]
    if chains.schedule == Schedule.ZB_2P:
        aheads = [_n_ahead(chains, late=late) for late in (0.0, 0.5, 1.0)]
        aheads.append(tuple(2 * (pp - rank) - 1 for rank in range(pp)))
    return [[one_f_one_b(m, n, Kind.B) for n in ahead] for ahead in dict.fromkeys(aheads)]


def _n_ahead(chains: Chains, late: float) -> tuple[int, ...]:
    """Forwards that fit before the first backward arrives, for each rank of ZB-2p.

    ``late`` is the share of one more forward by which it may be delayed.  Each rank is
    at least one ahead of the next, and none holds more than 2 * p.
    """
    forward, backward = chains.seconds[Kind.F, :, 0], chains.seconds[Kind.B, :, 0]
    hop = chains.hop_s[Kind.F, :, 0]
    ahead = [1]
    begun = ready = float(np.sum(forward) + np.sum(hop))
    for rank in range(chains.pp - 2, -1, -1):
        begun -= float(forward[rank + 1] + hop[rank + 1])
        ready += float(backward[rank + 1] + chains.hop_s[Kind.B, rank, 0])
        fits = int((ready - begun) / max(float(forward[rank]), 1e-300) + late + EPSILON)
        ahead.append(min(max(1 + fits, ahead[-1] + 1), 2 * chains.pp - rank))
        ready = max(ready, begun + (ahead[-1] - 1) * float(forward[rank]))
    return tuple(ahead[::-1])


class _Rank:
    """One rank on its way through its order of F and B."""

    def __init__(
        self,
        chains: Chains,
        rank: int,
        order: Ints,
        work: Operations,
        activation_bytes: Floats,
        weight_grad_bytes: Floats,
    ) -> None:
        self.work = work
        self.kinds_chunks_micro_batches: list[tuple[int, int, int]] = order.tolist()
        self.weight_s: list[float] = chains.seconds[Kind.W, rank].tolist()
        self.kept: list[float] = weight_grad_bytes[rank].tolist()
        whole = activation_bytes[rank].tolist()
        self.change = [whole, [k - w for w, k in zip(whole, self.kept, strict=True)]]
        self.rows: list[tuple[int, int, int]] = []
        self.pending: deque[tuple[int, int]] = deque()
        self.next = 0
        self.clock_s = self.first_s = self.idle_s = self.held_bytes = 0.0

    def put_weight(self) -> None:
        """Do the W that has waited longest."""
        chunk, micro_batch = self.pending.popleft()
        self.rows.append((Kind.W, chunk, micro_batch))
        self.clock_s += self.weight_s[chunk]
        self.held_bytes -= self.kept[chunk]

    def order(self) -> Ints:
        """All operations so far."""
        return np.array(self.rows, dtype=np.int64).reshape(-1, 3)


def _fill(ranks: list[_Rank], limit: list[float], budget_s: float, n_numbers: int) -> None:
    """Walk all ranks to the end."""
    end = [-1.0] * n_numbers
    waiting: dict[int, int] = {}
    ready = list(range(len(ranks)))[::-1]
    while ready:
        index = ready.pop()
        _advance(index, ranks[index], limit[index] * (1 + EPSILON), budget_s, end, waiting, ready)


def _advance(
    index: int,
    rank: _Rank,
    limit_bytes: float,
    budget_s: float,
    end: list[float],
    waiting: dict[int, int],
    ready: list[int],
) -> None:
    """Work through one rank's order until an input is missing."""
    work, pending = rank.work, rank.pending
    for i in range(rank.next, len(work.number)):
        kind, chunk, micro_batch = row = rank.kinds_chunks_micro_batches[i]
        arrival, maker = 0.0, work.maker[i]
        if maker >= 0:
            arrival = end[maker]
            if arrival < 0:
                waiting[maker] = index
                rank.next = i
                return
            arrival += work.hop_s[i]
        if kind == Kind.F:
            while pending and rank.held_bytes + rank.change[kind][chunk] > limit_bytes:
                rank.put_weight()
        while pending and arrival > rank.clock_s:
            weight_s = rank.weight_s[pending[0][0]]
            gap_s = arrival - rank.clock_s
            if weight_s * (1 - EPSILON) > gap_s and rank.idle_s + gap_s <= budget_s:
                break
            rank.put_weight()
        if arrival > rank.clock_s:
            if rank.rows:
                rank.idle_s += arrival - rank.clock_s
            rank.clock_s = arrival
        if not rank.rows:
            rank.first_s = rank.clock_s
        rank.rows.append(row)
        rank.clock_s += work.seconds[i]
        number = work.number[i]
        end[number] = rank.clock_s
        rank.clock_s += work.send_s[i]
        rank.held_bytes += rank.change[kind][chunk]
        if kind == Kind.B:
            pending.append((chunk, micro_batch))
        if number in waiting:
            ready.append(waiting.pop(number))
    rank.next = len(work.number)
    while pending:
        rank.put_weight()

"""Time of one pipeline step and what it keeps in memory, in closed form, per schedule.

One rank's work on one micro-batch is t = F + B + W: forward, gradient of the input,
gradient of the weights.  F, B, W and t are the slowest rank's; sum(t) goes over all
ranks and d = sum(t) / t - 1 is p - 1 where they are equal.  A step takes m * t plus the
slowest rank's bubble:

    1F1B         sum(t) - t                                                    (1) [1]_
    GPipe        sum(t) - t                                                    (2) [2]_
    interleaved  (sum(t) - t) s                                                (3) [1]_
    ZB-1p        d * (F + B) - min(m - 1, d) * w                               (4) [3]_
    ZB-2p        max(d * (F + B) - min(m - 1, 2 * d) * w, 0)                   (5) [3]_
    ZB-V         max(d * (max(F, B, W) - w), start)                            (6)
    DualPipe     max(d - 1, 0) / 2 * (F + B + max(F, B) - w)                   (7) [5]_

with s = 1 / v, or where chunks differ the largest share of the model that one round of
chunks holds: a pipeline fills and drains at that round's pace, and stalls once more with
every further group of p micro-batches unless ranks have time to spare.  And w = min(F, B,
W): a longer W overruns the gap it fills.  (4) and (5) are the Zero Bubble paper's
(p - 1) * (F + B - W) and (p - 1) * (F + B - 2 * W), once m is large enough.  (6) is no
bubble where F = B = W [3]_ [4]_; the rest of it is fitted to the replay of the published
order, and ``start`` = max((p-1) (F+B) - W/2 - (m-1) (F+W), (2p-1-m) F / 2) is what too few
micro-batches leave open.  In (4) to (6) the optimizer does not synchronize the ranks, as in
the papers: the step is the longest span of one rank.

Hops of c each come on top, on the way in and out, and in the steady state wherever a
schedule leaves no slack to hide them: the slowest of unequal ranks waits for the others'
round trip only where that, hops included, is longer than its own work.

    1F1B         2 * (p - 1) + h * max(2 - slack / c, 0)                       (8)
                 h = m - 1 - ceil((m - 1) / p),  slack = t - (sum(t) - t) / (p - 1)
    GPipe        2 * (p - 1)                                                   (9)
    interleaved  2 * (p * v - 1)                                              (10)
    ZB-1p        2 * (p - 1) + 2 * min(h, p - 1)                              (11)
    ZB-2p        2 * (p - 1)                                                  (12)
    ZB-V         6 * (p - 1)                                                  (13)
    DualPipe     m * (p - 1) / p + max(2 * p - 4, 1)                          (14)

Where p2p does not overlap, the sender waits as well: a rank between two others sends
twice per chunk and micro-batch ((15) in :func:`_blocked_1f1b`).

For equal ranks and short hops, (1) to (4), (7) and (8) to (10) are what the event-driven
replay takes to the digit, (5) to within one W.  For unequal ranks (1) is an upper bound,
by no more than the sum of what the other ranks lack to the slowest.

Symbol  Name here            Unit
------  -------------------  ------------------------------------------------
m       ``n_micro_batches``  micro-batches of one pipeline in one step
p       ``pp``               ranks
v       ``vpp``              model chunks on each rank
F       ``forward_s``        s, one micro-batch through all chunks of a rank
B       ``backward_s``       s, gradient of the input
W       ``weight_s``         s, gradient of the weights
c       ``p2p_s``            s, one hop

References
----------
.. [1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
   Clusters Using Megatron-LM," SC 2021. arXiv:2104.04473
.. [2] Y. Huang et al., "GPipe: Efficient Training of Giant Neural Networks using
   Pipeline Parallelism," NeurIPS 2019. arXiv:1811.06965
.. [3] P. Qi et al., "Zero Bubble Pipeline Parallelism," ICLR 2024. arXiv:2401.10241
.. [4] P. Qi et al., "Pipeline Parallelism with Controllable Memory," NeurIPS 2024.
   arXiv:2405.15362
.. [5] DeepSeek-AI, "DeepSeek-V3 Technical Report," 2024. arXiv:2412.19437, Table 2:
   (PP/2 - 1) (F&B + B - 3W), whose B is our B + W, F&B our F + B + W,
   and F not longer than B
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True)
class _Step:
    """The symbols of the module docstring as arrays that broadcast."""

    m: Floats
    p: Floats
    v: Floats
    F: Floats
    B: Floats
    W: Floats
    t: Floats
    others: Floats
    """sum(t) - t."""
    share: Floats
    """Of the longest round of chunks in the model."""

    @property
    def d(self) -> Floats:
        return np.asarray(self.others / np.maximum(self.t, 1e-300))

    @property
    def w(self) -> Floats:
        return np.minimum(np.minimum(self.F, self.B), self.W)

    @property
    def h(self) -> Floats:
        return np.asarray(self.m - 1 - np.ceil((self.m - 1) / self.p))

    def alternating_s(self, hop_s: Floats) -> Floats:
        """Steady hops of (8), where forward and backward passes alternate."""
        slack = self.t - self.others / np.maximum(self.p - 1, 1)
        return np.asarray(self.h * np.maximum(2 * hop_s - slack, 0.0))


def pipeline_s(
    schedule: ArrayLike,
    n_micro_batches: ArrayLike,
    pp: ArrayLike,
    vpp: ArrayLike,
    *,
    forward_s: ArrayLike,
    backward_s: ArrayLike,
    weight_s: ArrayLike,
    all_stages_s: ArrayLike,
    p2p_s: ArrayLike = 0.0,
    overlap_p2p: ArrayLike = True,
    round_share: ArrayLike | None = None,
) -> tuple[Floats, Floats]:
    """Seconds of the step's pipeline part, and those in which the slowest rank idles.

    ``forward_s``, ``backward_s`` and ``weight_s`` are the slowest rank's, for one
    micro-batch through all its chunks; ``all_stages_s`` is F + B + W summed over the ranks.
    ``round_share`` is the share of the longest round of chunks in the model; None is 1 / vpp.

    >>> total, bubble = pipeline_s(Schedule._1F1B, 8, 4, 1, forward_s=1.0, backward_s=1.0,
    ...                            weight_s=1.0, all_stages_s=12.0)
    >>> float(total), float(bubble)
    (33.0, 9.0)
    """
    code = np.asarray(schedule)
    m, p, v, F, B, W, stages, c = (
        np.asarray(x, dtype=np.float64)
        for x in (n_micro_batches, pp, vpp, forward_s, backward_s, weight_s, all_stages_s, p2p_s)
    )
    t = F + B + W
    others = np.maximum(stages - t, 0)
    share = 1.0 / np.maximum(v, 1.0) if round_share is None else np.asarray(round_share)
    step = _Step(m, p, v, F, B, W, t, others, share)
    present = np.flatnonzero(np.bincount(code.ravel())).tolist()
    bubble: Floats = np.zeros(())
    for one in present:
        mine = _bubble_s(Schedule(one), step, c, overlap_p2p)
        bubble = mine if code.size == 1 else np.where(code == one, mine, bubble)
    total = np.asarray(m * t + bubble)
    return total, np.broadcast_to(bubble, total.shape)


def _bubble_s(schedule: Schedule, s: _Step, hop_s: Floats, overlap_p2p: ArrayLike) -> Floats:
    """(1) to (7) with the hops, (8) to (15); nothing where there is one rank."""
    work, hops, blocked = _LAWS[schedule]
    hidden = work(s) + hops(s, hop_s)
    if np.all(overlap_p2p):
        return np.where(s.p > 1, hidden, 0.0)
    chunks = {Schedule.INTERLEAVED: s.v, Schedule.ZB_V: np.asarray(2.0)}.get(schedule, 1.0)
    sends = np.minimum(s.p - 1, 2) * chunks * s.m * hop_s
    waiting = np.maximum(work(s) + blocked(s) * hop_s, sends)
    bubble = np.where(overlap_p2p, hidden, waiting)
    return np.where(s.p > 1, bubble, 0.0)


def _zb_v_s(s: _Step) -> Floats:
    """Bubble of (6): the schedule's own, or that of a pipeline not yet full."""
    longest = np.maximum(np.maximum(s.F, s.B), s.W)
    few = (s.p - 1) * (s.F + s.B) - s.W / 2 - (s.m - 1) * (s.F + s.W)
    start = np.maximum(few, (2 * s.p - 1 - s.m) * s.F / 2)
    return np.asarray(np.maximum(s.d * (longest - s.w), start))


def _blocked_1f1b(s: _Step) -> Floats:
    """Hops of (15): all ranks but the first and last send twice for each micro-batch."""
    steady = (s.m - 1) * np.minimum(2, s.p - 1) - (s.p > 2)
    return np.asarray(2 * (s.p - 1) + np.maximum(steady, 0))


_Law = Callable[[_Step], Floats]
_Hops = Callable[[_Step, Floats], Floats]

_LAWS: dict[Schedule, tuple[_Law, _Hops, _Law]] = {
    Schedule._1F1B: (
        lambda s: s.others,
        lambda s, c: 2 * (s.p - 1) * c + s.alternating_s(c),
        _blocked_1f1b,
    ),
    Schedule.GPIPE: (
        lambda s: s.others,
        lambda s, c: 2 * (s.p - 1) * c,
        lambda s: 2 * s.m + 2 * s.p - 4,
    ),
    Schedule.INTERLEAVED: (
        lambda s: s.others * s.share,
        lambda s, c: np.where(
            s.v > 1, 2 * (s.p * s.v - 1) * c, 2 * (s.p - 1) * c + s.alternating_s(c)
        ),
        lambda s: np.where(s.v > 1, (2 * s.v - 1) * s.m + 2 * s.p - 3, _blocked_1f1b(s)),
    ),
    Schedule.ZB_1P: (
        lambda s: np.maximum(s.d * (s.F + s.B) - np.minimum(s.m - 1, s.d) * s.w, 0),
        lambda s, c: (2 * (s.p - 1) + 2 * np.minimum(s.h, s.p - 1)) * c,
        _blocked_1f1b,
    ),
    Schedule.ZB_2P: (
        lambda s: np.maximum(s.d * (s.F + s.B) - np.minimum(s.m - 1, 2 * s.d) * s.w, 0),
        lambda s, c: 2 * (s.p - 1) * c,
        _blocked_1f1b,
    ),
    Schedule.ZB_V: (
        _zb_v_s,
        lambda s, c: 6 * (s.p - 1) * c,
        lambda s: 4 * s.m + 2 * s.p,
    ),
    Schedule.DUALPIPE: (
        lambda s: np.maximum(s.d - 1, 0) / 2 * (s.F + s.B + np.maximum(s.F, s.B) - s.w),
        lambda s, c: (s.m * (s.p - 1) / s.p + np.maximum(2 * s.p - 4, 1)) * c,
        lambda s: 2 * s.m + 2 * s.p - 4,
    ),
}
"""Bubble without hops [s]; hops that no work hides [s]; their number where the sender waits."""


def first_in_flight(n_micro_batches: ArrayLike, pp: ArrayLike, stage: ArrayLike) -> Floats:
    """Micro-batches of its first chunk that a rank holds at the peak of interleaving.

    Its warm-up goes once round all chunks, pp micro-batches each, and begins again.

    >>> first_in_flight(16, 4, [0, 1, 2, 3]).tolist()
    [7.0, 5.0, 4.0, 4.0]
    """
    m, p, s = (np.asarray(x, dtype=np.float64) for x in (n_micro_batches, pp, stage))
    return np.minimum(p + np.maximum(p - 1 - 2 * s, 0.0), m)


def in_flight(
    schedule: ArrayLike,
    n_micro_batches: ArrayLike,
    pp: ArrayLike,
    vpp: ArrayLike,
    stage: ArrayLike,
) -> Floats:
    """Micro-batches' worth of one rank's activations held at the peak on rank ``stage``.

    An activation counts until W has used it.  Zero Bubble ranks all hold the same, since
    those that hear of the first backward early put off W instead [3]: p, or 2 * p under
    ZB-2p.  DualPipe holds p + 1 of one copy's stages.  Interleaving counts whole
    micro-batches too: its warm-up holds 2 * (p - stage - 1) + (v - 1) * p + 1 chunks of
    1 / v micro-batch each.

    >>> in_flight(Schedule._1F1B, 8, 4, 1, [0, 1, 2, 3]).tolist()
    [4.0, 3.0, 2.0, 1.0]
    >>> in_flight(Schedule.INTERLEAVED, 8, 4, 2, [0, 3]).tolist()
    [5.5, 2.5]
    """
    code = np.asarray(schedule)
    m, p, v, s = (np.asarray(x, dtype=np.float64) for x in (n_micro_batches, pp, vpp, stage))
    chunks = 2 * (p - s - 1) + (v - 1) * p + 1
    held: Floats = p - s
    for one, many in (
        (Schedule.INTERLEAVED, np.where(v > 1, chunks / np.maximum(v, 1), p - s)),
        (Schedule.GPIPE, m),
        (Schedule.ZB_1P, p),
        (Schedule.ZB_2P, 2 * p),
        (Schedule.ZB_V, p),
        (Schedule.DUALPIPE, p + 1),
    ):
        if (code == one).any():
            held = np.where(code == one, many, held)
    return np.asarray(np.where(p > 1, np.minimum(held, m), np.minimum(m, 1.0)) + 0 * s)

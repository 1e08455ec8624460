"""Time of one pipeline step and what it keeps in memory, in closed form, per schedule.

One rank's work on one micro-batch is t = F + B + W: forward, gradient of the input,
gradient of the weights.  With t of the slowest rank and its sum over all ranks, a
schedule that starts and drains through the whole pipeline takes

    T_1F1B        = sum(t) + (m - 1) * max(t)                                   (1) [1]_
    T_GPipe       = T_1F1B                                                      (2) [2]_
    T_interleaved = sum(t) / v + (m - 1 / v) * max(t)                           (3) [1]_

Splitting the backward pass lets W fill the bubble.  With d = sum(t) / max(t) - 1,
which is p - 1 for equal stages:

    T_ZB-1p       = m * max(t) + d * max(F + B - W, 0)                          (4) [3]_
    T_ZB-2p       = m * max(t) + d * max(F + B - 2 * W, 0)                      (5) [3]_
    T_ZB-V        = m * max(t) + d / 2 * max(F + B - 2 * W, 0)                  (6) [4]_
    T_DualPipe    = m * max(t) + max(d - 1, 0) / 2 * max(F + 2 * B - W, 0)      (7) [5]_

(4) to (6) leave the optimizer unsynchronized, as their papers do: the step is the
longest span of one rank.  One hop to the next stage takes c; the hops lie on the path
that fills and drains the pipeline.

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
.. [5] DeepSeek-AI, "DeepSeek-V3 Technical Report," 2024. arXiv:2412.19437
"""

import numpy as np
from numpy.typing import ArrayLike

from cost_models.strategy import Schedule
from cost_models.units import Floats


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
) -> tuple[Floats, Floats]:
    """Seconds of the step's pipeline part, and those in which the slowest rank idles.

    ``forward_s``, ``backward_s`` and ``weight_s`` are the slowest rank's, for one
    micro-batch through all its chunks; ``all_stages_s`` is F + B + W summed over the ranks.

    >>> total, bubble = pipeline_s(Schedule._1F1B, 8, 4, 1, forward_s=1.0, backward_s=1.0,
    ...                            weight_s=1.0, all_stages_s=12.0)
    >>> float(total), float(bubble)
    (33.0, 9.0)
    """
    code = np.asarray(schedule)
    m, p, v, forward, backward, weight, stages, hop = (
        np.asarray(x, dtype=np.float64)
        for x in (
            n_micro_batches,
            pp,
            vpp,
            forward_s,
            backward_s,
            weight_s,
            all_stages_s,
            p2p_s,
        )
    )
    slowest = forward + backward + weight
    busy = m * slowest
    fill = stages / slowest - 1
    v = np.where(code == Schedule.INTERLEAVED, v, 1.0)
    drained = (stages - slowest) / v
    half = np.maximum(fill - 1, 0) / 2
    bubble = np.select(
        [
            code == Schedule.ZB_1P,
            code == Schedule.ZB_2P,
            code == Schedule.ZB_V,
            code == Schedule.DUALPIPE,
        ],
        [
            fill * np.maximum(forward + backward - weight, 0),
            fill * np.maximum(forward + backward - 2 * weight, 0),
            fill / 2 * np.maximum(forward + backward - 2 * weight, 0),
            half * np.maximum(forward + 2 * backward - weight, 0),
        ],
        default=drained,
    )
    bubble = bubble + 2 * (p - 1) * hop
    return np.asarray(busy + bubble), np.asarray(bubble)


def in_flight(
    schedule: ArrayLike,
    n_micro_batches: ArrayLike,
    pp: ArrayLike,
    vpp: ArrayLike,
    stage: ArrayLike,
) -> Floats:
    """Micro-batches' worth of one rank's activations held at the peak on rank ``stage``.

    Interleaving counts whole micro-batches too: its warm-up holds
    2 * (p - stage - 1) + (v - 1) * p + 1 chunks of 1 / v micro-batch each.

    >>> in_flight(Schedule._1F1B, 8, 4, 1, [0, 1, 2, 3]).tolist()
    [4.0, 3.0, 2.0, 1.0]
    >>> in_flight(Schedule.INTERLEAVED, 8, 4, 2, [0, 3]).tolist()
    [5.5, 2.5]
    """
    code = np.asarray(schedule)
    m, p, v, s = (np.asarray(x, dtype=np.float64) for x in (n_micro_batches, pp, vpp, stage))
    interleaved = (code == Schedule.INTERLEAVED) & (v > 1)
    held = np.select(
        [
            interleaved,
            code == Schedule.GPIPE,
            code == Schedule.ZB_1P,
            code == Schedule.ZB_2P,
            code == Schedule.ZB_V,
            code == Schedule.DUALPIPE,
        ],
        [
            (2 * (p - s - 1) + (v - 1) * p + 1) / np.maximum(v, 1),
            m + 0 * s,
            p + 0 * s,
            2 * p - 1 + 0 * s,
            p + 0 * s,
            p + 1 + 0 * s,
        ],
        default=p - s,
    )
    return np.asarray(np.where(p > 1, np.minimum(held, m), 1.0))

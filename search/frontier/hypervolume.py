"""The area that a frontier of memory against step time dominates.

    H = sum over i of (m_{i+1} - m_i) (T - t_i)                                        (1)

with the frontier's points (m_i, t_i) in ascending order of memory and the reference point
(M, T) for the last: what needs more memory or time than that dominates nothing.
"""

import numpy as np

from cost_models.specs.units import Floats, Ints
from search.frontier.pareto import pareto_mask


def hypervolume(memory_bytes: Floats, step_time_s: Floats, reference: tuple[float, float]) -> float:
    """Area (1) in byte seconds.

    >>> hypervolume(np.array([1.0, 2.0, 2.5]), np.array([3.0, 1.0, 2.0]), (4.0, 4.0))
    7.0
    """
    steps, best = _staircase(memory_bytes, step_time_s, reference)
    return float((np.diff(steps, append=reference[0]) * (reference[1] - best)).sum())


def _staircase(
    memory: Floats, seconds: Floats, reference: tuple[float, float]
) -> tuple[Floats, Floats]:
    inside = (memory < reference[0]) & (seconds < reference[1])
    memory, seconds = memory[inside], seconds[inside]
    mask = pareto_mask(memory, seconds)
    order = np.argsort(memory[mask])
    return memory[mask][order], seconds[mask][order]


def in_order_of_gain(memory_bytes: Floats, step_time_s: Floats, capacity_bytes: float) -> Ints:
    """A frontier's rows, each time the one that adds most to those before it.

    What is added is the area over memory and the logarithm of time: a hundredth of a step
    counts the same however long the step is.
    """
    memory, seconds = memory_bytes, np.log(np.maximum(step_time_s, 1e-12))
    order = np.argsort(memory)
    memory, seconds = memory[order], seconds[order]
    if len(order) < 2:
        return np.asarray(order)
    least = seconds.max() + 0.1 * np.ptp(seconds)  # so that the leanest one adds something
    taken = np.zeros(len(order), dtype=np.bool_)
    found: list[int] = []
    while not taken.all():
        at = np.arange(len(order))
        before = np.maximum.accumulate(np.where(taken, at, -1))
        after = np.minimum.accumulate(np.where(taken, at, len(at))[::-1])[::-1]
        above = np.where(before < 0, least, seconds[before])
        edge = np.append(memory, capacity_bytes)[after]
        gain = np.where(taken, -1.0, (edge - memory) * (above - seconds))
        best = int(np.argmax(gain))
        taken[best] = True
        found.append(best)
    return np.asarray(order[found])

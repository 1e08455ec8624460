"""Whole replicas on several pools, with as many micro-batches each as its GPUs can do.

All replicas have one layout and reduce their gradients together.  A replica on pool k with
m micro-batches takes T_k(m) = a_k + b_k m, two prices of the same job on GPUs of that kind
alone.  The least step T gives pool k at most dp_k floor((T - a_k) / b_k) micro-batches;
it is found by bisection among the values that some T_k takes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.equations.memory import peak_memory_bytes
from cost_models.equations.step import step_time_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from search.frontier.pareto import pareto_mask
from search.pools.rows import PooledRow, PoolPart
from search.rules import Problem
from search.rules.rule import Mask

BISECTIONS = 60
ROUNDING = 1e-9


def split_replicas(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    strategies: Strategies,
) -> list[PooledRow]:
    """The frontier of this family; ``problems`` are of all GPUs, as each pool's kind."""
    s = strategies.take(_divides(pools, strategies))
    if not len(s):
        return []
    shared = share_out(problems, pools, constants, s)
    good = np.flatnonzero(shared.fits & np.isfinite(shared.step_time_s))
    if not len(good):
        return []
    mask = pareto_mask(shared.memory_bytes[good], shared.step_time_s[good])
    return [
        _row(problems, pools, constants, s, int(i), shared.counts, shared.replicas)
        for i in good[mask].tolist()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Strategies of shape (n,) with their micro-batches shared out; axis 0 of two is the pool."""

    memory_bytes: Floats
    """Of the fullest GPU of any pool."""
    step_time_s: Floats
    fits: Mask
    """On every pool, with a micro-batch at least for every replica."""
    counts: Floats
    """Micro-batches of a replica."""
    replicas: Floats


def share_out(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    s: Strategies,
) -> Shared:
    """Price flat strategies whose replicas lie within the pools."""
    replicas = _replicas(pools, s)
    total = problems[0].workload.global_batch_size // s.micro_batch_size
    memory = np.stack([_bytes(p, s, c) for p, c in zip(problems, constants, strict=True)])
    usable = np.array([pool.usable_memory_bytes for pool in pools])[:, None]
    lines = [_line(p, s, c) for p, c in zip(problems, constants, strict=True)]
    base, each = (np.stack(v) for v in zip(*lines, strict=True))
    step, counts = fewest(base, each, replicas, total)
    return Shared(
        memory_bytes=memory.max(axis=0),
        step_time_s=step,
        fits=(memory <= usable).all(axis=0) & (total >= replicas.sum(axis=0)),
        counts=counts,
        replicas=replicas,
    )


def _divides(pools: Sequence[Cluster], s: Strategies) -> Mask:
    """Strategies whose replicas, and whose groups of experts, lie within the pools."""
    inner = s.tp * s.pp * s.cp
    fits = np.ones(s.shape, dtype=np.bool_)
    for pool in pools:
        dp = pool.n_gpus // inner
        fits &= (pool.n_gpus % inner == 0) & (dp >= 1)
        fits &= (dp * s.tp * s.cp) % np.maximum(s.ep * s.etp, 1) == 0
    return np.asarray(fits)


def _replicas(pools: Sequence[Cluster], s: Strategies) -> Floats:
    inner = s.tp * s.pp * s.cp
    return np.stack([pool.n_gpus // inner for pool in pools]).astype(np.float64)


def _bytes(problem: Problem, s: Strategies, constants: Constants) -> Floats:
    peak = peak_memory_bytes(problem.model, problem.workload, s, constants)
    return np.broadcast_to(peak, s.shape)


def _line(problem: Problem, s: Strategies, constants: Constants) -> tuple[Floats, Floats]:
    """(a, b) of T(m) = a + b m, from the whole batch and twice as much."""
    batch = problem.workload.global_batch_size
    once, twice = (
        step_time_s(
            problem.model,
            problem.cluster,
            replace(problem.workload, global_batch_size=n),
            s,
            constants,
        )
        for n in (batch, 2 * batch)
    )
    m = batch / (s.micro_batch_size * s.dp)
    each = (twice - once) / m
    return np.broadcast_to(once - each * m, s.shape), np.broadcast_to(each, s.shape)


def fewest(base: Floats, each: Floats, replicas: Floats, total: Floats) -> tuple[Floats, Floats]:
    """Least steps, and micro-batches of each pool's replicas; axis 0 is the pool.

    >>> step, counts = fewest(np.array([[1.0], [1.0]]), np.array([[1.0], [3.0]]),
    ...                       np.array([[2.0], [2.0]]), np.array([8.0]))
    >>> step.tolist(), counts.T.tolist()
    ([4.0], [[3.0, 1.0]])
    """

    def at(limit: Floats) -> Floats:
        return np.floor((limit - base) / each + ROUNDING)

    def enough(limit: Floats) -> Floats:
        m = at(limit)
        return np.asarray((m >= 1).all(axis=0) & ((replicas * m).sum(axis=0) >= total))

    low = np.zeros(base.shape[1:])
    high = (base + each * np.ceil(total)).max(axis=0)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2.0
        good = enough(middle)
        high, low = np.where(good, middle, high), np.where(good, low, middle)
    counts = np.maximum(at(high), 1.0)
    return (base + each * counts).max(axis=0), counts


def _row(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    s: Strategies,
    i: int,
    counts: Floats,
    replicas: Floats,
) -> PooledRow:
    """Price one strategy again, each pool with its own number of micro-batches."""
    strategy = s.row(i)
    columns = Strategies.of(strategy)
    parts, steps = [], []
    for k, (problem, pool) in enumerate(zip(problems, pools, strict=True)):
        m = int(counts[k, i])
        job = replace(
            problem.workload, global_batch_size=m * strategy.micro_batch_size * strategy.dp
        )
        steps.append(
            float(step_time_s(problem.model, problem.cluster, job, columns, constants[k])[0])
        )
        memory = peak_memory_bytes(problem.model, job, columns, constants[k])
        parts.append(
            PoolPart(
                pool=k,
                gpu=pool.gpu.name,
                n_gpus=pool.n_gpus,
                replicas=int(replicas[k, i]),
                stages=strategy.pp,
                micro_batches=m,
                memory_bytes=float(np.max(memory)),
                usable_bytes=pool.usable_memory_bytes,
                price_usd_per_hour=pool.gpu.price_usd_per_hour,
            )
        )
    return PooledRow(
        family="replicas", strategy=strategy, parts=tuple(parts), step_time_s=max(steps)
    )

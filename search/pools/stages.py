"""One pipeline through several pools: stages in pool order, layers by what each GPU can do.

All stages have equal groups of d = tp dp cp ranks, so that pool k holds n_k / d stages.
With a_k one layer's time on pool k and c_k what a stage takes beside its layers, no way of
assigning L layers is faster on its slowest rank than the t that solves

    sum over k of (n_k / d) (t - c_k) / a_k = L                                        (1)

Candidates are assigned in the order of m t, the leading part of their step.
"""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.strategy import Order, Schedule, Strategies, Strategy
from cost_models.specs.units import Floats
from cost_models.stages.pool_step import pooled_step
from cost_models.stages.stage_cost import StageCost, stage_costs, stage_terms
from search.frontier.pareto import pareto_mask
from search.pools.rows import PooledRow, PoolPart
from search.rules import Problem
from search.stages.assignment import Line, before

MOST_ASSIGNED = 300
"""Candidates whose layers are assigned."""
NEAR = 1.03
"""Rows within this of the frontier, by what was assigned, are priced in full."""


def split_stages(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    strategies: Strategies,
) -> tuple[list[PooledRow], int, float]:
    """Rows of this family, how many candidates were left unassigned, and their least bound."""
    s = strategies.take(_divides(pools, strategies))
    if not len(s):
        return [], 0, np.inf
    bound = _bound(problems, pools, constants, s)
    by_bound = np.argsort(bound, kind="stable")
    chosen, rest = s.take(by_bound[:MOST_ASSIGNED]), bound[by_bound[MOST_ASSIGNED:]]
    least_s = float(rest[0]) if len(rest) else np.inf
    costs = [
        stage_costs(p.model, p.cluster, p.workload, chosen, c)
        for p, c in zip(problems, constants, strict=True)
    ]
    assigned = [
        found
        for i, strategy in enumerate(chosen.rows())
        for found in _assign(pools, strategy, [cost[i] for cost in costs], problems[0])
    ]
    if not assigned:
        return [], len(rest), least_s
    memory = np.array([held for *_, held, _ in assigned])
    seconds = np.array([lead for *_, lead in assigned])
    near = pareto_mask(memory, seconds / NEAR) | _close(memory, seconds)
    rows = [
        _row(problems, pools, constants, strategy, order)
        for (strategy, order, _, _), keep in zip(assigned, near, strict=True)
        if keep
    ]
    fits = [row for row in rows if all(p.memory_bytes <= p.usable_bytes for p in row.parts)]
    return fits, len(rest), least_s


def _divides(pools: Sequence[Cluster], s: Strategies) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """1F1B pipelines whose stages lie within the pools."""
    inner = s.tp * s.dp * s.cp
    fits = (s.pp > 1) & (s.vpp == 1) & (s.schedule == Schedule._1F1B)
    fits &= s.order == Order.TP_CP_EP_DP_PP
    for pool in pools:
        fits = fits & (pool.n_gpus % inner == 0)
    return np.asarray(fits)


def _close(memory: Floats, seconds: Floats) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Points within :data:`NEAR` of the best that needs no more memory."""
    order = np.argsort(memory, kind="stable")
    best = np.minimum.accumulate(seconds[order])
    close = np.zeros(len(memory), dtype=np.bool_)
    close[order] = seconds[order] <= NEAR * best
    return close


def _bound(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    s: Strategies,
) -> Floats:
    """Lower bound of m t, by equation (1) with the lightest layer everywhere."""
    inner = s.tp * s.dp * s.cp
    rate, offset = np.zeros(s.shape), np.zeros(s.shape)
    for problem, pool, c in zip(problems, pools, constants, strict=True):
        t = stage_terms(problem.model, problem.cluster, problem.workload, s, c).seconds
        model = problem.model
        share = len(model.moe_layers) / model.n_layers
        each = t.layer + share * t.moe + np.minimum(t.windowed, 0.0)
        rate = rate + pool.n_gpus / inner / each
        offset = offset + pool.n_gpus / inner * t.constant / each
    m = problems[0].workload.global_batch_size / (s.micro_batch_size * s.dp)
    return np.asarray(m * (problems[0].model.n_layers + offset) / rate)


Assigned = tuple[Strategy, tuple[int, ...], float, float]
"""A strategy with its layers, pools in pipeline order, fullest rank, leading time."""


def _assign(
    pools: Sequence[Cluster], strategy: Strategy, costs: Sequence[StageCost], problem: Problem
) -> Iterator[Assigned]:
    """Layers for every order of the pools in which anything fits."""
    inner = strategy.tp * strategy.dp * strategy.cp
    m = problem.workload.global_batch_size / (strategy.micro_batch_size * strategy.dp)
    seconds = [before(cost.layer_s).tolist() for cost in costs]
    for order in permutations(range(len(pools))):
        where = ranks_of(pools, order, inner)
        held = [
            before(costs[k].layer_bytes + costs[k].in_flight[r] * costs[k].activation_bytes)
            for r, k in enumerate(where)
        ]
        line = Line(
            seconds=[seconds[k] for k in where],
            held=[row.tolist() for row in held],
            fixed_s=[float(costs[k].chunk_s[r]) for r, k in enumerate(where)],
            fixed_bytes=[float(costs[k].chunk_bytes[r]) for r, k in enumerate(where)],
        )
        layers = line.assign([pools[k].usable_memory_bytes for k in where])
        if layers is None:
            continue
        ends = np.cumsum(layers).tolist()
        spans = list(zip([0, *ends[:-1]], ends, strict=True))
        took = [
            line.fixed_s[r] + line.seconds[r][b] - line.seconds[r][a]
            for r, (a, b) in enumerate(spans)
        ]
        full = [
            line.fixed_bytes[r] + line.held[r][b] - line.held[r][a]
            for r, (a, b) in enumerate(spans)
        ]
        lead = (m - 1) * max(took) + sum(took)
        yield strategy.with_(stage_layers=layers), order, max(full), lead


def ranks_of(pools: Sequence[Cluster], order: Sequence[int], inner: int) -> list[int]:
    """Pool of every pipeline rank, pools in the given order."""
    return [k for k in order for _ in range(pools[k].n_gpus // inner)]


def _row(
    problems: Sequence[Problem],
    pools: Sequence[Cluster],
    constants: Sequence[Constants],
    strategy: Strategy,
    order: tuple[int, ...],
) -> PooledRow:
    """Price one of them in full."""
    where = ranks_of(pools, order, strategy.tp * strategy.dp * strategy.cp)
    problem = problems[0]
    priced = pooled_step(
        problem.model,
        problem.workload,
        strategy,
        list(zip(pools, constants, strict=True)),
        where,
    )
    layers = strategy.stage_layers or ()
    m = problem.workload.global_batch_size // (strategy.micro_batch_size * strategy.dp)
    parts = []
    for k in order:
        mine = [r for r, pool in enumerate(where) if pool == k]
        parts.append(
            PoolPart(
                pool=k,
                gpu=pools[k].gpu.name,
                n_gpus=pools[k].n_gpus,
                replicas=strategy.dp,
                stages=len(mine),
                micro_batches=m,
                layers=tuple(layers[r] for r in mine),
                memory_bytes=float(priced.rank_bytes[mine].max()),
                usable_bytes=pools[k].usable_memory_bytes,
                price_usd_per_hour=pools[k].gpu.price_usd_per_hour,
            )
        )
    return PooledRow(
        family="stages",
        strategy=strategy,
        parts=tuple(parts),
        step_time_s=priced.step_time_s,
    )

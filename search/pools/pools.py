"""Clusters of several pools: which pool runs which part of a job.

Three families are searched, and what each answer is worth is said:

``alone``     one pool does it all, the others stay idle: the ordinary search.
``replicas``  every pool runs whole replicas of one layout; a replica of pool k gets m_k
              micro-batches.  With T_k(m) the step of the whole job on pool k's GPUs, the
              step is max_k T_k(m_k); every legal strategy of the space is tried, the m_k
              by bisection: exact for this family, T_k being linear in m.
``stages``    one pipeline, its stages on the pools in some order, one chunk on each rank,
              equal tensor-, context- and data-parallel groups everywhere.  Layers per
              stage exactly (:class:`search.stages.assignment.Line`), candidates in the order of
              a lower bound until :data:`MOST_ASSIGNED` are assigned.

Pools that are alike are one cluster: the ordinary search, with its own frontier.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Sharding, Strategies, Strategy
from cost_models.specs.workload import Workload
from search.frontier.pareto import pareto_mask
from search.plan import How, search_strategies
from search.pools.replicas import split_replicas
from search.pools.rows import PooledRow, PoolPart
from search.pools.stages import split_stages
from search.rules import Problem, legal_mask, rules_for
from search.space.space import Space
from search.sweep.census import legal_of, take_census

MOST_STRATEGIES = 400_000
"""Legal strategies beyond which the axes have to be narrowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolResult:
    """The frontier of memory against step time over all families, fastest first."""

    model: ModelSpec
    pools: tuple[Cluster, ...]
    workload: Workload
    launcher: str
    frontier: list[PooledRow]
    legal: int
    """Strategies on all GPUs that every pool's rules allow."""
    detail: str
    """What was searched, and what that proves."""


def search_pools(
    model: ModelSpec,
    pools: Sequence[Cluster],
    workload: Workload,
    space_for: Callable[[Problem], Space],
    constants: Sequence[Constants],
    *,
    launcher: str = "megatron",
    seed: int = 0,
) -> PoolResult:
    """Search all families over several pools; ``constants`` are the pools' own.

    Raises
    ------
    SpecError
        For a single pool, and for a space of too many strategies.
    """
    if len(pools) < 2:
        raise SpecError("a mixed cluster has several pools", hint="one pool is a plain search")
    total = sum(pool.n_gpus for pool in pools)
    whole = [replace(pool, n_gpus=total) for pool in pools]
    problems = [Problem.of(model, pool, workload, launcher) for pool in whole]
    strategies = legal_everywhere(problems, space_for(problems[0]))
    rows = _alone(model, pools, workload, space_for, constants, launcher, seed)
    rows += split_replicas(problems, pools, constants, strategies)
    staged, left, least_s = split_stages(problems, pools, constants, strategies)
    rows += staged
    mask = pareto_mask([row.memory_bytes for row in rows], [row.step_time_s for row in rows])
    frontier = [row for row, keep in zip(rows, mask, strict=True) if keep]
    frontier.sort(key=lambda row: (row.step_time_s, row.memory_bytes))
    stages = "exact"
    if left:
        stages = f"exact below {least_s:.4g} s, the bound of {left} candidates not dealt"
    return PoolResult(
        model=model,
        pools=tuple(pools),
        workload=workload,
        launcher=launcher,
        frontier=frontier,
        legal=len(strategies),
        detail=f"each pool alone: exact; replicas among pools: exact for one layout and step "
        f"times linear in micro-batches; stages among pools: one chunk a rank, {stages}; "
        f"other mixtures not searched",
    )


def legal_everywhere(problems: Sequence[Problem], space: Space) -> Strategies:
    """All strategies on all GPUs that the rules of every pool allow, flat."""
    census = take_census(problems[0], space)
    if census.legal > MOST_STRATEGIES:
        raise SpecError(
            f"{census.legal} legal strategies are too many for a mixed cluster, "
            f"at most {MOST_STRATEGIES}",
            hint="narrow the axes, or --space core",
        )
    flat = legal_of(census)
    for problem in problems[1:]:
        legal, _ = legal_mask(problem, flat, rules_for(problem.launcher.name))
        flat = flat.take(legal)
    # shard groups of HSDP and schedules with several chunks would have to know the pools
    plain = (flat.sharding != Sharding.HSDP) & ((flat.pp == 1) | (flat.schedule == Schedule._1F1B))
    return flat.take(np.asarray(plain))


def _alone(
    model: ModelSpec,
    pools: Sequence[Cluster],
    workload: Workload,
    space_for: Callable[[Problem], Space],
    constants: Sequence[Constants],
    launcher: str,
    seed: int,
) -> list[PooledRow]:
    """The frontier of each pool, the others idle."""
    rows = []
    for k, (pool, numbers) in enumerate(zip(pools, constants, strict=True)):
        problem = Problem.of(model, pool, workload, launcher)
        space = space_for(problem)
        found = search_strategies(
            model, pool, workload, space, numbers, launcher=launcher, seed=seed, how=How()
        )
        for row in found.frontier:
            part = _all_of(k, pool, row.strategy, workload, row.memory_bytes)
            rows.append(
                PooledRow(
                    family="alone",
                    strategy=row.strategy,
                    parts=(part,),
                    step_time_s=row.step_time_s,
                )
            )
    return rows


def _all_of(
    k: int, pool: Cluster, s: Strategy, workload: Workload, memory_bytes: float
) -> PoolPart:
    return PoolPart(
        pool=k,
        gpu=pool.gpu.name,
        n_gpus=pool.n_gpus,
        replicas=s.dp,
        stages=s.pp,
        micro_batches=workload.global_batch_size // (s.micro_batch_size * s.dp),
        memory_bytes=memory_bytes,
        usable_bytes=pool.usable_memory_bytes,
        price_usd_per_hour=pool.gpu.price_usd_per_hour,
    )

"""Mixed clusters by name: several pools of GPUs, one job."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autopar.job.inputs import (
    as_framework,
    as_model,
    as_precision,
    as_space,
    as_workload,
    constants_for,
)
from cost_models.catalog.gpus import load_pools
from cost_models.specs.cluster import Cluster, alike, joined
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision
from search.pools.pools import PoolResult, search_pools
from search.rules import Problem
from search.space.space import Space


def as_pools(pools: Sequence[Cluster] | str | Path) -> tuple[Cluster, ...]:
    """Pools, or those of a cluster file; pools that are alike become one."""
    found = load_pools(pools) if isinstance(pools, str | Path) else tuple(pools)
    if not found:
        raise SpecError("a cluster needs at least one pool")
    return (joined(found),) if alike(found) else found


def search_mixed(
    model: ModelSpec | str,
    cluster: Sequence[Cluster] | str | Path,
    *,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    precision: Precision | str | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
    space: Space | str = "core",
    fixed: Mapping[str, Any] | None = None,
    launcher: str = "megatron",
    seed: int = 0,
    calibration: str | Path | None = None,
) -> PoolResult:
    """The frontier of memory against step time for one model on several pools of GPUs.

    Raises
    ------
    SpecError
        For words that are not known, and for pools that are alike: those are one cluster,
        which :func:`autopar.search` takes.
    """
    pools = as_pools(cluster)
    if len(pools) < 2:
        raise SpecError("the pools are alike", hint="autopar.search takes them as one cluster")
    spec, recipe = as_model(model), as_framework(framework)
    workload = as_workload(
        spec,
        joined(pools),
        seq_len=seq_len,
        global_batch=global_batch,
        tokens_per_batch=tokens_per_batch,
        optimizer=optimizer,
        framework=recipe,
    )

    def space_for(problem: Problem) -> Space:
        return as_space(space, problem, as_precision(precision, problem.cluster), fixed)

    constants = [constants_for(pool, recipe, calibration) for pool in pools]
    return search_pools(spec, pools, workload, space_for, constants, launcher=launcher, seed=seed)

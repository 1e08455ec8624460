"""Mixed clusters by name: several pools of GPUs, one job."""

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from autopar.job.inputs import constants_for
from autopar.job.job import Job, Words
from cost_models.catalog.gpus import load_pools
from cost_models.specs.cluster import Cluster, alike, joined
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from search.pools.pools import PoolResult, search_pools


def as_pools(pools: Sequence[Cluster] | str | Path) -> tuple[Cluster, ...]:
    """Pools, or those of a cluster file; pools that are alike become one."""
    found = load_pools(pools) if isinstance(pools, str | Path) else tuple(pools)
    if not found:
        raise SpecError("a cluster needs at least one pool")
    return (joined(found),) if alike(found) else found


def search_mixed(
    model: ModelSpec | str, mixed: Sequence[Cluster] | str | Path, **words: Unpack[Words]
) -> PoolResult:
    """The frontier of memory against step time for one model on several pools of GPUs.

    Raises
    ------
    SpecError
        For words that are not known, and for pools that are alike: those are one cluster,
        which :func:`autopar.search` takes.
    """
    pools = as_pools(mixed)
    if len(pools) < 2:
        raise SpecError("the pools are alike", hint="autopar.search takes them as one cluster")
    words["cluster"] = joined(pools)
    job = Job.of(model, **words)
    problem = job.problem
    recipe, path = problem.workload.framework, words.get("calibration")
    return search_pools(
        problem.model,
        pools,
        problem.workload,
        job.space_for,
        [constants_for(pool, recipe, path) for pool in pools],
        launcher=job.name,
        seed=job.seed,
    )

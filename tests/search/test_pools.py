"""Mixed clusters: pools alike are one cluster, and small cases agree with brute force."""

from dataclasses import replace
from itertools import combinations, pairwise, permutations, product

import numpy as np
import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.step import step_cost, step_time_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Sharding, Strategies, Strategy
from cost_models.specs.workload import Workload
from cost_models.stages.pool_step import pooled_step
from search.pools.pools import PoolResult, search_pools
from search.pools.replicas import fewest
from search.pools.stages import ranks_of
from search.rules import Problem
from search.space.space import Space
from tests.search.small_problems import ADAM, FRAMEWORK, GPU, dense

FAST = replace(GPU, name="fast", peak_flop_per_s={"bf16": 3e12}, memory_bandwidth_Bps=2e11)
CONSTANTS = replace(prior_constants(),
    layer_floor_s=0.0, layer_floor_tp_s=0.0, micro_batch_s=1e-5, step_s=1e-5,
    framework_bytes=1e6, communicator_bytes=0.0,
)  # fmt: skip
MODEL = dense(hidden_size=256, head_dim=32, ffn_size=1024, vocab_size=1024)
WORKLOAD = Workload(global_batch_size=24, sequence_length=256, framework=FRAMEWORK, optimizer=ADAM)
POOLS = (Cluster.of(FAST, 4), Cluster.of(GPU, 4))


def searched(pools: tuple[Cluster, ...] = POOLS) -> PoolResult:
    """The core space of the small model on these pools."""
    constants = [CONSTANTS] * len(pools)
    return search_pools(MODEL, pools, WORKLOAD, Space.core, constants)


def piped(pp: int, layers: tuple[int, ...], dp: int = 1) -> Strategy:
    """A plain pipeline."""
    return Strategy(dp=dp, pp=pp, overlap_p2p=False, stage_layers=layers)


def test_pools_alike_price_as_one_cluster() -> None:
    """Two halves of a cluster take what the whole takes, to the last digits."""
    half = Cluster.of(GPU, 4)
    for strategy in (piped(4, (2, 2, 3, 1), dp=2), piped(2, (5, 3), dp=4)):
        one = strategy.with_(sharding=Sharding.ZERO1, dp_shard=strategy.dp)
        where = ranks_of([half, half], (0, 1), one.dp)
        pooled = pooled_step(MODEL, WORKLOAD, one, [(half, CONSTANTS)] * 2, where)
        whole = step_cost(MODEL, Cluster.of(GPU, 8), WORKLOAD, Strategies.of(one), CONSTANTS)
        assert pooled.step_time_s == pytest.approx(float(whole.step_time_s[0]), rel=1e-12)
        assert pooled.rank_bytes.max() == pytest.approx(float(whole.memory.total_bytes[0]))


def test_rows_fit_and_none_beats_another() -> None:
    """Every part fits its own pool; the frontier is one, no slower than the better pool alone."""
    found = searched()
    assert len({row.family for row in found.frontier}) > 1
    for row in found.frontier:
        assert all(part.memory_bytes <= part.usable_bytes for part in row.parts)
    for first, second in pairwise(found.frontier):
        assert first.step_time_s <= second.step_time_s
        assert first.memory_bytes > second.memory_bytes
    alone = [row.step_time_s for row in found.frontier if row.family == "alone"]
    assert found.frontier[0].step_time_s <= min(alone, default=np.inf)


def test_micro_batches_are_shared_out_as_brute_force_shares_them() -> None:
    """Every pair of counts that covers the batch: none is faster."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        base, each = rng.uniform(0, 2, (2, 1)), rng.uniform(0.5, 3, (2, 1))
        replicas = rng.integers(1, 4, (2, 1)).astype(float)
        total = np.array([float(rng.integers(replicas.sum(), 20))])
        step, counts = fewest(base, each, replicas, total)
        ways = [
            max(base[k, 0] + each[k, 0] * m[k] for k in range(2))
            for m in product(range(1, 21), repeat=2)
            if replicas[0, 0] * m[0] + replicas[1, 0] * m[1] >= total[0]
        ]
        assert step[0] == pytest.approx(min(ways))
        assert (replicas * counts).sum() >= total[0]


def test_no_pipeline_through_the_pools_is_faster() -> None:
    """No assignment of eight layers to four or eight stages, in any order, beats the search."""
    found = searched()
    best = np.inf
    for pp, order in product((2, 4, 8), permutations(range(2))):
        dp = 8 // pp
        for micro in (1, 2):
            if 24 % (dp * micro):
                continue
            where = ranks_of(POOLS, order, dp)
            for cuts in combinations(range(1, 8), pp - 1):
                layers = tuple(b - a for a, b in pairwise((0, *cuts, 8)))
                one = piped(pp, layers, dp).with_(
                    micro_batch_size=micro,
                    sharding=Sharding.ZERO1 if dp > 1 else Sharding.NONE,
                    dp_shard=dp,
                    overlap_grad_reduce=dp > 1,
                    overlap_param_gather=dp > 1,
                )
                priced = pooled_step(
                    MODEL, WORKLOAD, one, [(pool, CONSTANTS) for pool in POOLS], where
                )
                best = min(best, priced.step_time_s)
    assert found.frontier[0].step_time_s <= best * (1 + 1e-9)


def test_a_replicas_row_is_priced_by_the_step_of_each_pool() -> None:
    """The slower of the two pools is the clock."""
    rows = [row for row in searched().frontier if row.family == "replicas"]
    for row in rows:
        steps = []
        for part in row.parts:
            pool = replace(POOLS[part.pool], n_gpus=8)
            batch = part.micro_batches * row.strategy.micro_batch_size * row.strategy.dp
            job = replace(WORKLOAD, global_batch_size=batch)
            seconds = step_time_s(MODEL, pool, job, Strategies.of(row.strategy), CONSTANTS)
            steps.append(float(seconds[0]))
        assert row.step_time_s == pytest.approx(max(steps))


def test_one_pool_is_refused() -> None:
    """A plain search takes it."""
    with pytest.raises(SpecError, match="several pools"):
        search_pools(MODEL, POOLS[:1], WORKLOAD, Space.core, [CONSTANTS])


def test_rules_of_every_pool_are_obeyed() -> None:
    """A precision that only one pool has is used by none of the rows of both."""
    eight = replace(FAST, peak_flop_per_s={"bf16": 3e12, "fp8": 6e12})
    four = replace(GPU, peak_flop_per_s={"bf16": 1e12})
    pools = (Cluster.of(eight, 4), Cluster.of(four, 4))

    def space_for(problem: Problem) -> Space:
        return Space.core(problem)

    found = search_pools(MODEL, pools, WORKLOAD, space_for, [CONSTANTS] * 2)
    assert {row.strategy.precision.label for row in found.frontier} == {"bf16"}

"""The totals that anybody can check: Llama 3.1 405B over all GPUs of a job."""

from collections.abc import Callable

import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.models import load_model
from cost_models.equations.totals import job_memory_bytes
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.strategy import Sharding, Strategy
from cost_models.specs.workload import Workload

Totals = Callable[..., dict[str, float]]
TERA = 1e12


@pytest.fixture(scope="module")
def totals(workload: Callable[..., Workload], h100: Gpu) -> Totals:
    """Bytes over all GPUs at sequence 8192."""

    def over_all(strategy: Strategy, global_batch_size: int = 128) -> dict[str, float]:
        cluster = Cluster.of(h100, strategy.world_size)
        job = workload(8192, global_batch_size)
        return job_memory_bytes(load_model("405b"), cluster, job, strategy, prior_constants())

    return over_all


def state(terms: dict[str, float]) -> float:
    """Bytes of weights, gradients and optimizer."""
    return terms["weights"] + terms["gradients"] + terms["optimizer"]


@pytest.mark.parametrize(
    ("tp", "pp"), [(1, 1), (8, 1), (8, 2), (8, 16)], ids=["1", "tp8", "tp8pp2", "tp8pp16"]
)
def test_model_state_of_one_replica(totals: Totals, tp: int, pp: int) -> None:
    """405.9e9 parameters at 18 bytes are 7.3 TB, however the replica is cut."""
    terms = totals(Strategy(tp=tp, pp=pp, sequence_parallel=tp > 1))
    assert state(terms) / TERA == pytest.approx(7.3, abs=0.02)
    assert terms["weights"] * 9 == pytest.approx(state(terms))


def test_activations_of_one_micro_batch(totals: Totals) -> None:
    """Near 0.57 TB without recompute, over 2 TB for a micro-batch of four: linear."""
    one, two, four = (
        totals(Strategy(tp=8, sequence_parallel=True, micro_batch_size=n))["activations"]
        for n in (1, 2, 4)
    )
    assert one / TERA == pytest.approx(0.57, rel=0.1)
    assert four > 2 * TERA
    assert two == pytest.approx(2 * one)
    assert four == pytest.approx(4 * one)


def test_full_sharding_against_replication(totals: Totals) -> None:
    """On the same 128 GPUs, sixteen replicas of the state become little more than one."""
    replicated = totals(Strategy(tp=8, dp=16, sequence_parallel=True))
    sharded = totals(
        Strategy(tp=8, dp=16, sequence_parallel=True, sharding=Sharding.FSDP, dp_shard=16)
    )
    assert state(replicated) / TERA == pytest.approx(16 * 7.3, rel=0.01)
    assert 7.3 * TERA < state(sharded) < 1.1 * 7.3 * TERA
    assert sum(sharded.values()) < 0.2 * sum(replicated.values())
    assert sharded["activations"] == pytest.approx(replicated["activations"])

"""Gradients and sharded weights travel as often as each kind of sharding says."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.models import load_model
from cost_models.equations.step import StepCost
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Order, Sharding, Strategy
from cost_models.specs.workload import Workload

Price = Callable[..., StepCost]
Job = Callable[..., Workload]
BARE = replace(
    prior_constants(),
    nvlink_latency_s=0.0,
    nic_latency_s=0.0,
    collective_launch_s=0.0,
    nvlink_half_size_bytes=0.0,
    nic_half_size_bytes=0.0,
)
"""Wires with bandwidth and nothing else."""


def communication(cost: StepCost) -> float:
    """Data-parallel seconds, paid or hidden."""
    terms = cost.time_terms
    return float((terms["dp_comm"] + terms["fsdp_comm"] + cost.hidden_s).item())


def test_zero_two_reduces_each_gradient_once(price: Price, workload: Job) -> None:
    """With one micro-batch it scatters and gathers just as ZeRO-1; with eight it scatters eight."""
    model = load_model("8b")
    one, eight = workload(4096, 16), workload(4096, 128)

    def seconds(kind: Sharding, job: Workload) -> float:
        layout = Strategy(dp=16, sharding=kind, dp_shard=16)
        return communication(price(model, layout, job, constants=BARE))

    assert seconds(Sharding.ZERO2, one) == pytest.approx(seconds(Sharding.ZERO1, one))
    assert seconds(Sharding.ZERO1, eight) == pytest.approx(seconds(Sharding.ZERO1, one))
    scattered = (seconds(Sharding.ZERO2, eight) - seconds(Sharding.ZERO2, one)) / 7
    assert 0.5 < scattered / seconds(Sharding.ZERO1, one) < 0.8  # 4 of its 4 + 2 bytes


def test_hsdp_exchanges_the_experts_of_its_copies(price: Price, moe_model: ModelSpec) -> None:
    """Groups as large as expert-parallel hold each expert once: nothing to gather, all to add."""
    layout = Strategy(dp=64, ep=8, sharding=Sharding.HSDP, dp_shard=8, overlap_grad_reduce=False)
    fsdp = price(moe_model, layout.with_(sharding=Sharding.FSDP, dp_shard=64))
    hsdp = price(moe_model, layout)
    assert hsdp.time_terms["dp_comm"] > 0
    assert fsdp.time_terms["dp_comm"] == 0
    assert (
        hsdp.time_terms["fsdp_comm"] + hsdp.hidden_s < fsdp.time_terms["fsdp_comm"] + fsdp.hidden_s
    )


def test_weights_kept_gathered_come_once_a_step(price: Price, workload: Job) -> None:
    """Without resharding, gathers do not grow with the micro-batches; scatters do."""
    model = load_model("8b")
    moved = {}
    for reshard in (True, False):
        layout = Strategy(dp=16, sharding=Sharding.FSDP, dp_shard=16, reshard_after_forward=reshard)
        moved[reshard] = [
            communication(price(model, layout, workload(4096, 16 * m), constants=BARE))
            for m in (1, 3)
        ]
    # 4 bytes scattered and twice 2 gathered per parameter and micro-batch, or 2 once
    assert moved[True][1] == pytest.approx(3 * moved[True][0])
    assert moved[False][0] == pytest.approx(6 / 8 * moved[True][0])
    assert moved[False][1] == pytest.approx(14 / 8 * moved[True][0])


def test_gradients_travel_in_the_framework_s_own_bytes(price: Price, workload: Job) -> None:
    """Megatron reduces 4 bytes per parameter; reducing 2 takes half of the scatter's time."""
    model, job = load_model("8b"), workload(4096, 16)
    two = replace(job, framework=replace(job.framework, grad_reduce_bytes=2.0))
    layout = Strategy(dp=16)
    four_bytes = communication(price(model, layout, job, constants=BARE))
    assert communication(price(model, layout, two, constants=BARE)) == pytest.approx(four_bytes / 2)


def test_the_host_link_works_while_weights_are_awaited(
    price: Price, dense_model: ModelSpec, h100: Gpu
) -> None:
    """A GPU eight times faster hides less of both, which wait side by side: no slower a step.

    The host is out of the way: what it holds up hides nothing in the equations.
    """
    layout = Strategy(
        dp=8, tp=2, pp=4, sharding=Sharding.HSDP, dp_shard=4, activation_offload=0.5,
        order=Order.TP_CP_EP_PP_DP,
    )  # fmt: skip
    c = replace(prior_constants(), layer_floor_s=0.0, layer_floor_tp_s=0.0)
    faster = replace(h100, peak_flop_per_s={k: 8 * v for k, v in h100.peak_flop_per_s.items()})
    slow, fast = (
        price(dense_model, layout, cluster=Cluster.of(gpu, 64), constants=c).step_time_s
        for gpu in (h100, faster)
    )
    assert fast <= slow

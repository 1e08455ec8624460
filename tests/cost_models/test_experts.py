"""What the software does with experts shows in the time: fused, dropped, balanced, biased."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.counting.work import step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.layer_time import LayerTime, layer_time
from cost_models.equations.step import step_time_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Strategies, Strategy
from cost_models.specs.workload import Workload

Job = Callable[..., Workload]
BRIDGE, BEFORE = "megatron-bridge", "megatron-bridge-26.04"
EIGHT = Strategy(dp=8, ep=8, precision=Precision.MXFP8)


def seconds(
    model: ModelSpec, job: Workload, strategy: Strategy = EIGHT, c: Constants | None = None
) -> float:
    """One step on B200."""
    cluster = Cluster.of(load_gpu("b200"), strategy.world_size)
    return step_time_s(model, cluster, job, Strategies.of(strategy), c or prior_constants()).item()


def layer(
    model: ModelSpec, job: Workload, strategy: Strategy = EIGHT, c: Constants | None = None
) -> LayerTime:
    """One layer on B200."""
    cluster = Cluster.of(load_gpu("b200"), strategy.world_size)
    columns = Strategies.of(strategy)
    return layer_time(step_work(model, cluster, job, columns), columns, c or prior_constants())


def test_fused_experts_move_less_and_wait_for_no_host(workload: Job) -> None:
    """In a format that is fused; in any other the two releases are alike."""
    model = load_model("qwen3-30b-a3b")
    now, before = workload(framework=BRIDGE), workload(framework=BEFORE)
    assert layer(model, now).moe.memory_forward < layer(model, before).moe.memory_forward
    host = replace(prior_constants(), expert_host_s=1.0)
    assert seconds(model, before, c=host) > 10 * seconds(model, now, c=host)
    plain = replace(EIGHT, precision=Precision.BF16)
    assert seconds(model, now, plain) == seconds(model, before, plain)


def test_the_host_waits_with_each_expert_only_where_sizes_are_unknown(workload: Job) -> None:
    """Sixteen experts on a rank hold up a small micro-batch; dropping tokens fixes their sizes."""
    model = load_model("qwen3-30b-a3b")
    slow, quick = (
        replace(prior_constants(), expert_host_s=1e-2),
        replace(prior_constants(), expert_host_s=0.0),
    )
    job = workload(framework=BEFORE)
    waited = seconds(model, job, c=slow) - seconds(model, job, c=quick)
    micro_batches = job.global_batch_size / EIGHT.dp
    assert waited == pytest.approx(micro_batches * model.n_layers * 16 * 1e-2, rel=0.2)
    dropping = workload(framework=BEFORE, drops_tokens=True)
    assert seconds(model, dropping, c=slow) == seconds(model, dropping, c=quick)
    routed = replace(prior_constants(), expert_host_s=0.0, moe_layer_s=1e-2)
    assert seconds(model, job, c=routed) > seconds(model, job, c=quick)
    assert seconds(model, dropping, c=routed) == seconds(model, dropping, c=quick)


def test_balanced_experts_wait_for_no_fuller_one(workload: Job) -> None:
    """The imbalance acts where the router is free."""
    model = load_model("qwen3-30b-a3b")
    even, uneven = (
        replace(prior_constants(), moe_imbalance=1.0),
        replace(prior_constants(), moe_imbalance=1.5),
    )
    free, forced = workload(), workload(balanced_experts=True)
    assert layer(model, free, c=uneven).moe.forward > layer(model, free, c=even).moe.forward
    assert layer(model, forced, c=uneven).moe.forward == layer(model, forced, c=even).moe.forward


def test_an_expert_alone_is_a_plain_product(workload: Job) -> None:
    """The rate of grouped products acts from the second expert on a rank on."""
    model = replace(load_model("mixtral-8x7b"), n_experts=16)
    slow, quick = (
        replace(prior_constants(), grouped_gemm_fraction=0.5),
        replace(prior_constants(), grouped_gemm_fraction=1.0),
    )
    sixteen = replace(EIGHT, dp=16, ep=16)
    alone = [layer(model, workload(), sixteen, c).moe.gemm_forward for c in (slow, quick)]
    two = [layer(model, workload(), EIGHT, c).moe.gemm_forward for c in (slow, quick)]
    assert alone[0] == alone[1]
    assert two[0] > 1.2 * two[1]


def test_biases_of_experts_are_read_and_written(workload: Job) -> None:
    """By kernels of their own: less of them where experts are fused."""
    model = load_model("gpt-oss-120b")
    bare = replace(model, moe_bias=False)
    extra = [
        (layer(model, job).moe.memory_forward - layer(bare, job).moe.memory_forward).item()
        for job in (workload(framework=BEFORE), workload(framework=BRIDGE))
    ]
    assert extra[0] > 2 * extra[1] > 0


def test_sustained_clocks_scale_products_and_leave_memory_alone(workload: Job) -> None:
    """Board power moves arithmetic: 6 % more of it on every product and score."""
    model, gpu = load_model("llama3-8b"), load_gpu("gb200")
    columns = Strategies.of(Strategy())
    found = []
    for sustained in (None, 1.06):
        cluster = Cluster.of(replace(gpu, sustained=sustained), 1)
        found.append(
            layer_time(step_work(model, cluster, workload(), columns), columns, prior_constants())
        )
    before, after = found
    assert after.attention.memory_forward == before.attention.memory_forward
    ratio = before.attention.attention_backward / after.attention.attention_backward
    assert np.all((ratio > 1.05) & (ratio < 1.06))


def test_tokens_sent_in_eight_bits_halve_the_dispatch(workload: Job) -> None:
    """Three quarters of an exchange are left: what experts return keeps its 16 bits."""
    model = load_model("deepseek-v3")
    wide, narrow = (
        layer(model, workload(framework=name)).moe.ep_forward for name in ("megatron-lm", "hai-llm")
    )
    assert narrow == pytest.approx(0.75 * wide)

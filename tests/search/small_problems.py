"""Models, clusters and workloads small enough to enumerate by hand."""

from dataclasses import replace
from typing import Any

from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.workload import Workload
from search.rules import Problem

GPU = Gpu(
    name="tiny",
    vendor="none",
    architecture="none",
    peak_flop_per_s={"bf16": 1e12, "fp8": 2e12},
    memory_bytes=1e9,
    memory_bandwidth_Bps=1e11,
    n_sm=4,
    nvlink_domain=4,
    gpus_per_node=4,
    nvlink_bandwidth_Bps=1e10,
    nic_bandwidth_Bps=1e9,
    host_bandwidth_Bps=1e9,
)
FRAMEWORK = Framework(name="tiny", family="tiny")
ADAM = Optimizer(name="adam", moments_bytes=8, master_bytes=4)


def dense(**changes: Any) -> ModelSpec:
    """Eight layers, eight heads, four key-value heads."""
    values: dict[str, Any] = {
        "name": "dense",
        "n_layers": 8,
        "hidden_size": 32,
        "n_heads": 8,
        "n_kv_heads": 4,
        "head_dim": 4,
        "ffn_size": 96,
        "vocab_size": 128,
    }
    return ModelSpec(**(values | changes))


def moe(**changes: Any) -> ModelSpec:
    """The same with six experts in all layers but the first, and one shared expert."""
    values: dict[str, Any] = {
        "name": "moe",
        "n_experts": 6,
        "top_k": 2,
        "moe_ffn_size": 24,
        "shared_expert_ffn_size": 48,
        "moe_layers": tuple(range(1, 8)),
    }
    return dense(**(values | changes))


def problem(
    model: ModelSpec | None = None,
    *,
    gpus: int = 8,
    batch: int = 16,
    sequence: int = 64,
    launcher: str = "megatron",
    uneven_stages: bool = True,
    partition: str = "even",
) -> Problem:
    """A problem on the tiny GPU."""
    framework = Framework(name="tiny", family="tiny", partition=partition)  # type: ignore[arg-type]
    workload = Workload(
        global_batch_size=batch, sequence_length=sequence, framework=framework, optimizer=ADAM
    )
    return Problem.of(
        model or dense(), Cluster.of(GPU, gpus), workload, launcher, uneven_stages=uneven_stages
    )


def without_nvlink(p: Problem) -> Problem:
    """The same on GPUs that reach each other over the network only."""
    return replace(p, cluster=replace(p.cluster, nvlink_domain=1))

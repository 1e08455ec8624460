"""Models small enough to check by hand, and one way to price strategies on them."""

from collections.abc import Callable
from typing import Any

import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.optimizers import load_optimizer
from cost_models.equations.constants import Constants
from cost_models.equations.step import StepCost, step_cost
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.workload import Workload

Work = Callable[..., Workload]
Price = Callable[..., StepCost]


@pytest.fixture(scope="session")
def dense_model() -> ModelSpec:
    """Eight Llama layers with grouped queries."""
    return ModelSpec(
        name="dense",
        n_layers=8,
        hidden_size=1024,
        n_heads=16,
        n_kv_heads=8,
        head_dim=64,
        ffn_size=2816,
        vocab_size=32000,
    )


@pytest.fixture(scope="session")
def moe_model() -> ModelSpec:
    """Eight layers with latent attention, the first dense, then eight experts and a shared one."""
    return ModelSpec(
        name="moe",
        n_layers=8,
        hidden_size=1024,
        n_heads=16,
        n_kv_heads=16,
        head_dim=96,
        ffn_size=4096,
        vocab_size=32000,
        attention="mla",
        q_lora_rank=256,
        kv_lora_rank=128,
        qk_rope_head_dim=32,
        qk_nope_head_dim=64,
        v_head_dim=64,
        n_experts=8,
        top_k=2,
        moe_ffn_size=1024,
        moe_layers=tuple(range(1, 8)),
        shared_expert_ffn_size=512,
        mtp_layers=1,
    )


@pytest.fixture(scope="session")
def workload() -> Work:
    """A workload by its sequence, batch and framework."""

    def build(
        sequence_length: int = 4096,
        global_batch_size: int = 64,
        framework: str = "megatron-lm",
        optimizer: str = "adamw",
        **changes: Any,
    ) -> Workload:
        return Workload(
            sequence_length=sequence_length,
            global_batch_size=global_batch_size,
            framework=load_framework(framework),
            optimizer=load_optimizer(optimizer),
            **changes,
        )

    return build


@pytest.fixture(scope="session")
def h100() -> Gpu:
    """The GPU that every law is tried on."""
    return load_gpu("h100-sxm")


@pytest.fixture(scope="session")
def price(workload: Work, h100: Gpu) -> Price:
    """Price one strategy, or many, with constants that no calibration has touched."""

    def cost(
        model: ModelSpec,
        strategies: Strategies | Strategy,
        job: Workload | None = None,
        *,
        cluster: Cluster | None = None,
        constants: Constants | None = None,
        breakdown: bool = True,
    ) -> StepCost:
        columns = Strategies.of(strategies) if isinstance(strategies, Strategy) else strategies
        n_gpus = int(columns.world_size.max())
        return step_cost(
            model,
            cluster or Cluster.of(h100, n_gpus),
            job or workload(),
            columns,
            constants or prior_constants(),
            breakdown=breakdown,
        )

    return cost

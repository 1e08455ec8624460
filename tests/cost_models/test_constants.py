"""Every constant has a meaning: it is read, and it acts in the direction of its name."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.constants import Constants
from cost_models.equations.step import StepCost
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    ContextParallel,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload

Price = Callable[..., StepCost]
Job = Callable[..., Workload]
Totals = Callable[[Constants], tuple[Floats, Floats]]
NAMES = [f.name for f in fields(Constants)]
MEMORY = (
    "framework_bytes",
    "pool_bytes",
    "update_fraction",
    "communicator_bytes",
    "fragmentation",
    "state_fragmentation",
    "activation_factor",
    "transient_fraction",
)
LESS_IS_FASTER = ("_s", "_bytes", "_passes", "_ratio", "_imbalance", "_depth")

EVERYTHING = [
    Strategy(tp=4, dp=2, pp=4, overlap_tp=True, sharding=Sharding.ZERO1, dp_shard=2),
    Strategy(tp=16, pp=2, sequence_parallel=True),
    Strategy(dp=32, sharding=Sharding.FSDP, dp_shard=32, recompute=Recompute.FULL),
    Strategy(cp=4, dp=8, ep=8, overlap_ep=True, precision=Precision.FP8),
    Strategy(cp=4, dp=8, cp_comm=ContextParallel.ALL_GATHER, optimizer_offload=1.0),
    Strategy(tp=2, pp=16, schedule=Schedule.GPIPE, recompute=Recompute.FULL),
    Strategy(dp=32, precision=Precision.NVFP4),
]
"""Strategies that between them use every part of the equations."""


@pytest.fixture(scope="module")
def totals(
    moe_model: ModelSpec, dense_model: ModelSpec, price: Price, workload: Job, h100: Gpu
) -> Totals:
    """Step times and memory of them all, for both models, fused attention and not."""
    four_bit = replace(h100, peak_flop_per_s={**h100.peak_flop_per_s, "nvfp4": 4e15})
    cluster = Cluster.of(four_bit, 32)
    odd = replace(dense_model, n_layers=32, ffn_size=2800)
    deep = replace(moe_model, n_layers=32, moe_layers=tuple(range(1, 32)))

    @cache
    def price_all(constants: Constants) -> tuple[Floats, Floats]:
        costs = [
            price(
                model,
                Strategies.of(EVERYTHING),
                workload(framework=framework),
                cluster=cluster,
                constants=constants,
                breakdown=False,
            )
            for model, framework in (
                (odd, "megatron-lm-2022"),
                (odd, "nanotron"),
                (deep, "megatron-lm"),
            )
        ]
        return (
            np.concatenate([cost.step_time_s for cost in costs]),
            np.concatenate([cost.memory.total_bytes for cost in costs]),
        )

    return price_all


@pytest.mark.parametrize("name", NAMES)
def test_every_constant_is_read(totals: Totals, name: str) -> None:
    """Some strategy's time changes with it, or its memory if it is one of memory."""
    value = float(np.asarray(getattr(prior_constants(), name)))
    small = totals(replace(prior_constants(), **{name: 0.1 * value}))
    large = totals(replace(prior_constants(), **{name: 10 * value + 0.01}))
    changed = [not np.allclose(a, b, rtol=1e-12) for a, b in zip(small, large, strict=True)]
    assert changed == [name not in MEMORY, name in MEMORY]


@pytest.mark.parametrize("name", [n for n in NAMES if n.endswith("_fraction") and n not in MEMORY])
def test_reaching_more_of_the_data_sheet_is_no_slower(totals: Totals, name: str) -> None:
    """Shares of a peak or a bandwidth make steps faster."""
    value = float(np.asarray(getattr(prior_constants(), name)))
    time, _ = totals(replace(prior_constants(), **{name: 1.1 * value}))
    assert (time <= totals(prior_constants())[0] * (1 + 1e-9)).all()


@pytest.mark.parametrize(
    "name", [n for n in NAMES if n.endswith(LESS_IS_FASTER) and n not in MEMORY]
)
def test_latencies_and_passes_make_no_step_faster(totals: Totals, name: str) -> None:
    """Start-ups, floors, extra passes and half-reached sizes cost time."""
    value = float(np.asarray(getattr(prior_constants(), name)))
    time, _ = totals(replace(prior_constants(), **{name: 2 * value + 1e-4}))
    assert (time >= totals(prior_constants())[0] * (1 - 1e-9)).all()


@pytest.mark.parametrize("name", MEMORY)
def test_memory_constants_add_memory(totals: Totals, name: str) -> None:
    """Buffers, slack and factors over the tensors never take memory away."""
    value = float(np.asarray(getattr(prior_constants(), name)))
    _, memory = totals(replace(prior_constants(), **{name: 1.5 * value + 0.01}))
    assert (memory >= totals(prior_constants())[1]).all()


def test_one_constant_per_strategy_is_that_constant(dense_model: ModelSpec, price: Price) -> None:
    """Arrays of constants price each strategy with its own, as a fit needs."""
    strategies = [Strategy(tp=2, dp=2), Strategy(dp=4)]
    slow, fast = 0.4, 0.8
    both = price(
        dense_model,
        Strategies.of(strategies),
        constants=replace(prior_constants(), gemm_fraction=np.array([slow, fast])),
    )
    for i, fraction in enumerate((slow, fast)):
        alone = price(
            dense_model, strategies[i], constants=replace(prior_constants(), gemm_fraction=fraction)
        )
        assert both.step_time_s[i] == pytest.approx(alone.step_time_s.item(), rel=1e-12)

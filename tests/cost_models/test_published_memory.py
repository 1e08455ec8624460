"""Memory equals the published tables and formulas, tensor for tensor."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.models import load_model
from cost_models.equations.step import StepCost
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Recompute, Schedule, Sharding, Strategy
from cost_models.specs.workload import Workload

Price = Callable[..., StepCost]
Work = Callable[..., Workload]

BARE = replace(
    prior_constants(),
    framework_bytes=0.0,
    communicator_bytes=0.0,
    fragmentation=0.0,
    state_fragmentation=0.0,
    pool_bytes=0.0,
    update_fraction=0.0,
    transient_fraction=0.0,
    activation_factor=1.0,
)
"""Nothing but the tensors."""
STATE = ("weights", "gradients", "optimizer")


def state_of(cost: StepCost) -> float:
    """Bytes of weights, gradients and optimizer on the fullest rank."""
    return float(sum(cost.memory.terms[name].item() for name in STATE))


@pytest.mark.parametrize(
    ("sharding", "published"),
    [
        (Sharding.NONE, 120.0),
        (Sharding.ZERO1, 31.4),
        (Sharding.ZERO2, 16.6),
        (Sharding.ZERO3, 1.9),
    ],
)
def test_the_table_of_the_zero_paper(
    price: Price, workload: Work, sharding: Sharding, published: float
) -> None:
    """Figure 1 of arXiv:1910.02054: GB of 7.5e9 parameters' state on each of 64 GPUs."""
    model = load_model("gpt2-xl")
    scale = 7.5e9 / model.n_parameters
    job = workload(sequence_length=1024, framework="deepspeed")
    # what is gathered for the layer at work is no part of the paper's figure
    shared = replace(job.framework, fsdp_prefetch_layers=0.0)
    if sharding == Sharding.ZERO3:
        shared = replace(shared, weights_bytes=0.0, param_gather_bytes=0.0)
    strategy = Strategy(dp=64, sharding=sharding, dp_shard=1 if sharding == 0 else 64)
    cost = price(model, strategy, replace(job, framework=shared), constants=BARE)
    assert state_of(cost) * scale / 1e9 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("dp", [1, 2, 8, 64])
def test_megatrons_bytes_per_parameter(price: Price, dp: int) -> None:
    """18 bytes unsharded, and 6 + 12 / d with the distributed optimizer."""
    model = load_model("8b")
    whole = price(model, Strategy(dp=dp), constants=BARE)
    shared = price(model, Strategy(dp=dp, sharding=Sharding.ZERO1, dp_shard=dp), constants=BARE)
    assert state_of(whole) == pytest.approx(18 * model.n_parameters, rel=1e-6)
    assert state_of(shared) == pytest.approx((6 + 12 / dp) * model.n_parameters, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "tp", "pp", "vpp", "micro_batch_size"),
    [
        ("megatron-22b", 8, 1, 1, 4),
        ("megatron-175b", 8, 8, 3, 1),
        ("megatron-530b", 8, 35, 3, 1),
        ("megatron-1t", 8, 64, 1, 1),
    ],
)
@pytest.mark.parametrize("selective", [True, False])
def test_activations_of_the_2022_paper(
    price: Price,
    workload: Work,
    name: str,
    tp: int,
    pp: int,
    vpp: int,
    micro_batch_size: int,
    selective: bool,
) -> None:
    """Section 4 of arXiv:2205.05198: all L layers' worth on rank 0, by 1 + (p-1)/(p v)."""
    model = load_model(name)
    job = workload(sequence_length=2048, global_batch_size=512, framework="megatron-lm-2022")
    strategy = Strategy(
        tp=tp,
        pp=pp,
        vpp=vpp,
        micro_batch_size=micro_batch_size,
        sequence_parallel=True,
        schedule=Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B,
        recompute=Recompute.CORE_ATTN if selective else Recompute.NONE,
    )
    h, a, layers = model.hidden_size, model.n_heads, model.n_layers
    tokens = 2048 * micro_batch_size
    layer = 34 + (0 if selective else 5 * a * 2048 / h)
    ahead = 1 + (pp - 1) / (pp * vpp) if vpp > 1 else 1
    expected = tokens * h / tp * (layers * layer * ahead + pp * ahead)
    got = price(model, strategy, job, constants=BARE).memory.by_rank[0]["activations"]
    if pp == 1:
        expected += tokens * h / tp * 4
    assert got.item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("vpp", "factor"), [(1, 1.0), (2, 1.375), (4, 1.1875)])
def test_interleaving_holds_more_micro_batches(
    dense_model: ModelSpec, price: Price, vpp: int, factor: float
) -> None:
    """The published 1 + (p - 1) / (p v) on the first of four ranks."""
    model = replace(dense_model, n_layers=32)
    schedule = Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B
    plain = price(model, Strategy(pp=4), constants=BARE).memory.by_rank[0]["activations"]
    chunked = price(model, Strategy(pp=4, vpp=vpp, schedule=schedule), constants=BARE)
    ratio = chunked.memory.by_rank[0]["activations"].item() / plain.item()
    assert ratio == pytest.approx(factor)


@pytest.mark.parametrize(("sharding", "dp_shard"), [(Sharding.NONE, 1), (Sharding.FSDP, 8)])
def test_weights_in_fp32_have_no_master_copy(
    price: Price, workload: Work, sharding: Sharding, dp_shard: int
) -> None:
    """MaxText's 16 bytes per parameter: weight, gradient and two moments, all of four bytes."""
    model = load_model("8b")
    job = workload(framework="maxtext")
    # without the layers that are gathered and reduced at the moment
    idle = replace(job.framework, param_gather_bytes=0.0)
    strategy = Strategy(dp=8, sharding=sharding, dp_shard=dp_shard)
    cost = price(model, strategy, replace(job, framework=idle), constants=BARE)
    terms = cost.memory.terms
    assert terms["weights"] * dp_shard == pytest.approx(4 * model.n_parameters, rel=1e-6)
    assert terms["optimizer"] * dp_shard == pytest.approx(8 * model.n_parameters, rel=1e-6)

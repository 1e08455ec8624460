"""Memory adds up, and falls with whatever shares it out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.calibrate.calibration import prior_constants
from cost_models.counting.partition import even_stage_layers
from cost_models.equations.memory import MEMORY_TERMS, memory_parts, peak_memory_bytes
from cost_models.equations.step import StepCost
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
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
SHARDINGS = [Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3]
DEGREES = st.sampled_from([1, 2, 4, 8])


@st.composite
def layouts(draw: st.DrawFn) -> Strategy:
    """Layouts of up to 512 GPUs, legal for both models of eight layers and eight experts."""
    tp, pp = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    cp, dp = draw(st.sampled_from([1, 2])), draw(DEGREES)
    sharding = draw(st.sampled_from(list(Sharding)))
    shard = {Sharding.NONE: 1, Sharding.HSDP: max(dp // 2, 1)}.get(sharding, dp)
    chunked = draw(st.booleans()) and pp > 1
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=draw(st.sampled_from([e for e in (1, 2, 4, 8) if dp * cp % e == 0])),
        etp=tp,
        vpp=2 if chunked else 1,
        schedule=Schedule.INTERLEAVED if chunked else Schedule._1F1B,
        micro_batch_size=draw(st.sampled_from([1, 2])),
        sequence_parallel=draw(st.booleans()) and tp > 1,
        sharding=sharding,
        dp_shard=shard,
        recompute=draw(st.sampled_from([Recompute.NONE, Recompute.CORE_ATTN, Recompute.FULL])),
        optimizer_offload=draw(st.sampled_from([0.0, 0.5])),
        precision=draw(st.sampled_from([Precision.BF16, Precision.FP8])),
    )


MODELS = st.sampled_from(["dense_model", "moe_model"])
some = settings(max_examples=40)


def state_of(cost: StepCost) -> float:
    """Bytes of weights, gradients and optimizer on the fullest rank."""
    return float(sum(cost.memory.terms[name].item() for name in STATE))


@some
@given(MODELS, layouts())
def test_terms_add_up(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy
) -> None:
    """To the total, with a breakdown or without, on the fullest rank."""
    model = request.getfixturevalue(name)
    cost = price(model, layout).memory
    assert tuple(cost.terms) == MEMORY_TERMS
    assert sum(term.item() for term in cost.terms.values()) == pytest.approx(
        cost.total_bytes.item(), rel=1e-9
    )
    assert all((term >= 0).all() for term in cost.terms.values())
    bare = price(model, layout, breakdown=False).memory
    np.testing.assert_array_equal(bare.total_bytes, cost.total_bytes)
    assert bare.terms == {}


@some
@given(MODELS, layouts())
def test_the_fullest_rank_is_as_full_as_any(
    request: pytest.FixtureRequest, price: Price, workload: Work, name: str, layout: Strategy
) -> None:
    """Pricing every rank, by giving the layers that were meant anyway, finds no fuller one."""
    model, job = request.getfixturevalue(name), workload()
    told = even_stage_layers(model, job.framework, layout.pp, layout.vpp)
    every = price(model, layout.with_(stage_layers=told), job).memory
    by_rank = [sum(term.item() for term in rank.values()) for rank in every.by_rank]
    assert len(by_rank) == layout.pp
    total = price(model, layout, job).memory.total_bytes.item()
    assert total == pytest.approx(max(by_rank), rel=1e-12)
    columns = Strategies.of(layout)
    assert peak_memory_bytes(model, job, columns, prior_constants()).item() == total


@some
@given(layouts(), st.sampled_from(SHARDINGS[1:]))
def test_sharding_loses_and_repeats_no_state(
    moe_model: ModelSpec, price: Price, workload: Work, layout: Strategy, sharding: Sharding
) -> None:
    """Optimizer bytes of all GPUs are 12 per parameter, dense and experts, whatever the layout."""
    model = replace(moe_model, make_vocab_size_divisible_by=1)
    one = layout.with_(tp=1, etp=1, sharding=sharding, dp_shard=layout.dp, optimizer_offload=0.0)
    told = even_stage_layers(model, workload().framework, one.pp, one.vpp)
    ranks = price(model, one.with_(stage_layers=told)).memory.by_rank
    held = sum(rank["optimizer"].item() for rank in ranks) * one.dp * one.cp
    assert held == pytest.approx(12 * (model.n_parameters + model.mtp_parameters), rel=1e-5)


@some
@given(MODELS, layouts())
def test_every_stage_of_sharding_needs_less(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy
) -> None:
    """None, ZeRO-1 and ZeRO-2 in falling order; ZeRO-3 pays its gathered layers back from dp 8."""
    model = request.getfixturevalue(name)
    layout = layout.with_(dp=max(layout.dp, 2), ep=1)
    shards = [1, layout.dp, layout.dp, layout.dp]
    total = [
        price(model, layout.with_(sharding=kind, dp_shard=shard)).memory.total_bytes.item()
        for kind, shard in zip(SHARDINGS, shards, strict=True)
    ]
    assert total[0] >= total[1] >= total[2]
    if layout.dp >= 8 and layout.pp == 1:
        assert total[2] > total[3]


@some
@given(MODELS, layouts(), st.sampled_from(["tp", "pp", "cp", "dp", "offload", "recompute"]))
def test_memory_falls_with_more_of_anything(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy, what: str
) -> None:
    """Tensors of the fullest rank, when one degree doubles or more is recomputed or offloaded."""
    model = request.getfixturevalue(name)
    sharded = layout.sharding != Sharding.NONE
    more = {
        "tp": layout.with_(tp=2 * layout.tp, etp=2 * layout.tp, sequence_parallel=True),
        "pp": layout.with_(
            pp=2 * layout.pp,
            schedule=Schedule.INTERLEAVED if layout.vpp > 1 else Schedule._1F1B,
        ),
        "cp": layout.with_(cp=2 * layout.cp),
        "dp": layout.with_(dp=2 * layout.dp, dp_shard=(2 if sharded else 1) * layout.dp_shard),
        "offload": layout.with_(optimizer_offload=1.0),
        "recompute": layout.with_(recompute=Recompute.FULL),
    }[what]
    if what == "pp" and more.pp * more.vpp > model.n_layers:
        return
    if what == "tp":
        layout = layout.with_(sequence_parallel=layout.tp > 1)
    before, after = (price(model, s, constants=BARE).memory.total_bytes.item() for s in
                     (layout, more))  # fmt: skip
    if what == "pp":
        # the first rank holds as many layers' worth of activations at any pp: only state falls
        assert state_of(price(model, more, constants=BARE)) <= state_of(
            price(model, layout, constants=BARE)
        ) * (1 + 1e-12)
    else:
        assert after <= before * (1 + 1e-12)


@some
@given(MODELS, layouts(), st.sampled_from([2, 4]))
def test_activations_are_linear_in_tokens(
    request: pytest.FixtureRequest,
    price: Price,
    workload: Work,
    name: str,
    layout: Strategy,
    times: int,
) -> None:
    """Of the micro-batch, by sequences or by length, while as many are in flight."""
    model = request.getfixturevalue(name)
    plain, long = workload(2048, 512), workload(2048 * times, 512)
    wide = layout.with_(micro_batch_size=times * layout.micro_batch_size)
    for term in ("activations", "logits"):
        one = price(model, layout, plain).memory.by_rank[0][term].item()
        assert price(model, wide, plain).memory.by_rank[0][term].item() == pytest.approx(
            times * one
        )
        assert price(model, layout, long).memory.by_rank[0][term].item() == pytest.approx(
            times * one
        )


@some
@given(MODELS, layouts())
def test_frozen_weights_have_neither_gradients_nor_optimizer(
    request: pytest.FixtureRequest, price: Price, workload: Work, name: str, layout: Strategy
) -> None:
    """As under LoRA; the weights stay."""
    model = request.getfixturevalue(name)
    frozen = price(model, layout, workload(frozen_weights=True)).memory.terms
    assert frozen["gradients"] == 0
    assert frozen["optimizer"] == 0
    assert frozen["weights"] > 0


@some
@given(MODELS, layouts())
def test_one_group_of_hsdp_is_fsdp(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy
) -> None:
    """Sharded over all of dp there are no copies, in memory or in time."""
    model = request.getfixturevalue(name)
    hsdp = price(model, layout.with_(sharding=Sharding.HSDP, dp_shard=layout.dp))
    fsdp = price(model, layout.with_(sharding=Sharding.FSDP, dp_shard=layout.dp))
    assert hsdp.memory.total_bytes == fsdp.memory.total_bytes
    assert hsdp.step_time_s == fsdp.step_time_s


def test_offloading_activations_leaves_the_layer_at_work(
    dense_model: ModelSpec, price: Price
) -> None:
    """What is kept between the passes leaves the GPU, share by share."""
    kept, half, none = (
        price(
            dense_model, Strategy(activation_offload=share), constants=BARE
        ).memory.terms["activations"].item()
        for share in (0.0, 0.5, 1.0)
    )  # fmt: skip
    assert half == pytest.approx((kept + none) / 2)
    assert none == 4096 * 4 * dense_model.hidden_size  # the head's input and its norm's


def test_eight_bit_copies_of_weights_come_on_top(dense_model: ModelSpec, price: Price) -> None:
    """Transformer Engine keeps two cast bytes beside each 16-bit weight."""
    plain = price(dense_model, Strategy()).memory.terms["weights"]
    eight = price(dense_model, Strategy(precision=Precision.FP8)).memory.terms["weights"]
    assert eight == 2 * plain


def test_logits_live_on_the_last_rank(dense_model: ModelSpec, workload: Work) -> None:
    """Eight bytes per token and row of the vocabulary's part; nothing elsewhere."""
    parts = memory_parts(dense_model, workload(), Strategies.of(Strategy(tp=2, pp=4)))
    found = [part.logits.item() for part in parts]
    assert found == [0, 0, 4096 * 8 * 32000 / 2]


def test_ddp_has_buckets_where_nothing_is_sharded(
    dense_model: ModelSpec, price: Price, workload: Work
) -> None:
    """Two bytes a parameter beside nanotron's fp32 gradients, with several replicas only."""
    gradients = [
        price(dense_model, Strategy(dp=dp, sharding=sharding, dp_shard=shard), job)
        .memory.terms["gradients"]
        .item()
        for job in [workload(framework="nanotron")]
        for dp, sharding, shard in (
            (1, Sharding.NONE, 1),
            (2, Sharding.NONE, 1),
            (2, Sharding.ZERO1, 2),
        )
    ]
    assert gradients[1] == pytest.approx(gradients[0] * 6 / 4, rel=1e-9)
    assert gradients[2] == gradients[0]


@pytest.mark.parametrize("shards", [2, 8])
def test_a_sharded_update_gathers_through_copies(
    dense_model: ModelSpec, workload: Work, shards: int
) -> None:
    """Of all weights in nanotron; of a bucket and of the shard's gradients in DeepSpeed."""
    zero = Strategies.of(Strategy(dp=shards, sharding=Sharding.ZERO1, dp_shard=shards))
    alone = Strategies.of(Strategy(dp=shards))
    n = memory_parts(dense_model, workload(framework="nanotron"), zero)[0].weights.item() / 2

    def update(framework: str, layout: Strategies) -> float:
        return memory_parts(dense_model, workload(framework=framework), layout)[0].update.item()

    assert update("nanotron", zero) == pytest.approx(4 * n, rel=1e-6)
    bucket = min(n, 5e8)
    assert update("deepspeed", zero) == pytest.approx(4 * bucket + 4 * n / shards, rel=1e-6)
    assert update("nanotron", alone) == update("deepspeed", alone) == 0


@pytest.mark.parametrize(
    ("pp", "tp", "ahead"), [(1, 1, 0), (1, 4, 1), (2, 4, 0), (4, 4, 2), (8, 4, 6), (4, 16, 0)]
)
def test_buffers_are_held_while_the_host_runs_ahead(
    dense_model: ModelSpec, workload: Work, pp: int, tp: int, ahead: int
) -> None:
    """Two whole hidden states a layer, for the warm-up of a pipeline but its last two."""
    job = workload(framework="nanotron")
    layers = ahead * even_stage_layers(dense_model, job.framework, pp, 1)[0]
    layout = Strategies.of(Strategy(pp=pp, tp=tp, sequence_parallel=tp > 1))
    buffers = 2 * 2 * 4096 * dense_model.hidden_size
    assert memory_parts(dense_model, job, layout)[0].held.item() == layers * buffers
    deep = replace(dense_model, n_layers=400)
    assert memory_parts(deep, job, layout)[0].held.item() == min(ahead, 1) * 28 * buffers


def test_working_gradients_take_the_room_of_activations(
    dense_model: ModelSpec, workload: Work
) -> None:
    """Only what a backward pass leaves beyond what it frees comes on top."""
    layout = Strategies.of(Strategy())
    job = workload(sequence_length=65536, framework="nanotron")
    short = workload(sequence_length=16, framework="nanotron")
    n = dense_model.n_parameters
    assert memory_parts(dense_model, job, layout)[0].overgrown.item() == 0
    assert 1.5 * n < memory_parts(dense_model, short, layout)[0].overgrown.item() < 2 * n

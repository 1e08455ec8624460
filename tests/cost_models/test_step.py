"""Terms sum up, one strategy costs what it costs among many, and better machines are faster."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.models import load_model
from cost_models.counting.partition import even_stage_layers
from cost_models.equations.step import TIME_TERMS, StepCost, step_time_s
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.strategy import (
    COLUMN_KINDS,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from cost_models.specs.workload import Workload
from tests.cost_models.any_layout import MODELS, layouts

Price = Callable[..., StepCost]
Job = Callable[..., Workload]
some = settings(max_examples=40)


SYNCHRONOUS = (Schedule._1F1B, Schedule.INTERLEAVED, Schedule.GPIPE)


# ------------------------------------------------------------------- sums
@some
@given(MODELS, layouts())
def test_terms_sum_to_the_step(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy
) -> None:
    """Seconds by kind add up to the step, and none is negative."""
    cost = price(request.getfixturevalue(name), layout)
    assert tuple(cost.time_terms) == TIME_TERMS
    total = sum(term.item() for term in cost.time_terms.values())
    assert total == pytest.approx(cost.step_time_s.item(), rel=1e-9)
    lowest = min(term.item() for term in cost.time_terms.values())
    assert lowest >= -1e-9 * total
    assert cost.hidden_s.item() >= 0


@some
@given(MODELS, layouts())
def test_totals_do_not_depend_on_the_breakdown(
    request: pytest.FixtureRequest,
    price: Price,
    workload: Job,
    h100: Gpu,
    name: str,
    layout: Strategy,
) -> None:
    """The quick ways to the same numbers give the same numbers."""
    model = request.getfixturevalue(name)
    cost, bare = price(model, layout), price(model, layout, breakdown=False)
    assert bare.time_terms == {}
    assert bare.step_time_s == cost.step_time_s
    assert bare.memory.total_bytes == cost.memory.total_bytes
    cluster, columns = Cluster.of(h100, layout.world_size), Strategies.of(layout)
    alone = step_time_s(model, cluster, workload(), columns, prior_constants())
    assert alone.item() == cost.step_time_s.item()


@some
@given(MODELS, layouts())
def test_rates_follow_from_the_time(
    request: pytest.FixtureRequest, price: Price, workload: Job, name: str, layout: Strategy
) -> None:
    """Tokens per second and GPU, times GPUs and seconds, are the batch; MFU is below one."""
    cost = price(request.getfixturevalue(name), layout)
    tokens = cost.tokens_per_s_per_gpu * cost.step_time_s * layout.world_size
    assert tokens.item() == pytest.approx(workload().tokens_per_step)
    assert 0 < cost.mfu.item() < 1


# ----------------------------------------------------------- one and many
@some
@given(MODELS, st.lists(layouts(), min_size=2, max_size=6))
def test_one_strategy_costs_the_same_among_many(
    request: pytest.FixtureRequest, price: Price, h100: Gpu, name: str, many: list[Strategy]
) -> None:
    """A batch of strategies is those strategies one by one, to the last bit or nearly so."""
    model = request.getfixturevalue(name)
    cluster = Cluster.of(h100, 256)
    batch = price(model, Strategies.of(many), cluster=cluster)
    for i, strategy in enumerate(many):
        one = price(model, strategy, cluster=cluster)
        assert batch.step_time_s[i] == pytest.approx(one.step_time_s.item(), rel=1e-12)
        assert batch.memory.total_bytes[i] == pytest.approx(
            one.memory.total_bytes.item(), rel=1e-12
        )


@pytest.mark.parametrize("name", ["dense_model", "moe_model"])
def test_a_grid_is_its_flat_list(
    request: pytest.FixtureRequest, price: Price, h100: Gpu, name: str
) -> None:
    """Layouts down, knobs across: exactly the numbers of the list of all pairs."""
    model = request.getfixturevalue(name)
    shapes = [(1, 1, 8), (2, 1, 4), (2, 4, 1), (1, 2, 4), (4, 2, 1)]
    tp, pp, dp = (np.array(column)[:, None] for column in zip(*shapes, strict=True))
    knobs = list(product([Recompute.NONE, Recompute.FULL], [1, 2], [False, True]))
    recompute, micro, overlap = (np.array(column)[None, :] for column in zip(*knobs, strict=True))
    grid = Strategies(
        tp=tp,
        pp=pp,
        dp=dp,
        ep=dp,
        recompute=recompute,
        micro_batch_size=micro,
        overlap_ep=overlap,
        sharding=int(Sharding.ZERO1),
        dp_shard=dp,
    )
    cluster = Cluster.of(h100, 8)
    wide, flat = price(model, grid, cluster=cluster), price(model, grid.flat(), cluster=cluster)
    assert wide.step_time_s.shape == (len(shapes), len(knobs))
    np.testing.assert_array_equal(wide.step_time_s.ravel(), flat.step_time_s)
    np.testing.assert_array_equal(wide.memory.total_bytes.ravel(), flat.memory.total_bytes)
    for term in TIME_TERMS:
        np.testing.assert_array_equal(wide.time_terms[term].ravel(), flat.time_terms[term])


@given(layouts())
def test_columns_give_their_strategies_back(layout: Strategy) -> None:
    """A row of the columns is the strategy that made it."""
    assert Strategies.of([layout, layout]).row(1) == layout
    assert set(Strategies.of(layout).columns) == set(COLUMN_KINDS)


@some
@given(st.sampled_from(["llama3-8b", "llama3-70b"]), st.sampled_from([2, 4, 8]))
def test_the_even_layers_given_cost_what_even_layers_cost(
    price: Price, workload: Job, name: str, pp: int
) -> None:
    """Saying what would have been done anyway does not change the price."""
    model = load_model(name)
    layers = even_stage_layers(model, workload().framework, pp, 1)
    implied = price(model, Strategy(pp=pp))
    told = price(model, Strategy(pp=pp, stage_layers=layers))
    assert told.step_time_s.item() == pytest.approx(implied.step_time_s.item(), rel=1e-9)
    assert told.memory.total_bytes.item() == pytest.approx(implied.memory.total_bytes.item())


# --------------------------------------------------------------- machines
@some
@given(
    MODELS,
    layouts(SYNCHRONOUS),
    st.sampled_from(["nvlink_bandwidth_Bps", "nic_bandwidth_Bps"]),
    st.sampled_from([1.1, 2.0, 8.0]),
)
def test_faster_wires_make_no_step_slower(
    request: pytest.FixtureRequest,
    price: Price,
    h100: Gpu,
    name: str,
    layout: Strategy,
    wire: str,
    times: float,
) -> None:
    """NVLink or NIC, whatever the layout."""
    model = request.getfixturevalue(name)
    plain = Cluster.of(h100, layout.world_size)
    better = replace(plain, **{wire: times * getattr(plain, wire)})
    before = price(model, layout, cluster=plain).step_time_s.item()
    assert price(model, layout, cluster=better).step_time_s.item() <= before * (1 + 1e-9)


@some
@given(
    MODELS,
    layouts(SYNCHRONOUS),
    st.sampled_from(["peak_flop_per_s", "memory_bandwidth_Bps", "host_bandwidth_Bps"]),
    st.sampled_from([1.1, 2.0, 8.0]),
)
def test_faster_gpus_make_no_step_slower(
    request: pytest.FixtureRequest,
    price: Price,
    h100: Gpu,
    name: str,
    layout: Strategy,
    what: str,
    times: float,
) -> None:
    """Arithmetic, device memory or host link, whatever the layout."""
    model = request.getfixturevalue(name)
    value = getattr(h100, what)
    changed: dict[str, Any] = {
        what: {k: times * v for k, v in value.items()}
        if isinstance(value, Mapping)
        else times * value
    }
    before = price(model, layout, cluster=Cluster.of(h100, layout.world_size))
    faster = Cluster.of(replace(h100, **changed), layout.world_size)
    after = price(model, layout, cluster=faster)
    assert after.step_time_s.item() <= before.step_time_s.item() * (1 + 1e-9)


# ---------------------------------------------------------------- more work
@some
@given(MODELS, layouts(SYNCHRONOUS), st.sampled_from([2, 3, 4]))
def test_more_of_the_batch_takes_longer(
    request: pytest.FixtureRequest,
    price: Price,
    workload: Job,
    name: str,
    layout: Strategy,
    times: int,
) -> None:
    """More micro-batches, and longer sequences, take more time but no less than no time each."""
    model = request.getfixturevalue(name)
    once = price(model, layout, workload(2048, 64)).step_time_s.item()
    wide = price(model, layout, workload(2048, 64 * times)).step_time_s.item()
    long = price(model, layout, workload(2048 * times, 64)).step_time_s.item()
    assert once < wide <= times * once * (1 + 1e-9)
    assert once < long


@some
@given(MODELS, layouts(SYNCHRONOUS))
def test_recompute_costs_time_and_offload_too(
    request: pytest.FixtureRequest, price: Price, name: str, layout: Strategy
) -> None:
    """What saves memory is never faster."""
    model = request.getfixturevalue(name)
    plain = layout.with_(recompute=Recompute.NONE, activation_offload=0.0)
    before = price(model, plain).step_time_s.item()
    for change in (plain.with_(recompute=Recompute.FULL), plain.with_(activation_offload=1.0)):
        assert price(model, change).step_time_s.item() >= before * (1 - 1e-9)


def test_full_recompute_is_a_third_of_the_arithmetic(price: Price) -> None:
    """One more forward pass on two passes' worth of gradients: 4/3 in all."""
    cost = price(load_model("llama3-8b"), Strategy(recompute=Recompute.FULL)).time_terms
    kernels = cost["gemm"] + cost["attention"] + cost["memory_bound"]
    assert cost["recompute"].item() == pytest.approx(kernels.item() / 3, rel=0.12)


def test_windows_are_computed_again_as_windows(price: Price, workload: Job) -> None:
    """Where half of the layers see 128 tokens, recomputed attention is little over half."""
    model, job = load_model("gpt-oss-20b"), workload(16384, 8)
    wide = replace(model, sliding_window=None, sliding_window_layers=())
    again = Strategy(recompute=Recompute.CORE_ATTN)
    narrow, whole = (price(m, again, job).time_terms["recompute"] for m in (model, wide))
    assert 0.5 * whole < narrow < 0.6 * whole


@some
@given(MODELS, layouts())
def test_frozen_weights_are_neither_reduced_nor_updated(
    request: pytest.FixtureRequest, price: Price, workload: Job, name: str, layout: Strategy
) -> None:
    """Without gradients a step is faster and has no optimizer.

    Schedules that fill their bubble with weight gradients have none to fill it with, and may
    be slower.
    """
    assume(layout.sharding < Sharding.ZERO3)
    assume(layout.schedule in (Schedule._1F1B, Schedule.GPIPE, Schedule.INTERLEAVED))
    model = request.getfixturevalue(name)
    frozen = price(model, layout, workload(frozen_weights=True))
    assert frozen.time_terms["optimizer"] == 0
    assert frozen.time_terms["dp_comm"] == 0
    assert frozen.step_time_s < price(model, layout).step_time_s


@given(MODELS)
def test_one_gpu_communicates_nothing(
    request: pytest.FixtureRequest, price: Price, name: str
) -> None:
    """No exchange, no bubble, no straggler; nothing hidden."""
    cost = price(request.getfixturevalue(name), Strategy())
    for term in ("tp_comm", "cp_comm", "ep_comm", "pp_comm", "fsdp_comm", "dp_comm", "bubble",
                 "offload", "recompute", "straggler", "overlap_price"):  # fmt: skip
        assert cost.time_terms[term] == 0, term
    assert cost.hidden_s == 0

"""A layer's collectives cost what their algorithms move, and nothing where nobody listens."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.calibrate.calibration import prior_constants
from cost_models.catalog.models import load_model
from cost_models.counting.work import Work, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.exchanges import dispatch_s
from cost_models.equations.layer.layer_time import BlockTime, LayerTime, layer_time
from cost_models.equations.layer.links import links
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import ContextParallel, Precision, Recompute, Strategies, Strategy
from cost_models.specs.workload import Workload

Job = Callable[..., Workload]
Layer = Callable[..., LayerTime]
some = settings(max_examples=50)
INSTANT = replace(
    prior_constants(),
    nvlink_latency_s=0.0,
    nic_latency_s=0.0,
    nvlink_half_size_bytes=0.0,
    nic_half_size_bytes=0.0,
    collective_launch_s=0.0,
    switch_fraction=0.0,
    nvlink_fraction=1.0,
    nic_fraction=1.0,
    kernel_launch_s=0.0,
)
"""Wires with bandwidth and nothing else."""


@pytest.fixture(scope="session")
def count(workload: Job, h100: Gpu) -> Callable[..., Work]:
    """Count one strategy's work on a cluster of its size."""

    def counted(model: ModelSpec, strategy: Strategy, **cluster: Any) -> Work:
        machine = Cluster.of(h100, strategy.world_size, **cluster)
        return step_work(model, machine, workload(), Strategies.of(strategy))

    return counted


@pytest.fixture(scope="session")
def layer(count: Callable[..., Work]) -> Layer:
    """Price one layer of a strategy."""

    def priced(
        model: ModelSpec, strategy: Strategy, constants: Constants | None = None, **cluster: Any
    ) -> LayerTime:
        work = count(model, strategy, **cluster)
        return layer_time(work, Strategies.of(strategy), constants or prior_constants())

    return priced


def blocks(layer: LayerTime) -> tuple[BlockTime, ...]:
    """Attention, dense MLP and experts."""
    return layer.attention, layer.dense, layer.moe


@given(
    st.sampled_from(["dense_model", "moe_model"]),
    st.sampled_from(list(ContextParallel)),
    st.booleans(),
)
def test_a_group_of_one_communicates_nothing(
    request: pytest.FixtureRequest, layer: Layer, name: str, comm: ContextParallel, overlap: bool
) -> None:
    """On one GPU no collective of any kind is paid or hidden."""
    strategy = Strategy(cp_comm=comm, overlap_tp=overlap, overlap_ep=overlap)
    for block in blocks(layer(request.getfixturevalue(name), strategy)):
        for kind in ("tp", "cp", "ep"):
            assert getattr(block, f"{kind}_forward") == 0
            assert getattr(block, f"{kind}_backward") == 0
        assert np.all(block.hidden == 0)


def test_tensor_parallel_moves_the_ring_s_bytes(dense_model: ModelSpec, layer: Layer) -> None:
    """An all-reduce is 2 (t - 1) / t of 2 b s h bytes; with sequence-parallel it is the same."""
    plain = layer(dense_model, Strategy(tp=8), INSTANT).attention.tp_forward
    split = layer(dense_model, Strategy(tp=8, sequence_parallel=True), INSTANT).attention.tp_forward
    message = 2 * 4096 * dense_model.hidden_size
    expected = 2 * 7 / 8 * message / 450e9
    assert plain.item() == pytest.approx(expected, rel=1e-6)
    assert split.item() == pytest.approx(expected, rel=1e-6)


def test_context_parallel_gathers_as_much_as_a_ring_passes_on(
    dense_model: ModelSpec, layer: Layer
) -> None:
    """Both move (c - 1) parts of keys and values; the ring hides under attention."""
    exposed = replace(INSTANT, cp_hidden=0.0)
    ring = layer(dense_model, Strategy(cp=4), exposed).attention
    gather = layer(
        dense_model, Strategy(cp=4, cp_comm=ContextParallel.ALL_GATHER), exposed
    ).attention
    keys_and_values = 3 * 2 * 2 * dense_model.kv_size * 1024
    assert ring.cp_forward.item() == pytest.approx(keys_and_values / 450e9, rel=1e-6)
    assert gather.cp_forward.item() == pytest.approx(ring.cp_forward.item(), rel=1e-6)
    assert gather.cp_backward.item() == pytest.approx(ring.cp_backward.item(), rel=1e-6)
    hidden = layer(dense_model, Strategy(cp=4), INSTANT).attention
    assert hidden.cp_forward < ring.cp_forward
    assert hidden.cp_forward + hidden.cp_backward + hidden.hidden == pytest.approx(
        ring.cp_forward + ring.cp_backward
    )


def test_ulysses_sends_more_than_a_ring_with_few_key_heads(layer: Layer) -> None:
    """With eight key heads for 64, queries and outputs outweigh keys and values."""
    exposed = replace(INSTANT, cp_hidden=0.0)
    model = load_model("llama3-70b")
    ring = layer(model, Strategy(cp=2), exposed).attention
    swap = layer(model, Strategy(cp=2, cp_comm=ContextParallel.A2A), exposed).attention
    assert swap.cp_forward > 4 * ring.cp_forward


@some
@given(
    st.sampled_from(["mixtral-8x7b", "qwen3-235b-a22b", "deepseek-v3"]),
    st.sampled_from([2, 8, 16, 32]),
    st.booleans(),
)
def test_a_token_crosses_to_a_node_once_at_most(
    count: Callable[..., Work], workload: Job, name: str, ep: int, deduplicates: bool
) -> None:
    """Leaving copies out never costs more; inside a node, k experts meet fewer than k ranks."""
    model = load_model(name)
    ep = min(ep, model.n_experts)
    work = count(model, Strategy(ep=ep, dp=ep))
    every = replace(work, ep_deduplicates=np.zeros(()))
    once = replace(work, ep_deduplicates=np.ones(()))
    wires = links(work, INSTANT)
    plain, fewer = dispatch_s(every, wires).item(), dispatch_s(once, wires).item()
    assert 0 < fewer <= plain
    assert fewer >= plain / model.top_k
    if ep <= 8:
        met = ep * (1.0 - (1.0 - 1.0 / ep) ** model.top_k)
        assert fewer == pytest.approx(plain * met / model.top_k, rel=1e-6)


def test_the_share_of_distinct_nodes(count: Callable[..., Work]) -> None:
    """Two of eight experts on four nodes: 4 (1 - (3/4)^2) / 2 = 7/8 of the copies travel."""
    work = count(load_model("mixtral-8x7b"), Strategy(dp=8, ep=8), nvlink_domain=2)
    wires = links(work, INSTANT)
    every = replace(work, ep_deduplicates=np.zeros(()))
    bytes_out = 2 * 4096 * 4096 * 2
    # of eight ranks two are in the node; of four nodes one is one's own
    nic = work.machine.nic_Bps
    assert dispatch_s(every, wires).item() == pytest.approx(bytes_out * 6 / 8 / nic)
    assert dispatch_s(work, wires).item() == pytest.approx(7 / 8 * bytes_out * 3 / 4 / nic)


@some
@given(st.sampled_from(["dense_model", "moe_model"]), st.sampled_from(list(Recompute)))
def test_nothing_asked_nothing_computed_again(
    request: pytest.FixtureRequest, layer: Layer, name: str, module: Recompute
) -> None:
    """Modules cost forward time only where asked for, and never more than the whole layer."""
    model = request.getfixturevalue(name)
    none = layer(model, Strategy())
    some_of_it = layer(model, Strategy(recompute=module))
    for part, whole in (
        ("attention", none.attention),
        ("dense", none.dense),
        ("moe", none.moe),
    ):
        assert np.all(getattr(none, f"recompute_{part}") == 0)
        assert np.all(getattr(some_of_it, f"recompute_{part}") <= whole.forward * (1 + 1e-9))


@some
@given(
    st.sampled_from(["dense_model", "moe_model"]),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
)
def test_overlap_hides_what_it_does_not_expose(
    request: pytest.FixtureRequest, layer: Layer, name: str, size: int, tensor: bool
) -> None:
    """Exposed and hidden seconds together are the same with overlap and without."""
    model = request.getfixturevalue(name)
    base = Strategy(tp=size, etp=1) if tensor else Strategy(dp=size, ep=size)
    plain = layer(model, base)
    hidden = layer(model, base.with_(overlap_tp=True, overlap_ep=True))
    for before, after in zip(blocks(plain), blocks(hidden), strict=True):
        for kind in ("tp", "ep"):
            assert getattr(after, f"{kind}_forward") <= getattr(before, f"{kind}_forward")
        whole = [
            b.tp_forward + b.tp_backward + b.ep_forward + b.ep_backward + b.hidden
            for b in (before, after)
        ]
        assert np.asarray(whole[0]).item() == pytest.approx(np.asarray(whole[1]).item())


def test_windows_save_attention_and_nothing_else(layer: Layer) -> None:
    """A layer that sees 4096 tokens at sequence 4096 saves nothing; one that sees 128 does."""
    wide = layer(load_model("gemma-2-9b"), Strategy())
    narrow = layer(load_model("gpt-oss-20b"), Strategy())
    assert wide.window_saves_forward == pytest.approx(0, abs=1e-12)
    assert 0 < narrow.window_saves_forward < narrow.attention.attention_forward


@pytest.mark.parametrize("name", ["dense_model", "moe_model"])
def test_eight_bits_multiply_faster(
    request: pytest.FixtureRequest, layer: Layer, name: str
) -> None:
    """FP8 without the time of its casts halves GEMMs and leaves scores and head alone."""
    model = request.getfixturevalue(name)
    free = replace(
        prior_constants(), quantize_passes=0.0, gemm_fraction_8bit=prior_constants().gemm_fraction
    )
    plain = layer(model, Strategy(), free)
    eight = layer(model, Strategy(precision=Precision.FP8), free)
    for before, after in zip(blocks(plain)[:2], blocks(eight)[:2], strict=True):
        assert after.gemm_forward < before.gemm_forward
        assert np.all(after.attention_forward == before.attention_forward)
    assert eight.head_forward == plain.head_forward

"""Layers are assigned without loss, and the ranks that are priced speak for the others."""

from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.models import load_model
from cost_models.counting.partition import (
    StageLayers,
    even_stage_layers,
    representative_ranks,
    stage_layers,
)
from cost_models.specs.framework import Partition
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Strategies, Strategy

MEGATRON = load_framework("megatron-lm")
RULES: tuple[Partition, ...] = ("even", "embedding_and_head_as_layers", "parameter_weight")
MODELS = ["8b", "405b", "deepseek-v3", "kimi-k2", "gemma-2-27b", "gpt-oss-120b", "mixtral-8x7b"]
CHUNKED = [
    (Schedule._1F1B, 1),
    (Schedule.INTERLEAVED, 2),
    (Schedule.INTERLEAVED, 5),
    (Schedule.ZB_V, 2),
]


def every_rank(model: ModelSpec, strategy: Strategy, rule: Partition = "even") -> StageLayers:
    """What each of the ranks holds; fields of shape (pp,)."""
    framework = replace(MEGATRON, partition=rule)
    ranks = Strategies.of([strategy] * strategy.pp)
    return stage_layers(model, framework, ranks, np.arange(strategy.pp))


@given(
    st.sampled_from(MODELS),
    st.sampled_from(RULES),
    st.integers(1, 40),
    st.sampled_from(CHUNKED),
)
def test_no_layer_is_lost_or_repeated(
    name: str, rule: Partition, pp: int, chunked: tuple[Schedule, int]
) -> None:
    """Layers, MoE layers and windowed layers of all ranks are the model's."""
    model = load_model(name)
    schedule, vpp = chunked
    assume(pp * vpp <= model.n_layers)
    held = every_rank(model, Strategy(pp=pp, vpp=vpp, schedule=schedule), rule)
    assert held.n_layers.sum() == model.n_layers
    assert held.n_moe.sum() == len(model.moe_layers)
    assert held.n_windowed.sum() == len(model.sliding_window_layers)
    assert (held.n_dense >= 0).all()
    assert np.sum(held.has_embedding) == 1
    assert np.sum(held.has_head) == 1


@given(st.sampled_from(MODELS), st.sampled_from(RULES), st.integers(1, 64), st.integers(1, 4))
def test_chunks_in_model_order_add_up(name: str, rule: Partition, pp: int, vpp: int) -> None:
    """The tuple that a launcher is given sums to the model's layers."""
    model = load_model(name)
    layers = even_stage_layers(model, replace(MEGATRON, partition=rule), pp, vpp)
    assert len(layers) == pp * vpp
    assert sum(layers) == model.n_layers
    assert min(layers) >= 0


@given(st.sampled_from(MODELS), st.integers(1, 40), st.integers(1, 4))
def test_even_chunks_differ_by_one_layer_at_most(name: str, pp: int, vpp: int) -> None:
    """The first chunk, which has the embedding, is a short one unless only one is short."""
    model = replace(load_model(name), mtp_layers=0)
    layers = even_stage_layers(model, MEGATRON, pp, vpp)
    assert max(layers) - min(layers) <= 1
    if model.n_layers % (pp * vpp) <= pp * vpp - 2:
        assert layers[0] == min(layers)


@pytest.mark.parametrize(
    ("name", "rule", "pp", "expected"),
    [
        ("405b", "even", 16, (7,) + (8,) * 14 + (7,)),
        ("405b", "embedding_and_head_as_layers", 16, (7,) + (8,) * 14 + (7,)),
        ("8b", "even", 4, (8, 8, 8, 8)),
        ("deepseek-v3", "even", 4, (16, 16, 16, 13)),
        ("deepseek-v3", "even", 16, (4,) * 15 + (1,)),
        ("deepseek-v3", "even", 32, (1,) + (2,) * 30 + (0,)),
        ("8b", "embedding_and_head_as_layers", 2, (16, 16)),
        ("8b", "parameter_weight", 4, (9, 9, 8, 6)),
    ],
)
def test_known_partitions(name: str, rule: Partition, pp: int, expected: tuple[int, ...]) -> None:
    """Llama 3's own 126 layers on 16 ranks, nanotron's weights, DeepSeek-V3's two heads."""
    layers = even_stage_layers(load_model(name), replace(MEGATRON, partition=rule), pp, 1)
    assert layers == expected


@pytest.mark.parametrize(("pp", "expected"), [(2, (10, 6)), (4, (5, 5, 5, 1))])
def test_a_threshold_that_is_reached_ends_a_stage(pp: int, expected: tuple[int, ...]) -> None:
    """Sixteen layers and a head as heavy as four of them divide into fives and tens."""
    model = replace(
        load_model("8b"),
        n_layers=16,
        hidden_size=2048,
        n_heads=32,
        n_kv_heads=32,
        head_dim=64,
        ffn_size=8192,
        vocab_size=131072,
    )
    assert even_stage_layers(model, replace(MEGATRON, partition=RULES[2]), pp, 1) == expected


@given(st.sampled_from(MODELS), st.sampled_from(CHUNKED), st.integers(2, 40), st.booleans())
def test_priced_ranks_hold_as_much_as_any_other(
    name: str, chunked: tuple[Schedule, int], pp: int, virtual: bool
) -> None:
    """Each rank has a priced one no later with as many layers, experts and whole sequences."""
    model = load_model(name)
    schedule, vpp = chunked
    rule: Partition = "embedding_and_head_as_layers" if virtual else "even"
    # one layer on each chunk and less is nothing that a launcher would take
    assume(2 * pp * vpp <= model.n_layers)
    strategy = Strategy(pp=pp, vpp=vpp, schedule=schedule)
    held = every_rank(model, strategy, rule)
    layers, moe, windowed = (
        np.broadcast_to(n, pp) for n in (held.n_layers, held.n_moe, held.n_windowed)
    )
    priced = [int(rank.item()) for rank in representative_ranks(model, Strategies.of(strategy))]
    # in a V-shaped schedule every rank has equally many micro-batches in flight
    later = pp if schedule == Schedule.ZB_V else 0
    for rank in range(pp):
        assert any(
            layers[r] >= layers[rank]
            and moe[r] >= moe[rank]
            and layers[r] - windowed[r] >= layers[rank] - windowed[rank]
            and r <= rank + later
            for r in priced
        ), (rank, priced, layers, moe, windowed)


@given(st.integers(2, 32))
def test_dense_models_partitioned_by_weight_are_fullest_in_front(pp: int) -> None:
    """The first rank in nanotron has as many layers as any."""
    layers = even_stage_layers(load_model("8b"), replace(MEGATRON, partition=RULES[2]), pp, 1)
    assert layers[0] == max(layers) >= ceil(32 / pp)


def test_given_layers_are_taken_as_they_are() -> None:
    """Chunk c is rank c modulo pp, or goes back and forth in a V."""
    given_layers = (1, 2, 3, 4, 5, 6, 5, 6)
    model = load_model("8b")
    plain = Strategy(pp=4, vpp=2, schedule=Schedule.INTERLEAVED, stage_layers=given_layers)
    folded = plain.with_(schedule=Schedule.ZB_V)
    assert every_rank(model, plain).n_layers.tolist() == [6, 8, 8, 10]
    assert every_rank(model, folded).n_layers.tolist() == [7, 7, 9, 9]
    assert np.broadcast_to(every_rank(model, plain).has_head, 4).tolist() == [0, 0, 0, 1]
    assert np.broadcast_to(every_rank(model, folded).has_head, 4).tolist() == [1, 0, 0, 0]


@given(st.sampled_from(MODELS), st.integers(1, 8), st.integers(1, 3))
def test_the_even_layers_given_are_the_even_layers(name: str, pp: int, vpp: int) -> None:
    """Saying what would have been done anyway changes nothing."""
    model = load_model(name)
    schedule = Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B
    told = even_stage_layers(model, MEGATRON, pp, vpp)
    strategy = Strategy(pp=pp, vpp=vpp, schedule=schedule)
    implied = every_rank(model, strategy)
    explicit = every_rank(model, strategy.with_(stage_layers=told))
    for field in ("n_layers", "n_moe", "n_windowed", "has_embedding", "has_head"):
        np.testing.assert_array_equal(getattr(implied, field), getattr(explicit, field))

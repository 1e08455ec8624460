"""What the ranks hold adds up to the model, whatever the layout."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.models import load_model, model_names
from cost_models.counting.partition import stage_layers
from cost_models.counting.shards import (
    dense_shards,
    expert_shards,
    layer_parameters,
    micro_batches,
    rank_parameters,
    tokens_per_rank,
    widths,
)
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Sharding, Strategies, Strategy

MEGATRON = load_framework("megatron-lm")


def parameters_by_rank(model: ModelSpec, strategy: Strategy) -> list[tuple[float, float]]:
    """(dense, experts) on every pipeline rank."""
    columns = Strategies.of(strategy)
    parts = layer_parameters(model, columns)
    found = []
    for rank in range(strategy.pp):
        held = stage_layers(model, MEGATRON, columns, np.array([rank]))
        own = rank_parameters(parts, model, held)
        found.append((own.dense.item(), own.experts.item()))
    return found


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize("pp", [1, 4])
def test_pipeline_ranks_hold_the_whole_model(name: str, pp: int) -> None:
    """Over the ranks: all parameters and MTP modules, and a second copy of what is tied."""
    model = replace(load_model(name), make_vocab_size_divisible_by=1)
    held = sum(sum(rank) for rank in parameters_by_rank(model, Strategy(pp=pp)))
    whole = model.n_parameters + model.mtp_parameters
    copied = model.vocab_size * model.hidden_size if model.tied_embeddings and pp > 1 else 0
    # a bias of the head is the only thing that is not counted
    assert held == pytest.approx(whole + copied, rel=1e-6)


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_expert_ranks_hold_every_expert_once(
    moe_model: ModelSpec, ep: int, etp: int, pp: int
) -> None:
    """Together ep * etp ranks share out the experts of each pipeline stage, and repeat none."""
    whole = parameters_by_rank(moe_model, Strategy(pp=pp))
    cut = parameters_by_rank(moe_model, Strategy(pp=pp, ep=ep, etp=etp, tp=etp, dp=ep))
    for (_, all_experts), (_, own_experts) in zip(whole, cut, strict=True):
        assert own_experts * ep * etp == pytest.approx(all_experts)


@given(st.sampled_from([1, 2, 4, 8]))
def test_tensor_parallel_ranks_repeat_norms_alone(dense_model: ModelSpec, tp: int) -> None:
    """Up to one key head per rank, matrices are cut and only the norms are held by all."""
    parts = layer_parameters(dense_model, Strategies.of(Strategy(tp=tp)))
    norms = dense_model.norms_per_layer * dense_model.norm_parameters
    assert (parts.attention.item() - norms) * tp == dense_model.attention_parameters
    assert parts.dense_mlp.item() * tp == dense_model.dense_mlp_parameters


def test_tensor_parallel_beyond_the_key_heads_repeats_them() -> None:
    """Of Llama 3 70B's eight key heads, each of 16 ranks holds one, and each of 8 holds one."""
    model = load_model("llama3-70b")
    for tp in (8, 16):
        columns = Strategies.of(Strategy(tp=tp))
        assert widths(model, columns).kv.item() == model.head_dim
        attention = layer_parameters(model, columns).attention.item()
        own = (2 * model.query_size / tp + 2 * model.head_dim) * model.hidden_size
        assert attention == own + 2 * model.hidden_size


def test_mla_repeats_its_down_projections() -> None:
    """DeepSeek V3 at tp 8: down-projections whole, up-projections and output by heads."""
    model = load_model("deepseek-v3")
    attention = layer_parameters(model, Strategies.of(Strategy(tp=8))).attention.item()
    h, heads = 7168, 128 // 8
    down = h * (1536 + 512 + 64)
    up = 1536 * heads * 192 + 512 * heads * (128 + 128)
    assert attention == pytest.approx(down + up + heads * 128 * h + 2 * h, rel=1e-4)


def test_deepseek_v3_holds_four_experts_a_layer_on_64_ranks() -> None:
    """EP 64: 4 x 3 x 7168 x 2048 expert parameters per layer, 58 such layers in all."""
    ranks = parameters_by_rank(load_model("deepseek-v3"), Strategy(pp=16, ep=64, dp=64))
    layers = 58 + 1  # the MTP module has experts too
    assert sum(experts for _, experts in ranks) == layers * 4 * 3 * 7168 * 2048


@given(st.sampled_from([1, 2, 4, 8, 16]))
def test_the_vocabulary_is_padded_for_the_ranks(tp: int) -> None:
    """Every rank holds the same whole number of rows, a multiple of 128, and none is lost."""
    model = load_model("gpt3-175b")
    rows = widths(model, Strategies.of(Strategy(tp=tp))).vocab.item()
    assert rows % 128 == 0
    assert 0 <= rows * tp - model.vocab_size < 128 * tp


@given(
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3, Sharding.FSDP]),
)
def test_shards_times_owners_is_the_stage(
    tp: int, cp: int, dp: int, ep: int, sharding: Sharding
) -> None:
    """Dense state is cut dp * cp ways; an expert's by the ranks that hold the same expert."""
    ranks = tp * cp * dp
    if ranks % ep:
        ep = 1
    columns = Strategies.of(Strategy(tp=tp, cp=cp, dp=dp, ep=ep, sharding=sharding, dp_shard=dp))
    assert dense_shards(columns).item() * tp == ranks
    assert expert_shards(columns).item() * ep == ranks


def test_hsdp_shards_within_its_group() -> None:
    """State is cut by the group's ranks, not by all copies of it."""
    columns = Strategies.of(
        Strategy(dp=64, ep=4, sharding=Sharding.HSDP, dp_shard=8),
    )
    assert dense_shards(columns).item() == 8
    assert expert_shards(columns).item() == 2


@given(st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]), st.sampled_from([1, 2, 4]))
def test_all_tokens_are_computed_once(dp: int, cp: int, micro_batch_size: int) -> None:
    """Tokens of a micro-batch and rank, times micro-batches, times dp * cp, are the batch."""
    columns = Strategies.of(Strategy(dp=dp, cp=cp, micro_batch_size=micro_batch_size))
    tokens = tokens_per_rank(columns, 4096) * micro_batches(columns, 64) * dp * cp
    assert tokens.item() == 64 * 4096

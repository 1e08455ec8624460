"""Kept activations equal the published formulas, and what their tensors add up to by hand."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.models import load_model
from cost_models.counting.activations import LayerActivations, layer_activations
from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Strategies, Strategy

MEGATRON = load_framework("megatron-lm")
MEGATRON_2022 = load_framework("megatron-lm-2022")
PAPER = ["megatron-22b", "megatron-175b", "megatron-530b", "megatron-1t"]
MODULES = [flag for flag in Recompute if flag is not Recompute.FULL]


def kept(
    model: ModelSpec,
    strategy: Strategy,
    framework: Framework = MEGATRON,
    sequence_length: int = 4096,
) -> LayerActivations:
    """Bytes per token of one strategy."""
    return layer_activations(model, framework, Strategies.of(strategy), sequence_length)


def dense_layer(activations: LayerActivations) -> float:
    """A layer with a dense MLP."""
    return float((activations.attention + activations.dense_mlp).item())


def moe_layer(activations: LayerActivations) -> float:
    """A layer with experts."""
    return float((activations.attention + activations.moe).item())


@pytest.mark.parametrize("name", PAPER)
def test_layers_of_the_2022_paper(name: str) -> None:
    """Table 2 of arXiv:2205.05198, row by row, in bytes per token and hidden scalar."""
    model = load_model(name)
    t, s = 8, 2048
    scores = 5 * model.n_heads * s / model.hidden_size
    rows = [
        (Strategy(), 34 + scores),
        (Strategy(tp=t), 10 + 24 / t + scores / t),
        (Strategy(tp=t, sequence_parallel=True), (34 + scores) / t),
        (Strategy(tp=t, recompute=Recompute.CORE_ATTN), 10 + 24 / t),
        (Strategy(tp=t, sequence_parallel=True, recompute=Recompute.CORE_ATTN), 34 / t),
    ]
    for strategy, expected in rows:
        bytes_per_token = dense_layer(kept(model, strategy, MEGATRON_2022, s))
        assert bytes_per_token == pytest.approx(expected * model.hidden_size, rel=1e-12)
    assert kept(model, Strategy(), MEGATRON_2022, s).checkpoint == 2 * model.hidden_size


@pytest.mark.parametrize(("name", "saved"), [("megatron-175b", 0.70), ("megatron-530b", 0.65)])
def test_selective_recompute_saves_what_was_published(name: str, saved: float) -> None:
    """70 % of GPT-3's activations and 65 % of MT-NLG's (arXiv:2205.05198, section 5)."""
    model = load_model(name)
    whole = dense_layer(kept(model, Strategy(), MEGATRON_2022, 2048))
    less = dense_layer(kept(model, Strategy(recompute=Recompute.CORE_ATTN), MEGATRON_2022, 2048))
    assert 1 - less / whole == pytest.approx(saved, abs=0.005)


def test_a_llama_layer_tensor_by_tensor() -> None:
    """Llama 3.1 405B under flash attention: norms, q, k, v, row sums, output, gate, up, product."""
    h, kv, heads, ffn = 16384, 1024, 128, 53248
    norms = 2 * (2 * h + 2 * h)
    attention = 2 * h + 2 * 2 * kv + 4 * heads + 2 * h
    mlp = 2 * (2 * ffn) + 2 * ffn
    layer = dense_layer(kept(load_model("405b"), Strategy(), sequence_length=8192))
    assert layer == norms + attention + mlp


@given(st.sampled_from([1024, 4096, 131072]))
def test_flash_attention_keeps_no_scores(sequence_length: int) -> None:
    """Bytes per token do not depend on the sequence."""
    model = load_model("8b")
    short = dense_layer(kept(model, Strategy(), sequence_length=512))
    assert dense_layer(kept(model, Strategy(), sequence_length=sequence_length)) == short


def test_grouped_queries_keep_fewer_keys() -> None:
    """Eight key heads for 64: 4 bytes less per scalar of key width that is gone."""
    model = load_model("llama3-70b")
    all_heads = replace(model, n_kv_heads=model.n_heads)
    fewer = all_heads.kv_size - model.kv_size
    more = dense_layer(kept(all_heads, Strategy())) - dense_layer(kept(model, Strategy()))
    assert more == 2 * 2 * fewer


@given(st.sampled_from([1, 2, 4, 8]))
def test_sequence_parallel_divides_everything(dense_model: ModelSpec, tp: int) -> None:
    """With sequence-parallel nothing of a dense layer is repeated."""
    whole = dense_layer(kept(dense_model, Strategy()))
    assert dense_layer(
        kept(dense_model, Strategy(tp=tp, sequence_parallel=True))
    ) * tp == pytest.approx(whole)


@given(st.sampled_from([2, 4, 8]))
def test_latent_vectors_are_shared_out_with_the_tokens(moe_model: ModelSpec, tp: int) -> None:
    """MLA's down-projections are whole on every rank, yet see only their part of the sequence."""
    whole = moe_layer(kept(moe_model, Strategy()))
    parallel = moe_layer(kept(moe_model, Strategy(tp=tp, etp=1, sequence_parallel=True)))
    assert parallel * tp == pytest.approx(whole)


def test_without_sequence_parallel_norms_and_latents_are_repeated(moe_model: ModelSpec) -> None:
    """Eight ranks together keep more than one alone."""
    whole = moe_layer(kept(moe_model, Strategy()))
    assert moe_layer(kept(moe_model, Strategy(tp=8))) * 8 > 1.5 * whole


@given(st.sampled_from([1, 2, 4, 8]))
def test_expert_parallel_moves_tokens_but_keeps_as_many(moe_model: ModelSpec, ep: int) -> None:
    """Balanced experts get as many tokens as their rank has sent away."""
    alone = moe_layer(kept(moe_model, Strategy()))
    assert moe_layer(kept(moe_model, Strategy(ep=ep, dp=ep))) == alone


def test_expert_tensor_parallel_gathers_inputs_and_cuts_widths() -> None:
    """Mixtral with tp = etp = 4: the expert's input is whole four times, its width a quarter."""
    model = load_model("mixtral-8x7b")
    folded = kept(model, Strategy(tp=4, etp=1, sequence_parallel=True))
    cut = kept(model, Strategy(tp=4, etp=4, sequence_parallel=True))
    input_bytes = 2 * model.top_k * model.hidden_size / 4
    assert (cut.moe - folded.moe).item() == pytest.approx(3 * input_bytes)


def test_mixtral_keeps_top_k_copies() -> None:
    """Two experts' inputs and three widths, the router's logits; the outputs if weighed late."""
    model = load_model("mixtral-8x7b")
    h, ffn, k = 4096, 14336, 2
    norm = 2 * h + 2 * h
    routed = k * (2 * h + 3 * 2 * ffn)
    outputs = kept(model, Strategy()).moe.item() - (norm + routed + 4 * 8)
    assert outputs in (0, k * 2 * h)


@pytest.mark.parametrize("name", ["8b", "mixtral-8x7b", "deepseek-v3", "qwen3-30b-a3b", "gpt2-xl"])
@pytest.mark.parametrize("module", MODULES)
def test_recomputing_a_module_never_keeps_more(name: str, module: Recompute) -> None:
    """Whatever else is recomputed."""
    model = load_model(name)
    for other in (Recompute.NONE, Recompute.LAYERNORM, Recompute.ACTIVATION):
        before = kept(model, Strategy(recompute=other))
        after = kept(model, Strategy(recompute=other | module))
        assert after.attention <= before.attention
        assert after.dense_mlp <= before.dense_mlp
        assert after.moe <= before.moe
        assert after.checkpoint < after.attention + after.dense_mlp


@given(st.sampled_from(["8b", "mixtral-8x7b", "deepseek-v3"]), st.sampled_from([1, 2, 8]))
def test_eight_bit_inputs_keep_less(name: str, tp: int) -> None:
    """FP8 stores the inputs of GEMMs in one byte, and nothing in more."""
    model = load_model(name)
    plain = kept(model, Strategy(tp=tp, sequence_parallel=tp > 1))
    eight = kept(model, Strategy(tp=tp, sequence_parallel=tp > 1, precision=Precision.FP8))
    layer = moe_layer if model.is_moe else dense_layer
    assert 0.5 * layer(plain) < layer(eight) < layer(plain)


def test_up_projections_can_be_computed_again() -> None:
    """DeepSeek V3 without its queries, keys and values: 2 bytes of (192 + 192 + 128) x 128."""
    model = load_model("deepseek-v3")
    whole = kept(model, Strategy()).attention
    less = kept(model, Strategy(recompute=Recompute.MLA_UP_PROJ)).attention
    assert (whole - less).item() == 2 * 128 * (192 + 192 + 128)


def test_unfused_kernels_keep_more() -> None:
    """A framework without flash attention keeps two score matrices, without dropout's mask."""
    model = load_model("llama2-7b")
    unfused = replace(MEGATRON, flash_attention=False)
    more = dense_layer(kept(model, Strategy(), unfused, 4096)) - dense_layer(
        kept(model, Strategy(), sequence_length=4096)
    )
    assert more == 2 * model.n_heads * 4096 - 4 * model.n_heads

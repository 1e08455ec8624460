"""A model's shape as Megatron's arguments, and back."""

import re
from collections.abc import Mapping
from typing import Any

from autopar.launchers.megatron.args.flags import Values, get
from autopar.launchers.megatron.args.layout import read_pattern, write_pattern
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec, Norm, Position

_NORMS: Mapping[str, Norm] = {"RMSNorm": "rmsnorm", "LayerNorm": "layernorm"}
_POSITIONS: Mapping[Position, str] = {
    "rope": "rope",
    "learned": "learned_absolute",
    "none": "none",
    "alibi": "none",
}

_MOST_LAYERS = 10_000
_LONGEST = 2048
"""Positions where a script gives neither their number nor the sequence's length."""


def write_model(model: ModelSpec, sequence_length: int) -> tuple[Values, list[str]]:
    """Arguments that build ``model``, and what Megatron cannot build, each with the reason."""
    biased = model.attention_out_bias or model.mlp_bias or model.moe_bias
    values: Values = {
        "num_layers": model.n_layers,
        "hidden_size": model.hidden_size,
        "num_attention_heads": model.n_heads,
        "swiglu": model.gated_mlp,
        "normalization": "RMSNorm" if model.norm == "rmsnorm" else "LayerNorm",
        "position_embedding_type": _POSITIONS[model.position],
        "max_position_embeddings": _positions(model, sequence_length),
        "add_bias_linear": biased,
        "add_qkv_bias": model.qkv_bias and not biased,
        "untie_embeddings_and_output_weights": not model.tied_embeddings,
        "make_vocab_size_divisible_by": model.make_vocab_size_divisible_by,
        "hidden_dropout": 0.1 if model.dropout else 0.0,
        "attention_dropout": 0.1 if model.dropout else 0.0,
        "qk_layernorm": model.qk_norm or model.attention == "mla",
    }
    if model.ffn_size:
        values["ffn_hidden_size"] = model.ffn_size
    if model.attention == "mla":
        values |= {
            "multi_latent_attention": True,
            "kv_lora_rank": model.kv_lora_rank,
            "qk_head_dim": model.qk_nope_head_dim,
            "qk_pos_emb_head_dim": model.qk_rope_head_dim,
            "v_head_dim": model.v_head_dim,
        }
        if model.q_lora_rank:
            values["q_lora_rank"] = model.q_lora_rank
    else:
        values["kv_channels"] = model.head_dim
        if model.n_kv_heads != model.n_heads:
            values |= {"group_query_attention": True, "num_query_groups": model.n_kv_heads}
    if model.attention_sinks:
        values["softmax_type"] = "learnable"
    if model.sliding_window and model.sliding_window_layers:
        values["window_size"] = f"{model.sliding_window - 1},0"
        if len(model.sliding_window_layers) < model.n_layers:
            values["window_attn_skip_freq"] = write_pattern(
                model.sliding_window_layers, model.n_layers
            )
    if model.is_moe:
        values |= _write_experts(model)
    if model.mtp_layers:
        values["mtp_num_layers"] = model.mtp_layers
    return values, _missing(model, biased=biased)


def _positions(model: ModelSpec, sequence_length: int) -> int:
    """Longest sequence; a table of learned positions is as long as it is."""
    longest = model.max_sequence_length or sequence_length
    return longest if model.position == "learned" else max(longest, sequence_length)


def _write_experts(model: ModelSpec) -> Values:
    values: Values = {
        "num_experts": model.n_experts,
        "moe_ffn_hidden_size": model.moe_ffn_size,
        "moe_router_topk": model.top_k,
        "moe_router_dtype": "fp32",
        "moe_grouped_gemm": True,
        "moe_token_dispatcher_type": "alltoall",
        "moe_permute_fusion": True,
    }
    if len(model.moe_layers) < model.n_layers:
        values["moe_layer_freq"] = write_pattern(model.moe_layers, model.n_layers)
    if model.router_bias and not model.moe_bias:
        values |= {"moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True}
    elif model.top_k == 1:
        values["moe_router_pre_softmax"] = True
    if model.routed_groups:
        values["moe_router_num_groups"] = model.n_expert_groups
        values["moe_router_group_topk"] = model.routed_groups
    if model.shared_expert_ffn_size:
        values["moe_shared_expert_intermediate_size"] = model.shared_expert_ffn_size
        values["moe_shared_expert_gate"] = model.shared_expert_gate
    return values


def _missing(model: ModelSpec, *, biased: bool) -> list[str]:
    missing = []
    if model.position == "alibi":
        missing.append("model position alibi: no such embedding; none is written")
    if model.norms_per_layer != 2:
        missing.append(f"model norms_per_layer {model.norms_per_layer}: layers have 2 norms")
    if model.embedding_norm:
        missing.append("model embedding_norm: no norm follows the embedding")
    if model.head_bias:
        missing.append("model head_bias: the output projection has no bias")
    if model.router_bias and model.moe_bias:
        missing.append("model router_bias: no learned bias beside a softmax router")
    if biased:
        absent = [name for name, has in _biases(model).items() if not has]
        if absent:
            missing.append(f"model {', '.join(absent)}: biases come all together or not at all")
    return missing


def _biases(model: ModelSpec) -> dict[str, bool]:
    """Biases that --add-bias-linear would bring, each with whether the model has it."""
    has = {"qkv_bias": model.qkv_bias, "attention_out_bias": model.attention_out_bias}
    if len(model.moe_layers) < model.n_layers or model.shared_expert_ffn_size:
        has["mlp_bias"] = model.mlp_bias
    if model.is_moe:
        has["moe_bias"] = model.moe_bias
    return has


def read_model(values: Mapping[str, Any], *, name: str, vocab_size: int) -> ModelSpec:
    """The model that these arguments build; raises SpecError for one they do not complete."""
    for needed in ("num_layers", "hidden_size", "num_attention_heads"):
        if get(values, needed) is None:
            raise SpecError(f"{needed} is missing, so the model is not known")
    layers, hidden, heads = (
        int(get(values, n)) for n in ("num_layers", "hidden_size", "num_attention_heads")
    )
    if min(layers, hidden, heads) < 1:
        raise SpecError("num_layers, hidden_size and num_attention_heads must be > 0")
    if layers > _MOST_LAYERS:
        raise SpecError(f"num_layers must be at most {_MOST_LAYERS}, got {layers}")
    gated = bool(get(values, "swiglu") or get(values, "quick_geglu"))
    mla = bool(get(values, "multi_latent_attention"))
    experts = _read_experts(values, layers)
    all_moe = len(experts.get("moe_layers", ())) == layers
    ffn = get(values, "ffn_hidden_size")
    biased = bool(get(values, "add_bias_linear"))
    grouped = get(values, "group_query_attention")
    position = get(values, "position_embedding_type")
    if get(values, "use_rotary_position_embeddings"):
        position = "rope"
    return ModelSpec(
        name=name,
        n_layers=layers,
        hidden_size=hidden,
        n_heads=heads,
        n_kv_heads=int(get(values, "num_query_groups")) if grouped and not mla else heads,
        head_dim=_head_dim(values, hidden, heads),
        ffn_size=ffn if ffn is not None else 0 if all_moe else _default_ffn(hidden, gated=gated),
        vocab_size=vocab_size,
        gated_mlp=gated,
        tied_embeddings=not get(values, "untie_embeddings_and_output_weights"),
        norm=_NORMS.get(get(values, "normalization"), "rmsnorm"),
        qk_norm=bool(get(values, "qk_layernorm")) and not mla,
        position=next((p for p, n in _POSITIONS.items() if n == position), "rope"),
        max_sequence_length=get(values, "max_position_embeddings")
        or get(values, "seq_length")
        or _LONGEST,
        qkv_bias=biased or bool(get(values, "add_qkv_bias")),
        attention_out_bias=biased,
        mlp_bias=biased and (not all_moe or "shared_expert_ffn_size" in experts),
        moe_bias=biased and bool(experts),
        attention_sinks=get(values, "softmax_type") == "learnable",
        dropout=get(values, "hidden_dropout") > 0 or get(values, "attention_dropout") > 0,
        make_vocab_size_divisible_by=get(values, "make_vocab_size_divisible_by"),
        mtp_layers=get(values, "mtp_num_layers") or 0,
        **_read_latent(values),
        **_read_window(values, layers),
        **experts,
    )


def _head_dim(values: Mapping[str, Any], hidden: int, heads: int) -> int:
    if get(values, "multi_latent_attention"):
        return int(get(values, "qk_head_dim")) + int(get(values, "qk_pos_emb_head_dim"))
    return int(get(values, "kv_channels") or hidden // heads)


def _default_ffn(hidden: int, *, gated: bool) -> int:
    """Width that Megatron-LM takes when none is given."""
    return int(4 * hidden * 2 / 3) // 64 * 64 if gated else 4 * hidden


def _read_latent(values: Mapping[str, Any]) -> dict[str, Any]:
    if not get(values, "multi_latent_attention"):
        return {}
    return {
        "attention": "mla",
        "q_lora_rank": get(values, "q_lora_rank") or 0,
        "kv_lora_rank": get(values, "kv_lora_rank"),
        "qk_rope_head_dim": get(values, "qk_pos_emb_head_dim"),
        "qk_nope_head_dim": get(values, "qk_head_dim"),
        "v_head_dim": get(values, "v_head_dim"),
    }


def _read_window(values: Mapping[str, Any], layers: int) -> dict[str, Any]:
    window = get(values, "window_size")
    if not window:
        return {}
    match = re.fullmatch(r"\(?\s*(-?\d+)\s*,\s*(-?\d+)\s*,?\s*\)?", str(window))
    if not match:
        raise SpecError(f"window_size must be two whole numbers, got {window!r}")
    left = int(match.group(1))
    if left < 0:
        return {}
    pattern = get(values, "window_attn_skip_freq")
    if pattern is None:
        chosen = tuple(range(layers))
    elif str(pattern).isdigit():
        period = int(pattern)
        chosen = tuple(i for i in range(layers) if not period or (i + 1) % period)
    else:
        chosen = read_pattern(str(pattern), layers, field="window_attn_skip_freq")
    return {"sliding_window": left + 1, "sliding_window_layers": chosen} if chosen else {}


def _read_experts(values: Mapping[str, Any], layers: int) -> dict[str, Any]:
    experts = get(values, "num_experts")
    if not experts:
        return {}
    width = get(values, "moe_ffn_hidden_size") or get(values, "ffn_hidden_size")
    if not width:
        width = _default_ffn(int(get(values, "hidden_size")), gated=bool(get(values, "swiglu")))
    found = {
        "n_experts": experts,
        "top_k": get(values, "moe_router_topk"),
        "n_expert_groups": get(values, "moe_router_num_groups") or 0,
        "routed_groups": get(values, "moe_router_group_topk") or 0,
        "moe_ffn_size": width,
        "moe_layers": read_pattern(
            str(get(values, "moe_layer_freq")), layers, field="moe_layer_freq"
        ),
        "router_bias": bool(get(values, "moe_router_enable_expert_bias")),
    }
    shared = get(values, "moe_shared_expert_intermediate_size")
    if shared:
        found["shared_expert_ffn_size"] = shared
        found["shared_expert_gate"] = bool(get(values, "moe_shared_expert_gate"))
    return found

"""Models as MaxText 0.2.5 names them, or by their sizes where it has no name."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cost_models.catalog.models import load_model
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

NAMES: Mapping[str, str] = {
    "deepseek-v2": "deepseek2-236b",
    "deepseek-v2-lite": "deepseek2-16b",
    "deepseek-v3": "deepseek3-671b",
    "gemma-2-27b": "gemma2-27b",
    "gemma-2-9b": "gemma2-9b",
    "gpt-oss-120b": "gpt-oss-120b",
    "gpt-oss-20b": "gpt-oss-20b",
    "kimi-k2": "kimi-k2-1t",
    "llama2-13b": "llama2-13b",
    "llama2-70b": "llama2-70b",
    "llama2-7b": "llama2-7b",
    "llama3-70b": "llama3-70b",
    "llama3-8b": "llama3-8b",
    "llama3.1-405b": "llama3.1-405b",
    "mistral-7b": "mistral-7b",
    "mixtral-8x22b": "mixtral-8x22b",
    "mixtral-8x7b": "mixtral-8x7b",
    "qwen2.5-7b": "qwen2.5-7b",
    "qwen3-235b-a22b": "qwen3-235b-a22b",
    "qwen3-30b-a3b": "qwen3-30b-a3b",
    "qwen3-32b": "qwen3-32b",
    "qwen3-8b": "qwen3-8b",
}
"""Our catalog's names and MaxText's ``model_name``."""
ALSO: Mapping[str, str] = {
    "llama3.1-8b": "llama3-8b",
    "llama3.1-70b": "llama3-70b",
    "llama3.3-70b": "llama3-70b",
    "llama3-405b": "llama3.1-405b",
}
"""More names of MaxText's with the same shapes, and ours."""

SHAPE: tuple[tuple[str, str], ...] = (
    ("n_layers", "base_num_decoder_layers"),
    ("hidden_size", "base_emb_dim"),
    ("n_heads", "base_num_query_heads"),
    ("n_kv_heads", "base_num_kv_heads"),
    ("head_dim", "head_dim"),
    ("vocab_size", "vocab_size"),
)


def model_fields(model: ModelSpec) -> dict[str, Any]:
    """Fields that say ``model``; raises SpecError for an architecture MaxText has not."""
    if model.name in NAMES and _same(load_model(model.name), model):
        return {"model_name": NAMES[model.name]}
    if not _decoder(model):
        raise SpecError(
            f"model {model.name!r} cannot be expressed for MaxText 0.2.5",
            hint="the closest that can: rotary grouped-query attention with RMSNorm and SwiGLU, "
            f"or one of {', '.join(NAMES)}",
        )
    fields: dict[str, Any] = {"model_name": "default", "decoder_block": _decoder(model)}
    fields |= {theirs: getattr(model, ours) for ours, theirs in SHAPE}
    fields |= {
        "base_mlp_dim": model.moe_ffn_size if model.is_moe else model.ffn_size,
        "mlp_activations": ["silu", "linear"],
        "logits_via_embedding": model.tied_embeddings,
        "use_qk_norm": model.qk_norm,
        "attention_bias": model.qkv_bias,
        "enable_dropout": False,
    }
    if model.is_moe:
        fields |= {
            "num_experts": model.n_experts,
            "num_experts_per_tok": model.top_k,
            "base_moe_mlp_dim": model.moe_ffn_size,
        }
    return fields


def named_model(name: str) -> ModelSpec | None:
    """The catalog's model behind a ``model_name``, None where it has none."""
    ours = {theirs: mine for mine, theirs in NAMES.items()} | dict(ALSO)
    return load_model(ours[name]) if name in ours else None


def _decoder(model: ModelSpec) -> str:
    """MaxText's decoder block for the architecture, empty where there is none."""
    plain = (
        model.attention == "gqa"
        and model.norm == "rmsnorm"
        and model.position == "rope"
        and model.gated_mlp
        and model.norms_per_layer == 2
        and not model.sliding_window_layers
        and not any((model.embedding_norm, model.attention_sinks, model.mlp_bias, model.moe_bias))
        and not any((model.attention_out_bias, model.head_bias, model.router_bias))
        and not model.shared_expert_ffn_size
    )
    if not plain or (model.is_moe and len(model.moe_layers) != model.n_layers):
        return ""
    if model.is_moe:
        return "qwen3_moe" if model.qk_norm else "mixtral"
    if model.qk_norm:
        return "qwen3"
    return "qwen2" if model.qkv_bias else "llama2"


def _same(ours: ModelSpec, given: ModelSpec) -> bool:
    return replace(ours, source="", max_sequence_length=None) == replace(
        given, source="", max_sequence_length=None
    )

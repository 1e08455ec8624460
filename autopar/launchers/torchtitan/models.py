"""Models as torchtitan 0.3.0 names them: a family and one of its flavors, or a shape of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from cost_models.catalog.models import load_model
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

CATALOG_FLAVORS: Mapping[tuple[str, str], str] = {
    ("llama3", "8B"): "llama3-8b",
    ("llama3", "70B"): "llama3-70b",
    ("llama3", "405B"): "llama3.1-405b",
    ("qwen3", "8B"): "qwen3-8b",
    ("qwen3", "32B"): "qwen3-32b",
    ("qwen3", "30B-A3B"): "qwen3-30b-a3b",
    ("qwen3", "235B-A22B"): "qwen3-235b-a22b",
    ("deepseek_v3", "16B"): "deepseek-v2-lite",
    ("deepseek_v3", "236B"): "deepseek-v2",
    ("deepseek_v3", "671B"): "deepseek-v3",
    ("gpt_oss", "20b"): "gpt-oss-20b",
    ("gpt_oss", "120b"): "gpt-oss-120b",
}
"""Flavors whose shape the catalog has, by its name there."""

_SHAPE_KEYS = ("n_layers", "hidden_size", "n_heads", "n_kv_heads", "head_dim", "ffn_size")
SMALL_FLAVORS: Mapping[tuple[str, str], tuple[tuple[int, ...], int, bool]] = {
    ("llama3", "debugmodel"): ((6, 256, 16, 16, 16, 768), 2048, False),
    ("llama3", "1B"): ((16, 2048, 32, 8, 64, 8192), 128256, True),
    ("llama3", "3B"): ((28, 3072, 24, 8, 128, 8192), 128256, True),
    ("qwen3", "debugmodel"): ((8, 256, 16, 8, 128, 3072), 2048, True),
    ("qwen3", "0.6B"): ((28, 1024, 16, 8, 128, 3072), 151936, True),
    ("qwen3", "1.7B"): ((28, 2048, 16, 8, 128, 6144), 151936, True),
    ("qwen3", "4B"): ((36, 2560, 32, 8, 128, 9728), 151936, True),
    ("qwen3", "14B"): ((40, 5120, 40, 8, 128, 17408), 151936, False),
}
"""Flavors that the catalog has not: their shape, vocabulary, and whether head is embedding."""

CONFIGS: Mapping[tuple[str, str], str] = {
    ("llama3", "8B"): "llama3_8b",
    ("llama3", "70B"): "llama3_70b",
    ("llama3", "405B"): "llama3_405b",
    ("qwen3", "14B"): "qwen3_14b",
    ("qwen3", "32B"): "qwen3_32b",
    ("qwen3", "30B-A3B"): "qwen3_30b_a3b",
    ("deepseek_v3", "16B"): "deepseek_v3_16b",
    ("deepseek_v3", "671B"): "deepseek_v3_671b",
    ("gpt_oss", "20b"): "gpt_oss_20b",
    ("gpt_oss", "120b"): "gpt_oss_120b",
}
"""The config function that torchtitan ships for a flavor: optimizer, data, tokenizer."""
NEAREST_CONFIG: Mapping[str, str] = {
    "llama3": "llama3_8b",
    "qwen3": "qwen3_32b",
    "deepseek_v3": "deepseek_v3_671b",
    "gpt_oss": "gpt_oss_120b",
}

SHIPPED: Mapping[str, tuple[str, str, int, int, int, int, str, str]] = {
    "llama3_debugmodel": ("llama3", "debugmodel", 8, 2048, 1, 1, "Interleaved1F1B", "SelectiveAC"),
    "llama3_8b": ("llama3", "8B", 1, 8192, 1, 1, "1F1B", "SelectiveAC"),
    "llama3_70b": ("llama3", "70B", 8, 8192, 8, 1, "1F1B", "FullAC"),
    "llama3_405b": ("llama3", "405B", 2, 8192, 8, 1, "1F1B", "FullAC"),
    "qwen3_debugmodel": ("qwen3", "debugmodel", 8, 2048, 1, 1, "1F1B", "SelectiveAC"),
    "qwen3_0_6b": ("qwen3", "0.6B", 4, 4096, 1, 1, "1F1B", "SelectiveAC"),
    "qwen3_1_7b": ("qwen3", "1.7B", 4, 4096, 1, 1, "1F1B", "SelectiveAC"),
    "qwen3_14b": ("qwen3", "14B", 4, 4096, 1, 1, "1F1B", "FullAC"),
    "qwen3_30b_a3b": ("qwen3", "30B-A3B", 2, 4096, 1, 1, "1F1B", "FullAC"),
    "qwen3_32b": ("qwen3", "32B", 2, 4096, 1, 1, "1F1B", "FullAC"),
    "deepseek_v3_16b": ("deepseek_v3", "16B", 4, 4096, 1, 8, "Interleaved1F1B", "SelectiveAC"),
    "deepseek_v3_671b": ("deepseek_v3", "671B", 4, 4096, 1, 2, "Interleaved1F1B", "SelectiveAC"),
    "gpt_oss_20b": ("gpt_oss", "20b", 1, 8192, 1, 1, "1F1B", "FullAC"),
    "gpt_oss_120b": ("gpt_oss", "120b", 1, 8192, 1, 1, "1F1B", "FullAC"),
}
"""What 0.3.0's own config functions set: family, flavor, local batch, sequence, tensor and
expert parallel degrees, pipeline schedule, activation checkpointing."""

_NO_MATTER = ("name", "source", "max_sequence_length", "mtp_layers", "router_bias")
"""Fields of a model that may differ while torchtitan's flavor is the same."""


@dataclass(frozen=True, slots=True)
class TitanModel:
    """A model in torchtitan's words; ``shape`` is None where the flavor says it all."""

    family: str
    flavor: str
    config: str
    """Config function to start from."""
    shape: Mapping[str, Any] | None = None


@cache
def flavor_model(family: str, flavor: str) -> ModelSpec | None:
    """The model behind a flavor, None for one that is not known."""
    key = (family, flavor)
    if key in CATALOG_FLAVORS:
        return load_model(CATALOG_FLAVORS[key])
    if key not in SMALL_FLAVORS:
        return None
    sizes, vocab_size, tied = SMALL_FLAVORS[key]
    shape: dict[str, Any] = dict(zip(_SHAPE_KEYS, sizes, strict=True))
    return ModelSpec(
        name=f"{family}-{flavor}",
        vocab_size=vocab_size,
        tied_embeddings=tied,
        qk_norm=family == "qwen3",
        **shape,
    )


def titan_model(model: ModelSpec, sequence_length: int) -> TitanModel:
    """How to say ``model``; raises SpecError for an architecture that torchtitan has not."""
    for family, flavor in (*CATALOG_FLAVORS, *SMALL_FLAVORS):
        known = flavor_model(family, flavor)
        if known is not None and _plain(known) == _plain(model):
            config = CONFIGS.get((family, flavor), NEAREST_CONFIG[family])
            return TitanModel(family, flavor, config)
    problem = _foreign(model)
    if problem:
        raise SpecError(
            f"model {model.name!r} cannot be expressed for torchtitan 0.3.0: {problem}",
            hint="the closest that can: rotary grouped-query attention with RMSNorm and SwiGLU, "
            "or a flavor of llama3, qwen3, deepseek_v3 or gpt_oss",
        )
    rotary = model.hidden_size == model.n_heads * model.head_dim
    family = "llama3" if rotary and not (model.is_moe or model.qk_norm) else "qwen3"
    flavor = {"llama3": ("8B", "1B"), "qwen3": ("32B", "0.6B")}[family][model.tied_embeddings]
    config = "qwen3_30b_a3b" if model.is_moe else NEAREST_CONFIG[family]
    flavor = "30B-A3B" if model.is_moe and not model.tied_embeddings else flavor
    return TitanModel(family, flavor, config, _shape(model, sequence_length))


def shape_model(shape: Mapping[str, Any]) -> ModelSpec:
    """Inverse of the shape that :func:`titan_model` writes for a model of our own."""
    experts = int(shape.get("num_experts", 0))
    n_layers = int(shape["n_layers"])
    return ModelSpec(
        name=str(shape["name"]),
        n_layers=n_layers,
        hidden_size=shape["dim"],
        n_heads=shape["n_heads"],
        n_kv_heads=shape["n_kv_heads"],
        head_dim=shape["head_dim"],
        ffn_size=0 if experts else shape["hidden_dim"],
        vocab_size=shape["vocab_size"],
        max_sequence_length=shape["max_seq_len"],
        tied_embeddings=shape["tied"],
        qk_norm=shape["qk_norm"],
        n_experts=experts,
        top_k=int(shape.get("top_k", 0)),
        moe_ffn_size=shape["hidden_dim"] if experts else 0,
        moe_layers=tuple(range(n_layers)) if experts else (),
    )


def _plain(model: ModelSpec) -> dict[str, Any]:
    return {f.name: getattr(model, f.name) for f in fields(ModelSpec) if f.name not in _NO_MATTER}


def _foreign(model: ModelSpec) -> str:
    """What torchtitan has no module for, empty where it can build the model."""
    if model.attention != "gqa":
        return "latent attention exists only in its deepseek_v3 flavors"
    if model.norm != "rmsnorm" or model.position != "rope" or not model.gated_mlp:
        return f"it has no {model.norm} with {model.position} positions of this kind"
    if model.norms_per_layer != 2 or model.embedding_norm or model.sliding_window_layers:
        return "its layers have two norms and see the whole sequence"
    if any((model.qkv_bias, model.attention_out_bias, model.mlp_bias, model.head_bias)):
        return "its projections have no bias"
    if model.attention_sinks or model.shared_expert_ffn_size or model.moe_bias or model.router_bias:
        return "sinks, shared experts and expert biases exist only in its own flavors"
    if model.is_moe and len(model.moe_layers) != model.n_layers:
        return "its mixtures of experts fill every layer"
    return ""


def _shape(model: ModelSpec, sequence_length: int) -> dict[str, Any]:
    """Arguments of torchtitan's layer builders, all of them literals."""
    shape: dict[str, Any] = {
        "name": model.name,
        "n_layers": model.n_layers,
        "dim": model.hidden_size,
        "n_heads": model.n_heads,
        "n_kv_heads": model.n_kv_heads,
        "head_dim": model.head_dim,
        "hidden_dim": model.moe_ffn_size if model.is_moe else model.ffn_size,
        "vocab_size": model.vocab_size,
        "max_seq_len": max(sequence_length, model.max_sequence_length or 0),
        "tied": model.tied_embeddings,
        "qk_norm": model.qk_norm,
    }
    if model.is_moe:
        shape |= {"num_experts": model.n_experts, "top_k": model.top_k}
    return shape

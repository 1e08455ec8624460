"""Hugging Face's model families: which fields of :class:`ModelSpec` their keys mean.

Each family names its shape in its own keys and leaves out what its configuration class
has a default for.  A family here is a function from the file to fields: those of a plain
decoder (:func:`_plain`) and those in which it departs from one.  Widths are never guessed,
so a file without its ``hidden_size`` is refused.

References
----------
.. [1] The configuration and modeling files of huggingface.co/docs/transformers, and those
   beside the weights of DeepSeek V2, DeepSeek V3 and Kimi K2.
"""

from collections.abc import Callable, Iterable
from typing import Any

from cost_models.catalog.json_file import JsonFile
from cost_models.specs.model import MAX_LAYERS

Fields = dict[str, Any]


def _layers(config: JsonFile) -> int:
    return config.size("num_hidden_layers", "n_layer", maximum=MAX_LAYERS)


def _plain(
    config: JsonFile,
    *,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    tied: bool = False,
) -> Fields:
    """Grouped-query attention and a dense MLP; the family's defaults where a key is absent.

    ``kv_heads`` None: as many as heads.  ``head_dim`` None: the hidden size over the heads.
    """
    hidden_size = config.size("hidden_size", "n_embed", "n_embd")
    n_heads = config.size("num_attention_heads", "n_head")
    n_kv_heads = config.size("num_key_value_heads", default=kv_heads or n_heads)
    if n_heads % n_kv_heads:
        raise config.error(
            "num_key_value_heads", f"must divide num_attention_heads {n_heads}, got {n_kv_heads}"
        )
    width = config.integer("head_dim", minimum=1) or head_dim
    if width is None and hidden_size % n_heads:
        raise config.error(
            "hidden_size", f"must be a multiple of {n_heads} heads, got {hidden_size}"
        )
    return {
        "n_layers": _layers(config),
        "hidden_size": hidden_size,
        "n_heads": n_heads,
        "n_kv_heads": n_kv_heads,
        "head_dim": width or hidden_size // n_heads,
        "ffn_size": config.size("intermediate_size"),
        "vocab_size": config.size("vocab_size"),
        "max_sequence_length": config.integer("max_position_embeddings", minimum=1),
        "tied_embeddings": config.flag("tie_word_embeddings", default=tied),
    }


def _attention_bias(config: JsonFile, *, default: bool = False) -> Fields:
    """One switch for the biases of all four projections."""
    bias = config.flag("attention_bias", default=default)
    return {"qkv_bias": bias, "attention_out_bias": bias}


def _sliding(config: JsonFile, window: int | None, layers: Iterable[int]) -> Fields:
    """``layer_types`` says which layers slide; where it is absent, ``layers`` do."""
    n_layers = _layers(config)
    types = config.strings("layer_types")
    if types is not None:
        if len(types) != n_layers:
            raise config.error(
                "layer_types", f"must name {n_layers} layers (num_hidden_layers), got {len(types)}"
            )
        layers = (i for i, kind in enumerate(types) if kind == "sliding_attention")
    slides = tuple(layers) if window else ()
    return {"sliding_window": window, "sliding_window_layers": slides} if slides else {}


def _window(config: JsonFile, *, default: int | None = None) -> int | None:
    """``null`` switches the window off; only an absent key means the family's default."""
    if "sliding_window" not in config.values:
        return default
    return config.integer("sliding_window", minimum=1)


def _asked_window(config: JsonFile) -> int | None:
    asked = config.flag("use_sliding_window", default=False)
    return _window(config, default=4096) if asked else None


def _late_sliding(config: JsonFile) -> Fields:
    """Qwen: off unless asked for, and then from ``max_window_layers`` on."""
    first = config.count("max_window_layers", default=28)
    return _sliding(config, _asked_window(config), range(first, _layers(config)))


def _experts(fields: Fields, moe_layers: Iterable[int], **experts: int) -> Fields:
    """The MoE fields; the dense width counts for nothing where every layer is MoE."""
    layers = tuple(moe_layers)
    if not layers:
        return {}
    dense = {"ffn_size": 0} if len(layers) == fields["n_layers"] else {}
    return {"moe_layers": layers} | experts | dense


# --------------------------------------------------------------------- families
def _llama(config: JsonFile) -> Fields:
    return (
        _plain(config)
        | _attention_bias(config)
        | {"mlp_bias": config.flag("mlp_bias", default=False)}
    )


def _mistral(config: JsonFile) -> Fields:
    window = _window(config, default=4096)
    return _plain(config, kv_heads=8) | _sliding(config, window, range(_layers(config)))


def _mixtral(config: JsonFile) -> Fields:
    fields = _plain(config, kv_heads=8)
    layers = range(fields["n_layers"])
    return (
        fields
        | _sliding(config, _window(config), layers)
        | _experts(
            fields,
            layers,
            n_experts=config.size("num_local_experts", default=8),
            top_k=config.size("num_experts_per_tok", default=2),
            moe_ffn_size=fields["ffn_size"],
        )
    )


def _qwen2(config: JsonFile) -> Fields:
    return _plain(config) | {"qkv_bias": True} | _late_sliding(config)


def _qwen3(config: JsonFile) -> Fields:
    return (
        _plain(config, head_dim=128)
        | {"qk_norm": True}
        | _attention_bias(config)
        | _late_sliding(config)
    )


def _qwen_experts(config: JsonFile, fields: Fields) -> Fields:
    n_layers = fields["n_layers"]
    dense_only = config.integers("mlp_only_layers")
    if any(not 0 <= i < n_layers for i in dense_only):
        raise config.error(
            "mlp_only_layers", f"must be layer indices below {n_layers}, got {list(dense_only)}"
        )
    step = config.size("decoder_sparse_step", default=1)
    return _experts(
        fields,
        (i for i in range(n_layers) if i not in dense_only and (i + 1) % step == 0),
        n_experts=config.size("num_experts", "num_local_experts"),
        top_k=config.size("num_experts_per_tok"),
        moe_ffn_size=config.size("moe_intermediate_size"),
    )


def _qwen2_moe(config: JsonFile) -> Fields:
    fields = _plain(config)
    shared = config.count("shared_expert_intermediate_size", default=5632)
    early = min(config.count("max_window_layers", default=28), fields["n_layers"])
    return (
        fields
        | {"qkv_bias": config.flag("qkv_bias", default=True)}
        | _sliding(config, _asked_window(config), range(0, early, 2))
        | _qwen_experts(config, fields)
        | {"shared_expert_ffn_size": shared, "shared_expert_gate": shared > 0}
    )


def _qwen3_moe(config: JsonFile) -> Fields:
    fields = _plain(config, kv_heads=4)
    return (
        fields
        | {"qk_norm": True}
        | _attention_bias(config)
        | _sliding(config, _asked_window(config), range(fields["n_layers"]))
        | _qwen_experts(config, fields)
    )


def _deepseek(
    config: JsonFile,
    *,
    first_moe_layer: int,
    shared_experts: int,
    balanced_by_bias: bool,
    groups_by_default: int,
    groups_met_by_default: int,
) -> Fields:
    """Multi-head latent attention; experts from a layer on, every ``moe_layer_freq``-th.

    ``null`` means none where it stands for the query rank or the shared experts.
    """
    if config.flag("attention_bias", default=False):
        raise config.error("attention_bias", "is not supported with latent attention")
    nope, rope = config.size("qk_nope_head_dim"), config.size("qk_rope_head_dim")
    fields = _plain(config, head_dim=nope + rope) | {
        "attention": "mla",
        "n_kv_heads": config.size("num_attention_heads"),
        "head_dim": nope + rope,
        "q_lora_rank": config.count("q_lora_rank", default=1536, null=0),
        "kv_lora_rank": config.size("kv_lora_rank"),
        "qk_nope_head_dim": nope,
        "qk_rope_head_dim": rope,
        "v_head_dim": config.size("v_head_dim"),
        "mtp_layers": config.count("num_nextn_predict_layers", default=0),
    }
    n_experts = config.integer("n_routed_experts", minimum=1)
    if n_experts is None:
        return fields
    width = config.size("moe_intermediate_size")
    groups = config.size("n_group", default=groups_by_default)
    met = config.size("topk_group", default=groups_met_by_default)
    limited = {"n_expert_groups": groups, "routed_groups": met} if met < groups else {}
    first = config.count("first_k_dense_replace", default=first_moe_layer)
    every = config.size("moe_layer_freq", default=1)
    return (
        fields
        | _experts(
            fields,
            (i for i in range(first, fields["n_layers"]) if i % every == 0),
            n_experts=n_experts,
            top_k=config.size("num_experts_per_tok"),
            moe_ffn_size=width,
            shared_expert_ffn_size=width
            * config.count("n_shared_experts", default=shared_experts, null=0),
        )
        | {"router_bias": balanced_by_bias}
        | limited
    )


def _deepseek_v2(config: JsonFile) -> Fields:
    return _deepseek(
        config,
        first_moe_layer=0,
        shared_experts=2,
        balanced_by_bias=False,
        groups_by_default=1,
        groups_met_by_default=1,
    )


def _deepseek_v3(config: JsonFile) -> Fields:
    return _deepseek(
        config,
        first_moe_layer=3,
        shared_experts=1,
        balanced_by_bias=True,
        groups_by_default=8,
        groups_met_by_default=4,
    )


def _gpt_oss(config: JsonFile) -> Fields:
    fields = _plain(config, kv_heads=8, head_dim=64)
    n_layers = fields["n_layers"]
    return (
        fields
        | _attention_bias(config, default=True)
        | {"attention_sinks": True, "router_bias": True, "moe_bias": True}
        | _sliding(config, _window(config, default=128), range(0, n_layers, 2))
        | _experts(
            fields,
            range(n_layers),
            n_experts=config.size("num_local_experts"),
            top_k=config.size("num_experts_per_tok", "experts_per_token"),
            moe_ffn_size=fields["ffn_size"],
        )
    )


def _gemma(config: JsonFile) -> Fields:
    return _plain(config, head_dim=256, tied=True) | _attention_bias(config)


def _gemma2(config: JsonFile) -> Fields:
    layers = range(0, _layers(config), 2)
    window = _window(config, default=4096)
    return _gemma(config) | {"norms_per_layer": 4} | _sliding(config, window, layers)


def _gemma3(config: JsonFile) -> Fields:
    """Published text configs leave out the head counts and vocabulary of the 4B model."""
    config = config.nested("text_config")
    defaults = {
        "vocab_size": 262208,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 131072,
    }
    config = JsonFile(config.path, defaults | dict(config.values))
    every = config.size("sliding_window_pattern", "_sliding_window_pattern", default=6)
    layers = (i for i in range(_layers(config)) if (i + 1) % every)
    window = _window(config, default=4096)
    return (
        _gemma(config) | {"norms_per_layer": 4, "qk_norm": True} | _sliding(config, window, layers)
    )


def _nemotron(config: JsonFile) -> Fields:
    return _llama(config) | {"gated_mlp": False, "norm": "layernorm"}


def _phi3(config: JsonFile) -> Fields:
    return _plain(config) | _sliding(config, _window(config), range(_layers(config)))


_BIASED = {"gated_mlp": False, "norm": "layernorm", "mlp_bias": True}
"""The layer of GPT-2 and those after it."""


def _gpt_neox(config: JsonFile) -> Fields:
    return _plain(config) | _BIASED | _attention_bias(config, default=True)


def _four_times_hidden(config: JsonFile) -> Fields:
    """GPT-2 and BLOOM leave the MLP's width out: four times the hidden size."""
    width = config.size("n_inner", default=4 * config.size("hidden_size", "n_embed", "n_embd"))
    given = JsonFile(config.path, dict(config.values) | {"intermediate_size": width})
    return _plain(given, tied=True) | _BIASED | {"qkv_bias": True, "attention_out_bias": True}


def _gpt2(config: JsonFile) -> Fields:
    return _four_times_hidden(config) | {
        "position": "learned",
        "max_sequence_length": config.size("n_positions", "n_ctx", default=1024),
        "dropout": True,
    }


def _bloom(config: JsonFile) -> Fields:
    return _four_times_hidden(config) | {
        "position": "alibi",
        "max_sequence_length": config.integer("seq_length", minimum=1),
        "embedding_norm": True,
    }


FAMILIES: dict[str, Callable[[JsonFile], Fields]] = {
    "bloom": _bloom,
    "deepseek_v2": _deepseek_v2,
    "deepseek_v3": _deepseek_v3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "gpt_oss": _gpt_oss,
    "kimi_k2": _deepseek_v3,
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "nemotron": _nemotron,
    "phi3": _phi3,
    "qwen2": _qwen2,
    "qwen2_moe": _qwen2_moe,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
}
"""What ``model_type`` may be."""

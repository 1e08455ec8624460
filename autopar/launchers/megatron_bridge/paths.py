"""Where Megatron-Bridge 0.6.2 keeps each argument, and its overrides in Hydra's grammar."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from autopar.launchers.formats.shell import Word
from autopar.launchers.megatron.args.flags import ARGUMENTS, Values, within
from autopar.launchers.megatron.args.layout import read_pattern
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision

_MODEL_SAME = (
    *("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads", "kv_channels"),
    *("num_query_groups", "multi_latent_attention", "q_lora_rank", "kv_lora_rank"),
    *("qk_head_dim", "qk_pos_emb_head_dim", "v_head_dim", "qk_layernorm", "softmax_type"),
    *("window_size", "window_attn_skip_freq", "normalization", "position_embedding_type"),
    *("add_bias_linear", "add_qkv_bias", "make_vocab_size_divisible_by", "hidden_dropout"),
    *("attention_dropout", "moe_layer_freq", "moe_ffn_hidden_size", "moe_router_topk"),
    *("moe_router_num_groups", "moe_router_group_topk"),
    *("moe_router_pre_softmax", "moe_router_score_function", "moe_router_enable_expert_bias"),
    *("moe_router_dtype", "moe_shared_expert_intermediate_size", "moe_shared_expert_gate"),
    *("moe_grouped_gemm", "moe_token_dispatcher_type", "moe_permute_fusion", "mtp_num_layers"),
    *("vocab_size", "seq_length"),
)
_PARALLEL_SAME = (
    *("tensor_model_parallel_size", "sequence_parallel", "pipeline_model_parallel_size"),
    *("pipeline_model_parallel_layout", "account_for_embedding_in_pipeline_split"),
    *("account_for_loss_in_pipeline_split", "overlap_p2p_comm", "context_parallel_size"),
    *("cp_comm_type", "hierarchical_context_parallel_sizes", "expert_model_parallel_size"),
    *("expert_tensor_parallel_size", "init_model_with_meta_device", "tp_comm_overlap"),
    *("overlap_moe_expert_parallel_comm", "recompute_granularity", "recompute_method"),
    *("recompute_num_layers", "recompute_modules", "cpu_offloading_num_layers"),
    *("fine_grained_activation_offloading", "offload_modules", "activation_offload_fraction"),
)
MODEL_PATHS: Mapping[str, str] = {
    **{name: f"model.{name}" for name in _MODEL_SAME},
    "num_experts": "model.num_moe_experts",
    "swiglu": "model.gated_linear_unit",
    "untie_embeddings_and_output_weights": "model.share_embeddings_and_output_weights",
}
PARALLEL_PATHS: Mapping[str, str] = {
    **{name: f"model.{name}" for name in _PARALLEL_SAME},
    "num_virtual_stages_per_pipeline_rank": "model.virtual_pipeline_model_parallel_size",
    "decoder_first_pipeline_num_layers": "model.num_layers_in_first_pipeline_stage",
    "decoder_last_pipeline_num_layers": "model.num_layers_in_last_pipeline_stage",
    "micro_batch_size": "train.micro_batch_size",
    "global_batch_size": "train.global_batch_size",
    "use_tp_pp_dp_mapping": "dist.use_tp_pp_dp_mapping",
    "use_torch_fsdp2": "dist.use_torch_fsdp2",
    "use_distributed_optimizer": "ddp.use_distributed_optimizer",
    "use_megatron_fsdp": "ddp.use_megatron_fsdp",
    "data_parallel_sharding_strategy": "ddp.data_parallel_sharding_strategy",
    "num_distributed_optimizer_instances": "ddp.num_distributed_optimizer_instances",
    "overlap_grad_reduce": "ddp.overlap_grad_reduce",
    "overlap_param_gather": "ddp.overlap_param_gather",
    "ckpt_format": "checkpoint.ckpt_format",
    "optimizer": "optimizer.optimizer",
    "use_precision_aware_optimizer": "optimizer.use_precision_aware_optimizer",
    "optimizer_cpu_offload": "optimizer.optimizer_cpu_offload",
    "optimizer_offload_fraction": "optimizer.optimizer_offload_fraction",
}
PRECISIONS: Mapping[Precision, str] = {
    Precision.BF16: "bf16_mixed",
    Precision.FP16: "fp16_mixed",
    Precision.FP8: "bf16_with_fp8_current_scaling_mixed",
    Precision.MXFP8: "bf16_with_mxfp8_mixed",
    Precision.NVFP4: "bf16_with_nvfp4_mixed",
}
_INVERTED = ("untie_embeddings_and_output_weights",)
_BY_PATH = {path: name for name, path in (*MODEL_PATHS.items(), *PARALLEL_PATHS.items())}
_ALSO = {
    "dist.use_megatron_fsdp": "use_megatron_fsdp",
    "optimizer.use_distributed_optimizer": "use_distributed_optimizer",
    "dataset.seq_length": "seq_length",
    "dataset.sequence_length": "seq_length",
    "model.seq_length": "seq_length",
    "mixed_precision.bf16": "bf16",
    "mixed_precision.fp16": "fp16",
    "mixed_precision.fp8": "fp8",
    "mixed_precision.fp8_recipe": "fp8_recipe",
    "mixed_precision.fp4": "fp4",
    "comm_overlap.tp_comm_overlap": "tp_comm_overlap",
    "comm_overlap.overlap_p2p_comm": "overlap_p2p_comm",
    "comm_overlap.overlap_grad_reduce": "overlap_grad_reduce",
    "comm_overlap.overlap_param_gather": "overlap_param_gather",
    "comm_overlap.overlap_moe_expert_parallel_comm": "overlap_moe_expert_parallel_comm",
}
"""Second places of some arguments."""


def overrides(values: Values) -> list[str]:
    """Every parallel argument, said or not, so that no recipe's own stays; the model's if said."""
    found = []
    for name, path in MODEL_PATHS.items():
        if values.get(name) is not None:
            value = values[name]
            if name in ("moe_layer_freq", "window_attn_skip_freq"):
                value = _mask(str(value), int(values["num_layers"]), name)
            elif name == "window_size":
                value = [int(n) for n in str(value).split(",")]
            found.append(f"{path}={_hydra((not value) if name in _INVERTED else value)}")
    for name, path in PARALLEL_PATHS.items():
        value = values.get(name, ARGUMENTS[name].default)
        if name == "cp_comm_type":
            value = value[0]
        elif name in ("offload_modules", "recompute_modules") and not value:
            value = None
        found.append(f"{path}={_hydra(value)}")
    return found


def _mask(pattern: str, layers: int, name: str) -> list[int]:
    chosen = set(read_pattern(pattern, layers, field=name))
    return [int(i in chosen) for i in range(layers)]


def _hydra(value: Any) -> str:
    """A value in Hydra's grammar; text with signs of that grammar stands in quotes."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_hydra(item) for item in value)}]"
    text = str(value)
    if isinstance(value, (int, float)) or re.fullmatch(r"[A-Za-z_][\w.+-]*", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def parse_override(text: str) -> tuple[str, Any] | None:
    """Path and value of ``a.b=c`` (``+a.b=c`` too); None for anything else."""
    match = re.fullmatch(r"\+{0,2}([A-Za-z_][\w.]*)=(.*)", text, re.DOTALL)
    return (match.group(1), _parsed(match.group(2).strip())) if match else None


def _parsed(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return [_parsed(item.strip()) for item in text[1:-1].split(",") if item.strip()]
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    known = {"true": True, "false": False, "null": None, "none": None, "": None}
    if text.lower() in known:
        return known[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def from_paths(
    found: Iterable[tuple[str, Any, Word]], *, name: str
) -> tuple[Values, dict[str, int], list[str]]:
    """Arguments by our names, their lines, and the paths that are not ours."""
    values: Values = {}
    where: dict[str, int] = {}
    ignored: list[str] = []
    for path, value, word in found:
        argument = _BY_PATH.get(path) or _ALSO.get(path)
        if argument is None:
            if path == "mixed_precision":
                for format_name in ("bf16", "fp16", "fp8", "fp8_recipe", "fp4"):
                    values.pop(format_name, None)
                values |= _precision(value, f"{name}:{word.line}: {path}")
            elif path not in ("comm_overlap", "model.batch_p2p_comm", "model.cpu_offloading"):
                ignored.append(path)
            continue
        if word.unknown:
            raise SpecError(f"{name}:{word.line}: {path}: {word.unknown} is not set in the file")
        if value is None and path.startswith("comm_overlap"):
            continue
        off = value is False and path in ("mixed_precision.fp8", "mixed_precision.fp4")
        place = f"{name}:{word.line}: {path}"
        values[argument] = None if off else _typed(argument, value, place)
        where[argument] = word.line
    return _settled(values), where, ignored


def _precision(value: Any, place: str) -> Values:
    text = str(value)
    if "nvfp4" in text:
        return {"bf16": True, "fp4": "e2m1"}
    values: Values = {"fp16" if text.startswith("fp16") else "bf16": True}
    if "mxfp8" in text:
        values |= {"fp8": "e4m3", "fp8_recipe": "mxfp8"}
    elif "fp8" in text:
        values |= {"fp8": "hybrid", "fp8_recipe": "tensorwise"}
    elif not text.endswith("_mixed"):
        raise SpecError(f"{place} is unknown: {text!r}", hint=f"known: {', '.join(_names())}")
    return values


def _names() -> list[str]:
    return list(PRECISIONS.values())


def _typed(argument: str, value: Any, place: str) -> Any:
    kind = ARGUMENTS[argument].kind
    if value is None:
        return None
    if argument in _INVERTED:
        return not value
    if argument in ("moe_layer_freq", "window_attn_skip_freq", "window_size"):
        inner = str(value).strip("[]() ")
        if argument == "window_size":
            return f"{value - 1},0" if isinstance(value, int) else inner
        return f"[{inner}]" if isinstance(value, (list, tuple)) else inner
    if kind in ("strs", "ints"):
        return list(value) if isinstance(value, (list, tuple)) else [value]
    if kind in ("on", "off"):
        if not isinstance(value, bool):
            raise SpecError(f"{place} must be true or false, got {value!r}")
        return value
    if kind == "str":
        return str(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SpecError(f"{place} must be a number, got {value!r}")
    if kind == "int" and value % 1:
        raise SpecError(f"{place} must be a whole number, got {value!r}")
    return within(int(value) if kind == "int" else float(value), place)


def _settled(values: Values) -> Values:
    """Without the nulls, and with what Megatron-LM says twice."""
    kept = {name: value for name, value in values.items() if value is not None}
    groups, heads = kept.get("num_query_groups"), kept.get("num_attention_heads")
    kept["group_query_attention"] = bool(groups and groups != heads)
    return kept

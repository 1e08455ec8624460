"""Every Megatron-LM argument that we write or understand: its name, its flag, its default.

The names are those of the ``arguments`` dump that Megatron-LM prints at the start of a
run; defaults as of megatron-core 0.19.2.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from autopar.launchers.formats.shell import Word
from cost_models.specs.errors import SpecError

Kind = Literal["int", "float", "str", "strs", "ints", "on", "off"]
LARGEST = 10**9
Values = dict[str, Any]
"""Arguments by name; a name that is missing has its default."""


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument; ``on`` is a flag that sets it, ``off`` one that clears it."""

    name: str
    flag: str
    kind: Kind
    default: Any = None


def _row(name: str, kind: Kind, default: Any = None, flag: str | None = None) -> Argument:
    if kind in ("on", "off"):
        default = kind == "off"
    return Argument(name, flag or f"--{name.replace('_', '-')}", kind, default)


MODEL = (
    _row("num_layers", "int"),
    _row("hidden_size", "int"),
    _row("ffn_hidden_size", "int"),
    _row("num_attention_heads", "int"),
    _row("kv_channels", "int"),
    _row("group_query_attention", "on"),
    _row("num_query_groups", "int", 1),
    _row("multi_latent_attention", "on"),
    _row("q_lora_rank", "int"),
    _row("kv_lora_rank", "int", 32),
    _row("qk_head_dim", "int", 128),
    _row("qk_pos_emb_head_dim", "int", 64),
    _row("v_head_dim", "int", 128),
    _row("qk_layernorm", "on"),
    _row("softmax_type", "str", "vanilla"),
    _row("window_size", "str"),
    _row("window_attn_skip_freq", "str"),
    _row("swiglu", "on"),
    _row("quick_geglu", "on"),
    _row("squared_relu", "on"),
    _row("normalization", "str", "LayerNorm"),
    _row("position_embedding_type", "str", "learned_absolute"),
    _row("use_rotary_position_embeddings", "on"),
    _row("max_position_embeddings", "int"),
    _row("add_bias_linear", "off", flag="--disable-bias-linear"),
    _row("add_qkv_bias", "on"),
    _row("untie_embeddings_and_output_weights", "on"),
    _row("make_vocab_size_divisible_by", "int", 128),
    _row("hidden_dropout", "float", 0.1),
    _row("attention_dropout", "float", 0.1),
    _row("num_experts", "int"),
    _row("moe_layer_freq", "str", "1"),
    _row("moe_ffn_hidden_size", "int"),
    _row("moe_router_topk", "int", 2),
    _row("moe_router_num_groups", "int"),
    _row("moe_router_group_topk", "int"),
    _row("moe_router_pre_softmax", "on"),
    _row("moe_router_score_function", "str", "softmax"),
    _row("moe_router_enable_expert_bias", "on"),
    _row("moe_router_dtype", "str"),
    _row("moe_shared_expert_intermediate_size", "int"),
    _row("moe_shared_expert_gate", "on"),
    _row("moe_grouped_gemm", "on"),
    _row("moe_token_dispatcher_type", "str", "allgather"),
    _row("moe_permute_fusion", "on"),
    _row("mtp_num_layers", "int"),
)

DATA = (
    _row("seq_length", "int"),
    _row("mock_data", "on"),
    _row("tokenizer_type", "str"),
    _row("tokenizer_model", "str"),
    _row("vocab_size", "int"),
    _row("padded_vocab_size", "int"),
    _row(
        "create_attention_mask_in_dataloader",
        "off",
        flag="--no-create-attention-mask-in-dataloader",
    ),
)

PARALLEL = (
    _row("tensor_model_parallel_size", "int", 1),
    _row("sequence_parallel", "on"),
    _row("pipeline_model_parallel_size", "int", 1),
    _row("num_virtual_stages_per_pipeline_rank", "int"),
    _row("num_layers_per_virtual_pipeline_stage", "int"),
    _row("pipeline_model_parallel_layout", "str"),
    _row("decoder_first_pipeline_num_layers", "int"),
    _row("decoder_last_pipeline_num_layers", "int"),
    _row("account_for_embedding_in_pipeline_split", "on"),
    _row("account_for_loss_in_pipeline_split", "on"),
    _row("overlap_p2p_comm", "off", flag="--no-overlap-p2p-communication"),
    _row("context_parallel_size", "int", 1),
    _row("cp_comm_type", "strs", ["p2p"]),
    _row("hierarchical_context_parallel_sizes", "ints"),
    _row("expert_model_parallel_size", "int", 1),
    _row("expert_tensor_parallel_size", "int"),
    _row("use_tp_pp_dp_mapping", "on"),
    _row("micro_batch_size", "int"),
    _row("global_batch_size", "int"),
    _row("use_distributed_optimizer", "on"),
    _row("use_megatron_fsdp", "on"),
    _row("data_parallel_sharding_strategy", "str", "optim_grads_params"),
    _row("use_torch_fsdp2", "on"),
    _row(
        "torch_fsdp2_reshard_after_forward",
        "off",
        flag="--torch-fsdp2-no-reshard-after-forward",
    ),
    _row("num_distributed_optimizer_instances", "int", 1),
    _row("init_model_with_meta_device", "on"),
    _row("ckpt_format", "str", "torch_dist"),
    _row("overlap_grad_reduce", "on"),
    _row("overlap_param_gather", "on"),
    _row("tp_comm_overlap", "on"),
    _row("overlap_moe_expert_parallel_comm", "on"),
    _row("recompute_activations", "on"),
    _row("recompute_granularity", "str"),
    _row("recompute_method", "str"),
    _row("recompute_num_layers", "int"),
    _row("recompute_modules", "strs"),
    _row("moe_layer_recompute", "on"),
    _row("cpu_offloading_num_layers", "int", 0),
    _row("fine_grained_activation_offloading", "on"),
    _row("offload_modules", "strs", []),
    _row("activation_offload_fraction", "float", 1.0),
    _row("transformer_impl", "str", "transformer_engine"),
)

OPTIMIZER = (
    _row("optimizer", "str", "adam"),
    _row("bf16", "on"),
    _row("fp16", "on"),
    _row("fp8", "str", flag="--fp8-format"),
    _row("fp8_recipe", "str", "delayed"),
    _row("fp8_param_gather", "on"),
    _row("reuse_grad_buf_for_mxfp8_param_ag", "on"),
    _row("fp4", "str", flag="--fp4-format"),
    _row("fp4_recipe", "str", "nvfp4"),
    _row("use_precision_aware_optimizer", "on"),
    _row("exp_avg_dtype", "str", "fp32"),
    _row("exp_avg_sq_dtype", "str", "fp32"),
    _row("grad_reduce_in_bf16", "on"),
    _row("optimizer_cpu_offload", "on"),
    _row("optimizer_offload_fraction", "float", 1.0),
    _row(
        "gradient_accumulation_fusion",
        "off",
        flag="--no-gradient-accumulation-fusion",
    ),
)

LEGACY = (_row("use_custom_fsdp", "on"),)
"""Read in old scripts, never written."""

ARGUMENTS: Mapping[str, Argument] = {
    a.name: a for a in (*MODEL, *DATA, *PARALLEL, *OPTIMIZER, *LEGACY)
}
_BY_FLAG: Mapping[str, Argument] = {a.flag: a for a in ARGUMENTS.values()}
_SLIP = 0.95
"""Likeness of a misspelt flag; Megatron-LM has many that differ from ours by a word."""


def get(values: Mapping[str, Any], name: str) -> Any:
    """A value, or its default."""
    return values.get(name, ARGUMENTS[name].default)


def lines(values: Mapping[str, Any], table: Sequence[Argument]) -> list[list[str]]:
    """Command line of those values that are in ``table``, one flag in each row."""
    rows = []
    for argument in table:
        value = values.get(argument.name)
        if value is None or argument.kind in ("on", "off"):
            if value is not None and value != argument.default:
                rows.append([argument.flag])
        elif isinstance(value, (list, tuple)):
            rows.append([argument.flag, *(str(v) for v in value)])
        else:
            rows.append([argument.flag, str(value)])
    return rows


def parse(words: Sequence[Word], *, name: str) -> tuple[Values, dict[str, int], list[str]]:
    """Values and their lines from a command line, and the flags that are not ours."""
    values: Values = {}
    where: dict[str, int] = {}
    ignored: list[str] = []
    for flag, given, line in _flags(words):
        argument = _BY_FLAG.get(flag)
        if argument is None:
            ignored.append(_guessed(flag))
            continue
        unknown = next((w.unknown for w in given if w.unknown), None)
        if unknown:
            raise SpecError(
                f"{name}:{line}: {flag}: {unknown} is not set in the file",
                hint="replace it by its value, or assign it above",
            )
        value = _typed(argument, [w.text for w in given], f"{name}:{line}: {flag}")
        if values.get(argument.name, value) != value:
            ignored.append(f"{flag} in line {where[argument.name]}, for it is in line {line} again")
        values[argument.name] = value
        where[argument.name] = line
    return values, where, ignored


def _guessed(flag: str) -> str:
    """A flag that is not ours, with the one of ours that it may be a slip of."""
    close = get_close_matches(flag, _BY_FLAG, n=1, cutoff=_SLIP)
    return f"{flag} (did you mean {close[0]}?)" if close else flag


def _flags(words: Sequence[Word]) -> Iterator[tuple[str, list[Word], int]]:
    """Each flag with the words up to the next one; ``--flag=value`` is two words."""
    flag: Word | None = None
    given: list[Word] = []
    for word in words:
        if word.text.startswith("--"):
            if flag:
                yield flag.text, given, flag.line
            text, equals, value = word.text.partition("=")
            flag = Word(text, word.line)
            given = [Word(value, word.line, word.unknown)] if equals else []
        else:
            given.append(word)
    if flag:
        yield flag.text, given, flag.line


def _typed(argument: Argument, given: Sequence[str], place: str) -> Any:
    if argument.kind in ("on", "off"):
        return argument.kind == "on"
    if not given:
        raise SpecError(f"{place} needs a value")
    if argument.kind == "strs":
        return list(given)
    if argument.kind == "ints":
        return [_number(int, text, place) for text in given]
    if argument.kind == "str":
        return given[0]
    return _number(int if argument.kind == "int" else float, given[0], place)


def _number(kind: type, text: str, place: str) -> Any:
    try:
        number = kind(text)
    except ValueError:
        wanted = "a whole number" if kind is int else "a number"
        raise SpecError(f"{place} must be {wanted}, got {text!r:.80}") from None
    return within(number, place)


def within(number: Any, place: str) -> Any:
    """The number; raises SpecError for one that no run could mean, before it is counted up to."""
    if not -LARGEST <= number <= LARGEST:
        raise SpecError(f"{place} must be at most {LARGEST}, got {number}")
    return number

"""nanotron (main of April 2026): one YAML for ``run_train.py --config-file``.

The package on PyPI is of 2024 and has neither context parallel nor recompute; the fields
here are those of the repository at commit 2411b022.  Unknown fields and wrong types are
refused.  The rank grid is pp, dp, cp, tp from the outside in.

Models are written as nanotron's ``Qwen2Config``, which with its switches off is the
Llama architecture and knows ring attention.  The data stages are left out: nanotron then
trains on generated tokens, which is what a timing run wants.
"""

from collections.abc import Mapping
from typing import Any

from autopar.launchers.formats.documents import Document, split_documents, write_yaml
from autopar.launchers.knobs import (
    checked_stages,
    effective,
    heading,
    microbatches,
    not_expressed,
    printable,
    refuse,
)
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    ContextParallel,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)

CONFIG = "nanotron.yaml"

FIELDS: tuple[tuple[str, str], ...] = (
    ("dp", "parallelism.dp"),
    ("tp", "parallelism.tp"),
    ("pp", "parallelism.pp"),
    ("cp", "parallelism.context_parallel_size"),
    ("ep", "parallelism.expert_parallel_size"),
    ("micro_batch_size", "tokens.micro_batch_size"),
)
"""Knobs that are one field each."""
ENGINES: Mapping[Schedule, str] = {Schedule._1F1B: "1f1b", Schedule.GPIPE: "afab"}
STAGES: Mapping[Sharding, int] = {Sharding.NONE: 0, Sharding.ZERO1: 1}
DTYPES: Mapping[Precision, str] = {Precision.BF16: "bfloat16", Precision.FP16: "float16"}
SHAPE: tuple[tuple[str, str], ...] = (
    ("n_layers", "num_hidden_layers"),
    ("hidden_size", "hidden_size"),
    ("n_heads", "num_attention_heads"),
    ("n_kv_heads", "num_key_value_heads"),
    ("ffn_size", "intermediate_size"),
    ("vocab_size", "vocab_size"),
)
"""The model's sizes and their fields in ``model.model_config``."""

REASONS: Mapping[str, str] = {
    "cp_comm": "keys and values go round a ring",
    "recompute": "it recomputes whole layers or nothing",
    "precision": "it trains in bf16 or fp16",
    "overlap_tp": "only with sequence parallel",
    "stage_layers": "it balances the stages by the cost of their blocks",
    "overlap_param_gather": "weights are gathered after the step",
    "etp": "tensor parallel cuts the experts too",
}


def emit(plan: Plan, targets: str) -> Emission:
    """``nanotron.yaml``.

    Raises
    ------
    SpecError
        Where nanotron cannot run the layout or has no such model; the hint names the
        closest that it can.
    """
    s = effective(plan.strategy, plan.model)
    _require_expressible(s, plan.model)
    checked_stages(plan)
    workload = plan.workload
    parallelism: dict[str, Any] = {
        path.split(".")[1]: getattr(s, knob)
        for knob, path in FIELDS
        if path.startswith("parallelism.")
    }
    parallelism |= {
        "pp_engine": ENGINES[s.schedule],
        "tp_mode": "REDUCE_SCATTER" if s.sequence_parallel else "ALL_REDUCE",
        "tp_linear_async_communication": s.overlap_tp and s.sequence_parallel,
        "recompute_layer": s.recompute == Recompute.FULL,
    }
    values: dict[str, Any] = {
        "general": {"project": "autopar", "run": printable(plan.model.name), "seed": 42},
        "parallelism": parallelism,
        "model": {
            "dtype": DTYPES.get(s.precision, DTYPES[Precision.BF16]),
            "init_method": {"std": 0.02},
            "make_vocab_size_divisible_by": 1,
            "model_config": _model_config(plan, s),
        },
        "tokenizer": {"tokenizer_name_or_path": "gpt2"},
        "tokens": {
            "sequence_length": workload.sequence_length,
            "train_steps": 100,
            "micro_batch_size": s.micro_batch_size,
            "batch_accumulation_per_replica": microbatches(plan),
        },
        "optimizer": {
            "zero_stage": STAGES[s.sharding],
            "accumulate_grad_in_fp32": True,
            "clip_grad": 1.0,
            "weight_decay": 0.1,
            "learning_rate_scheduler": {
                "learning_rate": 3.0e-4,
                "lr_warmup_steps": 10,
                "lr_warmup_style": "linear",
                "lr_decay_style": "cosine",
                "min_decay_lr": 3.0e-5,
            },
            "optimizer_factory": {
                "name": "adamW",
                "adam_beta1": 0.9,
                "adam_beta2": 0.95,
                "adam_eps": 1.0e-8,
                "torch_adam_is_fused": True,
            },
        },
        "logging": {
            "iteration_step_info_interval": 1,
            "log_level": "info",
            "log_level_replica": "info",
        },
    }
    said = strategy_of(Document(CONFIG, values))
    unsaid = not_expressed(plan.strategy, said, REASONS, plan.model)
    head = heading(plan, targets, unsaid)
    return Emission(
        files={CONFIG: write_yaml(values, head)},
        not_expressed=unsaid,
    )


def read(
    files: Mapping[str, str], *, world_size: int | None = None, choice: str | None = None
) -> Reading:
    """A nanotron YAML.

    There is nothing in it for ``world_size`` or ``choice`` to settle.

    Raises
    ------
    SpecError
        With the file, and the line or field, for what is no nanotron configuration.
    """
    own, model = split_documents(files, launcher="nanotron")
    document = next(iter(own.values()))
    for section in ("parallelism", "tokens"):
        if not isinstance(document.values.get(section), Mapping):
            raise document.error(section, "is not there")
    strategy = strategy_of(document)
    steps = document.size("tokens.batch_accumulation_per_replica", 1)
    found = _read_model(document) or model
    sequence = document.size("tokens.sequence_length", 0, least=0) or None
    return Reading(
        strategy=strategy,
        world_size=strategy.world_size,
        model=found,
        global_batch_size=strategy.dp * strategy.micro_batch_size * steps,
        sequence_length=sequence,
        ignored=document.unread(),
    )


def strategy_of(document: Document) -> Strategy:
    """The strategy behind the fields; raises SpecError for one that cannot be."""
    knobs: dict[str, Any] = {knob: document.size(path, 1) for knob, path in FIELDS}
    engines = {name: schedule for schedule, name in ENGINES.items()}
    knobs["schedule"] = document.choice("parallelism.pp_engine", engines, "afab")
    modes = {"reduce_scatter": True, "all_reduce": False}
    knobs["sequence_parallel"] = document.choice("parallelism.tp_mode", modes, "all_reduce")
    knobs["overlap_tp"] = document.flag("parallelism.tp_linear_async_communication", default=False)
    recompute = document.flag("parallelism.recompute_layer", default=False)
    knobs["recompute"] = Recompute.FULL if recompute else Recompute.NONE
    stage = document.size("optimizer.zero_stage", 0, least=0)
    if stage > 1:
        raise document.error("optimizer.zero_stage", f"must be 0 or 1, got {stage}")
    knobs["sharding"] = Sharding.ZERO1 if stage else Sharding.NONE
    dtypes = {name: precision for precision, name in DTYPES.items()}
    knobs["precision"] = document.choice("model.dtype", dtypes, "bfloat16")
    knobs["overlap_param_gather"] = False
    knobs["cp_comm"] = ContextParallel.P2P
    return effective(Strategy(**knobs))


def _require_expressible(s: Strategy, model: ModelSpec) -> None:
    name = "nanotron"
    if s.ep > 1:
        raise refuse(name, "ep", s.ep, "ep 1, for its rank grid counts ep on top of dp")
    if s.sharding not in STAGES:
        raise refuse(name, "sharding", s.sharding, "zero1")
    if s.schedule not in ENGINES:
        raise refuse(name, "schedule", s.schedule, "1f1b")
    if s.vpp > 1:
        raise refuse(name, "vpp", s.vpp, "vpp 1")
    plain = (
        model.attention == "gqa"
        and not model.is_moe
        and model.norm == "rmsnorm"
        and model.position == "rope"
        and model.gated_mlp
        and model.norms_per_layer == 2
        and model.hidden_size == model.n_heads * model.head_dim
        and not any((model.qk_norm, model.mlp_bias, model.attention_out_bias, model.head_bias))
        and not any((model.embedding_norm, model.attention_sinks, model.sliding_window_layers))
    )
    if not plain:
        raise SpecError(
            f"model {model.name!r} cannot be expressed for nanotron",
            hint="the closest that can: a dense model of the Llama or Qwen 2 architecture",
        )


def _model_config(plan: Plan, s: Strategy) -> dict[str, Any]:
    model, length = plan.model, plan.workload.sequence_length
    config: dict[str, Any] = {"is_qwen2_config": True, "bos_token_id": 1, "eos_token_id": 2}
    config |= {theirs: getattr(model, ours) for ours, theirs in SHAPE}
    return config | {
        "attention_bias": model.qkv_bias,
        "hidden_act": "silu",
        "max_position_embeddings": max(length, model.max_sequence_length or 0),
        "rope_theta": 500000.0,
        "tie_word_embeddings": model.tied_embeddings,
        "_attn_implementation": "ring" if s.cp > 1 else "flash_attention_2",
    }


def _read_model(document: Document) -> ModelSpec | None:
    """The model of ``model_config``, None for one that is not dense and of this shape."""
    path = "model.model_config"
    kinds = ("is_llama_config", "is_qwen2_config")
    if not any(document.flag(f"{path}.{kind}", default=False) for kind in kinds):
        return None
    if document.has(f"{path}.moe_config"):
        return None
    sizes = {ours: document.size(f"{path}.{theirs}", 0, least=0) for ours, theirs in SHAPE}
    sizes["n_kv_heads"] = sizes["n_kv_heads"] or sizes["n_heads"]
    if not all(sizes.values()):
        return None
    sizes["head_dim"] = sizes["hidden_size"] // sizes["n_heads"]
    run = document.values.get("general")
    name = str(run.get("run") or "model") if isinstance(run, Mapping) else "model"
    shape: dict[str, Any] = dict(sizes)
    return ModelSpec(
        name=name,
        tied_embeddings=document.flag(f"{path}.tie_word_embeddings", default=False),
        qkv_bias=document.flag(f"{path}.attention_bias", default=False),
        max_sequence_length=document.size(f"{path}.max_position_embeddings", 2048),
        source=document.name,
        **shape,
    )

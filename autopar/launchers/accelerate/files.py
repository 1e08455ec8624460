"""Hugging Face Accelerate 1.15.0: the YAML of ``accelerate launch --config_file``.

Unknown keys at the top are refused; unknown keys of the nested tables are ignored without
a word, so only those are written that ``accelerate launch`` has an option for.  Batches
are not Accelerate's business: they go into a JSON of ``transformers.TrainingArguments``,
which a script reads with ``HfArgumentParser``.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

from autopar.launchers.formats.documents import Document, split_documents, write_json, write_yaml
from autopar.launchers.knobs import effective, heading, microbatches, not_expressed, refuse
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import ContextParallel, Precision, Recompute, Sharding, Strategy

CONFIG, ARGUMENTS = "accelerate.yaml", "training_arguments.json"

FIELDS: tuple[tuple[str, str], ...] = (
    ("tp", "parallelism_config.parallelism_config_tp_size"),
    ("cp", "parallelism_config.parallelism_config_cp_size"),
    ("_replicas", "parallelism_config.parallelism_config_dp_replicate_size"),
    ("_shard", "parallelism_config.parallelism_config_dp_shard_size"),
)
"""Degrees, one field each; ``_replicas * _shard`` is our dp."""
CP_COMM: Mapping[ContextParallel, str] = {
    ContextParallel.ALL_GATHER: "allgather",
    ContextParallel.P2P: "alltoall",
}
"""PyTorch rotates keys and values round the ring by what it calls all-to-all."""
PRECISIONS: Mapping[Precision, str] = {
    Precision.BF16: "bf16",
    Precision.FP16: "fp16",
    Precision.FP8: "fp8",
}
_MICRO = "per_device_train_batch_size"
_STEPS = "gradient_accumulation_steps"

REASONS: Mapping[str, str] = {
    "sequence_parallel": "tensor parallel of transformers keeps whole sequences",
    "cp_comm": "keys and values are gathered or go round a ring",
    "recompute": "it recomputes whole layers or nothing",
    "optimizer_offload": "parameters and optimizer state are offloaded together",
    "precision": "it has bf16, fp16 and one fp8",
    "etp": "tensor parallel cuts the experts too",
    "overlap_grad_reduce": "fully_shard always overlaps",
    "overlap_param_gather": "fully_shard always prefetches",
}


def emit(plan: Plan, targets: str) -> Emission:
    """``accelerate.yaml``, and the batch as ``training_arguments.json``.

    Raises
    ------
    SpecError
        Where Accelerate cannot run the layout; the hint names the closest that it can.
    """
    s = effective(plan.strategy, plan.model)
    _require_expressible(s)
    sharded = s.sharding != Sharding.NONE
    replicas = s.dp // s.dp_shard
    degrees = {"tp": s.tp, "cp": s.cp, "_replicas": replicas, "_shard": s.dp // replicas}
    parallelism: dict[str, Any] = {path.split(".")[1]: degrees[knob] for knob, path in FIELDS}
    if s.cp > 1:
        strategy = CP_COMM.get(s.cp_comm, CP_COMM[ContextParallel.ALL_GATHER])
        parallelism["parallelism_config_cp_backend"] = "torch"
        parallelism["parallelism_config_cp_comm_strategy"] = strategy
    values: dict[str, Any] = {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "FSDP" if sharded else "MULTI_GPU",
        "num_machines": ceil(s.world_size / plan.cluster.gpus_per_node),
        "num_processes": s.world_size,
        "machine_rank": 0,
        "main_training_function": "main",
        "mixed_precision": PRECISIONS.get(s.precision, PRECISIONS[Precision.BF16]),
        "parallelism_config": parallelism,
    }
    if sharded:
        values["fsdp_config"] = {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": s.reshard_after_forward,
            "fsdp_activation_checkpointing": s.recompute == Recompute.FULL,
            "fsdp_offload_params": s.optimizer_offload > 0,
            "fsdp_cpu_ram_efficient_loading": True,
            "fsdp_state_dict_type": "SHARDED_STATE_DICT",
        }
    if s.precision == Precision.FP8:
        values["fp8_config"] = {"fp8_backend": "TE", "fp8_format": "HYBRID"}
    arguments = {
        _MICRO: s.micro_batch_size,
        _STEPS: microbatches(plan),
        "gradient_checkpointing": s.recompute == Recompute.FULL and not sharded,
    }
    said = strategy_of(Document(CONFIG, values), Document(ARGUMENTS, arguments), plan.model)
    unsaid = not_expressed(plan.strategy, said, REASONS, plan.model)
    head = heading(plan, targets, unsaid)
    return Emission(
        files={CONFIG: write_yaml(values, head), ARGUMENTS: write_json(arguments)},
        not_expressed=unsaid,
    )


def read(
    files: Mapping[str, str], *, world_size: int | None = None, choice: str | None = None
) -> Reading:
    """An Accelerate YAML, with training arguments and the model's ``config.json`` if given.

    There is nothing in it for ``world_size`` or ``choice`` to settle.

    Raises
    ------
    SpecError
        With the file, and the line or field, for what is no Accelerate configuration.
    """
    own, model = split_documents(files, launcher="accelerate")
    config = next((d for d in own.values() if "distributed_type" in d.values), None)
    if config is None:
        raise SpecError(f"{next(iter(own))}: distributed_type is not there, so not Accelerate's")
    arguments = next((d for d in own.values() if d is not config), Document(ARGUMENTS, {}))
    strategy = strategy_of(config, arguments, model)
    notes = {}
    if not arguments.has(_MICRO):
        notes["micro_batch_size"] = "the batch is not said: give the training arguments too"
    total = strategy.dp * strategy.micro_batch_size * arguments.size(_STEPS, 1)
    return Reading(
        strategy=strategy,
        world_size=strategy.world_size,
        model=model,
        global_batch_size=None if notes else total,
        ignored=config.unread() + arguments.unread(),
        notes=notes,
    )


def strategy_of(config: Document, arguments: Document, model: ModelSpec | None) -> Strategy:
    """The strategy behind the fields; raises SpecError for one that cannot be."""
    kind = config.choice(
        "distributed_type",
        {"fsdp": "fsdp", "multi_gpu": "ddp", "no": "ddp", "deepspeed": "deepspeed"},
        "no",
    )
    if kind == "deepspeed":
        raise config.error(
            "distributed_type", "is DEEPSPEED", hint="give its JSON file with --launcher deepspeed"
        )
    knobs: dict[str, Any] = {knob: config.size(path, 1) for knob, path in FIELDS}
    replicas, shard = knobs.pop("_replicas"), knobs.pop("_shard")
    world = config.size("num_processes", replicas * shard * knobs["tp"] * knobs["cp"])
    for machines in ("num_machines", "machine_rank", "compute_environment", "main_process_ip"):
        config.has(machines)
    sizes = replicas * shard * knobs["tp"] * knobs["cp"]
    if sizes == 1 and kind == "fsdp":
        shard = world
    elif sizes == 1:
        replicas = world
    elif sizes != world:
        raise config.error("parallelism_config", f"is for {sizes} processes, but there are {world}")
    knobs["dp"], knobs["dp_shard"] = replicas * shard, shard
    fsdp = "fsdp_config."
    words: dict[str, bool | None] = {
        **dict.fromkeys(("full_shard", "true", "hybrid_shard"), True),
        **dict.fromkeys(("shard_grad_op", "false", "hybrid_shard_zero2"), False),
    }
    reshard = config.values.get("fsdp_config", {})
    if isinstance(reshard, Mapping) and isinstance(reshard.get(_RESHARD), str):
        knobs["reshard_after_forward"] = config.choice(fsdp + _RESHARD, words, "true")
    else:
        knobs["reshard_after_forward"] = config.flag(fsdp + _RESHARD, default=True)
    if kind == "fsdp":
        knobs["sharding"] = Sharding.HSDP if replicas > 1 else Sharding.FSDP
    recompute = config.flag(fsdp + "fsdp_activation_checkpointing", default=False)
    recompute |= arguments.flag("gradient_checkpointing", default=False)
    knobs["recompute"] = Recompute.FULL if recompute else Recompute.NONE
    offload = config.flag(fsdp + "fsdp_offload_params", default=False)
    knobs["optimizer_offload"] = 1.0 if offload else 0.0
    precisions = {name: precision for precision, name in PRECISIONS.items()}
    knobs["precision"] = config.choice(
        "mixed_precision", precisions | {"no": Precision.BF16}, "bf16"
    )
    comms = {name: comm for comm, name in CP_COMM.items()}
    knobs["cp_comm"] = config.choice(
        "parallelism_config.parallelism_config_cp_comm_strategy", comms, "allgather"
    )
    knobs["micro_batch_size"] = arguments.size(_MICRO, 1)
    knobs["etp"] = knobs["tp"] if model is not None and model.is_moe else 1
    return effective(Strategy(**knobs), model)


_RESHARD = "fsdp_reshard_after_forward"


def _require_expressible(s: Strategy) -> None:
    name = "accelerate"
    if s.pp > 1:
        raise refuse(name, "pp", s.pp, "pp 1")
    if s.ep > 1:
        raise refuse(name, "ep", s.ep, "ep 1")
    if s.sharding in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3):
        raise refuse(name, "sharding", s.sharding, "fsdp, or the launcher deepspeed")
    if s.sharding == Sharding.NONE and (s.cp > 1 or (s.tp > 1 and s.dp > 1)):
        raise refuse(name, "sharding", s.sharding, "fsdp, beside tensor or context parallel")
    if s.sharding == Sharding.HSDP and s.dp_shard == 1:
        raise refuse(name, "dp_shard", s.dp_shard, "dp_shard 2")

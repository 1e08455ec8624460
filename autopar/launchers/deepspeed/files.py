"""DeepSpeed 0.19.8: one JSON file.

Unknown keys of the ``zero_optimization`` table are refused, unknown keys at the top are
ignored without a word, so nothing is written that DeepSpeed does not read, and remarks
go to a file of their own.  The JSON never names the number of GPUs: it follows from the
batch, ``train_batch_size = micro batch * accumulation steps * data-parallel ranks``.

Ulysses (``sequence_parallel_size``) is our context parallel by all-to-all; ZeRO counts
its ranks as data-parallel ones.  ``expert_parallel`` replaces the experts of Hugging
Face models.  A pipeline has to be built by the training script; the JSON only names it.
"""

from collections.abc import Mapping
from typing import Any

from autopar.launchers.formats.documents import Document, split_documents, write_json
from autopar.launchers.knobs import (
    checked_stages,
    effective,
    heading,
    microbatches,
    not_expressed,
    refuse,
)
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    ContextParallel,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)

CONFIG, NOTES = "ds_config.json", "ds_config.txt"

FIELDS: tuple[tuple[str, str, int], ...] = (
    ("micro_batch_size", "train_micro_batch_size_per_gpu", 1),
    ("tp", "tensor_parallel.autotp_size", 1),
    ("cp", "sequence_parallel_size", 1),
    ("pp", "pipeline.stages", 1),
    ("ep", "expert_parallel.autoep_size", 1),
)
"""Knobs that are one field each, with what its absence means."""
STAGES: Mapping[Sharding, int] = {
    Sharding.NONE: 0,
    Sharding.ZERO1: 1,
    Sharding.ZERO2: 2,
    Sharding.ZERO3: 3,
    Sharding.FSDP: 3,
    Sharding.HSDP: 3,
}
_READ = (Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3)
BUCKET, PREFETCH = 500_000_000, 50_000_000
"""DeepSpeed's own sizes of the reduction bucket and of the look-ahead, in parameters."""

REASONS: Mapping[str, str] = {
    "sharding": "ZeRO-3 with a second copy of the weights inside each group stands in for it",
    "dp_shard": "ZeRO shares out the state among all ranks",
    "reshard_after_forward": "ZeRO-3 always frees gathered weights",
    "sequence_parallel": "automatic tensor parallel keeps whole sequences",
    "cp_comm": "Ulysses exchanges heads for sequence",
    "recompute": "the training script decides; the JSON says whole layers or nothing",
    "precision": "it trains in bf16 or fp16",
    "etp": "experts are cut by tensor parallel where ep is 1, and never where it is more",
    "overlap_param_gather": "weights are gathered after the step unless ZeRO-3 shards them",
    "optimizer_offload": "only ZeRO-3 can offload a part",
}


def emit(plan: Plan, targets: str) -> Emission:
    """``ds_config.json`` and a text with what JSON cannot hold.

    Raises
    ------
    SpecError
        Where DeepSpeed cannot run the layout; the hint names the closest that it can.
    """
    s = effective(plan.strategy, plan.model)
    _require_expressible(s)
    checked_stages(plan)
    values: dict[str, Any] = {
        "train_batch_size": plan.workload.global_batch_size,
        "train_micro_batch_size_per_gpu": s.micro_batch_size,
        "gradient_accumulation_steps": microbatches(plan),
        "bf16": {"enabled": s.precision != Precision.FP16},
        "fp16": {"enabled": s.precision == Precision.FP16},
        "zero_optimization": _zero(s),
        "gradient_clipping": 1.0,
        "wall_clock_breakdown": True,
    }
    if s.tp > 1:
        values["tensor_parallel"] = {"autotp_size": s.tp, "tp_overlap_comm": s.overlap_tp}
    if s.cp > 1:
        values["sequence_parallel_size"] = s.cp
    if s.ep > 1:
        values["expert_parallel"] = {"enabled": True, "autoep_size": s.ep}
    if s.pp > 1:
        values["pipeline"] = {"stages": s.pp, "partition": "best"}
    if s.recompute == Recompute.FULL:
        values["activation_checkpointing"] = {
            "partition_activations": False,
            "cpu_checkpointing": False,
            "number_checkpoints": -(-plan.model.n_layers // s.pp),
        }
    said = strategy_of(Document(CONFIG, values), plan.model)
    unsaid = not_expressed(plan.strategy, said, REASONS, plan.model)
    if s.pp > 1:
        unsaid += (f"pp {s.pp}: the script must build PipelineModule(num_stages={s.pp})",)
    return Emission(
        files={
            CONFIG: write_json(values),
            NOTES: "\n".join(heading(plan, targets, unsaid)) + "\n",
        },
        not_expressed=unsaid,
    )


def read(
    files: Mapping[str, str], *, world_size: int | None = None, choice: str | None = None
) -> Reading:
    """A DeepSpeed JSON, and the model where a ``config.json`` is beside it.

    There is nothing in it for ``world_size`` or ``choice`` to settle.

    Raises
    ------
    SpecError
        With the file, and the line or field, for what is no DeepSpeed configuration.
    """
    own, model = split_documents(files, launcher="deepspeed")
    document = next(iter(own.values()))
    strategy = strategy_of(document, model)
    if document.has("train_batch_size"):
        strategy = effective(strategy, model)
    notes: dict[str, str] = {}
    group = document.size("zero_optimization.zero_hpz_partition_size", 1, least=0)
    if group > 1:
        notes["sharding"] = f"weights have a second copy inside every {group} ranks"
    if document.flag("activation_checkpointing.cpu_checkpointing", default=False):
        notes["activation_offload"] = "inputs of recomputed layers go to host memory"
    if not document.has("train_batch_size"):
        notes["dp"] = "train_batch_size does not say how many GPUs there are: say it"
    total = strategy.dp * strategy.micro_batch_size * document.size(_STEPS, 1)
    return Reading(
        strategy=strategy,
        world_size=strategy.world_size if "dp" not in notes else None,
        model=model,
        global_batch_size=document.size("train_batch_size", total),
        ignored=document.unread(),
        notes=notes,
    )


_STEPS = "gradient_accumulation_steps"


def strategy_of(document: Document, model: ModelSpec | None) -> Strategy:
    """The strategy behind a DeepSpeed JSON; raises SpecError for a field that cannot be."""
    knobs: dict[str, Any] = {
        knob: document.size(path, default, least=0) or default for knob, path, default in FIELDS
    }
    if not document.flag("expert_parallel.enabled", default=False):
        knobs["ep"] = 1
    share = knobs["micro_batch_size"] * document.size(_STEPS, 1)
    total = document.size("train_batch_size", share)
    if total % share:
        raise document.error(
            "train_batch_size",
            f"must be a multiple of micro batch {knobs['micro_batch_size']} x accumulation "
            f"{share // knobs['micro_batch_size']}, got {total}",
        )
    knobs["dp"] = total // share
    stage = document.size("zero_optimization.stage", 0, least=0)
    if stage >= len(_READ):
        raise document.error("zero_optimization.stage", f"must be 0, 1, 2 or 3, got {stage}")
    sharding = _READ[stage]
    knobs["sharding"] = sharding
    zero3 = sharding == Sharding.ZERO3
    overlap = document.flag("zero_optimization.overlap_comm", default=zero3)
    ahead = document.size("zero_optimization.stage3_prefetch_bucket_size", PREFETCH, least=0)
    knobs["overlap_grad_reduce"] = overlap
    knobs["overlap_param_gather"] = zero3 and ahead > 0
    device = document.choice(
        "zero_optimization.offload_optimizer.device", {"none": 0, "cpu": 1, "nvme": 1}, "none"
    )
    ratio = document.number("zero_optimization.offload_optimizer.ratio", 1.0)
    knobs["optimizer_offload"] = device * min(ratio, 1.0)
    knobs["overlap_tp"] = document.flag("tensor_parallel.tp_overlap_comm", default=False)
    fp16 = document.flag("fp16.enabled", default=False)
    if fp16 and document.flag("bf16.enabled", default=False):
        raise document.error("fp16.enabled", "and bf16.enabled exclude each other")
    knobs["precision"] = Precision.FP16 if fp16 else Precision.BF16
    if document.has("activation_checkpointing"):
        knobs["recompute"] = Recompute.FULL
    moe = model is not None and model.is_moe
    knobs["etp"] = knobs["tp"] if moe and knobs["ep"] == 1 else 1
    knobs["cp_comm"] = ContextParallel.A2A
    return Strategy(**knobs)


def _require_expressible(s: Strategy) -> None:
    name = "deepspeed"
    if s.pp > 1 and (s.schedule != Schedule._1F1B or s.vpp > 1):
        knob = "vpp" if s.vpp > 1 else "schedule"
        raise refuse(name, knob, getattr(s, knob), "schedule 1f1b with vpp 1")
    if s.pp > 1 and STAGES[s.sharding] > 1:
        raise refuse(name, "sharding", s.sharding, "zero1, for a pipeline keeps whole gradients")
    if s.tp > 1 and s.cp > 1:
        raise refuse(name, "cp", s.cp, "cp 1, or tp 1 with cp: Ulysses excludes tensor parallel")
    if s.ep > 1 and s.etp > 1:
        raise refuse(name, "etp", s.etp, "etp 1")
    if s.ep > 1 and s.tp > 1 and s.pp > 1:
        raise refuse(name, "pp", s.pp, "pp 1, or tp 1 with expert parallel in a pipeline")
    if s.ep > 1 and s.tp > 1 and s.optimizer_offload > 0:
        closest = "optimizer_offload 0, or tp 1 with expert parallel"
        raise refuse(name, "optimizer_offload", s.optimizer_offload, closest)


def _zero(s: Strategy) -> dict[str, Any]:
    stage = STAGES[s.sharding]
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": s.overlap_grad_reduce}
    if stage:
        zero |= {"contiguous_gradients": True, "reduce_bucket_size": BUCKET}
    if stage == 3:
        zero["stage3_prefetch_bucket_size"] = PREFETCH if s.overlap_param_gather else 0
        if s.sharding == Sharding.HSDP:
            zero["zero_hpz_partition_size"] = s.dp_shard
    if s.optimizer_offload > 0 and stage:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if stage == 3 and s.optimizer_offload < 1:
            zero["offload_optimizer"]["ratio"] = s.optimizer_offload
    return zero

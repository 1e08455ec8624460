"""MaxText 0.2.5 on GPUs: one YAML over its ``base.yml``, or ``key=value`` overrides.

The mesh is written twice: what of each dimension lies inside a slice (``ici``) and what
lies across slices (``dcn``).  On GPUs a slice is an NVLink domain.  Dimensions fill the
slice from the inside out: tensor, context, expert, sharded data, data, stages.

Its expert axis holds data-parallel ranks of the dense part, and weights are sharded over
the expert and context axes too.  The pipeline is one differentiated loop: every forward
pass runs before the first backward pass, so its schedule is GPipe's, or with repeats the
interleaved one.
"""

from collections.abc import Mapping
from math import ceil, gcd, nextafter, prod
from typing import Any

from autopar.launchers.formats.documents import write_yaml
from autopar.launchers.knobs import (
    checked_stages,
    effective,
    heading,
    microbatches,
    not_expressed,
    printable,
    refuse,
)
from autopar.launchers.maxtext import reader
from autopar.launchers.maxtext.fields import (
    AXES,
    CP_STRATEGIES,
    QUANTIZATIONS,
    REMAT_TENSORS,
    Axis,
)
from autopar.launchers.maxtext.models import model_fields
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import (
    ContextParallel,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)

CONFIG = "maxtext.yml"

REASONS: Mapping[str, str] = {
    "sharding": "weights are sharded over the context and expert axes too",
    "dp_shard": "weights are sharded over the context and expert axes too",
    "etp": "the tensor axis cuts the experts too",
    "schedule": "every forward pass runs before the first backward pass, and keeps its activations",
    "cp_comm": "on GPUs keys and values are gathered or go round a ring",
    "recompute": "norms and non-linearities are always computed again with anything else",
    "precision": "it has no quantization for it",
    "stage_layers": "its stages are equal",
    "optimizer_offload": "all of it goes to the host or nothing",
    "activation_offload": "only projections can go to the host, all of them, without recompute",
    "reshard_after_forward": "the compiler decides when gathered weights are freed",
    "overlap_grad_reduce": "the compiler overlaps what it can",
    "overlap_param_gather": "the compiler overlaps what it can",
    "overlap_tp": "the compiler decides",
    "overlap_ep": "the compiler decides",
    "overlap_p2p": "the compiler overlaps what it can",
}


def emit(plan: Plan, targets: str) -> Emission:
    """``maxtext.yml``, for ``python3 -m maxtext.trainers.pre_train.train maxtext.yml``.

    Raises
    ------
    SpecError
        Where MaxText cannot run the layout or has no such model; the hint names the
        closest that it can.
    """
    s = effective(plan.strategy, plan.model)
    _require_expressible(s, plan)
    values: dict[str, Any] = {
        "base_config": "base.yml",
        "run_name": _run_name(plan.model.name),
        "base_output_directory": "output",
        "hardware": "gpu_multiprocess",
        "dataset_type": "synthetic",
        "enable_checkpointing": False,
        "steps": 30,
        **model_fields(plan.model),
        "max_target_length": plan.workload.sequence_length,
        "dtype": "float16" if s.precision == Precision.FP16 else "bfloat16",
        "quantization": QUANTIZATIONS.get(s.precision, ""),
        **_batch(plan, s),
        **_mesh(plan, s),
        **_remat(s),
        "shard_optimizer_over_data": s.sharding == Sharding.ZERO1,
        "optimizer_memory_host_offload": s.optimizer_offload > 0,
    }
    if s.cp > 1:
        values["context_parallel_strategy"] = CP_STRATEGIES.get(
            s.cp_comm, CP_STRATEGIES[ContextParallel.ALL_GATHER]
        )
    said = reader.strategy_of(reader.document(CONFIG, values), plan.model)
    unsaid = not_expressed(plan.strategy, said, REASONS, plan.model)
    head = heading(plan, targets, unsaid)
    return Emission(
        files={CONFIG: write_yaml(values, head)},
        not_expressed=unsaid,
    )


def read(
    files: Mapping[str, str], *, world_size: int | None = None, choice: str | None = None
) -> Reading:
    """A MaxText YAML, a command with ``key=value`` overrides, or both.

    ``world_size`` fills the axes that take what is left; there is no ``choice``.

    Raises
    ------
    SpecError
        With the file, and the line or field, for what is no MaxText configuration.
    """
    return reader.read(files, world_size=world_size)


def _require_expressible(s: Strategy, plan: Plan) -> None:
    name = "maxtext"
    if s.sharding in (Sharding.ZERO2, Sharding.ZERO3):
        raise refuse(name, "sharding", s.sharding, "fsdp")
    shard = _sharded(s) or s.dp
    if shard % s.ep:
        raise refuse(name, "ep", s.ep, f"an ep that divides {shard} data-parallel ranks")
    if s.pp == 1:
        return
    checked_stages(plan)
    if s.schedule not in (Schedule.GPIPE, Schedule.INTERLEAVED, Schedule._1F1B):
        raise refuse(name, "schedule", s.schedule, "gpipe")
    layers = plan.model.n_layers
    if layers % (s.pp * s.vpp):
        raise refuse(name, "pp", s.pp, f"a pp * vpp that divides {layers} layers")
    if microbatches(plan) % s.pp:
        raise refuse(name, "pp", s.pp, f"a pp that divides {microbatches(plan)} micro-batches")


def _run_name(model: str) -> str:
    """A name for the run that is safe as a folder's."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in model)
    return f"autopar-{printable(kept)[:60].strip('.')}"


def _batch(plan: Plan, s: Strategy) -> dict[str, Any]:
    """The batch per GPU may be a fraction; MaxText rounds its product with the GPUs down."""
    steps, world = microbatches(plan), s.world_size
    sequences = s.micro_batch_size * s.dp * (steps if s.pp > 1 else 1)
    per_gpu = sequences / world
    while int(per_gpu * world) < sequences:
        per_gpu = nextafter(per_gpu, sequences)
    values: dict[str, Any] = {
        "per_device_batch_size": int(per_gpu) if per_gpu.is_integer() else per_gpu,
        "gradient_accumulation_steps": 1 if s.pp > 1 else steps,
    }
    if s.pp > 1:
        values["num_pipeline_microbatches"] = steps
        values["num_pipeline_repeats"] = s.vpp
        values["num_layers_per_pipeline_stage"] = plan.model.n_layers // (s.pp * s.vpp)
    return values


def axis_sizes(s: Strategy) -> dict[Axis, int]:
    """Ranks on each axis of the mesh."""
    shard = _sharded(s) or s.ep
    tensor: Axis = "tensor_sequence" if s.sequence_parallel else "tensor"
    sizes: dict[Axis, int] = dict.fromkeys(AXES, 1)
    sizes[tensor] = s.tp
    sizes["context"] = s.cp
    sizes["expert"] = s.ep
    sizes["fsdp"] = shard // s.ep
    sizes["data"] = s.dp // shard
    sizes["pipeline"] = s.pp
    return sizes


def _sharded(s: Strategy) -> int:
    """Data-parallel ranks that share out the weights, 0 where each has all of them."""
    return s.dp_shard if s.sharding in (Sharding.FSDP, Sharding.HSDP) else 0


def _mesh(plan: Plan, s: Strategy) -> dict[str, Any]:
    """Each axis inside and across slices; raises SpecError where they do not fill a slice."""
    world, domain = s.world_size, plan.cluster.nvlink_domain
    slices = ceil(world / domain)
    if world % slices:
        raise SpecError(
            f"strategy uses {world} GPUs, which are not whole NVLink domains of {domain}",
            hint="MaxText needs equal slices",
        )
    room = world // slices
    ici: dict[Axis, int] = {}
    dcn: dict[Axis, int] = {}
    for axis, size in axis_sizes(s).items():
        ici[axis] = gcd(size, room)
        dcn[axis] = size // ici[axis]
        room //= ici[axis]
    if prod(ici.values()) * slices != world:
        raise SpecError(
            f"the mesh of this strategy does not fill slices of {world // slices} GPUs",
            hint="MaxText wants degrees whose factors fill an NVLink domain",
        )
    values = {f"ici_{axis}_parallelism": size for axis, size in ici.items()}
    return values | {f"dcn_{axis}_parallelism": size for axis, size in dcn.items()}


def _remat(s: Strategy) -> dict[str, Any]:
    if s.recompute == Recompute.FULL:
        return {"remat_policy": "full"}
    if s.recompute == Recompute.NONE:
        return {"remat_policy": "minimal_offloaded" if s.activation_offload == 1 else "none"}
    tensors = {
        name: "remat" if module & s.recompute else "device"
        for module, names in REMAT_TENSORS.items()
        for name in names
    }
    return {"remat_policy": "custom", **tensors}

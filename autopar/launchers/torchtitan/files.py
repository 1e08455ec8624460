"""torchtitan 0.3.0: a config function in Python and the command that picks it.

Configuration files in TOML ended with 0.2; a config is now a function that returns a
``Trainer.Config``.  Ours starts from the function that torchtitan ships for the model
and sets every field that the strategy speaks of, so nothing is left to a default.

Three things are counted differently there.  ``local_batch_size`` without a pipeline is
one micro-batch, with a pipeline it is all of them, cut by
``pipeline_parallel_microbatch_size``.  Weights are always sharded over ``cp`` too.  Expert
parallel takes its ranks from data, context and tensor parallel alike, so experts are
cut by tensor parallel only where ``ep`` is 1.
"""

from collections.abc import Mapping
from math import ceil
from typing import Any

from autopar.launchers.knobs import (
    checked_stages,
    comments,
    effective,
    heading,
    microbatches,
    not_expressed,
    refuse,
)
from autopar.launchers.plan import Emission, Plan, Reading
from autopar.launchers.torchtitan import reader
from autopar.launchers.torchtitan.fields import (
    AC,
    CONVERTERS,
    FIELDS,
    SCHEDULES,
    V_SHAPED,
    assigned_stages,
)
from autopar.launchers.torchtitan.models import titan_model
from autopar.launchers.torchtitan.template import module_text
from cost_models.specs.strategy import Schedule, Sharding, Strategy

MODULE, FUNCTION = "autopar_run", "autopar_best"
SOURCE, COMMAND = f"{MODULE}/config_registry.py", "launch.sh"

REASONS: Mapping[str, str] = {
    "sharding": "weights are sharded over context ranks too",
    "dp_shard": "weights are sharded over context ranks too",
    "reshard_after_forward": "weights are sharded over context ranks too",
    "etp": "experts are cut by tensor parallel where ep is 1, and never where it is more",
    "cp_comm": "keys and values are gathered",
    "recompute": "it recomputes whole layers, or all but the dearest operations of each",
    "optimizer_offload": "parameters, gradients and optimizer state are offloaded together",
    "precision": "it has no converter for it",
    "stage_layers": "no field deals nearly equal layers to so many stages, so they are listed",
    "overlap_p2p": "stages always send and receive beside their compute",
    "overlap_grad_reduce": "fully_shard always overlaps",
    "overlap_param_gather": "fully_shard always prefetches",
}


def emit(plan: Plan, targets: str) -> Emission:
    """The module ``autopar_run`` with the config function ``autopar_best``, and a command.

    Raises
    ------
    SpecError
        Where torchtitan cannot run the layout or has no such model; the hint names the
        closest layout that it can.
    """
    strategy = effective(plan.strategy, plan.model)
    _require_expressible(strategy, plan)
    model = titan_model(plan.model, plan.workload.sequence_length)
    values = _settings(plan, strategy)
    said = reader.strategy_of(values, plan.model, strategy.world_size)
    unsaid = not_expressed(strategy, said, REASONS, plan.model)
    mtp = plan.model.mtp_layers if strategy.pp == 1 else 0
    if mtp < plan.model.mtp_layers:
        unsaid += (f"model.mtp_layers {plan.model.mtp_layers}, runs as 0: none in its pipeline",)
    head = heading(plan, targets, unsaid)
    return Emission(
        files={
            SOURCE: module_text(head, FUNCTION, model, values, mtp=mtp),
            COMMAND: _command(plan, head),
        },
        not_expressed=unsaid,
    )


def read(
    files: Mapping[str, str], *, world_size: int | None = None, choice: str | None = None
) -> Reading:
    """A config module, a ``torchtitan.train`` command, or both, as far as they say a strategy.

    Python is parsed and never run.  ``choice`` names the config function; both it and
    ``world_size`` go before what the files say.

    Raises
    ------
    SpecError
        With file and line for text that is neither, and with the field for a value that
        no strategy can have.
    """
    asked = {}
    if choice is not None:
        asked["choice"] = f"CONFIG={choice}\n"
    if world_size is not None:
        asked["gpus"] = f"NGPU={world_size}\n"
    return reader.read({**files, **asked})


def _require_expressible(s: Strategy, plan: Plan) -> None:
    name = "torchtitan"
    if s.sharding in (Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3):
        raise refuse(name, "sharding", s.sharding, "fsdp")
    if s.ep > 1 and s.etp > 1:
        raise refuse(name, "etp", s.etp, "etp 1")
    if s.ep > 1 and (s.dp // _replicas(s)) * s.cp * s.tp % s.ep:
        raise refuse(name, "ep", s.ep, "an ep that divides dp_shard * cp * tp")
    if s.pp == 1:
        return
    if s.schedule not in SCHEDULES:
        raise refuse(name, "schedule", s.schedule, "zb-1p or zb-v")
    single = s.schedule in (Schedule._1F1B, Schedule.GPIPE)
    if s.schedule in V_SHAPED and s.vpp != 2:
        raise refuse(name, "vpp", s.vpp, f"vpp 2, the only one that {s.schedule.label} has")
    if single and s.vpp > 1:
        raise refuse(name, "vpp", s.vpp, "schedule interleaved")
    if not single and s.vpp < 2:
        raise refuse(name, "vpp", s.vpp, f"vpp 2, the least that {s.schedule.label} has")


def _replicas(s: Strategy) -> int:
    """Copies of the sharded model: outer groups of HSDP, all ranks without sharding."""
    return s.dp if s.sharding == Sharding.NONE else s.dp // s.dp_shard


def _settings(plan: Plan, s: Strategy) -> dict[str, Any]:
    """Every field by its path, in the order in which it is written."""
    replicas, steps = _replicas(s), microbatches(plan)
    values: dict[str, Any] = {
        "training.seq_len": plan.workload.sequence_length,
        "training.global_batch_size": plan.workload.global_batch_size,
        "training.local_batch_size": s.micro_batch_size * (steps if s.pp > 1 else 1),
        "training.enable_cpu_offload": s.optimizer_offload > 0,
        "training.disable_cuda_graphs": s.pp > 1 or s.ep > 1 or s.optimizer_offload > 0,
        "parallelism.data_parallel_replicate_degree": replicas,
        "parallelism.data_parallel_shard_degree": s.dp // replicas,
    }
    values |= {path: getattr(s, knob) for knob, path in FIELDS}
    if s.sharding != Sharding.NONE:
        policy = "always" if s.reshard_after_forward else "never"
        values["parallelism.fsdp_reshard_after_forward"] = policy
    if s.pp > 1:
        values |= _pipeline(plan, s)
    values["compile.enable"] = True
    values["compile.components"] = ["model", "loss"]
    values["compile.enable_async_tensor_parallel"] = s.overlap_tp
    values["activation_checkpoint"] = next(
        name for name, kinds in AC.items() if s.recompute in kinds or name == "SelectiveAC"
    )
    values["converters"] = CONVERTERS.get(s.precision)
    return values


def _pipeline(plan: Plan, s: Strategy) -> dict[str, Any]:
    chunks, layers = s.pp * s.vpp, plan.model.n_layers
    values: dict[str, Any] = {
        "parallelism.pipeline_parallel_schedule": SCHEDULES[s.schedule],
        "parallelism.pipeline_parallel_microbatch_size": s.micro_batch_size,
    }
    stages = checked_stages(plan)
    weight = 1 if plan.workload.framework.partition == "embedding_and_head_as_layers" else 0
    per_stage = None
    if stages is None and s.vpp > 2:
        per_stage = ceil((layers + 2 * weight) / chunks)
        if ceil((layers + 2 * weight) / per_stage) != chunks:
            stages = assigned_stages(layers, chunks, weight, weight)
    if stages is None:
        values["parallelism.pipeline_parallel_first_stage_less_layers"] = weight
        values["parallelism.pipeline_parallel_last_stage_less_layers"] = weight
        values["parallelism.pipeline_parallel_layers_per_stage"] = per_stage
    else:
        values["parallelism.module_fqns_per_model_part"] = _module_names(stages)
    return values


def _module_names(stages: tuple[int, ...]) -> list[list[str]]:
    """Names of the modules of each stage, the embedding on the first, the head on the last."""
    names, first = [], 0
    for layers in stages:
        names.append([f"layers.{i}" for i in range(first, first + layers)])
        first += layers
    names[0].insert(0, "tok_embeddings")
    names[-1] += ["norm", "lm_head"]
    return names


def _command(plan: Plan, head: list[str]) -> str:
    world, node = plan.strategy.world_size, plan.cluster.gpus_per_node
    lines = [
        "#!/usr/bin/env bash",
        *comments(head),
        "# Run on every node, with MASTER_ADDR naming the first.",
        "set -euo pipefail",
        'cd "$(dirname "${BASH_SOURCE[0]}")"',
        "exec torchrun \\",
        f"    --nnodes={ceil(world / node)} \\",
        f"    --nproc-per-node={min(world, node)} \\",
        "    --rdzv-id=autopar \\",
        "    --rdzv-backend=c10d \\",
        '    --rdzv-endpoint="${MASTER_ADDR:-localhost}:${MASTER_PORT:-29500}" \\',
        f'    -m torchtitan.train --module {MODULE} --config {FUNCTION} "$@"',
    ]
    return "\n".join(lines) + "\n"

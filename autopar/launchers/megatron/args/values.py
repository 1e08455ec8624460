"""A whole plan as Megatron's arguments, and the strategy that arguments mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autopar.launchers.megatron.args.contradictions import refuse_contradictions
from autopar.launchers.megatron.args.flags import Values
from autopar.launchers.megatron.args.memory import (
    read_memory,
    write_offload,
    write_overlap,
    write_precision,
    write_recompute,
)
from autopar.launchers.megatron.args.model import write_model
from autopar.launchers.megatron.args.parallel import (
    assigned_stages,
    read_degrees,
    read_pipeline,
    read_sharding,
    write_degrees,
    write_pipeline,
    write_sharding,
)
from autopar.launchers.plan import Plan
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategy
from search.space.canonical import canonical_strategy

BLACKWELL_ON = ("blackwell", "rubin")
"""GPU generations that overlap collectives with compute whatever the number of queues."""


@dataclass(frozen=True, slots=True)
class Written:
    """Arguments by name, why some knobs are not among them, and what else is left out."""

    values: Values
    reasons: Mapping[str, str]
    left_out: tuple[str, ...]
    wanted: Strategy
    """The plan's strategy, canonical, with the stages spelled out where Megatron needs a list."""


def write(plan: Plan) -> Written:
    """Every argument of the plan, model included."""
    model, left_out = write_model(plan.model, plan.workload.sequence_length)
    sharding, why_sharding = write_sharding(plan)
    recompute, why_recompute = write_recompute(plan)
    offload, kept = write_offload(plan)
    precision, optimizer = write_precision(plan)
    values = {
        **model,
        "seq_length": plan.workload.sequence_length,
        "mock_data": True,
        "tokenizer_type": "NullTokenizer",
        "vocab_size": plan.model.vocab_size,
        "create_attention_mask_in_dataloader": False,
        **write_degrees(plan),
        **write_pipeline(plan),
        **sharding,
        **recompute,
        **offload,
        **precision,
        **write_overlap(plan),
    }
    reasons = {
        "schedule": "pretrain_gpt.py runs 1f1b, or interleaved where vpp > 1",
        "overlap_p2p": "only the interleaved schedule hides its transfers",
        "sharding": "fsdp is the closest that it has",
        **why_sharding,
        **why_recompute,
    }
    assigned = plan.strategy.with_(stage_layers=assigned_stages(plan))
    wanted = canonical_strategy(assigned, moe=plan.model.is_moe)
    return Written(values, reasons, (*left_out, *kept, *optimizer), wanted)


def environment(plan: Plan, values: Values) -> dict[str, str]:
    """Variables that the run needs, by name."""
    s = plan.strategy
    found = {}
    fully_sharded = values.get("use_megatron_fsdp") or values.get("use_torch_fsdp2")
    if fully_sharded:
        # one queue would serialize the gathers that FSDP hides; 8 is CUDA's own default
        found["CUDA_DEVICE_MAX_CONNECTIONS"] = "8"
    elif s.overlap_ep:
        found["CUDA_DEVICE_MAX_CONNECTIONS"] = "32"
    elif not plan.cluster.gpu.architecture.lower().startswith(BLACKWELL_ON):
        found["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    if s.activation_offload:
        found["NVTE_CPU_OFFLOAD_V1"] = "1"
    return found


def read_strategy(
    values: Mapping[str, Any], where: Mapping[str, int], world_size: int | None, *, name: str
) -> Strategy:
    """The strategy; raises SpecError with file, line where one argument is at fault, and it."""
    try:
        refuse_contradictions(values)
        degrees = read_degrees(values, world_size)
        pipeline = read_pipeline(values)
        strategy = Strategy(
            **degrees,
            **pipeline,
            **read_sharding(values, degrees["dp"]),
            **read_memory(values, pipeline["vpp"]),
        )
    except SpecError as error:
        raise located(error, where, name=name) from None
    return canonical_strategy(strategy, moe=bool(values.get("num_experts")))


def located(error: SpecError, where: Mapping[str, int], *, name: str) -> SpecError:
    """The same error with the file in front, and the line of the first argument it names."""
    text = str(error)
    line = next((f":{where[word]}" for word in text.replace(",", " ").split() if word in where), "")
    return SpecError(f"{name}{line}: {text}", hint=error.hint)

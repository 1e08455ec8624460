"""Rules on what data-parallel ranks share out, and on what overlaps or leaves the GPU."""

import numpy as np

from cost_models.specs.strategy import Order, Precision, Recompute, Sharding, Strategies
from cost_models.specs.units import Ints
from search.rules.rule import Mask, Problem, Rule, only

GATHERED = (Sharding.ZERO2, Sharding.FSDP, Sharding.HSDP)
"""What Megatron-FSDP runs."""


def _whole_group(_: Problem, s: Strategies) -> Mask:
    expected = np.where(s.sharding == Sharding.NONE, 1, s.dp)
    return np.asarray((s.sharding == Sharding.HSDP) | (s.dp_shard == expected))


def _part_of_group(_: Problem, s: Strategies) -> Mask:
    inside = (s.dp_shard > 1) & (s.dp_shard < s.dp) & (s.dp % s.dp_shard == 0)
    return np.asarray((s.sharding != Sharding.HSDP) | inside)


def _copies(s: Strategies) -> Ints:
    """Groups of hsdp that each hold the whole state."""
    return np.asarray(np.maximum(s.dp // s.dp_shard, 1))


def _experts_copied(problem: Problem, s: Strategies) -> Mask:
    if not problem.model.is_moe:
        return np.asarray(np.True_)
    return np.asarray((s.sharding != Sharding.HSDP) | (s.edp % _copies(s) == 0))


def _sharded_state(_: Problem, s: Strategies) -> Mask:
    return np.asarray(
        (s.optimizer_offload == 0) | (s.sharding != Sharding.NONE) | (s.dp * s.cp == 1)
    )


SHARDING_RULES = (
    Rule(
        name="shard_group_is_whole",
        sentence="All data-parallel ranks form the sharding group, except under hsdp.",
        reads=("dp", "sharding", "dp_shard"),
        holds=_whole_group,
        why=lambda p, s: (
            f"sharding {s.sharding.label} over dp_shard {s.dp_shard} with dp {s.dp}: "
            f"{'it has no group' if s.sharding == Sharding.NONE else 'only hsdp splits the group'}"
        ),
    ),
    Rule(
        name="hsdp_splits_group",
        sentence="Under hsdp the sharding group is a proper part of the data-parallel ranks.",
        reads=("dp", "sharding", "dp_shard"),
        holds=_part_of_group,
        why=lambda p, s: (
            f"hsdp with dp_shard {s.dp_shard} of dp {s.dp}: it must divide it and lie between"
        ),
    ),
    Rule(
        name="hsdp_copies_experts",
        sentence="Under hsdp the experts' ranks split into as many groups as the others.",
        reads=("tp", "cp", "dp", "ep", "etp", "sharding", "dp_shard"),
        holds=_experts_copied,
        why=lambda p, s: (
            f"the experts' data-parallel size {s.edp} is not divisible by dp {s.dp} / dp_shard "
            f"{s.dp_shard} = {s.dp // s.dp_shard}"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="zero_gradients_need_one_stage",
        sentence="ZeRO-2 and ZeRO-3 do not run inside DeepSpeed's pipeline.",
        reads=("pp", "sharding"),
        holds=lambda p, s: ~np.isin(s.sharding, (Sharding.ZERO2, Sharding.ZERO3)) | (s.pp == 1),
        why=lambda p, s: f"sharding {s.sharding.label} with pipeline_parallel {s.pp}",
        launchers=only("deepspeed"),
    ),
    Rule(
        name="zero3_needs_one_stage",
        sentence="ZeRO-3 is DeepSpeed's, whose pipeline refuses it.",
        reads=("pp", "sharding"),
        holds=lambda p, s: (s.sharding != Sharding.ZERO3) | (s.pp == 1),
        why=lambda p, s: f"sharding zero3 with pipeline_parallel {s.pp}",
        launchers=only("any"),
    ),
    Rule(
        name="fsdp_keeps_default_order",
        sentence="Megatron-FSDP refuses the order tp-cp-ep-pp-dp.",
        reads=("sharding", "order"),
        holds=lambda p, s: ~np.isin(s.sharding, GATHERED) | (s.order == Order.TP_CP_EP_DP_PP),
        why=lambda p, s: f"sharding {s.sharding.label} with order {s.order.label}",
        launchers=only("megatron"),
    ),
    Rule(
        name="replicas_need_sharding",
        sentence="Beside tensor or context parallel, data-parallel replicas are sharded.",
        reads=("tp", "cp", "dp", "sharding"),
        holds=lambda p, s: (
            (s.sharding != Sharding.NONE) | ((s.cp == 1) & ((s.tp == 1) | (s.dp == 1)))
        ),
        why=lambda p, s: (
            f"tensor_parallel {s.tp} or context_parallel {s.cp} with dp {s.dp} replicas and "
            "sharding none"
        ),
        launchers=only("accelerate"),
    ),
    Rule(
        name="param_gather_needs_sharding",
        sentence="There is a parameter gather to overlap only where something is sharded.",
        reads=("sharding", "overlap_param_gather"),
        holds=lambda p, s: ~s.overlap_param_gather | (s.sharding != Sharding.NONE),
        why=lambda p, s: "overlap_param_gather is on with sharding none",
    ),
    Rule(
        name="param_gather_needs_grad_reduce",
        sentence="Overlapped parameter gather needs overlapped gradient reduction.",
        reads=("overlap_grad_reduce", "overlap_param_gather"),
        holds=lambda p, s: ~s.overlap_param_gather | s.overlap_grad_reduce,
        why=lambda p, s: "overlap_param_gather is on with overlap_grad_reduce off",
        launchers=only("megatron"),
    ),
    Rule(
        name="tp_overlap_needs_sp",
        sentence="Tensor-parallel overlap pipelines the collectives of sequence parallel.",
        reads=("sequence_parallel", "overlap_tp"),
        holds=lambda p, s: ~s.overlap_tp | s.sequence_parallel,
        why=lambda p, s: "overlap_tp is on with sequence_parallel off",
    ),
    Rule(
        name="ep_overlap_needs_ep",
        sentence="Expert overlap hides an all-to-all, so it needs expert parallel.",
        reads=("ep", "overlap_ep"),
        holds=lambda p, s: ~s.overlap_ep | (s.ep > 1),
        why=lambda p, s: f"overlap_ep is on with expert_parallel {s.ep}",
    ),
    Rule(
        name="ep_overlap_needs_chunks",
        sentence="In a pipeline, expert overlap needs virtual pipeline.",
        reads=("pp", "vpp", "overlap_ep"),
        holds=lambda p, s: ~s.overlap_ep | (s.pp == 1) | (s.vpp > 1),
        why=lambda p, s: (
            f"overlap_ep is on with pipeline_parallel {s.pp} and virtual pipeline {s.vpp}"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="ep_overlap_keeps_moe",
        sentence="Expert overlap excludes recomputing whole layers or MoE blocks.",
        reads=("recompute", "overlap_ep"),
        holds=lambda p, s: ~s.overlap_ep | (s.recompute & (Recompute.FULL | Recompute.MOE) == 0),
        why=lambda p, s: f"overlap_ep is on with recompute {s.recompute.label}",
        launchers=only("megatron"),
    ),
    Rule(
        name="ep_overlap_needs_16_bit",
        sentence="Expert overlap runs in bf16 or fp16, with one MTP module at most.",
        reads=("precision", "overlap_ep"),
        holds=lambda p, s: (
            ~s.overlap_ep
            | (np.isin(s.precision, (Precision.BF16, Precision.FP16)) & (p.model.mtp_layers <= 1))
        ),
        why=lambda p, s: (
            f"overlap_ep is on with precision {s.precision.label} and {p.model.mtp_layers} "
            "MTP modules"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="offload_share",
        sentence="Offloaded shares lie between 0 and 1.",
        reads=("optimizer_offload", "activation_offload"),
        holds=lambda p, s: (
            (s.optimizer_offload >= 0)
            & (s.optimizer_offload <= 1)
            & (s.activation_offload >= 0)
            & (s.activation_offload <= 1)
        ),
        why=lambda p, s: (
            f"optimizer_offload {s.optimizer_offload:g}, activation_offload "
            f"{s.activation_offload:g}: a share is between 0 and 1"
        ),
    ),
    Rule(
        name="optimizer_offload_needs_sharding",
        sentence="Optimizer state goes to the host only where it is sharded over ranks.",
        reads=("dp", "cp", "sharding", "optimizer_offload"),
        holds=_sharded_state,
        why=lambda p, s: (
            f"optimizer_offload {s.optimizer_offload:g} with sharding none over {s.dp * s.cp} ranks"
        ),
    ),
)

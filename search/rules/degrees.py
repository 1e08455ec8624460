"""Rules on how ranks are divided: world, heads, sequence, experts."""

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.strategy import ContextParallel, Order, Strategies
from cost_models.specs.units import Ints
from search.rules.rule import Mask, Problem, Rule, only

KV_EITHER_WAY = only("megatron", "deepspeed", "any")
KV_DIVISIBLE = only("torchtitan", "accelerate", "nanotron", "maxtext")


def heads_per_rank(heads: int, tp: ArrayLike) -> Ints:
    """Heads that one tensor-parallel rank holds, at least one (copied where tp is larger)."""
    return np.asarray(np.maximum(heads // np.asarray(tp), 1))


def _kv_heads(problem: Problem) -> int:
    model = problem.model
    return model.n_heads if model.attention == "mla" else model.n_kv_heads


def _kv_divides(problem: Problem, s: Strategies) -> Mask:
    kv = _kv_heads(problem)
    return np.asarray((kv % s.tp == 0) | (s.tp % kv == 0))


def _a2a_splits_heads(problem: Problem, s: Strategies) -> Mask:
    q = heads_per_rank(problem.model.n_heads, s.tp)
    kv = heads_per_rank(_kv_heads(problem), s.tp)
    split = (q % s.cp == 0) & (kv % s.cp == 0)
    return np.asarray((s.cp_comm != ContextParallel.A2A) | (s.cp == 1) | split)


def composite(numbers: ArrayLike) -> Mask:
    """Which numbers are products of two smaller ones."""
    values = np.asarray(numbers)
    found = np.zeros(values.shape, dtype=np.bool_)
    for factor in range(2, int(values.max(initial=1) ** 0.5) + 1):
        found |= (values % factor == 0) & (values > factor)
    return found


def _hierarchy_splits_heads(problem: Problem, s: Strategies) -> Mask:
    q = heads_per_rank(problem.model.n_heads, s.tp)
    kv = heads_per_rank(_kv_heads(problem), s.tp)
    common = np.gcd(np.gcd(q, kv), s.cp)
    two_levels = composite(s.cp) & (common > 1)
    return np.asarray((s.cp_comm != ContextParallel.A2A_P2P) | (s.cp == 1) | two_levels)


def _same_pipeline_groups(problem: Problem, s: Strategies) -> Mask:
    inner = s.ep * s.etp if problem.model.is_moe else s.tp
    return np.asarray((s.order == Order.TP_CP_EP_DP_PP) | (s.pp == 1) | (inner == s.tp * s.cp))


def _mlp_widths(problem: Problem) -> tuple[int, ...]:
    model = problem.model
    dense = len(model.moe_layers) < model.n_layers
    widths = (model.ffn_size if dense else 0, model.shared_expert_ffn_size if model.is_moe else 0)
    return tuple(width for width in widths if width)


DEGREE_RULES = (
    Rule(
        name="world_size",
        sentence="dp x tp x pp x cp is the number of GPUs.",
        reads=("tp", "pp", "cp", "dp"),
        holds=lambda p, s: s.dp * s.tp * s.pp * s.cp == p.cluster.n_gpus,
        why=lambda p, s: (
            f"dp {s.dp} x tp {s.tp} x pp {s.pp} x cp {s.cp} is {s.world_size} ranks, "
            f"but there are {p.cluster.n_gpus} GPUs"
        ),
    ),
    Rule(
        name="tp_divides_heads",
        sentence="Attention heads divide evenly among tensor-parallel ranks.",
        reads=("tp",),
        holds=lambda p, s: p.model.n_heads % s.tp == 0,
        why=lambda p, s: f"heads {p.model.n_heads} is not divisible by tensor_parallel {s.tp}",
    ),
    Rule(
        name="tp_matches_kv_heads",
        sentence="Key-value heads are divided, or copied, evenly among tensor-parallel ranks.",
        reads=("tp",),
        holds=_kv_divides,
        why=lambda p, s: (
            f"kv_heads {_kv_heads(p)} is not divisible by tensor_parallel {s.tp}, "
            "nor the other way round"
        ),
        launchers=KV_EITHER_WAY,
    ),
    Rule(
        name="tp_divides_kv_heads",
        sentence="Key-value heads divide evenly among tensor-parallel ranks, never copied.",
        reads=("tp",),
        holds=lambda p, s: _kv_heads(p) % s.tp == 0,
        why=lambda p, s: f"kv_heads {_kv_heads(p)} is not divisible by tensor_parallel {s.tp}",
        launchers=KV_DIVISIBLE,
    ),
    Rule(
        name="tp_divides_mlp",
        sentence="The MLP's width divides evenly among tensor-parallel ranks.",
        reads=("tp",),
        holds=lambda p, s: (
            np.gcd.reduce(_mlp_widths(p)) % s.tp == 0 if _mlp_widths(p) else np.True_
        ),
        why=lambda p, s: (
            f"MLP width {' or '.join(map(str, _mlp_widths(p)))} is not divisible by "
            f"tensor_parallel {s.tp}"
        ),
    ),
    Rule(
        name="sp_needs_tp",
        sentence="Sequence parallel shares work among tensor-parallel ranks, so it needs two.",
        reads=("tp", "sequence_parallel"),
        holds=lambda p, s: ~s.sequence_parallel | (s.tp > 1),
        why=lambda p, s: f"sequence_parallel is on with tensor_parallel {s.tp}",
    ),
    Rule(
        name="sp_splits_sequence",
        sentence="With sequence parallel, a context rank's tokens divide by tensor parallel.",
        reads=("tp", "cp", "sequence_parallel"),
        holds=lambda p, s: ~s.sequence_parallel | (p.workload.sequence_length // s.cp % s.tp == 0),
        why=lambda p, s: (
            f"sequence {p.workload.sequence_length} / context_parallel {s.cp} is not divisible "
            f"by tensor_parallel {s.tp}, as sequence_parallel needs"
        ),
    ),
    Rule(
        name="cp_splits_sequence",
        sentence="The sequence is cut into 2 x cp equal pieces, two for each context rank.",
        reads=("cp",),
        holds=lambda p, s: (s.cp == 1) | (p.workload.sequence_length % (2 * s.cp) == 0),
        why=lambda p, s: (
            f"sequence {p.workload.sequence_length} is not divisible by "
            f"2 x context_parallel {s.cp} = {2 * s.cp}"
        ),
        launchers=only("megatron", "torchtitan", "accelerate", "nanotron", "maxtext", "any"),
    ),
    Rule(
        name="ulysses_splits_sequence",
        sentence="The sequence is cut into cp equal pieces.",
        reads=("cp",),
        holds=lambda p, s: p.workload.sequence_length % s.cp == 0,
        why=lambda p, s: (
            f"sequence {p.workload.sequence_length} is not divisible by context_parallel {s.cp}"
        ),
        launchers=only("deepspeed"),
    ),
    Rule(
        name="sequence_fits_positions",
        sentence="The sequence is no longer than the table of learned positions.",
        reads=(),
        holds=lambda p, s: (
            p.model.position != "learned"
            or p.workload.sequence_length
            <= (p.model.max_sequence_length or p.workload.sequence_length)
        ),
        why=lambda p, s: (
            f"sequence {p.workload.sequence_length} is longer than the model's "
            f"{p.model.max_sequence_length} learned positions"
        ),
    ),
    Rule(
        name="a2a_splits_heads",
        sentence="All-to-all context parallel divides a tensor rank's heads among context ranks.",
        reads=("tp", "cp", "cp_comm"),
        holds=_a2a_splits_heads,
        why=lambda p, s: (
            f"heads {heads_per_rank(p.model.n_heads, s.tp)} or "
            f"kv_heads {heads_per_rank(_kv_heads(p), s.tp)} on each tensor rank is not divisible "
            f"by context_parallel {s.cp}, as cp_comm a2a needs"
        ),
    ),
    Rule(
        name="hierarchy_splits_heads",
        sentence="Hierarchical context parallel is two factors, the inner one dividing the heads.",
        reads=("tp", "cp", "cp_comm"),
        holds=_hierarchy_splits_heads,
        why=lambda p, s: (
            f"context_parallel {s.cp} is not two levels of which the inner divides heads "
            f"{heads_per_rank(p.model.n_heads, s.tp)} and kv_heads "
            f"{heads_per_rank(_kv_heads(p), s.tp)} of a tensor rank, as cp_comm a2a-p2p needs"
        ),
    ),
    Rule(
        name="ep_needs_experts",
        sentence="Expert parallel and expert tensor parallel are for models with experts.",
        reads=("ep", "etp"),
        holds=lambda p, s: p.model.is_moe | ((s.ep == 1) & (s.etp == 1)),
        why=lambda p, s: (
            f"expert_parallel {s.ep} and expert_tensor_parallel {s.etp} with a model that has "
            "no experts"
        ),
    ),
    Rule(
        name="ep_divides_experts",
        sentence="Experts divide evenly among expert-parallel ranks.",
        reads=("ep",),
        holds=lambda p, s: p.model.n_experts % s.ep == 0 if p.model.is_moe else np.True_,
        why=lambda p, s: f"experts {p.model.n_experts} is not divisible by expert_parallel {s.ep}",
    ),
    Rule(
        name="etp_divides_experts",
        sentence="An expert's width divides evenly among expert-tensor-parallel ranks.",
        reads=("etp",),
        holds=lambda p, s: p.model.moe_ffn_size % s.etp == 0 if p.model.is_moe else np.True_,
        why=lambda p, s: (
            f"expert width {p.model.moe_ffn_size} is not divisible by "
            f"expert_tensor_parallel {s.etp}"
        ),
    ),
    Rule(
        name="experts_fill_world",
        sentence="etp x ep x pp divides the number of GPUs.",
        reads=("pp", "ep", "etp"),
        holds=lambda p, s: (
            p.cluster.n_gpus % (s.etp * s.ep * s.pp) == 0 if p.model.is_moe else np.True_
        ),
        why=lambda p, s: (
            f"{p.cluster.n_gpus} GPUs is not divisible by expert_tensor_parallel {s.etp} x "
            f"expert_parallel {s.ep} x pipeline_parallel {s.pp} = {s.etp * s.ep * s.pp}"
        ),
    ),
    Rule(
        name="moe_bias_needs_whole_experts",
        sentence="Experts with biases are not cut by expert tensor parallel.",
        reads=("etp",),
        holds=lambda p, s: (s.etp == 1) | (not p.model.moe_bias),
        why=lambda p, s: f"the experts have biases and expert_tensor_parallel is {s.etp}",
        launchers=only("megatron"),
    ),
    Rule(
        name="order_keeps_pipeline_groups",
        sentence="With the order tp-cp-ep-pp-dp, experts and attention share pipeline groups.",
        reads=("tp", "pp", "cp", "ep", "etp", "order"),
        holds=_same_pipeline_groups,
        why=lambda p, s: (
            f"order {s.order.label} with pipeline_parallel {s.pp} needs tp {s.tp} x cp {s.cp} = "
            + (f"etp {s.etp} x ep {s.ep}" if p.model.is_moe else f"tp {s.tp}")
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="ep_divides_shard_ranks",
        sentence="Expert parallel borrows from sharding, context and tensor ranks.",
        reads=("tp", "cp", "ep", "sharding", "dp_shard"),
        holds=lambda p, s: s.dp_shard * s.cp * s.tp % s.ep == 0,
        why=lambda p, s: (
            f"dp_shard {s.dp_shard} x cp {s.cp} x tp {s.tp} is not divisible by "
            f"expert_parallel {s.ep}"
        ),
        launchers=only("torchtitan"),
    ),
    Rule(
        name="ulysses_or_autotp",
        sentence="Ulysses and automatic tensor parallel exclude each other.",
        reads=("tp", "cp"),
        holds=lambda p, s: (s.tp == 1) | (s.cp == 1),
        why=lambda p, s: f"tensor_parallel {s.tp} together with context_parallel {s.cp}",
        launchers=only("deepspeed"),
    ),
)

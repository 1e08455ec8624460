"""The layout rules once more, one layout at a time in plain Python: the judges' judge."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

from cost_models.specs.strategy import Schedule
from search.rules import Problem

Layout = SimpleNamespace
"""tp, pp, cp, dp, ep, etp, vpp, schedule, micro_batch_size."""


def _kv(p: Problem) -> int:
    return p.model.n_heads if p.model.attention == "mla" else p.model.n_kv_heads


def _count(p: Problem, x: Layout) -> int:
    return int(p.workload.global_batch_size // (x.micro_batch_size * x.dp))


def _loops(x: Layout) -> bool:
    return bool(x.schedule == Schedule.INTERLEAVED and x.pp > 1)


def _mlp(p: Problem, x: Layout) -> bool:
    has_dense = len(p.model.moe_layers) < p.model.n_layers
    fits = not has_dense or p.model.ffn_size % x.tp == 0
    return bool(fits and (not p.model.is_moe or p.model.shared_expert_ffn_size % x.tp == 0))


def _even(p: Problem, x: Layout) -> bool:
    layers, chunks = p.model.n_layers, x.pp * x.vpp
    if p.uneven_stages or p.workload.framework.partition == "parameter_weight":
        return True
    if p.workload.framework.partition == "embedding_and_head_as_layers":
        return bool((layers + 2) % chunks == 0)
    return any(total % chunks == 0 for total in (layers, layers + 1, layers + 2))


def _rounds(p: Problem, x: Layout) -> bool:
    rounds = max(1, _count(p, x) // x.pp)
    return not _loops(x) or _count(p, x) % rounds == 0


def _both_ways(p: Problem, x: Layout) -> bool:
    if x.schedule != Schedule.DUALPIPE:
        return True
    return bool(x.pp % 2 == 0 and _count(p, x) % 2 == 0 and _count(p, x) >= 2 * x.pp)


def _positions(p: Problem, _: Layout) -> bool:
    rows = p.model.max_sequence_length
    return p.model.position != "learned" or rows is None or p.workload.sequence_length <= rows


def _slices(p: Problem, _: Layout) -> bool:
    slices = -(-p.cluster.n_gpus // p.cluster.nvlink_domain)
    return p.cluster.n_gpus % slices == 0


def _cut(p: Problem, x: Layout) -> bool:
    if not p.model.is_moe:
        return True
    whole = p.launcher.name == "deepspeed" and x.ep > 1
    return bool(x.etp == (1 if whole else x.tp))


ZERO_BUBBLE = (Schedule.ZB_1P, Schedule.ZB_2P, Schedule.ZB_V, Schedule.DUALPIPE)
CHUNKED = (Schedule.INTERLEAVED, Schedule.ZB_V)

SCALAR_RULES: Mapping[str, Callable[[Problem, Layout], bool]] = {
    "world_size": lambda p, x: x.dp * x.tp * x.pp * x.cp == p.cluster.n_gpus,
    "tp_divides_heads": lambda p, x: p.model.n_heads % x.tp == 0,
    "tp_matches_kv_heads": lambda p, x: _kv(p) % x.tp == 0 or x.tp % _kv(p) == 0,
    "tp_divides_kv_heads": lambda p, x: _kv(p) % x.tp == 0,
    "tp_divides_mlp": _mlp,
    "cp_splits_sequence": lambda p, x: x.cp == 1 or p.workload.sequence_length % (2 * x.cp) == 0,
    "ulysses_splits_sequence": lambda p, x: p.workload.sequence_length % x.cp == 0,
    "sequence_fits_positions": _positions,
    "ep_needs_experts": lambda p, x: p.model.is_moe or x.ep == x.etp == 1,
    "ep_divides_experts": lambda p, x: not p.model.is_moe or p.model.n_experts % x.ep == 0,
    "etp_divides_experts": lambda p, x: not p.model.is_moe or p.model.moe_ffn_size % x.etp == 0,
    "experts_fill_world": lambda p, x: (
        not p.model.is_moe or p.cluster.n_gpus % (x.etp * x.ep * x.pp) == 0
    ),
    "moe_bias_needs_whole_experts": lambda p, x: x.etp == 1 or not p.model.moe_bias,
    "ulysses_or_autotp": lambda p, x: x.tp == 1 or x.cp == 1,
    "stages_have_layers": lambda p, x: x.pp * x.vpp <= p.model.n_layers,
    "layers_divide_stages": _even,
    "layers_divide_stages_exactly": lambda p, x: p.model.n_layers % (x.pp * x.vpp) == 0,
    "stage_layers_add_up": lambda p, x: True,
    "vpp_needs_stages": lambda p, x: x.vpp == 1 or x.pp > 1,
    "schedule_needs_stages": lambda p, x: x.schedule not in ZERO_BUBBLE or x.pp > 1,
    "interleaving_needs_chunks": lambda p, x: x.schedule != Schedule.INTERLEAVED or x.vpp > 1,
    "chunks_need_interleaving": lambda p, x: x.vpp == 1 or x.schedule in CHUNKED,
    "zb_v_has_two_chunks": lambda p, x: x.schedule != Schedule.ZB_V or x.vpp == 2,
    "batch_divides": lambda p, x: p.workload.global_batch_size % (x.micro_batch_size * x.dp) == 0,
    "interleaving_groups_micro_batches": lambda p, x: (
        not _loops(x) or (_count(p, x) >= x.pp and _count(p, x) % x.pp == 0)
    ),
    "interleaving_rounds_micro_batches": _rounds,
    "interleaving_fills_stages": lambda p, x: not _loops(x) or _count(p, x) >= x.pp,
    "micro_batches_divide_stages": lambda p, x: _count(p, x) % x.pp == 0,
    "micro_batches_fill_stages": lambda p, x: _count(p, x) >= x.pp,
    "dualpipe_runs_both_ways": _both_ways,
    "tied_embeddings_need_one_stage": lambda p, x: x.pp == 1 or not p.model.tied_embeddings,
    "launcher_has_pipeline": lambda p, x: x.pp == 1 or p.launcher.pipeline,
    "launcher_has_experts": lambda p, x: x.ep == 1 or p.launcher.experts,
    "launcher_has_expert_tensor": lambda p, x: x.etp == 1 or p.launcher.expert_tensor,
    "launcher_has_schedule": lambda p, x: x.pp == 1 or x.schedule in p.launcher.schedules,
    "model_is_llama_like": lambda p, x: (
        not p.model.is_moe
        and p.model.hidden_size == p.model.n_heads * p.model.head_dim
        and (p.model.attention, p.model.position) == ("gqa", "rope")
    ),
    "slices_are_equal": _slices,
    "experts_cut_with_heads": _cut,
}

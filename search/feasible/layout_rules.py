"""The layout rules as constraints, written apart from their numpy predicates.

Each rule can hang on a literal, which lets the solver name the rules that exclude each
other.  A rule that also reads inner knobs asks whether some values of them obey it; it
becomes a table over the few layout axes that decide this.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from cost_models.specs.strategy import Schedule, Strategies
from search.feasible.layout_model import LayoutModel, Literals
from search.rules.habits import equal_slices, llama_like
from search.rules.pipeline import STAGED_SCHEDULES, layer_counts
from search.rules.rule import LAYOUT_AXES, Problem, Rule
from search.sweep.layouts import layout_mask

TABLE_ROWS = 50_000
"""A rule on inner knobs whose table would be longer is left to numpy."""

Encoder = Callable[[LayoutModel, Literals], None]


def _world(m: LayoutModel, guard: Literals) -> None:
    ranks = m.times(m.times(m["tp"], m["pp"]), m.times(m["cp"], m["dp"]))
    m.require(ranks == m.problem.cluster.n_gpus, guard)


def _kv_heads(m: LayoutModel) -> int:
    model = m.problem.model
    return model.n_heads if model.attention == "mla" else model.n_kv_heads


def _kv_either_way(m: LayoutModel, guard: Literals) -> None:
    kv = _kv_heads(m)
    fits = [tp for tp in m.space.axes["tp"] if kv % tp == 0 or tp % kv == 0]
    m.one_of("tp", fits, guard)


def _mlp(m: LayoutModel, guard: Literals) -> None:
    model = m.problem.model
    if len(model.moe_layers) < model.n_layers:
        m.divides("tp", model.ffn_size, guard)
    if model.moe_layers and model.shared_expert_ffn_size:
        m.divides("tp", model.shared_expert_ffn_size, guard)


def _sequence(m: LayoutModel, guard: Literals) -> None:
    length = m.problem.workload.sequence_length
    if length % 2:
        m.require(m["cp"] == 1, guard)
    else:
        pairs = m.remainder(length // 2, m["cp"])
        m.require(pairs == 0, guard)


def _positions(m: LayoutModel, guard: Literals) -> None:
    model, length = m.problem.model, m.problem.workload.sequence_length
    rows = model.max_sequence_length
    if model.position == "learned" and rows and length > rows:
        m.model.add_bool_or([]).only_enforce_if(*guard)


def _experts_or_none(m: LayoutModel, guard: Literals) -> None:
    if not m.problem.model.n_experts:
        m.require(m["ep"] + m["etp"] == 2, guard)


def _expert_mapping(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.n_experts:
        ranks = m.times(m.times(m["ep"], m["etp"]), m["pp"])
        m.require(m.remainder(m.problem.cluster.n_gpus, ranks) == 0, guard)


def _ep(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.n_experts:
        m.divides("ep", m.problem.model.n_experts, guard)


def _etp(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.n_experts:
        m.divides("etp", m.problem.model.moe_ffn_size, guard)


def _whole_experts(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.moe_bias:
        m.require(m["etp"] == 1, guard)


def _ulysses_or_tp(m: LayoutModel, guard: Literals) -> None:
    m.model.add_bool_or([m.equals(m["tp"], 1), m.equals(m["cp"], 1)]).only_enforce_if(*guard)


def _enough_layers(m: LayoutModel, guard: Literals) -> None:
    m.require(m.times(m["pp"], m["vpp"]) <= m.problem.model.n_layers, guard)


def _even_layers(m: LayoutModel, guard: Literals) -> None:
    framework = m.problem.workload.framework
    if m.problem.uneven_stages or framework.partition == "parameter_weight":
        return
    chunks = m.times(m["pp"], m["vpp"])
    divides = [m.equals(m.remainder(n, chunks), 0) for n in layer_counts(m.problem)]
    m.model.add_bool_or(divides).only_enforce_if(*guard)


def _exact_layers(m: LayoutModel, guard: Literals) -> None:
    chunks = m.times(m["pp"], m["vpp"])
    m.require(m.remainder(m.problem.model.n_layers, chunks) == 0, guard)


def _nothing(_: LayoutModel, __: Literals) -> None:
    """For rules on what a space of layouts cannot hold."""


def _vpp(m: LayoutModel, guard: Literals) -> None:
    m.require(m["vpp"] == 1, guard, m.equals(m["pp"], 1))


def _staged(m: LayoutModel, guard: Literals) -> None:
    for schedule in STAGED_SCHEDULES:
        m.require(m["pp"] >= 2, guard, m.scheduled(schedule))


def _interleaved_chunks(m: LayoutModel, guard: Literals) -> None:
    m.require(m["vpp"] >= 2, guard, m.scheduled(Schedule.INTERLEAVED))


def _one_chunk(m: LayoutModel, guard: Literals) -> None:
    for schedule in Schedule:
        if schedule not in (Schedule.INTERLEAVED, Schedule.ZB_V):
            m.require(m["vpp"] == 1, guard, m.scheduled(schedule))


def _two_chunks(m: LayoutModel, guard: Literals) -> None:
    m.require(m["vpp"] == 2, guard, m.scheduled(Schedule.ZB_V))


def _batch(m: LayoutModel, guard: Literals) -> None:
    ranks = m.times(m["micro_batch_size"], m["dp"])
    m.require(m.remainder(m.problem.workload.global_batch_size, ranks) == 0, guard)


def _interleaves(m: LayoutModel) -> tuple[cp_model.IntVar, object]:
    return m.scheduled(Schedule.INTERLEAVED), ~m.equals(m["pp"], 1)


def _groups(m: LayoutModel, guard: Literals) -> None:
    when = _interleaves(m)
    m.require(m.micro_batches() >= m["pp"], guard, *when)
    m.require(m.remainder(m.micro_batches(), m["pp"]) == 0, guard, *when)


def _rounds(m: LayoutModel, guard: Literals) -> None:
    rounds = m.quotient(m.micro_batches(), m["pp"])
    none, some = (
        m.equals(rounds, 0),
        m.model.new_int_var(1, m.problem.workload.global_batch_size, ""),
    )
    m.model.add(some == rounds).only_enforce_if(~none)
    m.model.add(some == 1).only_enforce_if(none)
    m.require(m.remainder(m.micro_batches(), some) == 0, guard, *_interleaves(m))


def _fills_interleaved(m: LayoutModel, guard: Literals) -> None:
    m.require(m.micro_batches() >= m["pp"], guard, *_interleaves(m))


def _fills(m: LayoutModel, guard: Literals) -> None:
    m.require(m.micro_batches() >= m["pp"], guard)


def _multiple(m: LayoutModel, guard: Literals) -> None:
    m.require(m.remainder(m.micro_batches(), m["pp"]) == 0, guard)


def _two_ways(m: LayoutModel, guard: Literals) -> None:
    when = m.scheduled(Schedule.DUALPIPE)
    two = m.model.new_constant(2)
    m.require(m.remainder(m["pp"], two) == 0, guard, when)
    m.require(m.remainder(m.micro_batches(), two) == 0, guard, when)
    m.require(m.micro_batches() >= 2 * m["pp"], guard, when)


def _tied(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.tied_embeddings:
        m.require(m["pp"] == 1, guard)


def _without(axis: str, feature: str) -> Encoder:
    def encode(m: LayoutModel, guard: Literals) -> None:
        if not getattr(m.problem.launcher, feature):
            m.require(m[axis] == 1, guard)

    return encode


def _where(fact: Callable[[Problem], bool]) -> Encoder:
    """For a rule on the problem alone, which a layout can do nothing about."""

    def encode(m: LayoutModel, guard: Literals) -> None:
        if not fact(m.problem):
            m.model.add_bool_or([]).only_enforce_if(*guard)

    return encode


def _cut_with_heads(m: LayoutModel, guard: Literals) -> None:
    if not m.problem.model.n_experts:
        return
    if m.problem.launcher.name == "deepspeed":
        alone = m.equals(m["ep"], 1)
        m.require(m["etp"] == m["tp"], guard, alone)
        m.require(m["etp"] == 1, guard, ~alone)
    else:
        m.require(m["etp"] == m["tp"], guard)


def _known_schedule(m: LayoutModel, guard: Literals) -> None:
    known = {int(schedule) for schedule in m.problem.launcher.schedules}
    for value in m.space.axes["schedule"]:
        if int(value) not in known:
            m.require(m["pp"] == 1, guard, m.equals(m["schedule"], int(value)))


ENCODERS: Mapping[str, Encoder] = {
    "world_size": _world,
    "tp_divides_heads": lambda m, g: m.divides("tp", m.problem.model.n_heads, g),
    "tp_matches_kv_heads": _kv_either_way,
    "tp_divides_kv_heads": lambda m, g: m.divides("tp", _kv_heads(m), g),
    "tp_divides_mlp": _mlp,
    "cp_splits_sequence": _sequence,
    "ulysses_splits_sequence": lambda m, g: m.divides("cp", m.problem.workload.sequence_length, g),
    "sequence_fits_positions": _positions,
    "ep_needs_experts": _experts_or_none,
    "ep_divides_experts": _ep,
    "etp_divides_experts": _etp,
    "experts_fill_world": _expert_mapping,
    "moe_bias_needs_whole_experts": _whole_experts,
    "ulysses_or_autotp": _ulysses_or_tp,
    "stages_have_layers": _enough_layers,
    "layers_divide_stages": _even_layers,
    "layers_divide_stages_exactly": _exact_layers,
    "stage_layers_add_up": _nothing,
    "vpp_needs_stages": _vpp,
    "schedule_needs_stages": _staged,
    "interleaving_needs_chunks": _interleaved_chunks,
    "chunks_need_interleaving": _one_chunk,
    "zb_v_has_two_chunks": _two_chunks,
    "batch_divides": _batch,
    "interleaving_groups_micro_batches": _groups,
    "interleaving_rounds_micro_batches": _rounds,
    "interleaving_fills_stages": _fills_interleaved,
    "micro_batches_divide_stages": _multiple,
    "micro_batches_fill_stages": _fills,
    "dualpipe_runs_both_ways": _two_ways,
    "tied_embeddings_need_one_stage": _tied,
    "launcher_has_pipeline": _without("pp", "pipeline"),
    "launcher_has_experts": _without("ep", "experts"),
    "launcher_has_expert_tensor": _without("etp", "expert_tensor"),
    "launcher_has_schedule": _known_schedule,
    "model_is_llama_like": _where(llama_like),
    "slices_are_equal": _where(equal_slices),
    "experts_cut_with_heads": _cut_with_heads,
}
"""By the name of each rule that reads layouts alone."""

SPELLED_BY: Mapping[str, tuple[str, ...]] = {
    "sequence_parallel": ("tp",),
    "overlap_tp": ("tp",),
    "overlap_ep": ("ep",),
    "overlap_p2p": ("pp", "vpp", "schedule"),
    "cp_comm": ("cp",),
    "order": ("pp", "dp"),
    "sharding": ("dp", "cp"),
    "dp_shard": ("dp", "cp"),
    "reshard_after_forward": ("dp", "cp"),
    "overlap_grad_reduce": ("dp", "cp"),
    "overlap_param_gather": ("dp", "cp"),
}
"""Layout axes that decide whether a knob has an effect; see ``canonical.py``."""


def axes_of(rule: Rule, *, moe: bool) -> tuple[str, ...]:
    """The layout axes that decide whether a layout can obey ``rule``."""
    found = set(rule.reads) & set(LAYOUT_AXES)
    for knob in rule.knobs:
        spelled = SPELLED_BY.get(knob, ())
        found.update(spelled)
        if moe and spelled == ("dp", "cp"):
            found.update(("tp", "ep", "etp"))
    return tuple(axis for axis in LAYOUT_AXES if axis in found)


def knob_rows(m: LayoutModel, rule: Rule) -> tuple[tuple[str, ...], list[tuple[int, ...]]] | None:
    """Values of the rule's layout axes for which some knobs obey it; None if there are too many."""
    axes = axes_of(rule, moe=m.space.moe)
    values = [m.space.axes[axis] for axis in axes]
    if np.prod([len(v) for v in values], dtype=np.float64) > TABLE_ROWS:
        return None
    rows = [tuple(int(x) for x in row) for row in product(*values)]
    columns: dict[str, Any] = {axis: [row[i] for row in rows] for i, axis in enumerate(axes)}
    layouts = Strategies(**(columns or {"tp": [1]}))
    mask = layout_mask(rule, m.problem, m.space, layouts)
    return axes, [row for row, fine in zip(rows, mask, strict=True) if fine]


def encode(m: LayoutModel, rule: Rule, guard: Literals = ()) -> bool:
    """Post ``rule`` under ``guard``; False where it is left to numpy."""
    if not rule.knobs:
        ENCODERS[rule.name](m, guard)
        return True
    table = knob_rows(m, rule)
    if table is None:
        return False
    axes, rows = table
    total = np.prod([len(m.space.axes[axis]) for axis in axes], dtype=np.float64)
    if len(rows) == total:
        return True
    if axes and (rows or guard):
        m.rows(axes, rows, guard)
    else:
        m.model.add_bool_or([]).only_enforce_if(*guard)
    return True

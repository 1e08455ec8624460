"""The layout rules as constraints, most of them from their own numpy predicates.

A rule becomes a table of the values of the layout axes that decide it.  One that also reads
inner knobs asks whether some values of them obey it.  The few whose tables would be long are
written as arithmetic in :data:`ENCODERS`.  Each rule can hang on a literal, which lets the
solver name the rules that exclude each other.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np
from ortools.sat.python import cp_model

from cost_models.specs.strategy import Schedule, Strategies
from search.feasible.layout_model import LayoutModel, Literals
from search.rules.rule import LAYOUT_AXES, Rule
from search.sweep.layouts import layout_mask

TABLE_ROWS = 50_000
"""Rows of a table beyond which a rule without an encoder is left to numpy."""

Encoder = Callable[[LayoutModel, Literals], None]
Table = tuple[tuple[str, ...], list[tuple[int, ...]]]
"""Layout axes, and the values of them that a rule allows."""


def _world(m: LayoutModel, guard: Literals) -> None:
    ranks = m.times(m.times(m["tp"], m["pp"]), m.times(m["cp"], m["dp"]))
    m.require(ranks == m.problem.cluster.n_gpus, guard)


def _expert_mapping(m: LayoutModel, guard: Literals) -> None:
    if m.problem.model.n_experts:
        ranks = m.times(m.times(m["ep"], m["etp"]), m["pp"])
        m.require(m.remainder(m.problem.cluster.n_gpus, ranks) == 0, guard)


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


def _two_ways(m: LayoutModel, guard: Literals) -> None:
    when = m.scheduled(Schedule.DUALPIPE)
    two = m.model.new_constant(2)
    m.require(m.remainder(m["pp"], two) == 0, guard, when)
    m.require(m.remainder(m.micro_batches(), two) == 0, guard, when)
    m.require(m.micro_batches() >= 2 * m["pp"], guard, when)


ENCODERS: Mapping[str, Encoder] = {
    "world_size": _world,
    "experts_fill_world": _expert_mapping,
    "interleaving_groups_micro_batches": _groups,
    "interleaving_rounds_micro_batches": _rounds,
    "interleaving_fills_stages": _fills_interleaved,
    "dualpipe_runs_both_ways": _two_ways,
}
"""Arithmetic for rules on three or four axes at once, by name."""

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


def allowed_rows(m: LayoutModel, rule: Rule) -> Table | None:
    """Values of the rule's layout axes that obey it, with some knobs where it reads any.

    None where the table would be too long.
    """
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
    if rule.name in ENCODERS:
        ENCODERS[rule.name](m, guard)
        return True
    table = allowed_rows(m, rule)
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

"""Which layouts are legal and could fit, proved by CP-SAT, and which rules exclude each other.

Layout axes fall into two groups that meet in ``pp`` and ``dp`` only: degrees (``tp, pp,
cp, dp, ep, etp``) and pipeline (``pp, dp, vpp, schedule, micro_batch_size``).  The solver
enumerates the solutions of each group, and the layouts are their join; rules that read
across the groups, and memory, then act on the joined columns.  Enumerating a group is a
proof: the solver ends with "no further solution".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from ortools.sat.python import cp_model

from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Ints
from search.feasible.layout_model import LayoutModel
from search.feasible.layout_rules import axes_of, encode
from search.rules.rule import LAYOUT_AXES, Problem, Pruned, Rule
from search.space.space import Space
from search.sweep.layouts import (
    count_breaking,
    distinct_schedule,
    grow_layouts,
    layout_mask,
    pruned_by,
    sorted_layouts,
)

DEGREES = ("tp", "pp", "cp", "dp", "ep", "etp")
PIPELINE = ("pp", "dp", "vpp", "schedule", "micro_batch_size")
FITS_MEMORY = "fits_memory"

MemoryBytes = Callable[[Strategies], NDArray[np.float64]]
"""Bytes on the worst GPU of each layout with its leanest knobs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layouts:
    """The layouts worth pricing, and the account of all others."""

    strategies: Strategies
    """Columns (n,) in canonical order; knobs at their defaults."""
    memory_bytes: NDArray[np.float64] | None
    """Of each layout with its leanest knobs, where memory was asked for."""
    n_raw: int
    n_legal: int
    pruned_by: Mapping[str, Pruned]
    """Raw layouts by the rule they were charged to, ``fits_memory`` last."""
    method: str
    """How completeness was proved."""

    def __len__(self) -> int:
        return len(self.strategies)


class _Collector(cp_model.CpSolverSolutionCallback):
    """Keeps every solution as a tuple of the axes' values."""

    def __init__(self, variables: Sequence[cp_model.IntVar]) -> None:
        super().__init__()
        self._variables = variables
        self.found: list[tuple[int, ...]] = []

    def on_solution_callback(self) -> None:
        """Called by the solver."""
        self.found.append(tuple([self.value(variable) for variable in self._variables]))


def _solver() -> cp_model.CpSolver:
    """One worker, a fixed seed, no linear relaxation: quick here and the same every time."""
    solver = cp_model.CpSolver()
    solver.parameters.num_workers = 1
    solver.parameters.random_seed = 0
    solver.parameters.linearization_level = 0
    return solver


def _enumerate(
    space: Space, problem: Problem, rules: Sequence[Rule], axes: tuple[str, ...]
) -> tuple[Ints, list[Rule]]:
    """All values of ``axes`` that obey the rules within them, and the rules so applied."""
    m = LayoutModel(space, problem, axes)
    inside = [rule for rule in rules if set(axes_of(rule, moe=space.moe)) <= set(axes)]
    applied = [rule for rule in inside if encode(m, rule)]
    variables = [m[axis] for axis in axes]
    m.model.add_decision_strategy(variables, cp_model.CHOOSE_FIRST, cp_model.SELECT_MIN_VALUE)
    solver = _solver()
    solver.parameters.enumerate_all_solutions = True
    solver.parameters.search_branching = cp_model.FIXED_SEARCH
    collector = _Collector(variables)
    status = solver.solve(m.model, collector)
    if status not in (cp_model.OPTIMAL, cp_model.INFEASIBLE):
        raise RuntimeError(f"CP-SAT stopped with {solver.status_name(status)}")
    rows = np.array(collector.found, dtype=np.int64).reshape(-1, len(axes))
    return np.unique(rows, axis=0), applied


def _join(degrees: Ints, pipelines: Ints) -> Strategies:
    """Rows of both tables that agree in ``pp`` and ``dp``."""
    meets: dict[tuple[int, int], list[int]] = {}
    for row, (pp, dp) in enumerate(pipelines[:, :2]):
        meets.setdefault((int(pp), int(dp)), []).append(row)
    matches = [meets.get((int(pp), int(dp)), []) for pp, dp in degrees[:, [1, 3]]]
    left = np.repeat(np.arange(len(degrees)), [len(rows) for rows in matches])
    right = np.concatenate([np.zeros(0, dtype=np.int64), *map(np.asarray, matches)]).astype(int)
    columns = {axis: degrees[left, i] for i, axis in enumerate(DEGREES)}
    columns |= {axis: pipelines[right, i] for i, axis in enumerate(PIPELINE)}
    return Strategies(**columns)


def solve_layouts(space: Space, problem: Problem, rules: Sequence[Rule]) -> Strategies:
    """All layouts that some knobs could make legal, by CP-SAT, in canonical order."""
    degrees, in_degrees = _enumerate(space, problem, rules, DEGREES)
    pipelines, in_pipelines = _enumerate(space, problem, rules, PIPELINE)
    found = _join(degrees, pipelines)
    keep = distinct_schedule(space, found)
    for rule in rules:
        if rule not in in_degrees and rule not in in_pipelines:
            keep = keep & layout_mask(rule, problem, space, found)
    return sorted_layouts(found.take(keep))


def find_layouts(
    space: Space,
    problem: Problem,
    rules: Sequence[Rule],
    *,
    min_memory_bytes: MemoryBytes | None = None,
    capacity_bytes: float = np.inf,
) -> Layouts:
    """The layouts that are legal and could fit, with what each rule removed.

    CP-SAT finds them; numpy, which keeps the account, must find the same.
    """
    legal = solve_layouts(space, problem, rules)
    judged, removed = grow_layouts(space, problem, rules)
    if len(legal) != len(judged) or not all(
        np.array_equal(legal.columns[axis], judged.columns[axis]) for axis in LAYOUT_AXES
    ):
        raise RuntimeError(f"CP-SAT finds {len(legal)} legal layouts, numpy {len(judged)}")
    pruned = pruned_by(removed, count_breaking(space, problem, rules))
    memory = None
    fitting = legal
    if min_memory_bytes is not None:
        memory = np.broadcast_to(min_memory_bytes(legal), legal.shape)
        fits = memory <= capacity_bytes
        fitting, memory = legal.take(fits), memory[fits]
        misfits = len(legal) - len(fitting)
        pruned[FITS_MEMORY] = Pruned(misfits, misfits)
    return Layouts(
        strategies=fitting,
        memory_bytes=memory,
        n_raw=space.layout_size,
        n_legal=len(legal),
        pruned_by=pruned,
        method="CP-SAT enumeration to the last solution, equal to numpy's",
    )


def _feasible(space: Space, problem: Problem, rules: Sequence[Rule]) -> bool:
    m = LayoutModel(space, problem)
    for rule in rules:
        encode(m, rule)
    return bool(_solver().solve(m.model) != cp_model.INFEASIBLE)


def conflict(space: Space, problem: Problem, rules: Sequence[Rule]) -> tuple[Rule, ...]:
    """A smallest set of rules that no layout of the space obeys together; empty if one does.

    Dropping any one of the set leaves a layout that obeys the others.  The solver's core
    of assumptions is shrunk by trying to do without each rule in turn.
    """
    m = LayoutModel(space, problem)
    guards = {}
    for rule in rules:
        guards[rule.name] = m.model.new_bool_var(rule.name)
        encode(m, rule, (guards[rule.name],))
    m.model.add_assumptions(list(guards.values()))
    solver = _solver()
    if solver.solve(m.model) != cp_model.INFEASIBLE:
        return ()
    named = {guard.index: name for name, guard in guards.items()}
    core = {named[index] for index in solver.sufficient_assumptions_for_infeasibility()}
    kept = [rule for rule in rules if rule.name in core]
    if not kept or _feasible(space, problem, kept):
        kept = list(rules)
    for rule in tuple(kept):
        without = [other for other in kept if other is not rule]
        if not _feasible(space, problem, without):
            kept = without
    return tuple(kept)


def extreme_layouts(layouts: Strategies, memory_bytes: NDArray[np.float64]) -> list[Strategy]:
    """Layouts at the ends of the range: leanest, and largest in each degree, once each.

    Ties go to the leaner layout, then to the earlier one.
    """
    if not len(layouts):
        return []
    order = np.arange(len(layouts))
    picked = [int(np.lexsort((order, memory_bytes))[0])]
    for axis in ("tp", "pp", "cp", "dp", "ep", "vpp", "micro_batch_size"):
        column = layouts.columns[axis]
        if column.min() < column.max():
            picked.append(int(np.lexsort((order, memory_bytes, -column))[0]))
    return [layouts.row(index) for index in dict.fromkeys(picked)]

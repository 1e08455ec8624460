"""A frontier refined by uneven pipelines: layers assigned to stages by what they cost.

The sweep prices pipelines as the framework assigns their layers.  Here the layouts that a
bound says could gain (:mod:`search.stages.uneven`) get layers per chunk, and with full recompute
recomputed layers per rank, such that no rank exceeds its memory and the slowest is as
fast as possible: exactly where all layers are alike (:mod:`search.stages.assignment`), by CP-SAT
where they are not (:mod:`search.stages.stages`).  Whatever comes out is priced by the same
equations as everything else, and enters the frontier where nothing on it is as good.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import Recompute, Strategies, Strategy
from cost_models.stages.stage_cost import StageCost, stage_costs
from search.frontier.pareto import Staircase, pareto_mask
from search.result import Priced, priced_rows
from search.rules import Problem, broken_rules
from search.space.space import Space
from search.stages.assignment import assign_alike, assign_in_order, relaxed
from search.stages.problem import Proof, StagePlan, StageProblem
from search.stages.uneven import Promise, promise, relatives, stage_problem

GAIN = 0.005
"""Share of a step that the bound must promise before layers are assigned."""
NOTICED = 0.001
"""Share of a step by which a row must beat the frontier to enter it."""
MOST_ASSIGNED = 64
"""Candidates in all."""
BATCH = 16
"""Candidates whose layers are priced together."""
MOST_SOLVED = 2
"""Candidates with several chunks on a rank and layers of several kinds: the solver's."""
EFFORT = 0.25
"""Deterministic time of the solver for one of them."""
TIMEOUT_S = 20.0
"""When the clock stops a solver that its effort did not: never, on a machine at rest."""


@dataclass(slots=True)
class Report:
    """What was tried, and what is known about it."""

    candidates: int = 0
    """Strategies whose bound promised enough."""
    assigned: dict[str, int] = field(default_factory=dict)
    """Layouts by what was proved of their slowest rank."""
    left: int = 0
    """Candidates that were not tried, for there were too many."""
    entered: int = 0
    """Rows of the frontier with layers per stage that the framework would not assign."""

    def count(self, proof: Proof) -> None:
        """One more layout."""
        self.assigned[proof.value] = self.assigned.get(proof.value, 0) + 1

    @property
    def sentence(self) -> str:
        """For the certificate."""
        if not self.candidates:
            return "no pipeline could gain from uneven stages"
        proofs = ", ".join(f"{n} {name}" for name, n in sorted(self.assigned.items()))
        return (
            f"uneven stages: {self.candidates} pipelines could gain by a bound, layers dealt "
            f"{proofs}, {self.left} not tried; {self.entered} on the frontier"
        )


@dataclass(frozen=True, slots=True)
class Refined:
    """The frontier with uneven pipelines, fastest first."""

    frontier: list[Priced]
    report: Report


def refine(
    problem: Problem,
    space: Space,
    layouts: Strategies,
    frontier: Sequence[Priced],
    constants: Constants,
    *,
    some_layers: bool = True,
    seed: int = 0,
) -> Refined:
    """``frontier`` with what uneven pipelines add to it.

    ``layouts`` are those to choose from.  ``some_layers`` allows full recompute of fewer
    layers than a rank has, where the launcher can.
    """
    report = Report()
    rows = list(frontier)
    if not problem.launcher.lists_stages or not problem.uneven_stages or not rows:
        return Refined(rows, report)
    candidates = relatives(problem, space, layouts, rows)
    if not len(candidates):
        return Refined(rows, report)
    steps = _staircase(rows)
    chosen = _promising(problem, candidates, constants, steps)
    report.candidates = len(chosen.strategies)
    some_layers = some_layers and problem.launcher.some_layers
    assigner = _Assigner(problem, constants, seed, report, some_layers)
    found = list(dict.fromkeys(assigner.assign(chosen, steps)))
    usable, known = problem.cluster.usable_memory_bytes, _staircase(rows)
    better = [
        row
        for row in _priced(problem, found, constants)
        if row.memory_bytes <= usable
        and row.step_time_s < (1 - NOTICED) * known.best_time(row.memory_bytes)
        and not broken_rules(problem, row.strategy)
    ]
    merged = rows + better
    mask = pareto_mask([r.memory_bytes for r in merged], [r.step_time_s for r in merged])
    kept = [row for row, keep in zip(merged, mask, strict=True) if keep]
    kept.sort(key=lambda row: (row.step_time_s, row.memory_bytes))
    report.entered = int(mask[len(rows) :].sum())
    return Refined(kept, report)


def _priced(problem: Problem, strategies: list[Strategy], constants: Constants) -> list[Priced]:
    if not strategies:
        return []
    columns = Strategies.of(strategies)
    cost = step_cost(problem.model, problem.cluster, problem.workload, columns, constants)
    return priced_rows(cost, strategies)


def _staircase(rows: Sequence[Priced]) -> Staircase:
    return Staircase([row.memory_bytes for row in rows], [row.step_time_s for row in rows])


def _promising(
    problem: Problem, candidates: Strategies, constants: Constants, steps: Staircase
) -> Promise:
    """Candidates that could beat the frontier, the fastest bound first."""
    found = promise(problem, candidates, constants)
    fits = found.memory_bytes <= problem.cluster.usable_memory_bytes
    best = steps.best_time(found.memory_bytes)
    rows = np.flatnonzero(fits & np.isfinite(best) & (found.step_time_s < (1.0 - GAIN) * best))
    return found.take(rows[np.argsort(found.step_time_s[rows], kind="stable")])


_Variant = tuple[Strategy, StageCost]


class _Assigner:
    """Assigns layers to the stages of candidates, within the limits on how many."""

    def __init__(
        self, problem: Problem, constants: Constants, seed: int, report: Report, some_layers: bool
    ) -> None:
        self._problem, self._constants = problem, constants
        self._seed, self._report, self._some_layers = seed, report, some_layers
        self._solved = 0

    def assign(self, chosen: Promise, steps: Staircase) -> Iterator[Strategy]:
        """Strategies with layers per stage; each candidate within all memory and its own.

        Whoever could no longer beat the frontier, with what is assigned so far, is left out.
        """
        usable = self._problem.cluster.usable_memory_bytes
        strategies = chosen.strategies
        assigned = 0
        for start in range(0, len(strategies), BATCH):
            index = [
                i
                for i in range(start, min(start + BATCH, len(strategies)))
                if self._promises(chosen, i, steps, chosen.least_s[i])
            ]
            self._report.left += max(assigned + len(index) - MOST_ASSIGNED, 0)
            index = index[: max(MOST_ASSIGNED - assigned, 0)]
            assigned += len(index)
            rows = strategies.take(np.array(index, dtype=np.int64)).rows()
            for i, variants in zip(index, self._priced_variants(rows), strict=True):
                even = float(chosen.even_bytes[i])
                leanest = yield from self._enter(variants, usable, chosen, i, steps)
                if even < min(usable, leanest):
                    yield from self._enter(variants[:1], even, chosen, i, steps)

    def _promises(self, chosen: Promise, i: int, steps: Staircase, slowest_s: float) -> bool:
        """With its slowest rank no faster than this, a candidate may still beat all others."""
        best_s = float(steps.best_time(float(chosen.memory_bytes[i])))
        return chosen.step_s(i, slowest_s) < (1.0 - GAIN) * best_s

    def _enter(
        self, variants: list[_Variant], capacity: float, chosen: Promise, i: int, steps: Staircase
    ) -> Generator[Strategy, None, float]:
        """The variant that recomputes least of those that fit, if it can still be of use.

        Returns the bytes of its fullest rank, 0 without one.
        """
        proof = Proof.INFEASIBLE
        for strategy, cost in [*variants[1:], variants[0]]:
            question = stage_problem(self._problem, strategy, cost, capacity)
            if not (self._alike or strategy.vpp == 1):
                loose = relaxed(question)
                if loose.proof == Proof.INFEASIBLE:
                    continue
                if self._solved >= MOST_SOLVED or not self._promises(
                    chosen, i, steps, loose.slowest_s
                ):
                    self._report.left += 1
                    return 0.0
                self._solved += 1
            plan = self._plan(question)
            proof = plan.proof
            if plan.stage_layers:
                self._report.count(proof)
                steps.lower(max(plan.rank_bytes), chosen.step_s(i, plan.slowest_s))
                yield strategy.with_(stage_layers=plan.stage_layers)
                return max(plan.rank_bytes)
        self._report.count(proof)
        return 0.0

    @cached_property
    def _alike(self) -> bool:
        model = self._problem.model
        one_kind = len(model.moe_layers) in (0, model.n_layers)
        return one_kind and not model.sliding_window_layers

    def _variants(self, strategy: Strategy) -> Iterator[Strategy]:
        """The strategy, and with full recompute the same with fewer layers recomputed."""
        yield strategy
        if not (self._some_layers and strategy.recompute & Recompute.FULL):
            return
        most = strategy.recompute_layers or -(-self._problem.model.n_layers // strategy.pp)
        for layers in range(strategy.vpp, most, strategy.vpp):
            yield strategy.with_(recompute_layers=layers)

    def _priced_variants(self, strategies: Sequence[Strategy]) -> Iterator[list[_Variant]]:
        """The variants of each strategy, with what their layers cost."""
        p = self._problem
        variants = [list(self._variants(one)) for one in strategies]
        flat = [one for some in variants for one in some]
        if not flat:
            return
        costs = iter(
            stage_costs(p.model, p.cluster, p.workload, Strategies.of(flat), self._constants)
        )
        for some in variants:
            yield [(one, next(costs)) for one in some]

    def _plan(self, question: StageProblem) -> StagePlan:
        if self._alike:
            return assign_alike(question, last_may_be_empty=True)
        if question.vpp == 1:
            return assign_in_order(question)
        from search.stages.stages import plan_stages  # brings CP-SAT, which few searches need

        return plan_stages(question, timeout_s=TIMEOUT_S, effort=EFFORT, seed=self._seed)

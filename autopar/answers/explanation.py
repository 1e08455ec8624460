"""Why a strategy is not the answer: rules it breaks, memory it lacks, seconds it loses."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from autopar.api import search
from autopar.job.inputs import constants_for
from cost_models.equations.constants import Constants
from cost_models.specs.strategy import Strategy
from search.plan import price_strategies
from search.result import Priced, SearchResult
from search.rules import Problem, Rule, broken_rules

LAYOUT = ("dp", "tp", "pp", "cp", "ep", "etp")
"""What stays when only the other knobs may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One strategy beside the rules, the memory, and the fastest that fits."""

    problem: Problem
    strategy: Strategy
    broken: list[tuple[Rule, str]]
    row: Priced | None
    """None where a rule is broken: the numbers would mean nothing."""
    searched: SearchResult
    same_layout: Priced | None
    """The fastest that fits with the same degrees; None where nothing does."""

    @property
    def winner(self) -> Priced | None:
        """The fastest strategy of the searched space that fits."""
        return self.searched.frontier[0] if self.searched.frontier else None

    @property
    def excess_bytes(self) -> float:
        """What the fullest GPU lacks; negative where it has room."""
        if self.row is None:
            return 0.0
        return self.row.memory_bytes - self.problem.cluster.usable_memory_bytes


def explain_strategy(
    problem: Problem,
    strategy: Strategy,
    *,
    space: str = "core",
    constants: Constants | None = None,
    progress: Callable[[float], None] | None = None,
) -> Explanation:
    """Hold ``strategy`` against the rules, the memory and the best of ``space``."""
    numbers = constants or constants_for(problem.cluster, problem.workload.framework)
    broken = broken_rules(problem, strategy)
    row = None if broken else price_strategies(problem, [strategy], numbers)[0]
    usable = problem.cluster.usable_memory_bytes
    tight = row is not None and row.memory_bytes > usable
    searched = _search(problem, strategy, numbers, space=space, progress=progress)
    same = None
    if tight or broken:
        same = _same_layout(problem, strategy, numbers)
    return Explanation(
        problem=problem,
        strategy=strategy,
        broken=broken,
        row=row,
        searched=searched,
        same_layout=same,
    )


def _same_layout(problem: Problem, strategy: Strategy, constants: Constants) -> Priced | None:
    fixed = {name: getattr(strategy, name) for name in LAYOUT}
    found = _search(problem, strategy, constants, space="core", fixed=fixed).frontier
    if not found:
        found = _search(problem, strategy, constants, space="full", fixed=fixed).frontier
    return found[0] if found else None


def _search(problem: Problem, strategy: Strategy, constants: Constants, **how: Any) -> SearchResult:
    return search(
        problem.model,
        cluster=problem.cluster,
        seq_len=problem.workload.sequence_length,
        global_batch=problem.workload.global_batch_size,
        optimizer=problem.workload.optimizer,
        framework=problem.workload.framework,
        precision=strategy.precision,
        launcher=problem.launcher.name,
        constants=constants,
        **how,
    )

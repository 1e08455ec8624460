"""Why a strategy is not the answer: rules it breaks, memory it lacks, seconds it loses."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from autopar.api import search
from autopar.job.job import Job
from cost_models.specs.strategy import Strategy
from search.plan import price_strategies
from search.result import Priced, SearchResult
from search.rules import Problem, Rule, broken_rules

LAYOUT = ("dp", "tp", "pp", "cp", "ep", "etp")
"""What stays when only the other knobs may change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """One strategy beside the rules, the memory, and the fastest that fits."""

    job: Job
    strategy: Strategy
    broken: list[tuple[Rule, str]]
    row: Priced | None
    """None where a rule is broken: the numbers would mean nothing."""
    searched: SearchResult
    same_layout: Priced | None
    """The fastest that fits with the same degrees; None where nothing does."""

    @property
    def problem(self) -> Problem:
        """Model, cluster and workload, and the rules that hold."""
        return self.job.problem

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
    job: Job, strategy: Strategy, *, progress: Callable[[float], None] | None = None
) -> Explanation:
    """Hold ``strategy`` against the rules, the memory and the best of the job's space."""
    problem = job.problem
    around = replace(job, fixed={}, precision=strategy.precision)
    broken = broken_rules(problem, strategy)
    row = None if broken else price_strategies(problem, [strategy], job.constants)[0]
    usable = problem.cluster.usable_memory_bytes
    tight = row is not None and row.memory_bytes > usable
    return Explanation(
        job=job,
        strategy=strategy,
        broken=broken,
        row=row,
        searched=search(around, progress=progress),
        same_layout=_same_layout(around, strategy) if tight or broken else None,
    )


def _same_layout(job: Job, strategy: Strategy) -> Priced | None:
    """The fastest with these degrees, of the core space or else of the full one."""
    fixed = {name: getattr(strategy, name) for name in LAYOUT}
    spaces = (replace(job, fixed=fixed, space=space) for space in ("core", "full"))
    return next((rows[0] for job in spaces if (rows := search(job).frontier)), None)

"""One question, one answer: the frontier of a space, however it is searched."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np

from cost_models.counting.partition import even_stage_layers
from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.workload import Workload
from search.explore.options import Explore
from search.feasible.empty import why_empty
from search.feasible.explain import SpaceFor
from search.frontier.pareto import pareto_mask
from search.result import Priced, SearchResult, priced_rows
from search.rules import Problem, rules_for
from search.space.axes import AXES
from search.space.space import Space
from search.stages.refine import refine
from search.sweep.census import Census, take_census
from search.sweep.sweep import Progress, Swept, sweep
from search.versions import versions

Method = Literal["auto", "sweep", "explore"]

SWEEPABLE = 30_000_000_000
"""Entries of the memory grid beyond which ``auto`` explores: minutes, on two cores."""


def in_order(strategies: Strategies) -> Strategies:
    """Flat strategies sorted by all columns, layout first: ties are settled by this order."""
    keys = [strategies.columns[name] for name in reversed(AXES)]
    return strategies.take(np.lexsort(keys)) if len(strategies) else strategies


def with_stage_layers(problem: Problem, strategy: Strategy) -> Strategy:
    """The strategy with its layers spelled out where stages are not equally long."""
    chunks = strategy.pp * strategy.vpp
    framework = problem.workload.framework
    if strategy.stage_layers is not None or chunks == 1:
        return strategy
    layers = even_stage_layers(problem.model, framework, strategy.pp, strategy.vpp)
    return strategy if len(set(layers)) == 1 else strategy.with_(stage_layers=layers)


def price_strategies(
    problem: Problem, strategies: Sequence[Strategy], constants: Constants
) -> list[Priced]:
    """Every strategy with its cost and breakdown, in the order given."""
    if not strategies:
        return []
    columns = Strategies.of(strategies)
    return priced_rows(
        step_cost(problem.model, problem.cluster, problem.workload, columns, constants),
        list(strategies),
    )


def _spelled_out(problem: Problem, row: Priced) -> Priced:
    """The row with its uneven stages in the strategy; they were priced as they are."""
    return replace(row, strategy=with_stage_layers(problem, row.strategy))


def frontier_of(problem: Problem, candidates: Strategies, constants: Constants) -> list[Priced]:
    """Candidates that no other beats, fastest first; of equals the first in canonical order."""
    if not len(candidates):
        return []
    ordered = in_order(candidates)
    cost = step_cost(
        problem.model, problem.cluster, problem.workload, ordered, constants, breakdown=False
    )
    mask = pareto_mask(cost.memory.total_bytes, cost.step_time_s)
    rows = price_strategies(problem, ordered.take(mask).rows(), constants)
    rows.sort(key=lambda row: (row.step_time_s, row.memory_bytes))
    if not problem.launcher.lists_stages:
        return rows
    return [_spelled_out(problem, row) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class How:
    """How to search, where the default does not do."""

    method: Method = "auto"
    """``sweep`` proves its frontier complete; ``explore`` asks Optuna; ``auto`` sweeps
    whatever is small enough."""
    explore: Explore = field(default_factory=Explore)
    threads: int = 2
    verify_cut: int = 0
    """Strategies of every block that bounds cut, to be priced after all as a check."""
    refine: bool = True
    """Assign layers to pipeline stages by what they cost, where that may help."""
    some_layers: bool = True
    """Also recompute as few layers of a rank as memory asks for, where layers are assigned."""

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            known = ", ".join(get_args(Method))
            raise SpecError(f"unknown method {self.method!r}", hint=f"known: {known}")


def search_strategies(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    space: Space,
    constants: Constants,
    *,
    launcher: str = "megatron",
    seed: int = 0,
    top: int | None = None,
    how: How | None = None,
    space_for: SpaceFor | None = None,
    progress: Progress | None = None,
) -> SearchResult:
    """The Pareto frontier of memory against step time over the legal strategies that fit.

    ``top`` keeps the fastest rows.  ``progress`` is called with the share done.
    ``space_for`` is the space for another world size or batch, for the remedies named
    where nothing fits.
    """
    problem = Problem.of(model, cluster, workload, launcher)
    how = how or How()
    census = take_census(problem, space)
    found = _found(problem, space, census, constants, seed, how, progress)
    frontier = frontier_of(problem, found.candidates, constants)
    certificate = found.certificate
    if how.refine and frontier and problem.launcher.lists_stages:
        refined = refine(
            problem,
            space,
            census.layouts,
            frontier,
            constants,
            some_layers=how.some_layers,
            seed=seed,
        )
        frontier = refined.frontier
        detail = "; ".join(text for text in (certificate.detail, refined.report.sentence) if text)
        certificate = replace(certificate, detail=detail)
    explanation = None
    if not frontier:
        rules = rules_for(launcher)
        explanation = why_empty(problem, space_for or (lambda _: space), rules, constants)
    return SearchResult(
        model=model,
        cluster=cluster,
        workload=workload,
        frontier=frontier[:top],
        counts=found.counts,
        certificate=certificate,
        seed=seed,
        launcher=launcher,
        versions=versions(),
        explanation=explanation,
    )


def _found(
    problem: Problem,
    space: Space,
    census: Census,
    constants: Constants,
    seed: int,
    how: How,
    progress: Progress | None,
) -> Swept:
    if how.method == "explore" or (how.method == "auto" and census.memory_entries > SWEEPABLE):
        from search.explore.explore import explore  # brings Optuna, which few searches need

        return explore(problem, space, census, constants, how.explore, seed=seed, progress=progress)
    return sweep(
        problem,
        space,
        constants,
        census=census,
        threads=how.threads,
        verify_cut=how.verify_cut,
        progress=progress,
    )

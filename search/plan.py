"""One question, one answer: the frontier of a space, however it is searched."""

from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import numpy as np

from cost_models.cluster import Cluster
from cost_models.constants import Constants
from cost_models.model import ModelSpec
from cost_models.partition import even_stage_layers
from cost_models.step import step_cost
from cost_models.strategy import Strategies, Strategy
from cost_models.workload import Workload
from search.axes import AXES
from search.enumerate import Progress, sweep
from search.result import Priced, SearchResult, pareto_mask, priced_rows
from search.rules import Problem
from search.space import Space

Method = Literal["auto", "sweep", "explore"]

_DISTRIBUTIONS = ("autopar", "numpy", "scipy", "ortools", "optuna")


def versions() -> dict[str, str]:
    """Versions of what an answer depends on, read without importing any of it."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            found[name] = "unknown"
    return found


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
    return rows


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
    method: Method = "auto",
    progress: Progress | None = None,
) -> SearchResult:
    """The Pareto frontier of memory against step time over the legal strategies that fit.

    ``top`` keeps the fastest rows.  ``progress`` is called with the share done.
    """
    problem = Problem.of(model, cluster, workload, launcher)
    swept = sweep(problem, space, constants, progress=progress)
    frontier = frontier_of(problem, swept.candidates, constants)
    return SearchResult(
        model=model,
        cluster=cluster,
        workload=workload,
        frontier=frontier[:top],
        counts=swept.counts,
        certificate=swept.certificate,
        seed=seed,
        launcher=launcher,
        versions=versions(),
        explanation=None if frontier else "no strategy is legal and fits",
    )

"""Bounds lie below what they bound, cost no price, and lead an exploration to the frontier."""

import re
from typing import Any

import numpy as np
import pytest

import search.sweep.bound_frontier
import search.sweep.branch_and_bound
from cost_models.equations.step import step_time_s
from search.explore.codec import Codec
from search.explore.options import Explore
from search.explore.record import StudyProblem
from search.explore.run import prices
from search.explore.start import SLOW, solver_ends, start
from search.frontier.hypervolume import hypervolume
from search.plan import How, search_strategies
from search.result import SearchResult
from search.rules import Problem
from search.space.space import Space
from search.sweep.bound_frontier import bound_frontier
from search.sweep.census import take_census
from tests.search.brute_force import CONSTANTS, block_frontier
from tests.search.small_problems import dense, moe, problem

SMALL: list[tuple[Any, str, dict[str, tuple[Any, ...]]]] = [
    (dense(), "megatron", {"micro_batch_size": (1, 2)}),
    (moe(), "megatron", {"micro_batch_size": (1, 2), "dp_shard": (2,)}),
    (dense(), "torchtitan", {"micro_batch_size": (1,)}),
]
"""Models, launchers, and axes narrowed until everything can be priced."""


def small(model: Any, launcher: str, axes: dict[str, tuple[Any, ...]]) -> tuple[Problem, Space]:
    """A problem on eight tiny GPUs with its space."""
    p = problem(model, gpus=8, launcher=launcher)
    return p, Space.core(p).with_(**axes)


def explored(p: Problem, space: Space, trials: int) -> SearchResult:
    """The default exploration, stages as even as they divide."""
    how = How(method="explore", explore=Explore(trials=trials), refine=False)
    return search_strategies(
        p.model, p.cluster, p.workload, space, CONSTANTS, launcher=p.launcher.name, how=how
    )


def costs(result: SearchResult) -> tuple[Any, Any]:
    """Memory and step times of a frontier."""
    rows = result.frontier
    return np.array([r.memory_bytes for r in rows]), np.array([r.step_time_s for r in rows])


@pytest.mark.parametrize(("model", "launcher", "axes"), SMALL)
def test_the_exact_frontier_lies_nowhere_below_the_bounds(
    model: Any, launcher: str, axes: dict[str, tuple[Any, ...]]
) -> None:
    """Every strategy of the frontier needs as much memory as some bound, and more time."""
    p, space = small(model, launcher, axes)
    exact, _, _ = block_frontier(space, p, CONSTANTS)
    memory, seconds = prices(p, CONSTANTS, exact)
    found = bound_frontier(p, CONSTANTS, take_census(p, space), threads=1)

    assert found.complete
    assert found.n_bounds > 0
    below = found.memory_bytes[:, None] <= memory * (1 + 1e-12)
    below &= found.least_s[:, None] <= seconds * (1 + 1e-9)
    assert below.any(axis=0).all()


def test_no_strategy_is_priced_for_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only bounds are asked of the cost model."""
    asked = []

    def spy(*words: Any) -> Any:
        asked.append(words)
        return step_time_s(*words)

    monkeypatch.setattr(search.sweep.branch_and_bound, "step_time_s", spy)
    p, space = small(*SMALL[0])
    found = bound_frontier(p, CONSTANTS, take_census(p, space), threads=1)

    assert found.n_bounds
    assert not asked


@pytest.mark.parametrize(("model", "launcher", "axes"), SMALL)
def test_few_trials_reach_the_frontier_and_promise_no_more(
    model: Any, launcher: str, axes: dict[str, tuple[Any, ...]]
) -> None:
    """60 trials have 99.5 % of the hypervolume; the share said to be certain is not above it."""
    p, space = small(model, launcher, axes)
    result = explored(p, space, 60)
    exact, _, fits = block_frontier(space, p, CONSTANTS)
    memory, seconds = prices(p, CONSTANTS, exact)
    reference = (p.cluster.usable_memory_bytes, SLOW * float(seconds.min()))
    share = hypervolume(*costs(result), reference) / hypervolume(memory, seconds, reference)
    said = re.search(r"at least ([\d.]+) % of the exact", result.certificate.detail)

    assert result.counts.priced <= 60 < fits
    assert share >= 0.995
    assert said is not None
    assert 0.0 < float(said.group(1)) <= 100.0 * share + 1e-9


def test_a_study_begins_at_its_bounds_and_every_seed_is_what_it_stands_for() -> None:
    """Points decode to the strategies of the bound frontier, in its order."""
    p, space = small(*SMALL[1])
    census = take_census(p, space)
    codec = Codec(census)
    begun = start(StudyProblem(p, space, CONSTANTS, Explore(), 0), codec, census)
    rows = bound_frontier(p, CONSTANTS, census).strategies.rows()

    assert [codec.strategy(point) for point in begun.points] == rows
    assert len(begun.least) == len(rows)


def test_a_space_too_vast_to_bound_promises_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of it is bounded; the solver's ends come first, and no share is named."""
    monkeypatch.setattr(search.sweep.bound_frontier, "MOST_ENTRIES", 1)
    p, space = small(*SMALL[1])
    census = take_census(p, space)
    asked = StudyProblem(p, space, CONSTANTS, Explore(), 0)
    codec = Codec(census)
    begun = start(asked, codec, census)
    ends = solver_ends(asked)

    assert ends
    assert [codec.strategy(point) for point in begun.points[: len(ends)]] == ends
    assert not begun.least
    assert "at least" not in explored(p, space, 5).certificate.detail

"""The halves of a grid's memory say what the whole would have said."""

from functools import cache
from typing import Any

import numpy as np
import pytest

from autopar.job.inputs import as_cluster, as_model, as_workload
from cost_models.calibrate.calibration import prior_constants
from cost_models.specs.strategy import Precision
from search.rules import Problem
from search.space.space import Space
from search.sweep.branch_and_bound import LAYOUT_NODE, SweepProblem
from search.sweep.census import take_census
from search.sweep.knob_axes import grid
from search.sweep.legality import Factor, LegalGrid, contract, count_true
from search.sweep.memory_halves import MEMORY, fitting, memory_halves
from search.sweep.rows import axes_called, dims_called


@cache
def grids(model: str, gpus: int, launcher: str) -> tuple[SweepProblem, list[LegalGrid]]:
    """Some classes of a model's full space, a dozen layouts each."""
    spec, cluster = as_model(model), as_cluster(None, "h100", gpus)
    p = Problem.of(spec, cluster, as_workload(spec, cluster), launcher)
    census = take_census(p, Space.full(p, Precision.BF16))
    some = census.grids[:: max(1, len(census.grids) // 5)]
    parts = [g.rows(np.arange(0, len(g.layouts), max(1, len(g.layouts) // 12))) for g in some]
    return SweepProblem(p, prior_constants()), parts


CASES = [("70b", 512, "megatron"), ("8x7b", 64, "any"), ("deepseek-v3", 2048, "megatron")]


@pytest.mark.parametrize(("model", "gpus", "launcher"), CASES)
def test_halves_add_up_to_the_peak(model: str, gpus: int, launcher: str) -> None:
    """To the last bit where a rule of memory's axes allows it, and infinite elsewhere."""
    q, parts = grids(model, gpus, launcher)
    for g in parts:
        dims = dims_called(g, MEMORY)
        whole = q.bytes(grid(g.layouts, axes_called(g, MEMORY)))
        halves = memory_halves(q.problem, q.constants, g)
        folded = [factor for factor in g.within(dims) if factor not in halves.across]
        legal = np.ones((1,) * len(dims), dtype=np.bool_)
        for factor in folded:
            legal = legal & factor.over(dims)
        whole = whole.reshape([g.sizes[name] for name in dims])

        assert (halves.peak() == np.where(legal, whole, np.inf)).all()


@pytest.mark.parametrize(("model", "gpus", "launcher"), CASES)
def test_fitting_strategies_are_counted(model: str, gpus: int, launcher: str) -> None:
    """Over the layout nodes, as many as a mask of the memory grid times its completions holds."""
    q, parts = grids(model, gpus, launcher)
    capacity = q.problem.cluster.usable_memory_bytes
    for g in parts:
        dims = dims_called(g, MEMORY)
        whole = q.bytes(grid(g.layouts, axes_called(g, MEMORY)))
        fits = whole.reshape([g.sizes[name] for name in dims]) <= capacity
        held = np.where(fits & g.mask(dims), g.completions(dims), 0.0)
        halves = memory_halves(q.problem, q.constants, g)
        found = fitting(g, halves, capacity).over(g, dims_called(g, LAYOUT_NODE))
        shared = [name for name in dims if name in dims_called(g, LAYOUT_NODE)]
        over = tuple(i for i, name in enumerate(dims) if name not in shared)
        apart = tuple(i for i, n in enumerate(dims_called(g, LAYOUT_NODE)) if n not in shared)

        assert (found.sum(axis=apart) == held.sum(axis=over)).all()


@pytest.mark.parametrize(("model", "gpus", "launcher"), CASES)
def test_the_least_is_below_the_peak(model: str, gpus: int, launcher: str) -> None:
    """The halves at their least bound every strategy that they leave open."""
    q, parts = grids(model, gpus, launcher)
    for g in parts:
        halves = memory_halves(q.problem, q.constants, g)
        least = halves.least().without("optimizer_offload")
        shape = [g.sizes[name] if name in least.dims else 1 for name in halves.dims]

        assert (least.peak().reshape(shape) <= halves.peak()).all()


@pytest.mark.parametrize("seed", range(8))
def test_contraction_is_the_sum_of_the_product(seed: int) -> None:
    """Random masks summed dimension by dimension, and written out."""
    random = np.random.default_rng(seed)
    sizes = {"a": 3, "b": 300, "c": 2, "d": 4, "layout": 7}
    names = list(sizes)
    factors, whole = [], np.ones(tuple(sizes.values()))
    for _ in range(int(random.integers(1, 6))):
        count = int(random.integers(1, 4))
        own = [names[i] for i in sorted(random.choice(len(names), count, replace=False))]
        mask = random.random([sizes[name] for name in own]) < 0.7
        factors.append(Factor("", tuple(own), mask))
        whole = whole * factors[-1].over(names)
    for dims in ((), ("layout",), ("c", "layout"), ("b", "d")):
        gone = tuple(i for i, name in enumerate(names) if name not in dims)
        found: Any = np.broadcast_to(contract(factors, sizes, dims), [sizes[d] for d in dims])

        assert (found == whole.sum(axis=gone)).all()


def test_bytes_count_beyond_a_byte() -> None:
    """Sums of truths are exact where there are more of them than a byte can count."""
    truths = np.ones((3, 700, 2), dtype=np.bool_)
    truths[1, 5:, 1] = False

    assert count_true(truths, 1).tolist() == [[700, 700], [700, 5], [700, 700]]

"""The sweep finds what brute force finds, counts what there is, and cuts nothing good."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autopar.job.inputs import as_cluster, as_model, as_workload
from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.bound import step_bound_s
from cost_models.equations.step import step_time_s
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Strategies
from search.plan import How, frontier_of, price_strategies, search_strategies
from search.rules import Problem, rules_for
from search.space.axes import AXES
from search.space.space import Space
from search.sweep import branch_and_bound as tree
from search.sweep.branch_and_bound import SweepProblem
from search.sweep.census import take_census
from search.sweep.layouts import grow_layouts
from search.sweep.rows import rows_of
from search.sweep.sweep import sweep
from tests.search.brute_force import (
    CONSTANTS,
    block_frontier,
    legal_strategies,
    not_beaten,
    price_one,
)
from tests.search.small_problems import dense, moe, problem

OFFLOAD = "optimizer_offload"


def large(model: str, gpus: int, gpu: str = "h100", launcher: str = "megatron") -> Problem:
    """A problem from the catalog."""
    spec, cluster = as_model(model), as_cluster(None, gpu, gpus)
    return Problem.of(spec, cluster, as_workload(spec, cluster), launcher)


def narrowed(space: Space, seed: int, most: int, wide: tuple[str, ...] = ("dp",)) -> Space:
    """Some values of every axis, drawn at random; axes in ``wide`` keep all of theirs."""
    draw = random.Random(seed)  # noqa: S311
    axes: dict[str, Any] = {}
    for axis in AXES:
        values = list(space.axes[axis])
        some = values if axis in wide else draw.sample(values, min(len(values), most))
        axes[axis] = tuple(value for value in values if value in some)
    return space.with_(**axes)


def tiny(space: Space, seed: int) -> Space:
    """All degrees, two values of six other axes drawn at random, the first one elsewhere."""
    draw = random.Random(seed)  # noqa: S311
    degrees = ("tp", "pp", "cp", "dp", "ep", "etp", "vpp")
    several = draw.sample([axis for axis in AXES if axis not in degrees], 6)
    axes = {axis: (space.axes[axis][0],) for axis in AXES if axis not in degrees}
    for axis in several:
        values = list(space.axes[axis])
        some = draw.sample(values, min(len(values), 2))
        axes[axis] = tuple(value for value in values if value in some)
    return space.with_(**axes)


SMALL = [
    (dense(), 12, "megatron", 4),
    (dense(n_layers=7), 6, "any", 7),
    (moe(), 4, "megatron", 5),
    (moe(), 4, "any", 3),
    (moe(), 6, "torchtitan", 4),
]


@pytest.mark.parametrize(("model", "gpus", "launcher", "seed"), SMALL)
def test_the_frontier_is_brute_forces(model: Any, gpus: int, launcher: str, seed: int) -> None:
    """Rules one by one, strategies priced one by one: the same frontier and the same counts."""
    p = problem(model, gpus=gpus, batch=12 * gpus, launcher=launcher)
    space = tiny(Space.full(p), seed)
    legal = legal_strategies(space, p)
    costs = [price_one(p, strategy, CONSTANTS) for strategy in legal]
    fitting = [cost for cost in costs if cost[0] <= p.cluster.usable_memory_bytes]

    swept = sweep(p, space, CONSTANTS, verify_cut=3)
    rows = frontier_of(p, swept.candidates, CONSTANTS)

    assert legal
    assert (swept.counts.legal, swept.counts.fits) == (len(legal), len(fitting))
    assert {(row.memory_bytes, row.step_time_s) for row in rows} == not_beaten(fitting)
    assert {row.strategy.with_(stage_layers=None) for row in rows} <= set(legal)


@pytest.mark.parametrize(
    ("model", "gpus", "launcher", "most", "seed", "wide"),
    [
        ("70b", 512, "megatron", 2, 1, ("dp", "tp", "pp", "sharding")),
        (
            "70b",
            512,
            "megatron",
            3,
            1,
            ("dp", "tp", "vpp", "recompute_layers", "optimizer_offload"),
        ),
        ("405b", 2048, "megatron", 2, 7, ("dp", "tp", "pp", "vpp", "recompute_layers")),
        ("405b", 2048, "megatron", 2, 7, ("dp", "tp", "vpp", "activation_offload")),
        ("70b", 512, "any", 2, 8, ("dp", "tp", "pp")),
        ("8b", 96, "torchtitan", 3, 6, ("dp", "tp", "pp", "vpp", "schedule", "recompute")),
        ("8x7b", 24, "megatron", 2, 24, ("dp", "tp", "pp", "vpp", "schedule", "recompute")),
        ("deepseek-v3", 2048, "megatron", 2, 6, ("dp", "tp", "pp")),
        ("deepseek-v2-lite", 16, "any", 2, 9, ("dp", "tp", "pp", "sharding")),
    ],
)
def test_sub_spaces_of_large_ones_agree(
    model: str, gpus: int, launcher: str, most: int, seed: int, wide: tuple[str, ...]
) -> None:
    """Random corners of real spaces, priced whole: the same strategies in the same order."""
    p = large(model, gpus, launcher=launcher)
    space = narrowed(Space.full(p, Precision.BF16), seed, most, wide)
    candidates, legal, fits = block_frontier(space, p, prior_constants())
    assert fits

    swept = sweep(p, space, prior_constants(), verify_cut=5)

    assert (swept.counts.legal, swept.counts.fits) == (legal, fits)
    assert frontier_of(p, swept.candidates, prior_constants()) == frontier_of(
        p, candidates, prior_constants()
    )


@pytest.mark.parametrize(("model", "gpus"), [("70b", 512), ("8b", 7), ("qwen3-30b-a3b", 48)])
@pytest.mark.parametrize("preset", [Space.core, Space.full])
def test_counts_add_up(model: str, gpus: int, preset: Any) -> None:
    """Space is pruned and legal, legal is fitting and not, fitting is priced and cut."""
    p = large(model, gpus)
    space = narrowed(preset(p, Precision.BF16), 1, 3, ("dp", "tp", "pp"))
    counts = sweep(p, space, prior_constants()).counts
    by_rules = sum(count for rule, count in counts.pruned_by.items() if rule != "memory")

    assert counts.space == space.size == by_rules + counts.legal
    assert counts.legal == counts.fits + counts.pruned_by.get("memory", 0)
    assert counts.fits == counts.priced + counts.cut_by_bound
    assert counts.cut_by_bound == sum(counts.cut_by.values())
    assert counts.layouts <= len(grow_layouts(space, p, rules_for("megatron"))[0])


def test_threads_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread or two give the same bytes; small blocks give the same frontier."""
    p = large("8b", 16, "a100-40")
    space = narrowed(Space.full(p, Precision.BF16), 3, 3, ("dp", "tp", "pp"))
    one, two = (sweep(p, space, prior_constants(), threads=n) for n in (1, 2))
    monkeypatch.setattr("search.sweep.sweep.ENTRIES", 2000)
    monkeypatch.setattr(tree, "ENTRIES", 2000)
    small = sweep(p, space, prior_constants())
    rows = [frontier_of(p, swept.candidates, prior_constants()) for swept in (one, two, small)]

    assert one.counts == two.counts
    assert rows[0] == rows[1] == rows[2]
    assert replace(small.counts, priced=0, cut_by_bound=0, cut_by={}) == replace(
        one.counts, priced=0, cut_by_bound=0, cut_by={}
    )


def test_a_wrong_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds a tenth too high cut good strategies, and the re-check of a sample says so."""
    p = large("8b", 16)
    space = Space.full(p, Precision.BF16)
    exact = SweepProblem.seconds

    def inflated(self: SweepProblem, strategies: Strategies, *, bound: bool) -> Any:
        return exact(self, strategies, bound=bound) * (3.0 if bound else 1.0)

    monkeypatch.setattr(SweepProblem, "seconds", inflated)
    with pytest.raises(RuntimeError, match="cut strategies are not beaten"):
        sweep(p, space, prior_constants(), verify_cut=2000)


@pytest.mark.parametrize("model", ["70b", "deepseek-v3"])
@pytest.mark.parametrize("floor_s", [3e-4, 5e-3])
def test_the_bound_is_below(model: str, floor_s: float) -> None:
    """No strategy is faster than its bound with less recomputed and more overlapped."""
    p = large(model, 64, launcher="any")
    constants = replace(prior_constants(), layer_floor_s=floor_s, layer_floor_tp_s=floor_s / 3)
    space = Space.full(p, Precision.BF16).with_(micro_batch_size=(1, 4), cp=(1, 2))
    census = take_census(p, space)
    grids = census.grids[:: max(1, len(census.grids) // 6)]
    for g in grids:
        rows = rows_of(g, ("layout",), np.ones(len(g.layouts), dtype=np.bool_))
        names = (*tree.OVERLAP_NODE, *tree.MEMORY_KNOBS, *tree.FREE_OVERLAPS)
        s = tree.sample_of(g, rows, names, 1000)
        exact = step_time_s(p.model, p.cluster, p.workload, s, constants)
        for quick in (tree.relaxation(g), tree.overlapped(g)):
            columns = {name: np.full(len(s), value) for name, value in quick.items()}
            at = Strategies(**{**s.columns, **columns})
            bound = step_bound_s(p.model, p.cluster, p.workload, at, constants)

            assert (bound <= exact * (1 + 1e-12)).all()
        columns = {
            name: np.full(len(s), value) for name, value in tree.layout_relaxation(g).items()
        }
        bound = SweepProblem(p, constants).layout_bound_s(Strategies(**{**s.columns, **columns}))

        assert (bound <= exact * (1 + 1e-12)).all()


@pytest.mark.parametrize("model", ["70b", "deepseek-v3"])
def test_the_optimizer_adds_to_the_bound(model: str) -> None:
    """Offloading the optimizer changes the bound by as much whatever is recomputed."""
    p = large(model, 64, launcher="any")
    census = take_census(p, Space.full(p, Precision.BF16).with_(cp=(1, 2)))
    for g in census.grids[:: max(1, len(census.grids) // 6)]:
        rows = rows_of(g, ("layout",), np.ones(len(g.layouts), dtype=np.bool_))
        s = tree.sample_of(
            g, rows, (*tree.OVERLAP_NODE, *tree.MEMORY_KNOBS, *tree.FREE_OVERLAPS), 500
        )

        def bound(s: Strategies = s, **columns: Any) -> Any:
            at = Strategies(**{**s.columns, **columns})
            return step_bound_s(p.model, p.cluster, p.workload, at, prior_constants())

        kept = dict(tree.relaxation(g))
        there = bound(optimizer_offload=0.7) - bound(optimizer_offload=0.0)
        here = bound(optimizer_offload=0.7, **kept) - bound(optimizer_offload=0.0, **kept)

        assert there == pytest.approx(here, abs=1e-9)


def test_the_frontier_is_complete_sorted_and_priced_alike() -> None:
    """Fastest first, each row leaner than the one before, and priced as if it were alone."""
    p = large("70b", 512)
    space = Space.core(p, Precision.BF16)
    result = search_strategies(p.model, p.cluster, p.workload, space, prior_constants())
    memory = [row.memory_bytes for row in result.frontier]
    times = [row.step_time_s for row in result.frontier]

    assert result.certificate.complete
    assert times == sorted(times)
    assert memory == sorted(memory, reverse=True)
    assert len(set(times)) == len(times)
    for row in result.frontier[::7]:
        (alone,) = price_strategies(p, [row.strategy.with_(stage_layers=None)], prior_constants())
        assert alone.step_time_s == row.step_time_s
        assert alone.memory_bytes == row.memory_bytes
        assert sum(row.time_breakdown_s.values()) == pytest.approx(row.step_time_s)
        assert sum(row.memory_breakdown_bytes.values()) == pytest.approx(row.memory_bytes)


def test_uneven_stages_are_spelled_out_at_the_same_price() -> None:
    """Where layers do not divide, the strategy says who gets how many, and costs the same."""
    p = large("405b", 512)
    space = Space.core(p, Precision.BF16).with_(pp=(16,), vpp=(1,))
    result = search_strategies(p.model, p.cluster, p.workload, space, prior_constants())
    uneven = [row for row in result.frontier if row.strategy.stage_layers]

    assert uneven
    for row in uneven:
        (alone,) = price_strategies(p, [row.strategy], prior_constants())
        assert sum(row.strategy.stage_layers or ()) == p.model.n_layers
        assert alone.step_time_s == pytest.approx(row.step_time_s, rel=1e-12)
        assert alone.memory_bytes == pytest.approx(row.memory_bytes, rel=1e-12)


def test_an_empty_frontier_explains_itself() -> None:
    """Too few GPUs: the reason with its numbers, and how many would do."""
    p = large("405b", 8)
    space = Space.core(p, Precision.BF16).with_(micro_batch_size=(1,), tp=(8,), pp=(1,))
    result = search_strategies(p.model, p.cluster, p.workload, space, prior_constants())

    assert result.frontier == []
    assert "no strategy fits llama3.1-405b on 8 x h100" in (result.explanation or "")
    assert "GiB too much" in (result.explanation or "")


def test_constants_that_void_the_bound_still_give_the_frontier() -> None:
    """Overlap that costs more than it hides proves nothing, so that nothing is cut."""
    p = large("8b", 8)
    space = narrowed(Space.full(p, Precision.BF16), 0, 3, ("dp", "tp", "pp", "overlap_grad_reduce"))
    dear = replace(prior_constants(), overlap_price=1.5)
    candidates, legal, _ = block_frontier(space, p, dear)
    swept = sweep(p, space, dear)

    assert swept.counts.legal == legal
    assert frontier_of(p, swept.candidates, dear) == frontier_of(p, candidates, dear)


def test_method_is_checked() -> None:
    """A method that nobody knows is refused."""
    with pytest.raises(SpecError, match="unknown method 'guess'"):
        How(method="guess")  # type: ignore[arg-type]

"""Uneven pipelines: CP-SAT agrees with brute force and with a dynamic program."""

import itertools
import time
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.specs.errors import SpecError
from search.stages.stages import Proof, StageProblem, plan_stages

LLAMA_405B: dict[str, Any] = {
    "n_layers": 126,
    "pp": 16,
    "layer_s": 1.0,
    "recompute_s": 0.31,
    "layer_bytes": 3.0,
    "activation_bytes": 0.4,
    "recomputed_bytes": 0.03,
}
"""126 equal layers on 16 ranks; units of time and memory are a layer's."""


def llama(vpp: int, **changes: object) -> StageProblem:
    """The 405B pipeline with an embedding in front and a head behind."""
    chunk = np.zeros(16 * vpp)
    chunk[0], chunk[-1] = 0.3, 1.7
    held = 16.0 - np.arange(16 * vpp) % 16
    values = {"vpp": vpp, "chunk_s": chunk, "chunk_bytes": 4 * chunk, "in_flight": held}
    return StageProblem(**{**LLAMA_405B, **values, "capacity_bytes": 50.0, **changes})


def layouts(problem: StageProblem) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Every way to cut the layers and to recompute some."""
    n, low = problem.n_layers, problem.min_layers
    for cuts in itertools.combinations_with_replacement(range(n + 1), problem.n_chunks - 1):
        sizes = tuple(np.diff([0, *cuts, n]).tolist())
        if min(sizes) < low:
            continue
        if problem.equal_recompute:
            yield from ((sizes, tuple(min(c, s) for s in sizes)) for c in range(n + 1))
        else:
            yield from (
                (sizes, again) for again in itertools.product(*(range(s + 1) for s in sizes))
            )


def brute_force_s(problem: StageProblem) -> float:
    """The least time of the slowest rank, by trying everything."""
    best = float("inf")
    for sizes, again in layouts(problem):
        seconds, held = problem.costs(sizes, again)
        if (held <= problem.row("capacity_bytes")).all():
            best = min(best, float(seconds.max()))
    return best


@st.composite
def small_problems(draw: st.DrawFn) -> StageProblem:
    """Few layers, memory from ample to hopeless, in numbers that rounding leaves alone."""
    n_layers = draw(st.integers(2, 6))
    pp, vpp = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2)]))
    alike = draw(st.booleans())

    def row(n: int, low: int, high: int, *, same: bool = False) -> list[float]:
        numbers = draw(st.lists(st.integers(low, high), min_size=n, max_size=n))
        return [float(numbers[0] if same else x) for x in numbers]

    kept = row(n_layers, 1, 4, same=alike)
    return StageProblem(
        n_layers=n_layers,
        pp=pp,
        vpp=vpp,
        layer_s=row(n_layers, 1, 9, same=alike),
        recompute_s=row(n_layers, 0, 4, same=alike),
        layer_bytes=row(n_layers, 0, 3, same=alike),
        activation_bytes=kept,
        recomputed_bytes=[draw(st.integers(0, 1)) * 0.5 * k for k in kept],
        chunk_s=row(pp * vpp, 0, 5),
        chunk_bytes=row(pp * vpp, 0, 2),
        in_flight=row(pp * vpp, 1, 3),
        capacity_bytes=[draw(st.sampled_from([8.0, 16.0, 32.0])) for _ in range(pp)],
        min_layers=draw(st.integers(0, 1)),
        equal_recompute=draw(st.booleans()),
        folded=vpp == 2 and draw(st.booleans()),
    )


@given(small_problems())
@settings(max_examples=25, deadline=None)
def test_the_solver_agrees_with_brute_force(problem: StageProblem) -> None:
    """The same least time, or the same verdict that nothing fits."""
    plan = plan_stages(problem)
    least_s = brute_force_s(problem)
    if least_s == float("inf"):
        assert plan.proof == Proof.INFEASIBLE
        return
    assert plan.proof == Proof.OPTIMAL
    assert plan.slowest_s == pytest.approx(least_s, rel=1e-5)
    assert sum(plan.stage_layers) == problem.n_layers
    assert (np.array(plan.rank_bytes) <= problem.row("capacity_bytes")).all()


def dynamic_program_s(problem: StageProblem) -> float:
    """The least time of the slowest rank where every rank has one chunk.

    best[k][e] is the least over the begin b of the longer of best[k - 1][b] and the chunk
    from b to e, recomputing as few of its layers as its memory asks for.
    """
    n = problem.n_layers

    @cache
    def chunk_s(k: int, begin: int, end: int) -> float:
        sizes = [0] * problem.n_chunks
        for again in range(end - begin + 1):
            sizes[k] = end - begin
            kept = slice(begin + again, end)
            redone = slice(begin, begin + again)
            held = problem.row("in_flight")[k] * (
                problem.row("activation_bytes")[kept].sum()
                + problem.row("recomputed_bytes")[redone].sum()
            )
            held += problem.row("chunk_bytes")[k] + problem.row("layer_bytes")[begin:end].sum()
            if held <= problem.row("capacity_bytes")[k]:
                seconds = problem.row("layer_s")[begin:end].sum()
                again_s = problem.row("recompute_s")[redone].sum()
                return float(problem.row("chunk_s")[k] + seconds + again_s)
        return float("inf")

    best = [0.0] + [float("inf")] * n
    for k in range(problem.pp):
        best = [
            min(
                (max(best[b], chunk_s(k, b, e)) for b in range(e - problem.min_layers + 1)),
                default=float("inf"),
            )
            for e in range(n + 1)
        ]
    return best[n]


@pytest.mark.parametrize("capacity_bytes", [36.0, 44.0, 60.0])
@pytest.mark.parametrize("alike", [True, False])
def test_the_solver_agrees_with_a_dynamic_program(capacity_bytes: float, alike: bool) -> None:
    """48 layers on 8 ranks, equal ones and random ones, from tight to ample memory."""
    layer_s = np.ones(48) if alike else np.random.default_rng(0).uniform(0.5, 1.5, 48)
    problem = StageProblem(
        n_layers=48,
        pp=8,
        layer_s=layer_s,
        recompute_s=0.3 * layer_s,
        layer_bytes=3.0 * layer_s,
        activation_bytes=0.9 * layer_s,
        recomputed_bytes=0.05 * layer_s,
        chunk_s=[0.4, 0, 0, 0, 0, 0, 0, 1.6],
        chunk_bytes=[2.0, 0, 0, 0, 0, 0, 0, 2.0],
        in_flight=np.arange(8, 0, -1),
        capacity_bytes=capacity_bytes,
    )
    plan = plan_stages(problem)
    assert plan.proof == Proof.OPTIMAL
    assert plan.slowest_s == pytest.approx(dynamic_program_s(problem), rel=1e-5)


@pytest.mark.parametrize("vpp", [1, 2, 4])
@pytest.mark.parametrize("capacity_bytes", [42.0, 62.0])
def test_126_layers_on_16_ranks_are_proved_in_seconds(vpp: int, capacity_bytes: float) -> None:
    """Optimal with proof, tight and ample, with one, two and four chunks a rank."""
    begin = time.process_time()
    plan = plan_stages(llama(vpp, capacity_bytes=capacity_bytes))
    assert time.process_time() - begin < 5
    assert plan.proof == Proof.OPTIMAL
    assert plan.slowest_s == pytest.approx({42.0: 9.55, 62.0: 8.7}[capacity_bytes])
    assert plan.bound_s == plan.slowest_s
    assert max(plan.rank_bytes) <= capacity_bytes


def test_chunks_are_evened_out_where_it_costs_nothing() -> None:
    """With ample memory the chunks of a rank differ by one layer and the head's share."""
    plan = plan_stages(llama(2, capacity_bytes=1e3))
    assert set(plan.stage_layers[:-1]) == {4}
    assert plan.stage_layers[-1] == 2
    assert set(plan.recompute_layers) == {0}


def test_dense_first_layers_and_mtp_stay_where_they_are() -> None:
    """Three short layers first and a long one last: the first rank takes more, the last less."""
    layer_s = np.array([0.4] * 3 + [1.0] * 58 + [1.5])
    chunk_s = np.zeros(16)
    chunk_s[-1] = 0.8
    plan = plan_stages(
        StageProblem(n_layers=62, pp=16, layer_s=layer_s, chunk_s=chunk_s, capacity_bytes=1.0)
    )
    assert plan.proof == Proof.OPTIMAL
    assert plan.stage_layers[0] > 4 > plan.stage_layers[-1]
    assert plan.slowest_s == pytest.approx(4.0)


def test_recomputing_buys_memory_with_time() -> None:
    """The less memory, the slower the slowest rank, until nothing fits."""
    slowest = [plan_stages(llama(1, capacity_bytes=c)).slowest_s for c in (90, 60, 50, 42, 20)]
    assert slowest == sorted(slowest)
    assert slowest[-1] == float("inf")


def test_no_time_is_reported_as_unknown() -> None:
    """A clock that has run out proves nothing."""
    plan = plan_stages(llama(4), timeout_s=0.0)
    assert plan.proof == Proof.UNKNOWN
    assert plan.stage_layers == ()


def test_the_clock_is_kept_from_outside() -> None:
    """126 unlike layers in 32 chunks are not settled in 2 s, and it takes no longer than that."""
    layer_s = np.random.default_rng(0).uniform(0.5, 1.5, 126)
    begin = time.perf_counter()
    plan = plan_stages(llama(2, layer_s=layer_s, layer_bytes=3 * layer_s), timeout_s=2.0)
    assert time.perf_counter() - begin < 4.5
    assert plan.proof in (Proof.FEASIBLE, Proof.OPTIMAL, Proof.UNKNOWN)
    assert plan.bound_s <= plan.slowest_s


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layers": 0}, r"stages\.n_layers must be a whole number >= 1, got 0"),
        ({"min_layers": -1}, r"stages\.min_layers must be a whole number >= 0, got -1"),
        ({"layer_s": [1.0, 2.0]}, r"stages\.layer_s must have 126 values, got shape \(2,\)"),
        ({"capacity_bytes": -1.0}, r"stages\.capacity_bytes must be finite and >= 0, got -1\.0"),
        ({"recomputed_bytes": 0.5}, r"recomputed_bytes must be part of activation_bytes"),
        ({"folded": True}, r"stages\.vpp must be 2 when folded, got 1"),
    ],
)
def test_impossible_problems_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    """The message names the field, the bound and the value."""
    with pytest.raises(SpecError, match=message):
        llama(1, **changes)


def test_fewer_layers_than_chunks_do_not_fit() -> None:
    """Every chunk needs a layer, unless it may be empty."""
    values = {"n_layers": 6, "pp": 4, "vpp": 2, "layer_s": 1.0, "capacity_bytes": 1.0}
    assert plan_stages(StageProblem(**values)).proof == Proof.INFEASIBLE  # type: ignore[arg-type]
    plan = plan_stages(StageProblem(**values, min_layers=0))  # type: ignore[arg-type]
    assert plan.slowest_s == 2.0

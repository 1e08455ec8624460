"""Layers assigned without a solver are assigned as well as any way of assigning them."""

from itertools import pairwise, product

import numpy as np
import pytest

from search.stages.assignment import assign_alike, assign_in_order, relaxed
from search.stages.problem import Proof, StagePlan, StageProblem
from search.stages.stages import plan_stages


def alike(rng: np.random.Generator, *, vpp: int = 1) -> StageProblem:
    """Equal layers on three ranks whose ends differ."""
    pp = 3
    return StageProblem(
        n_layers=int(rng.integers(pp * vpp, 10)),
        pp=pp,
        vpp=vpp,
        layer_s=float(rng.integers(1, 5)),
        layer_bytes=1.0,
        activation_bytes=1.0,
        recomputed_bytes=1.0,
        chunk_s=rng.integers(0, 6, pp * vpp).astype(float),
        chunk_bytes=rng.integers(0, 3, pp * vpp).astype(float),
        in_flight=np.tile([3.0, 2.0, 1.0], vpp),
        capacity_bytes=rng.integers(6, 30) + 0.5,
    )


def unlike(rng: np.random.Generator) -> StageProblem:
    """Layers of two kinds, one chunk on each of three ranks."""
    n = int(rng.integers(3, 9))
    kinds = rng.integers(0, 2, n)
    return StageProblem(
        n_layers=n,
        pp=3,
        layer_s=np.where(kinds, 3.0, 1.0),
        layer_bytes=np.where(kinds, 2.0, 1.0),
        activation_bytes=np.where(kinds, 1.0, 2.0),
        recomputed_bytes=np.where(kinds, 1.0, 2.0),
        chunk_s=rng.integers(0, 6, 3).astype(float),
        in_flight=[3.0, 2.0, 1.0],
        capacity_bytes=rng.integers(6, 30) + 0.5,
    )


def brute_force(problem: StageProblem) -> tuple[float, float]:
    """Least time of the slowest rank, and the fullest rank's least memory at that time."""
    best = (np.inf, np.inf)
    n, chunks = problem.n_layers, problem.n_chunks
    for cuts in product(range(1, n), repeat=chunks - 1):
        edges = (0, *cuts, n)
        layers = [b - a for a, b in pairwise(edges)]
        if min(layers) < problem.min_layers:
            continue
        seconds, held = problem.costs(layers, [0] * chunks)
        if (held <= problem.row("capacity_bytes")).all():
            best = min(best, (float(seconds.max()), float(held.max())))
    return best


def as_found(plan: StagePlan) -> tuple[float, float]:
    """Slowest and fullest rank of a plan; infinite without one."""
    if plan.proof == Proof.INFEASIBLE:
        return np.inf, np.inf
    return plan.slowest_s, max(plan.rank_bytes)


@pytest.mark.parametrize("seed", range(40))
def test_equal_layers_are_assigned_as_brute_force_assigns_them(seed: int) -> None:
    """The slowest rank is as fast as can be; with one chunk each, the fullest as empty."""
    for vpp in (1, 2):
        problem = alike(np.random.default_rng(seed), vpp=vpp)
        found, best = as_found(assign_alike(problem)), brute_force(problem)
        assert found[0] == pytest.approx(best[0])
        if vpp == 1:
            assert found[1] == pytest.approx(best[1])


@pytest.mark.parametrize("seed", range(40))
def test_layers_of_two_kinds_are_assigned_in_order(seed: int) -> None:
    """One chunk on each rank: fastest, and of the fastest the leanest; the relaxation is below."""
    problem = unlike(np.random.default_rng(seed))
    found, best = as_found(assign_in_order(problem)), brute_force(problem)
    assert found == pytest.approx(best)
    loose = relaxed(problem)
    assert loose.proof == Proof.INFEASIBLE or loose.slowest_s <= best[0]
    if loose.proof == Proof.INFEASIBLE:
        assert np.isinf(best[0])


@pytest.mark.parametrize("seed", range(6))
def test_the_solver_agrees(seed: int) -> None:
    """CP-SAT proves the same time for equal layers on two chunks each."""
    problem = alike(np.random.default_rng(seed), vpp=2)
    assigned, solved = assign_alike(problem), plan_stages(problem, effort=2.0)
    assert solved.proof == assigned.proof
    assert solved.slowest_s == pytest.approx(assigned.slowest_s)


def test_extra_layers_go_to_the_last_chunks() -> None:
    """The first round of chunks fills the pipeline and is held longest: it stays short."""
    plan = assign_alike(StageProblem(n_layers=10, pp=2, vpp=4, layer_s=1.0, capacity_bytes=1.0))
    assert plan.stage_layers == (1, 1, 1, 1, 1, 1, 2, 2)


def test_a_counted_effort_gives_the_same_answer_twice() -> None:
    """Two runs under the solver's own count agree to the layer, whatever the clock."""
    problem = StageProblem(
        n_layers=22, pp=4, vpp=2, layer_s=[1.0] * 3 + [3.0] * 19, chunk_s=1.0, capacity_bytes=1.0
    )
    first, second = (plan_stages(problem, effort=0.05, seed=1) for _ in range(2))
    assert first == second

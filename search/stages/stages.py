"""Uneven pipelines: how many layers each chunk gets, and how many of them it recomputes.

The slowest rank sets the pace of a pipeline, and each rank must hold what its place in
the schedule makes it hold.  A layer goes to exactly one chunk, chunks are contiguous in
model order, and a chunk recomputes its first layers, as Megatron-LM's ``block`` method.
With b the first layer of a chunk, q the first one that is not recomputed, e the first of
the next chunk, and S[x] the sum of a layer's property before layer x, a rank takes

    time   = sum over its chunks of  fixed + S_time[e] - S_time[b] + S_again[q] - S_again[b]
    memory = sum over its chunks of  fixed + S_held[e] - S_held[b] - (S_saved[q] - S_saved[b])

CP-SAT decides whether any layout keeps every rank under a given time and its memory; a
bisection on that time finds the least one.  The clock that stops the search is ours, not
the solver's; what was proved by then is said, and no more.  With ``effort`` the solver
counts its own steps instead, so that a slow machine gives the same answer, only later.
"""

from dataclasses import replace
from time import monotonic

from search.stages.bounds import StageUnits
from search.stages.model import StageModel, TimeLeft
from search.stages.problem import Assignment, Proof, StagePlan, StageProblem

__all__ = ["Proof", "StagePlan", "StageProblem", "plan_stages"]

REFINE_S = 1.0
"""Time, or effort, spent on evening out a layout that is proved to be fastest."""


def plan_stages(
    problem: StageProblem, *, timeout_s: float = 10.0, effort: float | None = None, seed: int = 0
) -> StagePlan:
    """The layout whose slowest rank is fastest, and among those one that recomputes little.

    ``effort`` is CP-SAT's deterministic time, about a second each: with it the answer is
    the same on every machine, as long as ``timeout_s`` does not run out first.

    >>> plan = plan_stages(StageProblem(n_layers=10, pp=4, layer_s=1.0, chunk_s=[1, 0, 0, 2],
    ...                                 capacity_bytes=1.0))
    >>> plan.proof.value, plan.slowest_s, sum(plan.stage_layers)
    ('optimal', 4.0, 10)
    """
    clock = TimeLeft(monotonic() + timeout_s, effort)
    if problem.min_layers * problem.n_chunks > problem.n_layers:
        return StagePlan(proof=Proof.INFEASIBLE)
    counts = range(problem.n_layers + 1) if problem.equal_recompute else [None]
    search = _Search(clock, seed)
    for count in counts:
        search.improve(replace(problem.units, recomputed=count))
    return search.plan(problem)


class _Search:
    """The best layout so far, and what is proved about it."""

    def __init__(self, clock: TimeLeft, seed: int) -> None:
        self._clock, self._seed = clock, seed
        self._best: tuple[Assignment, StageUnits] | None = None
        self._high = self._low = 2**62
        self._settled = True

    def improve(self, units: StageUnits) -> None:
        """Bisect on the slowest rank, below the best one known."""
        low, high = _least_time(units), min(self._high, units.most_time + 1)
        limit = high - 1
        while low < high:
            verdict = StageModel(units, limit).solve(self._clock, self._seed)
            if not verdict.settled:
                self._settled = False
                break
            if verdict.answer is None:
                low = limit + 1
            else:
                self._best = verdict.answer, units
                high = self._high = units.slowest_rank(*verdict.answer)
            limit = (low + high - 1) // 2
        self._low = min(self._low, low)

    def plan(self, problem: StageProblem) -> StagePlan:
        """The plan, its chunks evened out while time is left."""
        low_s = self._low * problem.time_unit_s
        if self._best is None:
            if self._settled:
                return StagePlan(proof=Proof.INFEASIBLE)
            return StagePlan(proof=Proof.UNKNOWN, bound_s=low_s)
        if not self._settled:
            return StagePlan.of(problem, Proof.FEASIBLE, self._best[0], low_s)
        return StagePlan.of(problem, Proof.OPTIMAL, self._even_out(*self._best), low_s)

    def _even_out(self, best: Assignment, units: StageUnits) -> Assignment:
        """Of the fastest layouts found, one with short chunks and little recompute."""
        clock = self._clock.at_most(REFINE_S)
        low, high = int(units.layer_time.max()), int(units.times(*best).max())
        while low < high and len(units.rank) > len(units.capacity):
            limit = (low + high) // 2
            verdict = StageModel(units, self._high, limit).solve(clock, self._seed)
            if not verdict.settled:
                break
            if verdict.answer is None:
                low = limit + 1
            else:
                best, high = verdict.answer, int(units.times(*verdict.answer).max())
        if any(best.recompute_layers) and units.recomputed is None:
            model = StageModel(units, self._high, high)
            model.recompute_little()
            best = model.solve(clock, self._seed).answer or best
        return best


def _least_time(units: StageUnits) -> int:
    """A time that no layout's slowest rank goes below: the mean, or one layer."""
    whole = int(units.layer_time.sum() + units.chunk_time.sum())
    return max(-(-whole // len(units.capacity)), int(units.layer_time.max()))

"""The CP-SAT model behind :mod:`search.stages.stages`, in whole units, under the caller's clock."""

from dataclasses import dataclass
from threading import Thread
from time import monotonic

import numpy as np
from ortools.sat.python import cp_model

from cost_models.specs.units import Ints
from search.stages.bounds import Kinds, StageUnits, before, begins, reach
from search.stages.initial import guess
from search.stages.problem import Assignment

GRACE_S = 1.0
"""How long a solver may take to stop before it is left behind."""


@dataclass
class TimeLeft:
    """How long the solver may go on."""

    deadline: float
    """Of the monotonic clock; no solver outlives it."""
    effort: float | None = None
    """Deterministic time that is left; None counts seconds only."""

    def at_most(self, effort: float) -> "TimeLeft":
        """A shorter one."""
        if self.effort is None:
            return TimeLeft(min(self.deadline, monotonic() + effort))
        return TimeLeft(self.deadline, min(self.effort, effort))

    @property
    def is_over(self) -> bool:
        """No time is left."""
        spent = self.effort is not None and self.effort <= 0
        return spent or monotonic() >= self.deadline


@dataclass(frozen=True)
class Solved:
    """The solver's answer, if any, and whether it settles the question."""

    answer: Assignment | None
    settled: bool
    """The answer meets the question, or there is none."""


class StageModel:
    """Whether some layout keeps ranks and chunks within a time and memory."""

    def __init__(self, units: StageUnits, rank_time: int, chunk_time: int | None = None) -> None:
        self._units = units
        self._rank_time = rank_time
        self._chunk_time = rank_time if chunk_time is None else chunk_time
        self._model = cp_model.CpModel()
        chunks = range(len(units.rank))
        reaches = [reach(units, k, rank_time, self._chunk_time) for k in chunks]
        places = begins(reaches)
        self._possible = places is not None
        if places is None:
            return
        new = self._model.new_int_var
        self._begin = [new(low, high, f"begin{k}") for k, (low, high) in enumerate(places)]
        self._kept = [new(places[k][0], places[k + 1][1], f"kept{k}") for k in chunks]
        for k in chunks:
            self._shape_chunk(k, reaches[k])
        self._bound_times()
        if units.layer_held.any():
            self._bound_memory()
        most = self._bound_counts()
        if self._possible:
            layers, again = guess(units, most)
            self._hint(Assignment(tuple(layers.tolist()), tuple(again.tolist())))

    def _shape_chunk(self, k: int, reach_k: Ints) -> None:
        """Order, size and recomputed layers of a chunk."""
        model, units = self._model, self._units
        begin, kept, end = self._begin[k], self._kept[k], self._begin[k + 1]
        model.add(end - begin >= units.min_layers)
        sizes = (reach_k - np.arange(len(reach_k)))[reach_k >= 0]
        model.add(end - begin <= int(sizes.max()))
        if (
            reach_k[reach_k >= 0]
            != np.minimum(np.flatnonzero(reach_k >= 0) + sizes.max(), len(reach_k) - 1)
        ).any():
            furthest = model.new_int_var(0, len(reach_k) - 1, f"furthest{k}")
            model.add_element(begin, np.maximum(reach_k, 0).tolist(), furthest)
            model.add(end <= furthest)
        if units.recomputed is not None:
            model.add_min_equality(kept, [begin + units.recomputed, end])
        elif units.again_time.any() or units.layer_saved.any():
            model.add(kept >= begin)
            model.add(kept <= end)
        else:
            model.add(kept == begin)

    def _sum_before(self, place: cp_model.IntVar, table: Ints) -> cp_model.LinearExpr:
        """Sum of ``table`` before a layer: linear where all layers are alike."""
        if (table == table[0]).all():
            return cp_model.LinearExpr.term(place, int(table[0]))
        sums = before(table)
        value = self._model.new_int_var(int(sums.min()), int(sums.max()), "")
        self._model.add_element(place, sums.tolist(), value)
        return value

    def _between(
        self, low: cp_model.IntVar, high: cp_model.IntVar, table: Ints
    ) -> cp_model.LinearExpr:
        return self._sum_before(high, table) - self._sum_before(low, table)

    def _bound_times(self) -> None:
        """Time of every chunk and of every rank."""
        units, begin = self._units, self._begin
        layer = [self._sum_before(place, units.layer_time) for place in begin]
        again = [
            self._between(begin[k], kept, units.again_time) for k, kept in enumerate(self._kept)
        ]
        times = [layer[k + 1] - layer[k] + again[k] for k in range(len(again))]
        for k, time in enumerate(times):
            self._model.add(time <= self._chunk_time - int(units.chunk_time[k]))
        for rank in range(len(units.capacity)):
            chunks = np.flatnonzero(units.rank == rank).tolist()
            limit = self._rank_time - int(units.chunk_time[chunks].sum())
            self._model.add(cp_model.LinearExpr.sum([times[k] for k in chunks]) <= limit)

    def _bound_memory(self) -> None:
        """Memory of every rank."""
        units = self._units
        for rank, capacity in enumerate(units.capacity.tolist()):
            chunks = np.flatnonzero(units.rank == rank).tolist()
            held = []
            for k in chunks:
                begin, kept = self._begin[k], self._kept[k]
                held.append(self._between(begin, self._begin[k + 1], units.layer_held[k]))
                held.append(-self._between(begin, kept, units.layer_saved[k]))
            room = capacity - int(units.chunk_held[chunks].sum())
            self._model.add(cp_model.LinearExpr.sum(held) <= room)

    def _bound_counts(self) -> list[int] | None:
        """Bound the layers of each kind that a rank takes; with one kind, say how many."""
        units, model = self._units, self._model
        kinds = Kinds.of(units)
        if kinds is None:
            return None
        totals = [
            [self._sum_before(place, indicator) for place in self._begin]
            for indicator in kinds.indicator
        ]
        ranks = range(len(units.capacity))
        tables = [kinds.most(units, rank, self._rank_time) for rank in ranks]
        alike = len(totals) == 1
        for rank, rows in enumerate(tables):
            if rows is None:
                return None
            chunks = np.flatnonzero(units.rank == rank).tolist()
            counts = [
                cp_model.LinearExpr.sum([total[k + 1] - total[k] for k in chunks])
                for total in totals
            ]
            most = model.new_int_var(0, len(units.layer_time), f"most{rank}")
            model.add(counts[-1] <= most)
            model.add_allowed_assignments([*counts[:-1], most], rows)
        self._possible = all(tables)
        most_of_all = [rows[0][0] for rows in tables if rows] if alike else None
        if most_of_all is not None and sum(most_of_all) < len(units.layer_time):
            self._possible = False
        return most_of_all

    def _hint(self, answer: Assignment) -> None:
        """Start from a layout that is known."""
        place = 0
        for k, n in enumerate(answer.stage_layers):
            self._model.add_hint(self._begin[k], place)
            self._model.add_hint(self._kept[k], place + answer.recompute_layers[k])
            place += n

    def recompute_little(self) -> None:
        """Of the layouts within the limits, ask for one with the least recomputed time."""
        if not self._possible:
            return
        again = [
            self._between(self._begin[k], kept, self._units.again_time)
            for k, kept in enumerate(self._kept)
        ]
        self._model.minimize(cp_model.LinearExpr.sum(again))

    def solve(self, clock: TimeLeft, seed: int) -> Solved:
        """Ask until the deadline, and no longer, whatever the solver does."""
        if not self._possible:
            return Solved(None, settled=True)
        if clock.is_over:
            return Solved(None, settled=False)
        solver = cp_model.CpSolver()
        solver.parameters.num_workers = 1
        solver.parameters.random_seed = seed
        solver.parameters.max_time_in_seconds = max(clock.deadline - monotonic(), 0.01)
        if clock.effort is not None:
            solver.parameters.max_deterministic_time = clock.effort
        status: list[cp_model.CpSolverStatus] = []
        thread = Thread(target=lambda: status.append(solver.solve(self._model)), daemon=True)
        thread.start()
        thread.join(max(clock.deadline - monotonic(), 0.01))
        if thread.is_alive():
            solver.stop_search()
            thread.join(GRACE_S)
        if status and clock.effort is not None:
            clock.effort -= solver.response_proto.deterministic_time
        if not status or status[0] == cp_model.UNKNOWN:
            return Solved(None, settled=False)
        if status[0] == cp_model.INFEASIBLE:
            return Solved(None, settled=True)
        if status[0] == cp_model.MODEL_INVALID:
            raise RuntimeError(f"invalid stage model: {self._model.validate()}")
        begin = np.array([solver.value(place) for place in self._begin])
        kept = np.array([solver.value(place) for place in self._kept])
        layers, again = np.diff(begin), kept - begin[:-1]
        return Solved(Assignment(tuple(layers.tolist()), tuple(again.tolist())), settled=True)

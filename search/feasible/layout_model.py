"""A CP-SAT model of the layouts, and the arithmetic that its rules share.

One integer variable stands for each layout axis, its domain the axis's values.  Products,
quotients and remainders are helper variables that the layout determines, so that every
layout is one solution.
"""

from collections.abc import Callable, Sequence
from itertools import product

from ortools.sat.python import cp_model

from cost_models.specs.strategy import Schedule
from search.rules.rule import LAYOUT_AXES, Problem
from search.space.space import Space

Literals = tuple[cp_model.IntVar, ...]
"""None, or the one that a rule hangs on."""


class LayoutModel:
    """A CP-SAT model over some layout axes, and the arithmetic that the rules share."""

    def __init__(self, space: Space, problem: Problem, axes: Sequence[str] = LAYOUT_AXES) -> None:
        self.space = space
        self.problem = problem
        self.model = cp_model.CpModel()
        self.variables = {
            axis: self.model.new_int_var_from_domain(
                cp_model.Domain.from_values([int(value) for value in space.axes[axis]]), axis
            )
            for axis in axes
        }
        self._known: dict[tuple[object, ...], cp_model.IntVar] = {}

    def __getitem__(self, axis: str) -> cp_model.IntVar:
        return self.variables[axis]

    @staticmethod
    def _bounds(variable: cp_model.IntVar) -> tuple[int, int]:
        ends = list(variable.proto.domain)
        return int(ends[0]), int(ends[-1])

    def _helper(
        self,
        key: tuple[object, ...],
        bounds: tuple[int, int],
        define: Callable[[cp_model.IntVar], object],
    ) -> cp_model.IntVar:
        if key not in self._known:
            variable = self.model.new_int_var(*bounds, str(key))
            define(variable)
            self._known[key] = variable
        return self._known[key]

    def times(self, a: cp_model.IntVar, b: cp_model.IntVar) -> cp_model.IntVar:
        """Product of two variables."""
        (low, high), (least, most) = self._bounds(a), self._bounds(b)
        return self._helper(
            ("times", a.index, b.index),
            (low * least, high * most),
            lambda v: self.model.add_multiplication_equality(v, [a, b]),
        )

    def remainder(self, a: cp_model.IntVar | int, b: cp_model.IntVar) -> cp_model.IntVar:
        """What is left of ``a`` after division by ``b``."""
        key = a if isinstance(a, int) else ("variable", a.index)
        return self._helper(
            ("remainder", key, b.index),
            (0, self._bounds(b)[1]),
            lambda v: self.model.add_modulo_equality(v, a, b),
        )

    def quotient(self, a: cp_model.IntVar | int, b: cp_model.IntVar) -> cp_model.IntVar:
        """How often ``b`` goes into ``a``."""
        key, top = (a, a) if isinstance(a, int) else (("variable", a.index), self._bounds(a)[1])
        return self._helper(
            ("quotient", key, b.index),
            (0, top),
            lambda v: self.model.add_division_equality(v, a, b),
        )

    def equals(self, variable: cp_model.IntVar, value: int) -> cp_model.IntVar:
        """The literal of ``variable == value``."""
        key = ("equals", variable.index, value)
        if key not in self._known:
            literal = self.model.new_bool_var(str(key))
            self.model.add(variable == value).only_enforce_if(literal)
            self.model.add(variable != value).only_enforce_if(~literal)
            self._known[key] = literal
        return self._known[key]

    def scheduled(self, schedule: Schedule) -> cp_model.IntVar:
        """The literal of one schedule."""
        return self.equals(self["schedule"], int(schedule))

    def micro_batches(self) -> cp_model.IntVar:
        """Micro-batches of one pipeline in a step, rounded down."""
        ranks = self.times(self["micro_batch_size"], self["dp"])
        return self.quotient(self.problem.workload.global_batch_size, ranks)

    def require(
        self, constraint: cp_model.BoundedLinearExpression | bool, guard: Literals, *when: object
    ) -> None:
        """The constraint holds where all literals of ``guard`` and ``when`` do."""
        self.model.add(constraint).only_enforce_if([*guard, *when])

    def rows(self, axes: Sequence[str], rows: Sequence[tuple[int, ...]], guard: Literals) -> None:
        """The axes take one of ``rows`` together; ``guard`` is a column of the table."""
        variables = [self[axis] for axis in axes]
        if not guard:
            self.model.add_allowed_assignments(variables, rows)
            return
        free = product(*(self.space.axes[axis] for axis in axes))
        table = [(*row, 1) for row in rows] + [(*(int(x) for x in row), 0) for row in free]
        self.model.add_allowed_assignments([*variables, *guard], table)

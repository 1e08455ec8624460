"""Points of a space as one whole number per axis, and from any such numbers a legal strategy.

An explorer picks a position on every axis without knowing the rules.  Axis by axis, the
position is moved to the nearest one from which a legal strategy can still be completed,
so that every point means a legal strategy and a position means the same everywhere.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Ints
from search.rules.rule import LAYOUT_AXES
from search.sweep.census import Census
from search.sweep.knob_axes import LAYOUT, KnobAxis
from search.sweep.legality import LegalGrid, contract


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of the explored box."""

    name: str
    size: int


class Codec:
    """Between points of a box of whole numbers and the legal strategies of a census."""

    def __init__(self, census: Census) -> None:
        self._grids = census.grids
        parts = [g.layouts for g in census.grids]
        layouts = Strategies.concatenate(parts)
        self._layouts = np.stack([layouts.columns[name] for name in LAYOUT_AXES], axis=1)
        self._grid_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        self._row_of = np.concatenate([np.arange(len(part)) for part in parts])
        self._values = [np.unique(column) for column in self._layouts.T]
        knobs: dict[str, dict[tuple[Any, ...], int]] = {}
        self._orders: list[dict[str, Ints]] = []
        for g in census.grids:
            orders = {}
            for axis in g.axes:
                known = knobs.setdefault(axis.name, {})
                places = [known.setdefault(choice, len(known)) for choice in _choices(axis)]
                orders[axis.name] = np.array(places)
            self._orders.append(orders)
        self._knobs = {name: len(known) for name, known in knobs.items()}

    @property
    def axes(self) -> list[Axis]:
        """The axes with more than one position; ``dp`` follows from the others."""
        layout = [
            Axis(name, len(values))
            for name, values in zip(LAYOUT_AXES, self._values, strict=True)
            if name != "dp"
        ]
        knobs = [Axis(name, size) for name, size in self._knobs.items()]
        return [axis for axis in (*layout, *knobs) if axis.size > 1]

    def strategy(self, point: Mapping[str, int]) -> Strategy:
        """The legal strategy nearest to a point, axis by axis."""
        index = self._layout(point)
        g, row = self._grids[self._grid_of[index]], int(self._row_of[index])
        orders = self._orders[self._grid_of[index]]
        columns: dict[str, Any] = {
            name: np.array([value])
            for name, value in zip(LAYOUT_AXES, self._layouts[index], strict=True)
        }
        fixed: dict[str, int] = {LAYOUT: row}
        for axis in g.axes:
            legal = np.flatnonzero(_completable(g, axis, fixed))
            order = orders[axis.name][legal]
            nearest = np.lexsort((order, np.abs(order - point.get(axis.name, 0))))[0]
            place = int(legal[nearest])
            fixed[axis.name] = place
            for name, column in axis.columns.items():
                one = (
                    column[place]
                    if column.ndim == 1
                    else column[place, min(row, column.shape[1] - 1)]
                )
                columns[name] = np.array([one])
        return Strategies(**columns).row(0)

    def point(self, strategy: Strategy) -> dict[str, int]:
        """The point of a strategy of this space."""
        point = {}
        for name, values in zip(LAYOUT_AXES, self._values, strict=True):
            point[name] = int(np.argmin(np.abs(values - int(getattr(strategy, name)))))
        index = self._layout(point)
        g, row = self._grids[self._grid_of[index]], int(self._row_of[index])
        for axis in g.axes:
            for place, position in enumerate(self._orders[self._grid_of[index]][axis.name]):
                if _is(axis, place, row, strategy):
                    point[axis.name] = int(position)
                    break
        wide = {axis.name for axis in self.axes}
        return {name: position for name, position in point.items() if name in wide}

    def _layout(self, point: Mapping[str, int]) -> int:
        """Row of the nearest legal layout, axis by axis."""
        rows: Ints = np.arange(len(self._layouts))
        for place, name in enumerate(LAYOUT_AXES):
            if name == "dp":
                continue
            values = self._values[place]
            here = np.searchsorted(values, self._layouts[rows, place])
            distance = np.abs(here - point.get(name, 0))
            best = here[np.lexsort((here, distance))[0]]
            rows = rows[here == best]
        return int(rows[0])


def _choices(axis: KnobAxis) -> list[tuple[Any, ...]]:
    """What stands for every choice of an axis, the same in all classes of layouts."""
    if axis.labels:
        return list(axis.labels)
    columns = list(axis.columns.values())
    return [tuple(column[i].item() for column in columns) for i in range(axis.size)]


def _is(axis: KnobAxis, place: int, row: int, strategy: Strategy) -> bool:
    if axis.valid is not None and not axis.valid[place, row]:
        return False
    for name, column in axis.columns.items():
        one = column[place] if column.ndim == 1 else column[place, min(row, column.shape[1] - 1)]
        if one != getattr(strategy, name):
            return False
    return True


def _completable(g: LegalGrid, axis: KnobAxis, fixed: Mapping[str, int]) -> NDArray[Any]:
    """Which choices of an axis some legal strategy has, the ``fixed`` ones given."""
    if axis.size == 1:
        return np.ones(1, dtype=np.bool_)  # some strategy has the fixed ones
    factors = [factor.at(fixed) for factor in g.factors]
    sizes = {name: size for name, size in g.sizes.items() if name not in fixed}
    dims = (axis.name,) if axis.size > 1 else ()
    ways = contract(factors, sizes, dims)
    return np.broadcast_to(np.atleast_1d(ways > 0), (axis.size,))

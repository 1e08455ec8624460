"""Some entries of a grid, row by row, with other axes of it open.

What survives a cut has no grid's shape any more: its layouts and closed knobs become
columns of shape (rows,), and the next axes stand before them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Ints
from search.rules.rule import LAYOUT_AXES, Mask
from search.sweep.knob_axes import LAYOUT, KnobAxis
from search.sweep.legality import LegalGrid


def axes_called(g: LegalGrid, names: tuple[str, ...]) -> list[KnobAxis]:
    """The grid's axes of these names, in the grid's order."""
    return [axis for axis in g.axes if axis.name in names]


def dims_called(g: LegalGrid, names: tuple[str, ...]) -> tuple[str, ...]:
    """Dimensions of a grid with only these axes open: those with several choices, and layouts."""
    return (*(axis.name for axis in g.axes if axis.name in names and axis.size > 1), LAYOUT)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some entries of a grid's leading dimensions, as flat indices by dimension."""

    index: Mapping[str, Ints]
    count: int

    def take(self, rows: Any) -> "Rows":
        """Some of the rows."""
        index = {name: values[rows] for name, values in self.index.items()}
        return Rows(index, len(next(iter(index.values()))))

    def chunks(self, size: int) -> Iterator["Rows"]:
        """The rows in pieces of at most ``size``."""
        for start in range(0, self.count, size):
            yield self.take(slice(start, start + size))


def rows_of(g: LegalGrid, dims: tuple[str, ...], mask: Mask) -> Rows:
    """Where ``mask`` holds; axes with one choice are there too."""
    found = np.nonzero(mask)
    index: dict[str, Ints] = dict(zip(dims, found, strict=True))
    zero = np.zeros(len(found[0]), dtype=np.int64)
    for axis in g.axes:
        if axis.size == 1:
            index[axis.name] = zero
    return Rows(index, len(zero))


def flat_axes(g: LegalGrid, rows: Rows, names: tuple[str, ...]) -> dict[str, Any]:
    """Columns of shape (rows,) of the layouts and of the axes called ``names``."""
    where = rows.index[LAYOUT]
    columns: dict[str, Any] = {
        name: np.broadcast_to(g.layouts.columns[name], g.layouts.shape)[where]
        for name in LAYOUT_AXES
    }
    for axis in axes_called(g, names):
        picked = rows.index[axis.name]
        for name, column in axis.columns.items():
            columns[name] = column[picked] if column.ndim == 1 else _pair(column, picked, where)
    return columns


def _pair(column: NDArray[Any], picked: Ints, where: Ints) -> NDArray[Any]:
    return np.asarray(column[picked, where if column.shape[1] > 1 else 0])


def open_grid(
    g: LegalGrid,
    rows: Rows,
    flat: Mapping[str, Any],
    names: tuple[str, ...],
    closed: Mapping[str, Any],
) -> Strategies:
    """Strategies of shape (axes called ``names``, rows)."""
    axes = axes_called(g, names)
    n_dims = len(axes) + 1
    columns = {name: np.reshape(c, (1,) * len(axes) + (-1,)) for name, c in flat.items()}
    for place, axis in enumerate(axes):
        shape = [1] * n_dims
        shape[place] = axis.size
        for name, column in axis.columns.items():
            if column.ndim > 1 and column.shape[1] > 1:
                shape[-1] = rows.count
                columns[name] = column[:, rows.index[LAYOUT]].reshape(shape)
                shape[-1] = 1
            else:
                columns[name] = column.reshape(shape)
    for name, value in closed.items():
        columns[name] = np.reshape(value, (1,) * n_dims)
    return Strategies(**columns)


def gather(
    g: LegalGrid, values: NDArray[Any], dims: tuple[str, ...], rows: Rows, names: tuple[str, ...]
) -> NDArray[Any]:
    """Values over ``dims`` of a grid as values over (axes called ``names``, rows)."""
    axes = axes_called(g, names)
    index = []
    for name in dims:
        if name in names:
            place = next(i for i, axis in enumerate(axes) if axis.name == name)
            shape = [1] * (len(axes) + 1)
            shape[place] = -1
            index.append(np.arange(g.sizes[name]).reshape(shape))
        else:
            index.append(rows.index[name].reshape((1,) * len(axes) + (-1,)))
    if not index:
        return values
    return values[tuple(index)]

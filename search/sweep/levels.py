"""A class's strategies priced level by level, cut where a bound shows them beaten.

1. *Floors*: a layout with the knobs that its kernels and its least memory depend on.  Time
   is the bound of :mod:`cost_models.equations.bound` as if nothing were recomputed, gradients
   and weights travelled for nothing, and all that can be overlapped were.              (1)
2. *Items*: a floor with every knob but recompute, offload and the overlaps that cost
   nothing.  Time is the bound with nothing recomputed, for every offload of the
   optimizer.                                                                       (2)
3. *Cells*: an item with its recompute and offload.  Memory is exact, time is the bound
   with what is recomputed counted.  There the optimizer's terms add to the rest, so that
   what its offload changes in (2) is what it changes in (3).                       (3)
4. *Strategies*: a cell with its overlaps, priced.                                  (4)

In (1) and (2) memory is the least that whatever is open leaves (:mod:`search.sweep.memory_parts`).
Whatever the known frontier beats in (1), (2) or (3) is cut with all that it holds.
"""

from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.counting.work import step_work
from cost_models.equations.bound import step_bound_s, work_bound_s
from cost_models.equations.constants import Constants
from cost_models.equations.step import step_time_s
from cost_models.specs.strategy import Recompute, Sharding, Strategies
from cost_models.specs.units import Floats
from search.frontier.pareto import SLACK, Staircase, near_pareto
from search.rules import Problem
from search.rules.rule import Mask
from search.sweep.knob_axes import LAYOUT, grid
from search.sweep.least_memory import memory_model
from search.sweep.legality import LegalGrid, contract
from search.sweep.memory_parts import KEPT, Sides, fitting, memory_sides
from search.sweep.rows import Rows, axes_called, dims_called, flat_axes, gather, open_grid, rows_of

FLOOR = ("sharding", "sequence_parallel", "precision", "cp_comm", "order")
REST = ("overlap_tp", "overlap_ep")
"""What an item has beyond its floor."""
ITEM = (*FLOOR, *REST)
OFFLOAD = "optimizer_offload"
CELL = (KEPT, OFFLOAD)
LAST = ("overlap_p2p", "reduce")
CELLS = 1 << 19
"""Entries of the largest array of a block, about: the fewer blocks the less overhead."""


@dataclass(frozen=True, slots=True)
class Question:
    """What every level needs to know."""

    problem: Problem
    constants: Constants

    @property
    def bounded(self) -> bool:
        """The constants are such that the bound holds: hiding pays, and shares are shares."""
        c = self.constants
        shares = (
            *(c.overlap_price, c.dp_hidden, c.fsdp_hidden, c.p2p_hidden),
            *(c.tp_hidden, c.ep_hidden),
        )
        return all(bool(np.all((np.asarray(x) >= 0) & (np.asarray(x) <= 1))) for x in shares)

    def seconds(self, strategies: Strategies, *, bound: bool) -> Floats:
        """Step times, or their lower bound, of the strategies' shape."""
        p = self.problem
        if bound and not self.bounded:
            return np.zeros(strategies.shape)
        price = step_bound_s if bound else step_time_s
        seconds = price(p.model, p.cluster, p.workload, strategies, self.constants)
        return np.broadcast_to(seconds, strategies.shape)

    def floor_s(self, strategies: Strategies) -> Floats:
        """Lower bound (1) of step times, whatever is sharded and offloaded.

        ``strategies`` shard by ZeRO-1, which leaves a rank the least to update.
        """
        p = self.problem
        if not self.bounded:
            return np.zeros(strategies.shape)
        columns: dict[str, Any] = {**strategies.columns, "dp_shard": strategies.dp}
        s = Strategies(**columns)
        work = step_work(p.model, p.cluster, p.workload, s)
        zero = np.zeros(())
        state = replace(
            work.state, grad_reduce_bytes=zero, param_gather_bytes=zero, offloaded_bytes=zero
        )
        # where the host is waited for, what an overlap hides is not saved, but its price is paid
        free = replace(self.constants, overlap_price=0.0)
        return np.broadcast_to(work_bound_s(replace(work, state=state), s, free), strategies.shape)

    def bytes(self, strategies: Strategies) -> Floats:
        """Peak memory, of the strategies' shape."""
        return memory_model(self.constants)(self.problem, strategies)


@dataclass(slots=True)
class Tally:
    """Strategies counted on the way."""

    fits: int = 0
    priced: int = 0
    cut_floors: int = 0
    """Cut at (1)."""
    cut_items: int = 0
    """Cut at (2)."""
    cut_cells: int = 0
    """Cut at (3)."""

    def add(self, other: "Tally") -> None:
        """Sum up."""
        self.fits += other.fits
        self.priced += other.priced
        self.cut_floors += other.cut_floors
        self.cut_items += other.cut_items
        self.cut_cells += other.cut_cells


@dataclass(slots=True)
class Found:
    """What one block of layouts contributed."""

    tally: Tally = field(default_factory=Tally)
    memory_bytes: list[Floats] = field(default_factory=list)
    step_time_s: list[Floats] = field(default_factory=list)
    strategies: list[Strategies] = field(default_factory=list)
    cut: list[Strategies] = field(default_factory=list)
    """A sample of what was cut, where one was asked for."""


def quickest(g: LegalGrid) -> dict[str, Any]:
    """Columns that bound what is still open: nothing recomputed or offloaded, all overlapped."""
    columns: dict[str, Any] = {
        "recompute": Recompute.NONE,
        "recompute_layers": 0,
        "activation_offload": 0.0,
    }
    return columns | overlapped(g)


def floored(g: LegalGrid) -> dict[str, Any]:
    """Columns of the floors: all that can be overlapped is, and the optimizer offloads most."""
    return quickest(g) | {
        "sharding": Sharding.ZERO1,
        "dp_shard": 1,
        "reshard_after_forward": True,
        "optimizer_offload": float(g.axis(OFFLOAD).columns[OFFLOAD].max()),
        "overlap_tp": bool(g.axis("overlap_tp").columns["overlap_tp"].any()),
        "overlap_ep": bool(g.axis("overlap_ep").columns["overlap_ep"].any()),
    }


def overlapped(g: LegalGrid) -> dict[str, Any]:
    """Columns of the overlaps that cost nothing, at their quickest."""
    reduce = g.axis("reduce").columns
    return {
        "overlap_p2p": bool(g.axis("overlap_p2p").columns["overlap_p2p"].any()),
        **{name: bool(column.any()) for name, column in reduce.items()},
    }


def _floor_bounds(q: Question, g: LegalGrid) -> Floats:
    """Times (1) over what they depend on: sharding is 1 long."""
    names = tuple(name for name in FLOOR if name != "sharding")
    seconds = q.floor_s(grid(g.layouts, axes_called(g, names), floored(g)))
    return seconds.reshape([_size(g, name, name in names) for name in dims_called(g, FLOOR)])


def _size(g: LegalGrid, name: str, opened: bool) -> int:
    return g.sizes[name] if opened or name == LAYOUT else 1


def _over_floors(g: LegalGrid, values: Floats, dims: tuple[str, ...]) -> Floats:
    """Values over ``dims`` that broadcast over the floors' dimensions."""
    return values.reshape([_size(g, name, name in dims) for name in dims_called(g, FLOOR)])


def _legal_over(
    g: LegalGrid, rows: Rows, names: tuple[str, ...], known: tuple[tuple[str, ...], ...]
) -> Mask:
    """Product over (axes called ``names``, rows) of the factors that are not yet ``known``."""
    legal = np.ones((1,) * (len(axes_called(g, names)) + 1), dtype=np.bool_)
    reach = {*rows.index, *names}
    for factor in g.factors:
        if set(factor.dims) <= reach and not any(set(factor.dims) <= set(k) for k in known):
            legal = legal & gather(g, factor.mask, factor.dims, rows, names)
    return legal


def sweep_block(q: Question, g: LegalGrid, known: Staircase, sample: int = 0) -> Found:
    """All of a grid against the frontier known so far."""
    found = Found()
    capacity = q.problem.cluster.usable_memory_bytes
    dims = dims_called(g, FLOOR)
    sides = memory_sides(q.problem, q.constants, g)
    fits = fitting(g, sides, capacity).over(g, dims)
    found.tally.fits = round(float(fits.sum()))
    if not found.tally.fits:
        return found
    lean = sides.least()
    leanest = lean.without("optimizer_offload")
    least = _over_floors(g, leanest.peak(), leanest.dims)
    beaten = known.best_time(least) < _floor_bounds(q, g) * (1.0 - SLACK)
    some = fits > 0
    alive = some & ~beaten
    if sample:
        lost = rows_of(g, dims, some & beaten)
        found.cut.append(sample_of(g, lost, (*REST, *CELL, *LAST), sample))
    left = round(float(fits.sum(where=alive)))
    found.tally.cut_floors = found.tally.fits - left
    floors = rows_of(g, dims, alive)
    kept = 0
    per_floor = prod(axis.size for axis in axes_called(g, (*REST, OFFLOAD)))
    step = max(1, CELLS // (2 * prod(axis.size for axis in axes_called(g, CELL))))
    for rows in floors.chunks(max(1, CELLS // (2 * per_floor))):
        items, fastest = _items(q, g, lean, rows, known, found, sample)
        for start in range(0, items.count, step):
            few, least_s = items.take(slice(start, start + step)), fastest[:, start : start + step]
            kept += _sweep_items(q, g, sides, few, least_s, known, found, sample)
    found.tally.cut_items = left - kept
    return found


def _items(
    q: Question,
    g: LegalGrid,
    lean: Sides,
    floors: Rows,
    known: Staircase,
    found: Found,
    sample: int,
) -> tuple[Rows, Floats]:
    """Level (2): the items that the frontier does not beat, and their least times.

    The times are of shape (optimizer_offload, items), inf where the frontier beats them.
    """
    flat = flat_axes(g, floors, FLOOR)
    names = (*REST, OFFLOAD)
    seconds = q.seconds(open_grid(g, floors, flat, names, quickest(g)), bound=True)
    least = np.broadcast_to(lean.of_rows(g, floors, names), seconds.shape)
    legal = _legal_over(g, floors, names, (dims_called(g, FLOOR),)) & (
        least <= q.problem.cluster.usable_memory_bytes
    )
    alive = legal & ~known.beats(least, seconds)
    place = [axis.name for axis in axes_called(g, names)].index(OFFLOAD)
    some = np.asarray(alive.any(axis=place))
    if sample:
        lost = _inside(g, floors, REST, np.asarray(legal.any(axis=place)) & ~some)
        found.cut.append(sample_of(g, lost, (*CELL, *LAST), sample))
    fastest = np.moveaxis(np.where(alive, seconds, np.inf), place, 0)
    return _inside(g, floors, REST, some), fastest[:, some]


def _sweep_items(
    q: Question,
    g: LegalGrid,
    sides: Sides,
    items: Rows,
    fastest: Floats,
    known: Staircase,
    found: Found,
    sample: int,
) -> int:
    """Levels (3) and (4) of some items; returns how many strategies of theirs fit."""
    ways = _last_ways(g, items)
    peak = np.asarray(sides.of_rows(g, items, CELL))
    legal = _legal_over(g, items, CELL, (dims_called(g, ITEM),)) & (ways > 0)
    legal = legal & (peak <= q.problem.cluster.usable_memory_bytes)
    legal = np.broadcast_to(legal, (g.axis(KEPT).size, g.axis(OFFLOAD).size, items.count))
    peak, ways = np.broadcast_to(peak, legal.shape), np.broadcast_to(ways, legal.shape)
    holds = round(float(np.sum(ways, where=legal)))
    alive = legal & ~known.beats(peak, np.broadcast_to(fastest, legal.shape))
    some = np.flatnonzero(alive.any(axis=(0, 1)))
    if len(some):
        rows = items.take(some)
        seconds = fastest[:, some] + _recomputing(q, g, rows)[:, None]
        alive[..., some] &= ~known.beats(peak[..., some], seconds)
    priced = round(float(np.sum(ways, where=alive)))
    found.tally.cut_cells += holds - priced
    found.tally.priced += priced
    cells = _inside(g, items, CELL, alive)
    if sample:
        lost = _inside(g, items, CELL, legal & ~alive)
        found.cut.append(sample_of(g, lost, LAST, sample))
    _price_cells(q, g, cells, peak[alive], known, found)
    return holds


def _recomputing(q: Question, g: LegalGrid, items: Rows) -> Floats:
    """What recompute and offload of activations add to the items' bounds, over (kept, items)."""
    some = Rows({**items.index, OFFLOAD: np.zeros(items.count, dtype=np.int64)}, items.count)
    flat = flat_axes(g, some, (*ITEM, OFFLOAD))
    seconds = q.seconds(open_grid(g, some, flat, (KEPT,), overlapped(g)), bound=True)
    least = q.seconds(open_grid(g, some, flat, (), quickest(g)), bound=True)
    return np.asarray(seconds - least)


def _inside(g: LegalGrid, rows: Rows, names: tuple[str, ...], mask: Mask) -> Rows:
    """Where ``mask`` over (axes called ``names``, rows) holds."""
    *opened, row = np.nonzero(mask)
    index = {name: values[row] for name, values in rows.index.items()}
    for axis, choices in zip(axes_called(g, names), opened, strict=True):
        index[axis.name] = choices
    return Rows(index, len(row))


def _last_ways(g: LegalGrid, items: Rows) -> NDArray[Any]:
    """Legal settings of the last overlaps, over (kept, items)."""
    last = [factor for factor in g.factors if set(factor.dims) & set(LAST)]
    dims = tuple(dict.fromkeys(d for factor in last for d in factor.dims if d not in LAST))
    sizes = {name: size for name, size in g.sizes.items() if name in (*dims, *LAST)}
    return gather(g, contract(last, sizes, dims), dims, items, CELL)


def _price_cells(
    q: Question, g: LegalGrid, cells: Rows, peak: Floats, known: Staircase, found: Found
) -> None:
    """Level (4): every legal strategy of the cells, priced."""
    per_cell = g.axis("overlap_p2p").size * g.axis("reduce").size
    step = max(1, CELLS // (4 * per_cell))
    for start in range(0, cells.count, step):
        rows = cells.take(slice(start, start + step))
        memory = peak[start : start + step]
        flat = flat_axes(g, rows, (*ITEM, *CELL))
        strategies = open_grid(g, rows, flat, LAST, {})
        legal = _legal_over(g, rows, LAST, ((*ITEM, *CELL, LAYOUT),))
        seconds = q.seconds(strategies, bound=False)
        usable = np.broadcast_to(legal, seconds.shape) & ~known.beats(memory, seconds)
        index = np.flatnonzero(usable)
        memory = np.broadcast_to(memory, seconds.shape).reshape(-1)[index]
        near = near_pareto(memory, seconds.reshape(-1)[index])
        found.memory_bytes.append(memory[near])
        found.step_time_s.append(seconds.reshape(-1)[index[near]])
        found.strategies.append(strategies.take(index[near]))


def sample_of(g: LegalGrid, rows: Rows, names: tuple[str, ...], size: int) -> Strategies:
    """Some strategies within ``rows``, open knobs drawn at random; they may be illegal."""
    random = np.random.default_rng(rows.count)
    if not rows.count:
        return Strategies().flat().take(np.zeros(0, dtype=np.int64))
    some = rows.take(np.sort(random.integers(0, rows.count, size)))
    index = dict(some.index)
    for axis in axes_called(g, names):
        index[axis.name] = random.integers(0, axis.size, size)
    drawn = Rows(index, size)
    return Strategies(**flat_axes(g, drawn, (*ITEM, *CELL, *LAST))).flat()

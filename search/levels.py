"""A class's strategies priced level by level, cut where a bound shows them beaten.

1. *Items*: a layout with every knob but recompute, offload and the overlaps that cost
   nothing.  Memory is computed for all that matters to it, exactly; time is the lower
   bound (7) of :mod:`cost_models.step` with nothing recomputed.  The item's ideal point,
   its least memory and that time, bounds everything inside it.                     (1)
2. *Cells*: an item with its recompute and offload.  Memory is exact, time is the bound
   with what is recomputed counted.                                                 (2)
3. *Strategies*: a cell with its overlaps, priced.                                  (3)

Whatever the known frontier beats in (1) or (2) is cut with all that it holds.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.constants import Constants
from cost_models.step import step_time_s
from cost_models.strategy import Recompute, Strategies
from cost_models.units import Floats
from search.knob_axes import LAYOUT, grid
from search.lean import memory_model
from search.legality import LegalGrid, contract
from search.pareto import Staircase
from search.rows import Rows, axes_called, dims_called, flat_axes, gather, open_grid, rows_of
from search.rules import Problem
from search.rules.rule import Mask

ITEM = (
    "sharding",
    "sequence_parallel",
    "precision",
    "overlap_tp",
    "cp_comm",
    "order",
    "overlap_ep",
)
MEMORY = ("sharding", "sequence_parallel", "precision", "kept", "optimizer_offload")
CELL = ("kept", "optimizer_offload")
LAST = ("overlap_p2p", "reduce")
CELLS = 1 << 21
"""Entries of the largest array of a block, about: the fewer blocks the less overhead."""


@dataclass(frozen=True, slots=True)
class Question:
    """What every level needs to know."""

    problem: Problem
    constants: Constants

    @property
    def bounded(self) -> bool:
        """The constants are such that the bound (7) holds: hiding pays, and shares are shares."""
        c = self.constants
        shares = (c.overlap_price, c.dp_hidden, c.fsdp_hidden, c.p2p_hidden)
        return all(bool(np.all((np.asarray(x) >= 0) & (np.asarray(x) <= 1))) for x in shares)

    def seconds(self, strategies: Strategies, *, bound: bool) -> Floats:
        """Step times, or their lower bound, of the strategies' shape."""
        p = self.problem
        if bound and not self.bounded:
            return np.zeros(strategies.shape)
        seconds = step_time_s(
            p.model, p.cluster, p.workload, strategies, self.constants, bound=bound
        )
        return np.broadcast_to(seconds, strategies.shape)

    def bytes(self, strategies: Strategies) -> Floats:
        """Peak memory, of the strategies' shape."""
        return memory_model(self.constants)(self.problem, strategies)


@dataclass(slots=True)
class Tally:
    """Strategies counted on the way."""

    fits: int = 0
    priced: int = 0
    cut_items: int = 0
    """Cut at (1)."""
    cut_cells: int = 0
    """Cut at (2)."""

    def add(self, other: "Tally") -> None:
        """Sum up."""
        self.fits += other.fits
        self.priced += other.priced
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


def overlapped(g: LegalGrid) -> dict[str, Any]:
    """Columns of the overlaps that cost nothing, at their quickest."""
    reduce = g.axis("reduce").columns
    return {
        "overlap_p2p": bool(g.axis("overlap_p2p").columns["overlap_p2p"].any()),
        **{name: bool(column.any()) for name, column in reduce.items()},
    }


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes over the dimensions that decide them, inf where illegal or too large."""

    dims: tuple[str, ...]
    usable: Floats
    fits: int


def memory_grid(q: Question, g: LegalGrid) -> Memory:
    """Peak memory of all strategies of a grid."""
    dims = dims_called(g, MEMORY)
    peak = q.bytes(grid(g.layouts, axes_called(g, MEMORY)))
    capacity = q.problem.cluster.usable_memory_bytes
    ways = g.completions(dims)
    usable = g.mask(dims) & (peak <= capacity) & (ways > 0)
    fits = round(float(np.sum(np.broadcast_to(ways, usable.shape), where=usable)))
    return Memory(dims, np.where(usable, peak, np.inf), fits)


def _fitting(g: LegalGrid, memory: Memory) -> tuple[LegalGrid, Memory]:
    """The same without choices and layouts that never fit."""
    fits = memory.usable < np.inf
    keep: dict[str, Mask] = {}
    usable = memory.usable
    for place, name in enumerate(memory.dims):
        others = tuple(i for i in range(fits.ndim) if i != place)
        keep[name] = np.asarray(fits.any(axis=others))
        usable = np.compress(keep[name], usable, axis=place)
    sizes = dict(zip(memory.dims, usable.shape, strict=True))
    dims = tuple(name for name in memory.dims if sizes[name] > 1 or name == LAYOUT)
    return g.only(keep), Memory(dims, usable.reshape([sizes[name] for name in dims]), memory.fits)


def _item_bounds(q: Question, g: LegalGrid, memory: Memory) -> tuple[Floats, Floats, Mask]:
    """Ideal points (1) of all items: least memory, least time, and which are legal."""
    dims = dims_called(g, ITEM)
    inner = tuple(i for i, name in enumerate(memory.dims) if name in CELL)
    least = memory.usable.min(axis=inner) if inner else memory.usable
    names = [name for name in memory.dims if name not in CELL]
    sizes = dict(zip(names, least.shape, strict=True))
    least = least.reshape([sizes.get(name, 1) for name in dims])
    shape = [g.sizes[name] for name in dims]
    legal = np.broadcast_to(g.mask(dims) & (least < np.inf), shape)
    open_dims = dims_called(g, (*ITEM, "optimizer_offload"))
    seconds = q.seconds(
        grid(g.layouts, axes_called(g, (*ITEM, "optimizer_offload")), quickest(g)), bound=True
    )
    if "optimizer_offload" in open_dims:
        seconds = seconds.min(axis=open_dims.index("optimizer_offload"))
    return np.broadcast_to(least, shape), seconds, legal


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
    memory = memory_grid(q, g)
    found.tally.fits = memory.fits
    if not memory.fits:
        return found
    g, memory = _fitting(g, memory)
    dims = dims_called(g, ITEM)
    least, seconds, legal = _item_bounds(q, g, memory)
    alive = legal & ~known.beats(least, seconds)
    items = rows_of(g, dims, alive)
    fastest = seconds[alive]
    if sample:
        lost = rows_of(g, dims, legal & ~alive)
        found.cut.append(sample_of(g, lost, (*CELL, *LAST), sample))
    kept = 0
    per_item = g.axis("kept").size * g.axis("optimizer_offload").size
    for start in range(0, items.count, max(1, CELLS // per_item)):
        part = slice(start, start + max(1, CELLS // per_item))
        kept += _sweep_items(q, g, memory, items.take(part), fastest[part], known, found, sample)
    found.tally.cut_items = memory.fits - kept
    return found


def _sweep_items(
    q: Question,
    g: LegalGrid,
    memory: Memory,
    items: Rows,
    fastest: Floats,
    known: Staircase,
    found: Found,
    sample: int,
) -> int:
    """Levels (2) and (3) of some items; returns how many strategies of theirs fit."""
    ways = _last_ways(g, items)
    peak = gather(g, memory.usable, memory.dims, items, CELL)
    dims = (dims_called(g, MEMORY), dims_called(g, ITEM))
    legal = _legal_over(g, items, CELL, dims) & (peak < np.inf) & (ways > 0)
    peak, ways = np.broadcast_to(peak, legal.shape), np.broadcast_to(ways, legal.shape)
    holds = round(float(np.sum(ways, where=legal)))
    alive = legal & ~known.beats(peak, np.broadcast_to(fastest, legal.shape))
    some = np.flatnonzero(alive.any(axis=(0, 1)))
    if len(some):
        rows = items.take(some)
        flat = flat_axes(g, rows, ITEM)
        seconds = q.seconds(open_grid(g, rows, flat, CELL, overlapped(g)), bound=True)
        alive[..., some] &= ~known.beats(peak[..., some], seconds)
    priced = round(float(np.sum(ways, where=alive)))
    found.tally.cut_cells += holds - priced
    found.tally.priced += priced
    cells = _cells(g, items, alive)
    if sample:
        found.cut.append(sample_of(g, _cells(g, items, legal & ~alive), LAST, sample))
    _price_cells(q, g, cells, peak[alive], known, found)
    return holds


def _cells(g: LegalGrid, items: Rows, alive: Mask) -> Rows:
    """Rows of the cells where ``alive``, of shape (kept, optimizer_offload, items), holds."""
    kept, offload, item = np.nonzero(alive)
    index = {name: values[item] for name, values in items.index.items()}
    return Rows(index | {"kept": kept, "optimizer_offload": offload}, len(item))


def _last_ways(g: LegalGrid, items: Rows) -> NDArray[Any]:
    """Legal settings of the last overlaps, over (kept, optimizer_offload, items)."""
    last = [factor for factor in g.factors if set(factor.dims) & set(LAST)]
    dims = tuple(dict.fromkeys(d for factor in last for d in factor.dims if d not in LAST))
    sizes = {name: size for name, size in g.sizes.items() if name in (*dims, *LAST)}
    return gather(g, contract(last, sizes, dims), dims, items, CELL)


def _price_cells(
    q: Question, g: LegalGrid, cells: Rows, peak: Floats, known: Staircase, found: Found
) -> None:
    """Level (3): every legal strategy of the cells, priced."""
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
        found.memory_bytes.append(np.broadcast_to(memory, seconds.shape).reshape(-1)[index])
        found.step_time_s.append(seconds.reshape(-1)[index])
        found.strategies.append(strategies.take(index))


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

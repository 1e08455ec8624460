"""Branch and bound over a grid of strategies, against the frontier known so far.

The incumbents are that frontier.  The tree branches in three steps, and each node bounds all
that it holds:

1. *Layout nodes*: a layout with the knobs that its kernels and its least memory depend on.
   Time is the bound of :mod:`cost_models.equations.bound` for a relaxation: nothing is
   recomputed, gradients and weights travel for nothing, all that can be is overlapped.  (1)
2. *Overlap nodes*: a layout node with every knob but recompute, offload and the overlaps that
   cost nothing.  Time is the bound with nothing recomputed, for every offload of the
   optimizer.                                                                       (2)
3. *Memory nodes*: an overlap node with its recompute and offload.  Memory is exact, time is
   the bound with what is recomputed counted.  There the optimizer's terms add to the
   rest, so that what its offload changes in (2) is what it changes in (3).         (3)
4. *Leaves*: a memory node's strategies, one for each setting of the free overlaps.  (4)

In (1) and (2) memory is the least that whatever is open leaves
(:mod:`search.sweep.memory_halves`).  A node that the incumbents beat is cut with all its leaves.
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
from search.frontier.pareto import SLACK, Incumbents, near_pareto
from search.rules import Problem
from search.rules.rule import Mask
from search.sweep.knob_axes import LAYOUT, grid
from search.sweep.least_memory import memory_model
from search.sweep.legality import LegalGrid, contract
from search.sweep.memory_halves import KEPT, MemoryHalves, fitting, memory_halves
from search.sweep.rows import Rows, axes_called, dims_called, flat_axes, gather, open_grid, rows_of

LAYOUT_NODE = ("sharding", "sequence_parallel", "precision", "cp_comm", "order")
COSTLY_OVERLAPS = ("overlap_tp", "overlap_ep")
"""What an overlap node has beyond its layout node."""
OVERLAP_NODE = (*LAYOUT_NODE, *COSTLY_OVERLAPS)
OFFLOAD = "optimizer_offload"
MEMORY_KNOBS = (KEPT, OFFLOAD)
FREE_OVERLAPS = ("overlap_p2p", "reduce")
ENTRIES = 1 << 19
"""Entries of the largest array of a block, about: the fewer blocks the less overhead."""


@dataclass(frozen=True, slots=True)
class SweepProblem:
    """What every node is bounded and every leaf is priced with."""

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

    def layout_bound_s(self, strategies: Strategies) -> Floats:
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
    cut_layout_nodes: int = 0
    """Cut at (1)."""
    cut_overlap_nodes: int = 0
    """Cut at (2)."""
    cut_memory_nodes: int = 0
    """Cut at (3)."""

    def add(self, other: "Tally") -> None:
        """Sum up."""
        self.fits += other.fits
        self.priced += other.priced
        self.cut_layout_nodes += other.cut_layout_nodes
        self.cut_overlap_nodes += other.cut_overlap_nodes
        self.cut_memory_nodes += other.cut_memory_nodes


@dataclass(slots=True)
class Found:
    """What one block of layouts contributed."""

    tally: Tally = field(default_factory=Tally)
    memory_bytes: list[Floats] = field(default_factory=list)
    step_time_s: list[Floats] = field(default_factory=list)
    strategies: list[Strategies] = field(default_factory=list)
    cut: list[Strategies] = field(default_factory=list)
    """A sample of what was cut, where one was asked for."""


def relaxation(g: LegalGrid) -> dict[str, Any]:
    """Columns that bound what is still open: nothing recomputed or offloaded, all overlapped."""
    columns: dict[str, Any] = {
        "recompute": Recompute.NONE,
        "recompute_layers": 0,
        "activation_offload": 0.0,
    }
    return columns | overlapped(g)


def layout_relaxation(g: LegalGrid) -> dict[str, Any]:
    """Columns of bound (1): all that can be overlapped is, and the optimizer offloads most."""
    return relaxation(g) | {
        "sharding": Sharding.ZERO1,
        "dp_shard": 1,
        "reshard_after_forward": True,
        "optimizer_offload": float(g.axis(OFFLOAD).columns[OFFLOAD].max()),
        "overlap_tp": bool(g.axis("overlap_tp").columns["overlap_tp"].any()),
        "overlap_ep": bool(g.axis("overlap_ep").columns["overlap_ep"].any()),
    }


def overlapped(g: LegalGrid) -> dict[str, Any]:
    """Columns of the overlaps that cost nothing, at their relaxation."""
    reduce = g.axis("reduce").columns
    return {
        "overlap_p2p": bool(g.axis("overlap_p2p").columns["overlap_p2p"].any()),
        **{name: bool(column.any()) for name, column in reduce.items()},
    }


def _layout_bounds(q: SweepProblem, g: LegalGrid) -> Floats:
    """Times (1) over what they depend on: sharding is 1 long."""
    names = tuple(name for name in LAYOUT_NODE if name != "sharding")
    seconds = q.layout_bound_s(grid(g.layouts, axes_called(g, names), layout_relaxation(g)))
    return seconds.reshape([_size(g, name, name in names) for name in dims_called(g, LAYOUT_NODE)])


def _size(g: LegalGrid, name: str, opened: bool) -> int:
    return g.sizes[name] if opened or name == LAYOUT else 1


def _over_layout_nodes(g: LegalGrid, values: Floats, dims: tuple[str, ...]) -> Floats:
    """Values over ``dims`` that broadcast over the layout nodes' dimensions."""
    return values.reshape([_size(g, name, name in dims) for name in dims_called(g, LAYOUT_NODE)])


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


def sweep_block(q: SweepProblem, g: LegalGrid, incumbents: Incumbents, sample: int = 0) -> Found:
    """Branch and bound over all of a grid."""
    found = Found()
    capacity = q.problem.cluster.usable_memory_bytes
    dims = dims_called(g, LAYOUT_NODE)
    halves = memory_halves(q.problem, q.constants, g)
    fits = fitting(g, halves, capacity).over(g, dims)
    found.tally.fits = round(float(fits.sum()))
    if not found.tally.fits:
        return found
    lean = halves.least()
    leanest = lean.without("optimizer_offload")
    least = _over_layout_nodes(g, leanest.peak(), leanest.dims)
    beaten = incumbents.best_time(least) < _layout_bounds(q, g) * (1.0 - SLACK)
    some = fits > 0
    alive = some & ~beaten
    if sample:
        lost = rows_of(g, dims, some & beaten)
        found.cut.append(
            sample_of(g, lost, (*COSTLY_OVERLAPS, *MEMORY_KNOBS, *FREE_OVERLAPS), sample)
        )
    left = round(float(fits.sum(where=alive)))
    found.tally.cut_layout_nodes = found.tally.fits - left
    layout_nodes = rows_of(g, dims, alive)
    kept = 0
    per_node = prod(axis.size for axis in axes_called(g, (*COSTLY_OVERLAPS, OFFLOAD)))
    step = max(1, ENTRIES // (2 * prod(axis.size for axis in axes_called(g, MEMORY_KNOBS))))
    for rows in layout_nodes.chunks(max(1, ENTRIES // (2 * per_node))):
        nodes, fastest = _branch_on_overlaps(q, g, lean, rows, incumbents, found, sample)
        for start in range(0, nodes.count, step):
            few, least_s = nodes.take(slice(start, start + step)), fastest[:, start : start + step]
            kept += _branch_on_memory(q, g, halves, few, least_s, incumbents, found, sample)
    found.tally.cut_overlap_nodes = left - kept
    return found


def _branch_on_overlaps(
    q: SweepProblem,
    g: LegalGrid,
    lean: MemoryHalves,
    layout_nodes: Rows,
    incumbents: Incumbents,
    found: Found,
    sample: int,
) -> tuple[Rows, Floats]:
    """Step (2): the overlap nodes that no incumbent beats, and their least times.

    The times are of shape (optimizer_offload, nodes), inf where an incumbent beats them.
    """
    flat = flat_axes(g, layout_nodes, LAYOUT_NODE)
    names = (*COSTLY_OVERLAPS, OFFLOAD)
    seconds = q.seconds(open_grid(g, layout_nodes, flat, names, relaxation(g)), bound=True)
    least = np.broadcast_to(lean.of_rows(g, layout_nodes, names), seconds.shape)
    legal = _legal_over(g, layout_nodes, names, (dims_called(g, LAYOUT_NODE),)) & (
        least <= q.problem.cluster.usable_memory_bytes
    )
    alive = legal & ~incumbents.beats(least, seconds)
    place = [axis.name for axis in axes_called(g, names)].index(OFFLOAD)
    some = np.asarray(alive.any(axis=place))
    if sample:
        lost = _children(
            g, layout_nodes, COSTLY_OVERLAPS, np.asarray(legal.any(axis=place)) & ~some
        )
        found.cut.append(sample_of(g, lost, (*MEMORY_KNOBS, *FREE_OVERLAPS), sample))
    fastest = np.moveaxis(np.where(alive, seconds, np.inf), place, 0)
    return _children(g, layout_nodes, COSTLY_OVERLAPS, some), fastest[:, some]


def _branch_on_memory(
    q: SweepProblem,
    g: LegalGrid,
    halves: MemoryHalves,
    nodes: Rows,
    fastest: Floats,
    incumbents: Incumbents,
    found: Found,
    sample: int,
) -> int:
    """Steps (3) and (4) below some overlap nodes; returns how many of their leaves fit."""
    ways = _last_ways(g, nodes)
    peak = np.asarray(halves.of_rows(g, nodes, MEMORY_KNOBS))
    legal = _legal_over(g, nodes, MEMORY_KNOBS, (dims_called(g, OVERLAP_NODE),)) & (ways > 0)
    legal = legal & (peak <= q.problem.cluster.usable_memory_bytes)
    legal = np.broadcast_to(legal, (g.axis(KEPT).size, g.axis(OFFLOAD).size, nodes.count))
    peak, ways = np.broadcast_to(peak, legal.shape), np.broadcast_to(ways, legal.shape)
    holds = round(float(np.sum(ways, where=legal)))
    alive = legal & ~incumbents.beats(peak, np.broadcast_to(fastest, legal.shape))
    some = np.flatnonzero(alive.any(axis=(0, 1)))
    if len(some):
        rows = nodes.take(some)
        seconds = fastest[:, some] + _recomputing(q, g, rows)[:, None]
        alive[..., some] &= ~incumbents.beats(peak[..., some], seconds)
    priced = round(float(np.sum(ways, where=alive)))
    found.tally.cut_memory_nodes += holds - priced
    found.tally.priced += priced
    memory_nodes = _children(g, nodes, MEMORY_KNOBS, alive)
    if sample:
        lost = _children(g, nodes, MEMORY_KNOBS, legal & ~alive)
        found.cut.append(sample_of(g, lost, FREE_OVERLAPS, sample))
    _price_leaves(q, g, memory_nodes, peak[alive], incumbents, found)
    return holds


def _recomputing(q: SweepProblem, g: LegalGrid, nodes: Rows) -> Floats:
    """What recompute and offload of activations add to the bounds, over (kept, nodes)."""
    some = Rows({**nodes.index, OFFLOAD: np.zeros(nodes.count, dtype=np.int64)}, nodes.count)
    flat = flat_axes(g, some, (*OVERLAP_NODE, OFFLOAD))
    seconds = q.seconds(open_grid(g, some, flat, (KEPT,), overlapped(g)), bound=True)
    least = q.seconds(open_grid(g, some, flat, (), relaxation(g)), bound=True)
    return np.asarray(seconds - least)


def _children(g: LegalGrid, rows: Rows, names: tuple[str, ...], mask: Mask) -> Rows:
    """The children of ``rows`` where ``mask`` over (axes called ``names``, rows) holds."""
    *opened, row = np.nonzero(mask)
    index = {name: values[row] for name, values in rows.index.items()}
    for axis, choices in zip(axes_called(g, names), opened, strict=True):
        index[axis.name] = choices
    return Rows(index, len(row))


def _last_ways(g: LegalGrid, nodes: Rows) -> NDArray[Any]:
    """Legal settings of the last overlaps, over (kept, nodes)."""
    last = [factor for factor in g.factors if set(factor.dims) & set(FREE_OVERLAPS)]
    dims = tuple(dict.fromkeys(d for factor in last for d in factor.dims if d not in FREE_OVERLAPS))
    sizes = {name: size for name, size in g.sizes.items() if name in (*dims, *FREE_OVERLAPS)}
    return gather(g, contract(last, sizes, dims), dims, nodes, MEMORY_KNOBS)


def _price_leaves(
    q: SweepProblem,
    g: LegalGrid,
    memory_nodes: Rows,
    peak: Floats,
    incumbents: Incumbents,
    found: Found,
) -> None:
    """Step (4): every leaf of the memory nodes, priced."""
    per_node = g.axis("overlap_p2p").size * g.axis("reduce").size
    step = max(1, ENTRIES // (4 * per_node))
    for start in range(0, memory_nodes.count, step):
        rows = memory_nodes.take(slice(start, start + step))
        memory = peak[start : start + step]
        flat = flat_axes(g, rows, (*OVERLAP_NODE, *MEMORY_KNOBS))
        strategies = open_grid(g, rows, flat, FREE_OVERLAPS, {})
        legal = _legal_over(g, rows, FREE_OVERLAPS, ((*OVERLAP_NODE, *MEMORY_KNOBS, LAYOUT),))
        seconds = q.seconds(strategies, bound=False)
        usable = np.broadcast_to(legal, seconds.shape) & ~incumbents.beats(memory, seconds)
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
    return Strategies(**flat_axes(g, drawn, (*OVERLAP_NODE, *MEMORY_KNOBS, *FREE_OVERLAPS))).flat()

"""Peak memory of a grid of strategies in two halves, never written out as a whole.

A pipeline rank holds state, which sharding and its like decide, and activations, which
recompute and its like decide:

    peak[s, a] = max over ranks r of (state_r[s] + moving_r[a])                      (1)

A grid of S choices of the one and A of the other needs S + A numbers for each rank, not
S A.  Its least memory is bounded by the sum of the halves' least,

    peak[s, a] >= max over r of (state_r[s] + min over a of moving_r[a]),            (2)

and what fits is counted by comparing state_r[s] with what moving_r[a] leaves of the
capacity: bytes of truth values that stay in the cache.  A comparison may disagree with the
rounded sum (1) about a strategy that fills the memory to the last of sixteen digits.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.equations.constants import Constants
from cost_models.equations.memory import memory_parts, moving_bytes, state_bytes
from cost_models.specs.units import Floats, Ints
from search.rules import Problem
from search.rules.rule import LAYOUT_AXES, Mask
from search.sweep.knob_axes import LAYOUT, KnobAxis, grid
from search.sweep.legality import Factor, LegalGrid, alike, contract, count_true
from search.sweep.rows import Rows, axes_called, dims_called, gather

MEMORY = ("sharding", "sequence_parallel", "precision", "kept", "optimizer_offload")
"""Axes that memory depends on."""
SAME_ACTIVATIONS = tuple(name for name in LAYOUT_AXES if name != "ep")
"""Layouts alike in these keep the same activations: ranks get as many tokens under any ep."""
TILE = 128
"""Layouts whose strategies are compared at a time."""

KEPT = "kept"


@dataclass(frozen=True, slots=True)
class MemoryHalves:
    """The halves of (1) over ``dims``; axes that a half does not depend on are 1 long."""

    dims: tuple[str, ...]
    ranks: list[tuple[Floats, Floats]]
    """(state, moving) of every representative rank, inf where no rule allows the choice."""
    across: list[Factor]
    """Rules that read choices of both halves."""

    def of_rows(self, g: LegalGrid, rows: Rows, names: tuple[str, ...]) -> Floats:
        """Peak (1) over (axes called ``names``, rows)."""
        peak: Floats | None = None
        for state, moving in self.ranks:
            bytes_used = self._pick(g, state, rows, names) + self._pick(g, moving, rows, names)
            peak = bytes_used if peak is None else np.maximum(peak, bytes_used)
        return np.asarray(peak)

    def least(self) -> "MemoryHalves":
        """The halves with every choice of what is kept at its least: bound (2)."""
        return self.without(KEPT)

    def without(self, name: str) -> "MemoryHalves":
        """The halves at the least over one more axis."""
        if name not in self.dims:
            return self
        place = self.dims.index(name)
        ranks = [(s.min(axis=place), m.min(axis=place)) for s, m in self.ranks]
        return MemoryHalves(tuple(d for d in self.dims if d != name), ranks, [])

    def peak(self) -> Floats:
        """Peak (1) over all of ``dims``."""
        peak = self.ranks[0][0] + self.ranks[0][1]
        for state, moving in self.ranks[1:]:
            peak = np.maximum(peak, state + moving)
        return np.asarray(peak)

    def _pick(self, g: LegalGrid, half: Floats, rows: Rows, names: tuple[str, ...]) -> Floats:
        dims = tuple(d for d, size in zip(self.dims, half.shape, strict=True) if size > 1)
        return np.asarray(
            gather(g, half.reshape([n for n in half.shape if n > 1]), dims, rows, names)
        )


def memory_halves(problem: Problem, constants: Constants, g: LegalGrid) -> MemoryHalves:
    """The halves of a grid's memory, with the rules that read one half folded in."""
    dims = dims_called(g, MEMORY)
    ranks = list(zip(_states(problem, constants, g), _movings(problem, constants, g), strict=True))
    across = []
    for factor in g.within(dims):
        halves = [_depends(dims, [rank[half] for rank in ranks]) for half in (0, 1)]
        if set(factor.dims) <= halves[1]:
            ranks = [(s, np.where(factor.over(dims), m, np.inf)) for s, m in ranks]
        elif set(factor.dims) <= halves[0]:
            ranks = [(np.where(factor.over(dims), s, np.inf), m) for s, m in ranks]
        else:
            across.append(factor)
    return MemoryHalves(dims, ranks, across)


def _states(problem: Problem, constants: Constants, g: LegalGrid) -> list[Floats]:
    """State of every rank; what is kept is 1 long, whatever it is."""
    dims = dims_called(g, MEMORY)
    names = tuple(name for name in MEMORY if name != KEPT)
    kept = {name: column[:1, :1] for name, column in _two_d(g.axis(KEPT)).items()}
    strategies = grid(g.layouts, axes_called(g, names), kept)
    parts = memory_parts(problem.model, problem.workload, strategies)
    own = dims_called(g, names)
    states = [_over(own, state_bytes(part, constants)) for part in parts]
    place = dims.index(KEPT) if KEPT in dims else None
    return states if place is None else [np.expand_dims(state, place) for state in states]


def _two_d(axis: KnobAxis) -> dict[str, NDArray[Any]]:
    return {name: column.reshape(len(column), -1) for name, column in axis.columns.items()}


def _movings(problem: Problem, constants: Constants, g: LegalGrid) -> list[Floats]:
    """Activations of every rank, computed once for layouts that hold the same."""
    dims = dims_called(g, MEMORY)
    first, which = alike(g.layouts, SAME_ACTIVATIONS)
    axes = [axis.of_layouts(first) for axis in axes_called(g, MEMORY)]
    parts = memory_parts(problem.model, problem.workload, grid(g.layouts.take(first), axes))
    movings = (_over(dims, moving_bytes(part, constants)) for part in parts)
    return [moving if moving.shape[-1] == 1 else moving[..., which] for moving in movings]


def _over(dims: tuple[str, ...], values: Floats) -> Floats:
    return values.reshape((1,) * (len(dims) - values.ndim) + values.shape)


def _depends(dims: tuple[str, ...], halves: list[Floats]) -> set[str]:
    """Dimensions that some rank's half depends on; layouts always."""
    return {LAYOUT} | {d for i, d in enumerate(dims) if any(h.shape[i] > 1 for h in halves)}


@dataclass(frozen=True, slots=True)
class Fitting:
    """Strategies of a grid that fit, by what decides how often each is completed."""

    dims: tuple[str, ...]
    """Memory's dimensions without what is kept."""
    counts: Ints
    """Of shape (group, *dims): choices of what is kept that fit."""
    examples: tuple[int, ...]
    """One such choice of each group; the other knobs complete all of a group alike."""

    def over(self, g: LegalGrid, dims: tuple[str, ...]) -> Floats:
        """Legal strategies that fit, over ``dims``."""
        wide = tuple(name for name in g.sizes if name in (*dims, *self.dims))
        outside = [f for f in g.factors if not set(f.dims) <= {*self.dims, KEPT}]
        total: Any = 0.0
        for counts, example in zip(self.counts, self.examples, strict=True):
            fixed = {KEPT: example}
            sizes = {name: size for name, size in g.sizes.items() if name != KEPT}
            ways = contract([factor.at(fixed) for factor in outside], sizes, wide)
            held = counts.reshape([g.sizes[d] if d in self.dims else 1 for d in wide])
            # whatever completes all alike is summed up first
            gone = tuple(i for i, d in enumerate(wide) if d not in dims and ways.shape[i] == 1)
            part = held.sum(axis=gone, keepdims=True) * ways
            rest = tuple(i for i, d in enumerate(wide) if d not in dims)
            total = total + part.sum(axis=rest)
        return np.broadcast_to(total, [g.sizes[name] for name in dims])


def _groups(g: LegalGrid, dims: tuple[str, ...]) -> list[Ints]:
    """Choices of what is kept, grouped by how rules beyond memory's axes see them."""
    if KEPT not in g.sizes:
        return [np.zeros(1, dtype=np.int64)]
    seen = [np.ones((g.sizes[KEPT], 1), dtype=np.bool_)]
    for factor in g.factors:
        if KEPT in factor.dims and not set(factor.dims) <= set(dims):
            mask = np.moveaxis(factor.mask, factor.dims.index(KEPT), 0)
            seen.append(mask.reshape(len(mask), -1))
    rows, which = np.unique(np.concatenate(seen, axis=1), axis=0, return_inverse=True)
    return [np.flatnonzero(which.reshape(-1) == i) for i in range(len(rows))]


def fitting(g: LegalGrid, halves: MemoryHalves, capacity_bytes: float) -> Fitting:
    """Count what fits, tile by tile of the layouts."""
    dims = tuple(name for name in halves.dims if name != KEPT)
    groups = _groups(g, halves.dims)
    outer = _depends(halves.dims, [s for s, _ in halves.ranks])
    outer -= _depends(halves.dims, [m for _, m in halves.ranks])
    order = [d for d in dims if d in outer] + [d for d in dims if d not in outer and d != LAYOUT]
    turned = [*order, KEPT, LAYOUT]
    n_outer = len(outer & set(dims))

    def turn(values: NDArray[Any]) -> NDArray[Any]:
        if KEPT not in halves.dims:
            values = values[..., None, :]
        names = [*dims[:-1], KEPT, LAYOUT] if KEPT not in halves.dims else list(halves.dims)
        return values.transpose([names.index(name) for name in turned])

    ranks = [(turn(s), turn(m)) for s, m in halves.ranks]
    across = [turn(factor.over(halves.dims)) for factor in halves.across]
    shape = tuple(g.sizes[name] for name in (*order, LAYOUT))
    counts = np.zeros((len(groups), *shape), dtype=np.int64)
    for start in range(0, shape[-1], TILE):
        tile = slice(start, start + TILE)
        _count_tile(
            [(_of(s, tile), _of(m, tile)) for s, m in ranks],
            [_of(mask, tile) for mask in across],
            capacity_bytes,
            groups,
            n_outer,
            counts[..., tile],
        )
    places = [[*order, LAYOUT].index(name) + 1 for name in dims]
    return Fitting(dims, counts.transpose([0, *places]), tuple(int(group[0]) for group in groups))


def _of(values: NDArray[Any], layouts: slice) -> NDArray[Any]:
    return values[..., layouts] if values.shape[-1] > 1 else values


def _count_tile(
    ranks: list[tuple[Floats, Floats]],
    across: list[Mask],
    capacity_bytes: float,
    groups: list[Ints],
    n_outer: int,
    counts: Ints,
) -> None:
    """Fill ``counts`` of shape (group, outer axes, inner axes, layouts)."""
    outer, inner = counts.shape[1 : 1 + n_outer], counts.shape[1 + n_outer :]
    places: Any
    some = [(s, np.ascontiguousarray(capacity_bytes - m)) for s, m in _governing(ranks)]
    allowed = np.isfinite(some[0][1])
    most = [limit.max(axis=-2, keepdims=True) for _, limit in some]
    least = [np.where(allowed, limit, np.inf).min(axis=-2, keepdims=True) for _, limit in some]
    states = [state for state, _ in some]
    within = tuple(range(n_outer, n_outer + len(inner) + 1))
    room = np.broadcast_to(_all_below(states, most).any(axis=within), outer)
    # a rank on which all of them fit need not be looked at again
    roomy = [
        np.broadcast_to((state <= limit).all(axis=within), outer)
        for state, limit in zip(states, least, strict=True)
    ]
    shape = (*inner[:-1], allowed.shape[-2], inner[-1])
    at_start = (0,) * n_outer
    every = np.broadcast_to(allowed[at_start], shape)
    every_sums = _sums(every, groups)
    for places in _where(room):
        tight = [k for k in range(len(some)) if not roomy[k][places]]
        if not tight and not across:
            counts[:, *places] = every_sums
            continue
        fits = every
        for k in tight:
            below = _at(states[k], places) <= some[k][1][at_start]
            fits = below if fits is every else np.logical_and(fits, below, out=below)
        for mask in across:
            fits = fits & _at(mask, places)
        counts[:, *places] = _sums(np.broadcast_to(fits, shape), groups)


def _where(mask: Mask) -> Iterator[tuple[int, ...]]:
    """Indices at which a mask holds; the empty one where there are no axes."""
    return (index for index in np.ndindex(mask.shape) if mask[index])


def _at(values: NDArray[Any], index: tuple[int, ...]) -> NDArray[Any]:
    """The entry of the leading axes, some of which are 1 long."""
    places = zip(index, values.shape, strict=False)
    return np.asarray(values[tuple(0 if size == 1 else i for i, size in places)])


def _all_below(states: list[Floats], limits: list[Floats]) -> Mask:
    below = states[0] <= limits[0]
    for state, limit in zip(states[1:], limits[1:], strict=True):
        below = below & (state <= limit)
    return np.asarray(below)


def _governing(ranks: list[tuple[Floats, Floats]]) -> list[tuple[Floats, Floats]]:
    """Without the ranks of which another one holds at least as much of both halves."""
    kept: list[tuple[Floats, Floats]] = []
    for state, moving in sorted(
        ranks, key=lambda r: -float(np.where(np.isfinite(r[1]), r[1], 0).sum())
    ):
        if not any(bool((moving <= m).all() and (state <= s).all()) for s, m in kept):
            kept.append((state, moving))
    return kept


def _sums(fits: Mask, groups: list[Ints]) -> Ints:
    """How many of each group hold, of shape (group, *inner axes, layouts)."""
    n_kept = fits.shape[-2]
    parts = [fits if len(group) == n_kept else fits[..., group, :] for group in groups]
    return np.stack([count_true(part, part.ndim - 2) for part in parts])

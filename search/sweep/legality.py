"""Legality of a grid of strategies as a product of small masks, and exact counts from them.

A rule reads a few columns, so its mask over a grid of all knobs spans few of the grid's
dimensions.  A grid's legal mask is the product of those *factors*; summed over dimensions
it is contracted pair by pair, as a tensor network, and never written out: ten billion
strategies are counted from some thousand numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from sys import maxsize
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.strategy import Sharding, Strategies
from cost_models.specs.units import Floats, Ints
from search.rules import Problem, Rule
from search.rules.rule import LAYOUT_AXES, Mask
from search.sweep.knob_axes import LAYOUT, KnobAxis, dimensions, grid

SPELLED_ONCE = "knobs_spelled_once"
"""Charged for settings that another spelling, or another layout's knobs, stand for."""


@dataclass(frozen=True, slots=True)
class Factor:
    """One mask over some of a grid's dimensions."""

    rule: str
    dims: tuple[str, ...]
    mask: Mask

    def only(self, keep: Mapping[str, Mask], gone: set[str]) -> "Factor":
        """The mask of some entries, without dimensions that are ``gone``, one entry long."""
        mask = self.mask
        for place, name in enumerate(self.dims):
            if name in keep and mask.shape[place] > 1:
                mask = np.compress(keep[name], mask, axis=place)
        dims = tuple(name for name in self.dims if name not in gone)
        shape = [n for n, name in zip(mask.shape, self.dims, strict=True) if name not in gone]
        return Factor(self.rule, dims, mask.reshape(shape))

    def at(self, fixed: Mapping[str, int]) -> "Factor":
        """The mask where some dimensions have one position."""
        index = tuple(fixed.get(name, slice(None)) for name in self.dims)
        kept = tuple(name for name in self.dims if name not in fixed)
        return Factor(self.rule, kept, np.asarray(self.mask[index]))

    def over(self, dims: Sequence[str]) -> Mask:
        """The mask as an array that broadcasts over ``dims``, which hold all of its own."""
        sizes = dict(zip(self.dims, self.mask.shape, strict=True))
        return self.mask.reshape([sizes.get(name, 1) for name in dims])


@dataclass(frozen=True, slots=True)
class LegalGrid:
    """A class's layouts and knob axes with the factors of their legality."""

    layouts: Strategies
    axes: tuple[KnobAxis, ...]
    factors: tuple[Factor, ...]

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length of every dimension."""
        found = {axis.name: axis.size for axis in self.axes if axis.size > 1}
        return found | {LAYOUT: len(self.layouts)}

    def axis(self, name: str) -> KnobAxis:
        """The axis of that name."""
        return next(axis for axis in self.axes if axis.name == name)

    def mask(self, dims: Sequence[str]) -> Mask:
        """Product of the factors that live within ``dims``."""
        legal = np.ones((1,) * len(dims), dtype=np.bool_)
        for factor in self.within(dims):
            legal = np.asarray(legal & factor.over(dims), dtype=np.bool_)
        return legal

    def within(self, dims: Sequence[str]) -> list[Factor]:
        """Factors all of whose dimensions are among ``dims``."""
        return [factor for factor in self.factors if set(factor.dims) <= set(dims)]

    def completions(self, dims: Sequence[str]) -> Floats:
        """For each entry of ``dims``, in how many ways the other knobs complete it legally.

        Broadcasts over ``dims``; the factors within ``dims`` are left out.
        """
        others = [factor for factor in self.factors if not set(factor.dims) <= set(dims)]
        return contract(others, self.sizes, tuple(dims))

    def alive(self) -> dict[str, Mask]:
        """Layouts with a legal strategy, and the choices that no rule forbids all of them.

        An axis's rules are those that read it alone or with the layout.
        """
        keep: dict[str, Mask] = {}
        for axis in self.axes:
            dims = tuple(name for name in (axis.name, LAYOUT) if name in self.sizes)
            mask = np.broadcast_to(self.mask(dims), [self.sizes[name] for name in dims])
            if axis.size > 1:
                keep[axis.name] = np.asarray(mask.any(axis=-1))
        ways = contract(self.factors, self.sizes, (LAYOUT,))
        keep[LAYOUT] = np.broadcast_to(ways > 0, (len(self.layouts),))
        return keep

    def trimmed(self) -> "LegalGrid":
        """The same legal strategies without choices and layouts that have none of them."""
        return self.only(self.alive())._merged()

    def _merged(self) -> "LegalGrid":
        """The same with factors of the same dimensions in one, which no rule owns."""
        masks: dict[tuple[str, ...], Mask] = {}
        for factor in self.factors:
            known = masks.get(factor.dims)
            masks[factor.dims] = factor.mask if known is None else known & factor.mask
        factors = tuple(Factor("", dims, mask) for dims, mask in masks.items())
        return LegalGrid(self.layouts, self.axes, factors)

    def rows(self, layouts: slice | Ints) -> "LegalGrid":
        """Some of the layouts, in the order they have."""
        keep = np.zeros(len(self.layouts), dtype=np.bool_)
        keep[layouts] = True
        return self.only({LAYOUT: keep})

    def only(self, keep: Mapping[str, Mask]) -> "LegalGrid":
        """Some choices of some dimensions; those not named stay whole."""
        keep = {LAYOUT: np.ones(len(self.layouts), dtype=np.bool_), **keep}
        layouts = self.layouts.take(keep[LAYOUT])
        axes = tuple(axis.only(keep.get(axis.name), keep[LAYOUT]) for axis in self.axes)
        gone = {axis.name for axis in axes if axis.size == 1}
        factors = [factor.only(keep, gone) for factor in self.factors]
        return LegalGrid(layouts, axes, tuple(f for f in factors if not f.mask.all()))

    def count(self) -> int:
        """Legal strategies."""
        return round(float(contract(self.factors, self.sizes, ())))

    def pruned(self) -> dict[str, int]:
        """Strategies that each rule removes, charged to their first broken rule."""
        left = prod(self.sizes.values())
        removed: dict[str, int] = {}
        for position, factor in enumerate(self.factors):
            remaining = round(float(contract(self.factors[: position + 1], self.sizes, ())))
            removed[factor.rule] = removed.get(factor.rule, 0) + left - remaining
            left = remaining
        return removed


def legal_grid(
    problem: Problem, layouts: Strategies, axes: tuple[KnobAxis, ...], rules: Sequence[Rule]
) -> LegalGrid:
    """The grid with its spelling and with every rule that reads a knob; idle rules drop out."""
    dims = dimensions(axes)
    factors = [
        _factor(SPELLED_ONCE, dims, _valid(axis, axes)) for axis in axes if axis.valid is not None
    ]
    one = np.zeros(1, dtype=np.int64)
    strategies = grid(layouts.take(one), [axis.of_layouts(one) for axis in axes])
    factors.append(_factor(SPELLED_ONCE, dims, _gathers(strategies, axes)))
    known: dict[tuple[str, ...], tuple[Strategies, Ints]] = {}
    factors += [
        _factor(rule.name, dims, _rule_mask(problem, layouts, axes, rule, known))
        for rule in rules
        if rule.knobs
    ]
    return LegalGrid(layouts, axes, tuple(f for f in factors if not f.mask.all()))


_READ_WITH = {"dp_shard": ("dp",), "recompute_layers": ("pp", "vpp")}
"""Knobs whose columns depend on the layout, and what of it."""


def _rule_mask(
    problem: Problem,
    layouts: Strategies,
    axes: Sequence[KnobAxis],
    rule: Rule,
    known: dict[tuple[str, ...], tuple[Strategies, Ints]],
) -> Mask:
    """A rule's mask over the grid, computed once for all layouts that it cannot tell apart."""
    more = [name for knob in rule.knobs for name in _READ_WITH.get(knob, ())]
    read = tuple(name for name in LAYOUT_AXES if name in (*rule.reads, *more))
    if read not in known:
        known[read] = _grid_of_alike(layouts, axes, read)
    strategies, which = known[read]
    mask = rule.mask(problem, strategies)
    return mask if mask.ndim == 0 or mask.shape[-1] == 1 else mask[..., which]


def _grid_of_alike(
    layouts: Strategies, axes: Sequence[KnobAxis], read: tuple[str, ...]
) -> tuple[Strategies, Ints]:
    """The grid of one layout for each setting of the columns ``read``; whose it is of each."""
    first, which = alike(layouts, read)
    return grid(layouts.take(first), [axis.of_layouts(first) for axis in axes]), which


def alike(layouts: Strategies, read: Sequence[str]) -> tuple[Ints, Ints]:
    """One layout for each setting of the columns ``read``, and whose it is of each layout."""
    columns = [np.broadcast_to(layouts.columns[name], layouts.shape) for name in read]
    if not columns:
        columns = [np.zeros(len(layouts), dtype=np.int64)]
    _, first, which = np.unique(
        np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True
    )
    return first, which.reshape(-1)


def _valid(axis: KnobAxis, axes: Sequence[KnobAxis]) -> Mask:
    wide = [one.name for one in axes if one.size > 1]
    valid = np.asarray(axis.valid)
    shape = [1] * (len(wide) + 1)
    if axis.size > 1:
        shape[wide.index(axis.name)] = axis.size
    shape[-1] = valid.shape[1]
    return valid.reshape(shape)


def _gathers(strategies: Strategies, axes: Sequence[KnobAxis]) -> Mask:
    """An overlapped gather is asked about where something is sharded, and only there."""
    reduce = next(axis for axis in axes if axis.name == "reduce")
    asked = strategies.sharding != Sharding.NONE
    offered = np.isin(strategies.overlap_param_gather, reduce.offered)
    return np.asarray(np.where(asked, offered, ~strategies.overlap_param_gather))


def _factor(rule: str, dims: Sequence[str], mask: NDArray[Any]) -> Factor:
    """The mask without the dimensions along which it does not change."""
    full = mask.reshape((1,) * (len(dims) - mask.ndim) + mask.shape)
    kept = tuple(name for name, size in zip(dims, full.shape, strict=True) if size > 1)
    return Factor(rule, kept, full.reshape([size for size in full.shape if size > 1]))


Table = tuple[tuple[str, ...], NDArray[Any]]
"""Truth values, or numbers once something is summed up, over some dimensions."""


def contract(factors: Sequence[Factor], sizes: Mapping[str, int], dims: tuple[str, ...]) -> Floats:
    """Sum of the product of ``factors`` over all dimensions but ``dims``.

    The result broadcasts over ``dims``: dimensions that no factor has are 1 long.
    Dimensions go one by one, each where it leaves the smallest table behind.
    """
    touched = {name for factor in factors for name in factor.dims}
    free = prod(size for name, size in sizes.items() if name not in touched and name not in dims)
    kept = [name for name in dims if name in touched]
    order = list(sizes)
    tables: list[Table] = [(factor.dims, factor.mask) for factor in factors]
    waiting = [name for name in order if name in touched and name not in dims]
    while waiting:
        reach = {name: _union([t[0] for t in tables if name in t[0]], order) for name in waiting}
        name = min(waiting, key=lambda one: _work(reach[one], one, sizes))
        waiting.remove(name)
        some = [table for table in tables if name in table[0]]
        tables = [table for table in tables if name not in table[0]]
        tables.append(_summed(some, reach[name], name, sizes))
    total: Any = float(free)
    for own, values in tables:
        total = total * _turned(own, values, dims)
    lengths = [sizes[name] if name in kept else 1 for name in dims]
    return np.broadcast_to(np.asarray(total, dtype=np.float64), lengths)


def _union(groups: Sequence[tuple[str, ...]], order: Sequence[str]) -> tuple[str, ...]:
    found = {name for group in groups for name in group}
    return tuple(name for name in order if name in found)


def _work(union: tuple[str, ...], gone: str, sizes: Mapping[str, int]) -> tuple[int, int]:
    """Entries that are written out to sum a dimension up, and those left behind.

    Layouts come last: few tables have other dimensions left by then.
    """
    whole = prod(sizes[name] for name in union)
    return (whole, whole // sizes[gone]) if gone != LAYOUT else (maxsize, 0)


def _summed(
    tables: Sequence[Table], union: tuple[str, ...], gone: str, sizes: Mapping[str, int]
) -> Table:
    """The product of tables, summed over one dimension; pieces of the layouts stay in the cache."""
    left = tuple(name for name in union if name != gone)
    if LAYOUT not in left:
        return left, _sum_product(tables, union, gone)
    step = max(1, ENTRIES * sizes[LAYOUT] // prod(sizes[name] for name in union))
    pieces = []
    for start in range(0, sizes[LAYOUT], step):
        part = slice(start, start + step)
        some = [(own, v[..., part] if LAYOUT in own else v) for own, v in tables]
        pieces.append(_sum_product(some, union, gone))
    return left, np.concatenate(pieces, axis=-1)


ENTRIES = 1 << 19
"""Entries of a product of tables that are written out at a time, about."""


def _sum_product(tables: Sequence[Table], union: tuple[str, ...], gone: str) -> NDArray[Any]:
    """Truths are joined and counted as truths as far as that goes: they are the smaller."""
    numbers = [(own, values) for own, values in tables if values.dtype != np.bool_]
    truths = [(own, values) for own, values in tables if values.dtype == np.bool_]
    reach = {name for own, _ in truths for name in own}
    names = tuple(name for name in union if name in reach)
    joined: Any = None
    for own, values in sorted(truths, key=lambda table: table[1].size):
        mine = _turned(own, values, names)
        joined = mine if joined is None else joined & mine
    if not numbers:
        return count_true(joined, names.index(gone)).astype(np.float64)
    if len(numbers) == 1 and numbers[0][0] == (gone,) and names == union:
        weights = numbers[0][1]
        by_weight = np.moveaxis(joined, union.index(gone), 0)
        counted = ((w, count_true(by_weight[weights == w], 0)) for w in np.unique(weights))
        return np.asarray(sum(weight * count for weight, count in counted))
    letters = {name: index for index, name in enumerate(union)}
    operands: list[Any] = []
    for own, values in [*numbers, *([] if joined is None else [(names, joined)])]:
        operands += [values.astype(np.float64, copy=False), [letters[name] for name in own]]
    left = [letters[name] for name in union if name != gone]
    return np.asarray(np.einsum(*operands, left, optimize="greedy"))


def _turned(own: tuple[str, ...], values: NDArray[Any], names: tuple[str, ...]) -> NDArray[Any]:
    """Values over ``own`` as an array that broadcasts over ``names``, in their order."""
    turned = values.transpose([own.index(name) for name in names if name in own])
    sizes = dict(zip((name for name in names if name in own), turned.shape, strict=True))
    return turned.reshape([sizes.get(name, 1) for name in names])


_BYTE = 255


def count_true(truths: Mask, axis: int) -> Ints:
    """How many hold along an axis; sums of bytes, in pieces that a byte can count."""
    bytes_ = np.moveaxis(truths, axis, 0).view(np.uint8)
    total: Any = 0
    for start in range(0, len(bytes_), _BYTE):
        piece = np.add.reduce(bytes_[start : start + _BYTE], axis=0, dtype=np.uint8)
        total = total + piece.astype(np.int64)
    return np.asarray(total)

"""Legality of a grid of strategies as a product of small masks, and exact counts from them.

A rule reads a few columns, so its mask over a grid of all knobs spans few of the grid's
dimensions.  A grid's legal mask is the product of those *factors*; summed over dimensions
it is contracted pair by pair, as a tensor network, and never written out: ten billion
strategies are counted from some thousand numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.strategy import Sharding, Strategies
from cost_models.units import Floats
from search.knob_axes import LAYOUT, KnobAxis, dimensions, grid
from search.rules import Problem, Rule
from search.rules.rule import Mask

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

    def trimmed(self) -> "LegalGrid":
        """The same legal strategies without choices and layouts that have none of them."""
        keep: dict[str, Mask] = {}
        for axis in self.axes:
            dims = tuple(name for name in (axis.name, LAYOUT) if name in self.sizes)
            mask = np.broadcast_to(self.mask(dims), [self.sizes[name] for name in dims])
            if axis.size > 1:
                keep[axis.name] = np.asarray(mask.any(axis=-1))
        ways = contract(self.factors, self.sizes, (LAYOUT,))
        keep[LAYOUT] = np.broadcast_to(ways > 0, (len(self.layouts),))
        return self.only(keep)

    def rows(self, layouts: slice) -> "LegalGrid":
        """Some of the layouts."""
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
    strategies = grid(layouts, axes)
    factors = [
        _factor(SPELLED_ONCE, dims, _valid(axis, axes)) for axis in axes if axis.valid is not None
    ]
    factors.append(_factor(SPELLED_ONCE, dims, _gathers(strategies, axes)))
    factors += [
        _factor(rule.name, dims, rule.mask(problem, strategies)) for rule in rules if rule.knobs
    ]
    return LegalGrid(layouts, axes, tuple(f for f in factors if not f.mask.all()))


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


def contract(factors: Sequence[Factor], sizes: Mapping[str, int], dims: tuple[str, ...]) -> Floats:
    """Sum of the product of ``factors`` over all dimensions but ``dims``.

    The result broadcasts over ``dims``: dimensions that no factor has are 1 long.
    """
    touched = {name for factor in factors for name in factor.dims}
    free = prod(size for name, size in sizes.items() if name not in touched and name not in dims)
    kept = [name for name in dims if name in touched]
    if not factors:
        return np.full((1,) * len(dims), float(free))
    letters = {name: index for index, name in enumerate(sizes)}
    operands: list[Any] = []
    for factor in factors:
        operands += [factor.mask.astype(np.float64), [letters[name] for name in factor.dims]]
    total = np.einsum(*operands, [letters[name] for name in kept], optimize="greedy")
    lengths = [sizes[name] if name in kept else 1 for name in dims]
    return np.asarray(total * free).reshape(lengths)

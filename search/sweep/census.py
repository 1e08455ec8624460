"""Everyone in a space counted: raw, legal, and removed by which rule.

Counts are exact whatever the size, and cheap: layouts are grown rule by rule, knobs are
counted by contraction (:mod:`search.sweep.legality`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from cost_models.specs.strategy import Strategies
from search.result import Counts
from search.rules import Problem, rules_for
from search.space.space import Space
from search.sweep.knob_axes import classes, grid, knob_axes
from search.sweep.layouts import grow_layouts
from search.sweep.legality import SPELLED_ONCE, LegalGrid, legal_grid
from search.sweep.memory_halves import MEMORY


@dataclass(frozen=True, slots=True)
class Census:
    """The legal strategies of a space as grids, and the account of all others."""

    grids: tuple[LegalGrid, ...]
    layouts: Strategies
    space: int
    legal: int
    pruned_by: Mapping[str, int]

    @property
    def n_layouts(self) -> int:
        """Layouts that some knobs make legal."""
        return sum(len(g.layouts) for g in self.grids)

    @property
    def memory_entries(self) -> int:
        """Entries of the memory grid: what a sweep has to compute at least."""
        return sum(
            len(g.layouts) * prod(axis.size for axis in g.axes if axis.name in MEMORY)
            for g in self.grids
        )

    def counts(self, *, fits: int, priced: int, cut_by: Mapping[str, int]) -> Counts:
        """The account of a search that took this census."""
        pruned = {**self.pruned_by, "memory": self.legal - fits}
        return Counts(
            space=self.space,
            legal=self.legal,
            fits=fits,
            priced=priced,
            layouts=self.n_layouts,
            pruned_by={name: count for name, count in pruned.items() if count},
            cut_by_bound=sum(cut_by.values()),
            cut_by=dict(cut_by),
        )

    def explored(self, priced: int) -> Counts:
        """The account of a search that priced some strategies and counts none that fit."""
        counts = self.counts(fits=priced, priced=priced, cut_by={})
        pruned = {name: count for name, count in counts.pruned_by.items() if name != "memory"}
        return replace(counts, pruned_by=pruned)


def legal_of(census: Census) -> Strategies:
    """All of a census's strategies, flat: for small ones."""
    parts = []
    for g in census.grids:
        some = grid(g.layouts, g.axes)
        legal = np.broadcast_to(g.mask(tuple(g.sizes)), some.shape)
        parts.append(some.take(np.flatnonzero(legal)))
    if not parts:
        return Strategies().flat().take(np.zeros(0, dtype=np.int64))
    return Strategies.concatenate(parts)


def take_census(problem: Problem, space: Space) -> Census:
    """Count a space and set up its grids."""
    rules = rules_for(problem.launcher.name)
    layouts, removed = grow_layouts(space, problem, rules)
    pruned = {name: count * space.knob_size for name, count in removed.items()}
    pruned.setdefault(SPELLED_ONCE, 0)
    grids = []
    legal = 0
    for facts, rows in classes(space, layouts):
        some = layouts.take(rows)
        axes = knob_axes(space, facts, some, problem.model.n_layers)
        g = legal_grid(problem, some, axes, rules)
        grid_size = prod(axis.size for axis in axes)
        pruned[SPELLED_ONCE] += len(some) * (space.knob_size - grid_size)
        for name, count in g.pruned().items():
            pruned[name] = pruned.get(name, 0) + count
        legal += g.count()
        trimmed = g.trimmed()
        if len(trimmed.layouts):
            grids.append(trimmed)
    return Census(tuple(grids), layouts, space.size, legal, pruned)

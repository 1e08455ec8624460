"""A space as rectangular blocks: layouts down, knobs across.

Which knob settings have an effect, and how they are spelled, depends on few facts of a
layout: its ``tp`` above 1, its ``pp``, its ``dp`` and so on.  Layouts that agree on those
facts form a class and share one table of knobs, so that a block is a full grid: layout
columns of shape (L, 1), knob columns of shape (1, K), no point spelled twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from cost_models.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
)
from cost_models.units import Ints
from search.axes import KNOB_AXES
from search.canonical import REGATHERED, replicas
from search.rules.rule import LAYOUT_AXES, Mask, Problem, Rule
from search.space import Space

Group = tuple[tuple[str, ...], Sequence[tuple[Any, ...]]]
"""Knobs that are chosen together, and their joint choices."""

SHARDING_KNOBS = (
    "sharding",
    "dp_shard",
    "reshard_after_forward",
    "overlap_grad_reduce",
    "overlap_param_gather",
)

CELLS = 1 << 17
"""Strategies in one block, about; arrays of this size stay in the cache."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a layout's knobs depend on."""

    dp: int
    pp: int
    tensor: bool
    context: bool
    expert: bool
    shared: bool
    """Some ranks hold the same weights."""
    looped: bool
    """The schedule keeps p2p apart from compute: anything but 1F1B and GPipe."""


@dataclass(frozen=True, slots=True)
class Block:
    """A grid of strategies and which of them are legal."""

    strategies: Strategies
    legal: Mask
    """Of the grid's shape."""


def _facts(space: Space, layouts: Strategies) -> tuple[list[Facts], np.ndarray[Any, Any]]:
    """Distinct facts, and for each layout the index of its own."""
    sequential = np.isin(layouts.schedule, (Schedule._1F1B, Schedule.GPIPE))
    columns = np.stack(
        [
            np.broadcast_to(column, layouts.shape).astype(np.int64)
            for column in (
                layouts.dp,
                layouts.pp,
                layouts.tp > 1,
                layouts.cp > 1,
                layouts.ep > 1,
                replicas(layouts, moe=space.moe),
                (layouts.pp > 1) & ~sequential,
            )
        ],
        axis=1,
    )
    rows, which = np.unique(columns, axis=0, return_inverse=True)
    facts = [Facts(int(r[0]), int(r[1]), *(bool(x) for x in r[2:])) for r in rows]
    return facts, which.reshape(-1)


def _sharding_choices(space: Space, facts: Facts) -> list[tuple[Any, ...]]:
    """Sharding with its group, regathering and overlap switches."""
    axes = space.axes
    found: dict[tuple[Any, ...], None] = {}
    for sharding in axes["sharding"]:
        if not facts.shared and sharding in (Sharding.ZERO1, Sharding.ZERO2):
            sharding = Sharding.NONE  # noqa: PLW2901  one rank shares nothing
        if sharding == Sharding.HSDP:
            groups = [d for d in axes["dp_shard"] if 1 < d < facts.dp and facts.dp % d == 0]
        else:
            groups = [1 if sharding == Sharding.NONE else facts.dp]
        regathered = sharding in REGATHERED and facts.shared
        gathered = sharding != Sharding.NONE and facts.shared
        found |= dict.fromkeys(
            product(
                [sharding],
                groups,
                axes["reshard_after_forward"] if regathered else [True],
                axes["overlap_grad_reduce"] if facts.shared else [False],
                axes["overlap_param_gather"] if gathered else [False],
            )
        )
    return list(found)


def _recompute_choices(space: Space, facts: Facts, n_layers: int) -> list[tuple[Any, ...]]:
    """Recompute with the layers of one pipeline rank, shares resolved and rounded up."""
    largest = -(-n_layers // facts.pp)
    found: dict[tuple[Any, ...], None] = {}
    for recompute in space.axes["recompute"]:
        if recompute != Recompute.FULL:
            found[recompute, 0] = None
            continue
        for layers in space.axes["recompute_layers"]:
            count = int(np.ceil(layers * largest)) if isinstance(layers, float) else layers
            if count <= largest:
                found[recompute, 0 if count == largest else count] = None
    return list(found)


def _knob_groups(space: Space, facts: Facts, n_layers: int) -> list[Group]:
    """The distinct settings of layouts of these facts, knob by knob or tied together."""
    axes = space.axes
    ordered = facts.pp > 1 and facts.dp > 1
    groups: list[Group] = [
        (("recompute", "recompute_layers"), _recompute_choices(space, facts, n_layers))
    ]
    for name, effective, neutral in (
        ("activation_offload", True, 0.0),
        ("precision", True, None),
        ("sequence_parallel", facts.tensor, False),
        ("overlap_tp", facts.tensor, False),
        ("overlap_ep", facts.expert, False),
        ("overlap_p2p", facts.looped, False),
        ("cp_comm", facts.context, ContextParallel.P2P),
        ("order", ordered, Order.TP_CP_EP_DP_PP),
    ):
        values = axes[name] if effective else (neutral,)
        groups.append(((name,), [(value,) for value in values]))
    groups.append((SHARDING_KNOBS, _sharding_choices(space, facts)))
    groups.append((("optimizer_offload",), [(value,) for value in axes["optimizer_offload"]]))
    return groups


def _grid(layouts: Strategies, knobs: Strategies) -> Strategies:
    columns: dict[str, Any] = {
        name: np.broadcast_to(layouts.columns[name], layouts.shape)[:, None] for name in LAYOUT_AXES
    }
    columns |= {
        name: np.broadcast_to(knobs.columns[name], knobs.shape)[None, :] for name in KNOB_AXES
    }
    return Strategies(**columns)


def blocks(
    space: Space,
    problem: Problem,
    layouts: Strategies,
    rules: Sequence[Rule],
    cells: int = CELLS,
) -> Iterator[Block]:
    """All legal strategies of ``layouts``, once each, in blocks of about ``cells``.

    ``layouts`` obey the rules that read layouts alone.  Layouts and knob settings that
    are legal nowhere in a block are left out of it.  The order is fixed: by class, then
    by layout, then by knobs.
    """
    inner = [rule for rule in rules if rule.knobs]
    classes, which = _facts(space, layouts)
    for index, facts in enumerate(classes):
        members = layouts.take(np.flatnonzero(which == index))
        groups = _knob_groups(space, facts, problem.model.n_layers)
        knobs, masks = _grow_knobs(problem, groups, [_table(members, rule) for rule in inner])
        for rows, columns in _tiles(len(members), len(knobs), cells):
            block = _tile(members, knobs, masks, rows, columns)
            if block is not None:
                yield block


@dataclass(frozen=True, slots=True)
class _Table:
    """One rule over a class: which of its layouts have the same numbers for it."""

    rule: Rule
    distinct: Strategies
    which: Ints

    def mask(self, problem: Problem, knobs: Strategies) -> Mask:
        """The rule's mask of shape (distinct, K)."""
        mask = self.rule.mask(problem, _grid(self.distinct, knobs))
        return np.broadcast_to(mask, (len(self.distinct), len(knobs)))


def _table(members: Strategies, rule: Rule) -> _Table:
    read = [name for name in rule.reads if name in LAYOUT_AXES]
    if not read:
        return _Table(rule, members.take(np.array([0])), np.zeros(len(members), dtype=np.int64))
    columns = np.stack([np.broadcast_to(members.columns[n], members.shape) for n in read], axis=1)
    _, first, which = np.unique(columns, axis=0, return_index=True, return_inverse=True)
    return _Table(rule, members.take(first), which.reshape(-1))


def _grow_knobs(
    problem: Problem, groups: list[Group], tables: list[_Table]
) -> tuple[Strategies, list[tuple[Mask, Ints]]]:
    """The settings that some layout of the class may have, and the masks left to apply.

    Knobs join group by group, and a rule acts as soon as all the knobs it reads are there.
    """
    columns: dict[str, Any] = {}
    waiting, last = list(tables), []
    count = 1
    for names, choices in groups:
        columns = {name: np.repeat(column, len(choices)) for name, column in columns.items()}
        for position, name in enumerate(names):
            columns[name] = np.tile(np.array([choice[position] for choice in choices]), count)
        keep = np.ones(count * len(choices), dtype=np.bool_)
        ready = [t for t in waiting if all(knob in columns for knob in t.rule.knobs)]
        waiting = [t for t in waiting if t not in ready]
        for table in ready:
            mask = table.mask(problem, Strategies(**columns))
            keep &= mask.any(axis=0)
            if not mask.all() and len(mask) > 1:
                last.append(table)
        columns = {name: column[keep] for name, column in columns.items()}
        count = int(np.count_nonzero(keep))
    knobs = Strategies(**columns)
    masks = [(table.mask(problem, knobs), table.which) for table in last]
    return knobs, [(mask, which) for mask, which in masks if not mask.all()]


def _tiles(n_rows: int, n_columns: int, cells: int) -> Iterator[tuple[slice, slice]]:
    across = max(1, min(n_columns, cells))
    down = max(1, cells // across)
    for top in range(0, n_rows, down):
        for left in range(0, n_columns, across):
            yield slice(top, top + down), slice(left, left + across)


def _tile(
    members: Strategies,
    knobs: Strategies,
    masks: list[tuple[Mask, Ints]],
    rows: slice,
    columns: slice,
) -> Block | None:
    """One block, or nothing where none of it is legal."""
    down, across = np.arange(len(members))[rows], np.arange(len(knobs))[columns]
    legal = np.ones((len(down), len(across)), dtype=np.bool_)
    for mask, which in masks:
        legal &= mask[:, columns][which[rows]]
    if masks:
        live_rows, live_columns = legal.any(axis=1), legal.any(axis=0)
        legal = legal[live_rows][:, live_columns]
        down, across = down[live_rows], across[live_columns]
    if not legal.size:
        return None
    return Block(_grid(members.take(down), knobs.take(across)), legal)

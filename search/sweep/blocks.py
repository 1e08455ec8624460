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

from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
)
from cost_models.specs.units import Ints
from search.rules.rule import LAYOUT_AXES, Mask, Problem, Rule
from search.space.axes import KNOB_AXES
from search.space.canonical import REGATHERED, canonical, replicas
from search.space.space import Space
from search.sweep.knob_axes import layers_to_recompute

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
    vpp: int
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
                layouts.vpp,
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
    facts = [Facts(int(r[0]), int(r[1]), int(r[2]), *(bool(x) for x in r[3:])) for r in rows]
    return facts, which.reshape(-1)


def _sharding_choices(space: Space, facts: Facts) -> list[tuple[Any, ...]]:
    """Sharding with its group, regathering and overlap switches."""
    axes = space.axes
    found: dict[tuple[Any, ...], None] = {}
    for sharding in axes["sharding"]:
        if not facts.shared:
            sharding = Sharding.NONE  # noqa: PLW2901  one rank shares nothing
        if sharding == Sharding.HSDP:
            groups = [d for d in axes["dp_shard"] if 1 < d < facts.dp and facts.dp % d == 0]
        else:
            groups = [1 if sharding == Sharding.NONE else facts.dp]
        regathered = sharding in REGATHERED
        gathered = sharding != Sharding.NONE
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
    found: dict[tuple[Any, ...], None] = {}
    for recompute in space.axes["recompute"]:
        if recompute != Recompute.FULL:
            found[recompute, 0] = None
            continue
        for layers in space.axes["recompute_layers"]:
            count = layers_to_recompute(layers, n_layers, facts.pp, facts.vpp)
            if count is not None:
                found[recompute, count] = None
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


def _grid(layouts: Strategies, down: Ints, knobs: Strategies, across: Ints) -> Strategies:
    columns: dict[str, Any] = {name: layouts.columns[name][down, None] for name in LAYOUT_AXES}
    columns |= {name: knobs.columns[name][None, across] for name in KNOB_AXES}
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
    inner = [rule for rule in rules if rule.knobs and not _idle(space, problem, rule)]
    layouts = layouts.flat()
    classes, which = _facts(space, layouts)
    for index, facts in enumerate(classes):
        members = layouts.take(np.flatnonzero(which == index))
        groups = _knob_groups(space, facts, problem.model.n_layers)
        knobs, masks = _grow_knobs(problem, groups, _tables(members, inner))
        for rows, columns in _tiles(len(members), len(knobs), cells):
            block = _tile(members, knobs, masks, rows, columns)
            if block is not None:
                yield block


def _idle(space: Space, problem: Problem, rule: Rule) -> bool:
    """A rule on knobs alone that neither the space's values nor the neutral ones can break."""
    if rule.knobs != rule.reads or {"dp_shard", "recompute_layers"} & set(rule.knobs):
        return False
    neutral = canonical(Strategies(overlap_p2p=False), moe=False).columns
    values = [
        np.unique(np.append(np.asarray(space.axes[knob]), neutral[knob])) for knob in rule.knobs
    ]
    grid = np.meshgrid(*values, indexing="ij")
    columns: dict[str, Any] = {
        knob: c.reshape(-1) for knob, c in zip(rule.knobs, grid, strict=True)
    }
    return bool(rule.mask(problem, Strategies(**columns)).all())


@dataclass(frozen=True, slots=True)
class _Table:
    """One rule over a class: which of its layouts have the same numbers for it."""

    rule: Rule
    distinct: dict[str, Ints]
    """The layout columns read, of shape (D, 1)."""
    count: int
    which: Ints

    def mask(self, problem: Problem, knobs: dict[str, Any], n_knobs: int) -> Mask:
        """The rule's mask of shape (D, K), knob columns being of shape (K,)."""
        read = {name: knobs[name][None, :] for name in self.rule.knobs}
        mask = self.rule.mask(problem, Strategies(**self.distinct, **read))
        return np.broadcast_to(mask, (self.count, n_knobs))


def _tables(members: Strategies, rules: Sequence[Rule]) -> list[_Table]:
    """Each rule with the distinct values of the layout columns that it reads."""
    known: dict[tuple[str, ...], tuple[dict[str, Ints], int, Ints]] = {}
    tables = []
    for rule in rules:
        read = tuple(name for name in LAYOUT_AXES if name in rule.reads)
        if read not in known:
            known[read] = _distinct(members, read)
        tables.append(_Table(rule, *known[read]))
    return tables


def _distinct(members: Strategies, read: tuple[str, ...]) -> tuple[dict[str, Ints], int, Ints]:
    if not read:
        return {}, 1, np.zeros(len(members), dtype=np.int64)
    columns = np.stack([members.columns[name] for name in read], axis=1)
    rows, which = np.unique(columns, axis=0, return_inverse=True)
    distinct = {name: rows[:, i : i + 1] for i, name in enumerate(read)}
    return distinct, len(rows), which.reshape(-1)


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
            mask = table.mask(problem, columns, len(keep))
            keep &= mask.any(axis=0)
            if not mask.all() and len(mask) > 1:
                last.append(table)
        count = int(np.count_nonzero(keep))
        if count < len(keep):
            columns = {name: column[keep] for name, column in columns.items()}
    masks = [(table.mask(problem, columns, count), table.which) for table in last]
    return Strategies(**columns), [(mask, which) for mask, which in masks if not mask.all()]


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
    return Block(_grid(members, down, knobs, across), legal)

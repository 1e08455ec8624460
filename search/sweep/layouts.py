"""All legal layouts of a space, by numpy alone, and what each rule removed on the way.

Layouts grow one axis at a time; a rule acts as soon as the axes it reads are there, and
is charged with all the raw layouts that its victims would have grown into.  A rule that
also reads inner knobs acts last, on layouts that no value of those knobs could save.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np

from cost_models.specs.strategy import Schedule, Strategies
from search.rules.rule import LAYOUT_AXES, Mask, Problem, Pruned, Rule
from search.space.canonical import canonical
from search.space.space import Space

ONE_STAGE = "one_stage_needs_no_schedule"
"""Charged for layouts that repeat another one, their schedule having nothing to order."""


def layout_mask(rule: Rule, problem: Problem, space: Space, layouts: Strategies) -> Mask:
    """Which layouts can satisfy ``rule`` with some values of the knobs that it reads."""
    if not rule.knobs:
        return np.broadcast_to(rule.mask(problem, layouts), layouts.shape)
    columns: dict[str, Any] = {name: layouts.columns[name] for name in LAYOUT_AXES}
    found = np.zeros(layouts.shape, dtype=np.bool_)
    for choice in product(*(_plain(space, knob) for knob in rule.knobs)):
        chosen = dict(zip(rule.knobs, choice, strict=True))
        spelled = canonical(Strategies(**columns, **chosen), moe=space.moe)
        found = found | rule.mask(problem, spelled)
        if found.all():
            break
    return found


def _plain(space: Space, knob: str) -> list[Any]:
    """An axis's values as a column holds them: shares of layers and whole groups resolved."""
    values = space.axes[knob]
    if knob == "recompute_layers":
        return [0 if isinstance(value, float) else value for value in values]
    return [max(value, 1) for value in values] if knob == "dp_shard" else list(values)


def distinct_schedule(space: Space, layouts: Strategies) -> Mask:
    """With one stage 1F1B and GPipe are the same: where both are allowed, 1F1B stands for both."""
    repeats = Schedule._1F1B in space.axes["schedule"]
    again = (layouts.pp == 1) & (layouts.schedule == Schedule.GPIPE)
    return np.broadcast_to(~(again & repeats), layouts.shape)


def sorted_layouts(layouts: Strategies) -> Strategies:
    """In the canonical order: by the layout axes, first axis first."""
    keys = [layouts.columns[name] for name in reversed(LAYOUT_AXES)]
    return layouts.take(np.lexsort(keys)) if len(layouts) else layouts


def grow_layouts(
    space: Space, problem: Problem, rules: Sequence[Rule]
) -> tuple[Strategies, dict[str, int]]:
    """The legal layouts as sorted columns, and the raw layouts charged to each rule."""
    removed = dict.fromkeys([*(rule.name for rule in rules), ONE_STAGE], 0)
    waiting = list(rules)
    columns: dict[str, Any] = {}
    count = 1
    for position, axis in enumerate(LAYOUT_AXES):
        values = np.asarray(space.axes[axis], dtype=np.int64)
        columns = {name: np.repeat(column, len(values)) for name, column in columns.items()}
        columns[axis] = np.tile(values, count)
        grown = LAYOUT_AXES[: position + 1]
        weight = prod(len(space.axes[name]) for name in LAYOUT_AXES[position + 1 :])
        ready = [r for r in waiting if not r.knobs and all(name in grown for name in r.reads)]
        waiting = [rule for rule in waiting if rule not in ready]
        for rule in ready:
            mask = rule.mask(problem, Strategies(**columns))
            columns = _keep(columns, mask, removed, rule.name, weight)
        if axis == "schedule":
            mask = distinct_schedule(space, Strategies(**columns))
            columns = _keep(columns, mask, removed, ONE_STAGE, weight)
        count = len(columns[axis])
    for rule in waiting:
        mask = layout_mask(rule, problem, space, Strategies(**columns))
        columns = _keep(columns, mask, removed, rule.name, 1)
    return sorted_layouts(Strategies(**columns)), removed


def _keep(
    columns: dict[str, Any], mask: Mask, removed: dict[str, int], name: str, weight: int
) -> dict[str, Any]:
    count = len(next(iter(columns.values())))
    mask = np.broadcast_to(mask, (count,))
    removed[name] += weight * (count - int(np.count_nonzero(mask)))
    return {axis: column[mask] for axis, column in columns.items()}


def count_breaking(space: Space, problem: Problem, rules: Sequence[Rule]) -> dict[str, int]:
    """Raw layouts that break each rule, whatever else they break."""
    return {rule.name: _breaking(rule, problem, space) for rule in rules}


def _breaking(rule: Rule, problem: Problem, space: Space) -> int:
    read = [name for name in LAYOUT_AXES if name in rule.reads]
    grid = np.meshgrid(*(np.asarray(space.axes[name]) for name in read), indexing="ij")
    columns = {name: column.reshape(-1) for name, column in zip(read, grid, strict=True)}
    layouts = Strategies(**(columns or {"tp": np.ones(1)}))
    broken = len(layouts) - int(np.count_nonzero(layout_mask(rule, problem, space, layouts)))
    others = prod(len(space.axes[name]) for name in LAYOUT_AXES if name not in read)
    return broken * others


def pruned_by(removed: dict[str, int], breaking: dict[str, int]) -> dict[str, Pruned]:
    """Both counts side by side, rules that never bite left out."""
    return {
        name: Pruned(count, breaking.get(name, count))
        for name, count in removed.items()
        if count or breaking.get(name)
    }

"""The frontier once more by the plainest means: every point of the product, one at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from search.frontier.pareto import near_pareto
from search.rules import LAYOUT_AXES, Problem, Rule, broken_rules, rules_for
from search.rules.pipeline import STAGED_SCHEDULES
from search.rules.rule import Mask
from search.space.axes import AXES, KNOB_AXES
from search.space.canonical import canonical_strategy
from search.space.space import Space
from search.sweep.layouts import grow_layouts

CONSTANTS = replace(prior_constants(), framework_bytes=1e6, communicator_bytes=1e5)
"""Overheads that leave room on a tiny GPU."""


def _uses_all(space: Space, degrees: tuple[int, ...]) -> bool:
    return math.prod(degrees) == space.world_size


def _spelled(space: Space, problem: Problem) -> Iterator[Strategy]:
    """Every raw point of the product that uses all GPUs, as a strategy."""
    degrees = [axis for axis in AXES if axis in ("tp", "pp", "cp", "dp")]
    others = [axis for axis in AXES if axis not in degrees]
    for split, rest in product(
        [split for split in product(*(space.axes[a] for a in degrees)) if _uses_all(space, split)],
        product(*(space.axes[axis] for axis in others)),
    ):
        point: dict[str, Any] = dict(zip((*degrees, *others), (*split, *rest), strict=True))
        alone = point["pp"] == 1
        if alone and point["schedule"] in (*STAGED_SCHEDULES, *sorted(space.axes["schedule"])[1:]):
            continue
        whole = 1 if point["sharding"] == Sharding.NONE else point["dp"]
        if point["sharding"] != Sharding.HSDP:
            point["dp_shard"] = whole
        elif point["dp_shard"] < 2:
            continue
        largest = math.ceil(problem.model.n_layers / point["pp"])
        layers = point["recompute_layers"]
        if isinstance(layers, float):
            layers = min(largest, math.ceil(layers * largest / point["vpp"]) * point["vpp"])
        point["recompute_layers"] = 0 if layers == largest else layers
        if point["recompute"] != Recompute.FULL:
            point["recompute_layers"] = 0
        yield Strategy(**point)


def legal_strategies(space: Space, problem: Problem) -> list[Strategy]:
    """What every rule allows, each strategy in one spelling, its schedule in the space."""
    distinct = {canonical_strategy(s, moe=space.moe) for s in _spelled(space, problem)}
    asked = [s for s in distinct if s.pp == 1 or s.schedule in space.axes["schedule"]]
    return [s for s in asked if not broken_rules(problem, s)]


def price_one(problem: Problem, strategy: Strategy, constants: Constants) -> tuple[float, float]:
    """Memory and step time of one strategy alone."""
    cost = step_cost(
        problem.model, problem.cluster, problem.workload, Strategies.of(strategy), constants
    )
    return float(cost.memory.total_bytes[0]), float(cost.step_time_s[0])


def not_beaten(points: list[tuple[float, float]]) -> set[tuple[float, float]]:
    """Costs that no other is at least as good as in both and better in one."""
    return {
        (memory, time)
        for memory, time in points
        if not any(m <= memory and t <= time and (m, t) != (memory, time) for m, t in points)
    }


SHARDING = (
    *("sharding", "dp_shard", "reshard_after_forward"),
    *("overlap_grad_reduce", "overlap_param_gather"),
)
RECOMPUTE = ("recompute", "recompute_layers")
CELLS = 1 << 17
"""Strategies that are judged at a time, about."""


def _shardings(space: Space, layout: Strategy) -> Iterator[tuple[Any, ...]]:
    """Of one layout: the knobs of :data:`SHARDING`, without effect at their neutral values."""
    edp = layout.dp * layout.cp * layout.tp // (layout.ep * layout.etp)
    shared = layout.dp * layout.cp > 1 or (space.moe and edp > 1)
    for sharding, group, reshard, reduce, gather in product(*(space.axes[a] for a in SHARDING)):
        kind = sharding if shared else Sharding.NONE
        sharded = kind != Sharding.NONE
        whole = layout.dp if sharded else 1
        frees = kind in (Sharding.ZERO3, Sharding.FSDP, Sharding.HSDP)
        if kind == Sharding.HSDP and group < 2:
            continue
        yield (
            kind,
            group if kind == Sharding.HSDP else whole,
            reshard if frees else True,
            reduce and shared,
            gather and sharded,
        )


def _recomputes(space: Space, layout: Strategy, n_layers: int) -> Iterator[tuple[Any, ...]]:
    """Of one layout: what is recomputed in how many layers of a rank, 0 being all."""
    largest = math.ceil(n_layers / layout.pp)
    for recompute, layers in product(*(space.axes[axis] for axis in RECOMPUTE)):
        count = layers
        if isinstance(layers, float):
            count = min(largest, math.ceil(layers * largest / layout.vpp) * layout.vpp)
        if recompute != Recompute.FULL or count == largest:
            yield recompute, 0
        elif count < largest:
            yield recompute, count


def _knobs(space: Space, problem: Problem, layout: Strategy) -> tuple[Any, ...]:
    """Distinct choices of every group of knobs that one layout has."""
    piped = layout.pp > 1
    looped = piped and layout.schedule not in (Schedule._1F1B, Schedule.GPIPE)
    neutral: dict[str, tuple[bool, Any]] = {
        "sequence_parallel": (layout.tp > 1, False),
        "overlap_tp": (layout.tp > 1, False),
        "overlap_ep": (layout.ep > 1, False),
        "overlap_p2p": (looped, False),
        "cp_comm": (layout.cp > 1, ContextParallel.P2P),
        "order": (piped and layout.dp > 1, Order.TP_CP_EP_DP_PP),
    }
    groups: list[tuple[tuple[str, ...], Any]] = [
        (SHARDING, _shardings(space, layout)),
        (RECOMPUTE, _recomputes(space, layout, problem.model.n_layers)),
    ]
    for name in (axis for axis in KNOB_AXES if axis not in (*SHARDING, *RECOMPUTE)):
        acts, otherwise = neutral.get(name, (True, None))
        groups.append(((name,), [(v,) for v in (space.axes[name] if acts else [otherwise])]))
    return tuple((names, tuple(dict.fromkeys(choices))) for names, choices in groups)


def listed(
    space: Space, problem: Problem, layouts: Strategies, rules: Sequence[Rule]
) -> Iterator[tuple[Strategies, Mask]]:
    """The strategies of some layouts, each once, with the mask of those that are legal.

    Layouts of the same choices are judged together, every rule on every strategy; what is
    legal nowhere among them is left out.
    """
    alike: dict[tuple[Any, ...], list[int]] = {}
    for row, layout in enumerate(layouts.rows()):
        alike.setdefault(_knobs(space, problem, layout), []).append(row)
    for groups, rows in alike.items():
        names = [name for group, _ in groups for name in group]
        picks = [sum(pick, ()) for pick in product(*(choices for _, choices in groups))]
        across = {
            name: np.array(values)[None, :]
            for name, values in zip(names, zip(*picks, strict=True), strict=True)
        }
        step = max(1, CELLS // len(picks))
        for some in (rows[start : start + step] for start in range(0, len(rows), step)):
            down = {name: layouts.columns[name][some, None] for name in LAYOUT_AXES}
            strategies = Strategies(**down, **across)
            legal = np.ones(strategies.shape, dtype=np.bool_)
            for rule in rules:
                legal &= rule.mask(problem, strategies)
            row_lives, knob_lives = legal.any(axis=1), legal.any(axis=0)
            if row_lives.any():
                down = {name: column[row_lives] for name, column in down.items()}
                kept = {name: column[:, knob_lives] for name, column in across.items()}
                yield Strategies(**down, **kept), legal[row_lives][:, knob_lives]


def block_frontier(
    space: Space, problem: Problem, constants: Constants
) -> tuple[Strategies, int, int]:
    """Near-frontier, legal and fitting counts of a space priced whole, without any bound."""
    rules = rules_for(problem.launcher.name)
    layouts, _ = grow_layouts(space, problem, rules)
    found, legal, fits = [], 0, 0
    for strategies, mask in listed(space, problem, layouts, rules):
        cost = step_cost(
            problem.model,
            problem.cluster,
            problem.workload,
            strategies,
            constants,
            breakdown=False,
        )
        memory, seconds = cost.memory.total_bytes.reshape(-1), cost.step_time_s.reshape(-1)
        usable = mask.reshape(-1) & (memory <= problem.cluster.usable_memory_bytes)
        legal += int(np.count_nonzero(mask))
        fits += int(np.count_nonzero(usable))
        rows = np.flatnonzero(usable)
        if len(rows):
            found.append(strategies.take(rows[near_pareto(memory[rows], seconds[rows])]))
    return Strategies.concatenate(found), legal, fits

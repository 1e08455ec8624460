"""CP-SAT, numpy and plain Python agree on which layouts are legal, rule by rule."""

import random
import subprocess
import sys
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from search.feasible.feasible import conflict, extreme_layouts, find_layouts, solve_layouts
from search.feasible.layout_rules import ENCODERS
from search.rules import LAUNCHERS, LAYOUT_AXES, RULES, Problem, Rule, rules_for
from search.space.axes import AXES, KNOB_AXES
from search.space.canonical import canonical_strategy
from search.space.space import Space, divisors
from search.sweep.layouts import count_breaking, distinct_schedule, grow_layouts, layout_mask
from tests.search.scalar_rules import SCALAR_RULES
from tests.search.small_problems import dense, moe, problem, without_nvlink

Row = tuple[int, ...]

INSTANCES = range(40)
SOLO_INSTANCES = range(5)
"""Instances on which every rule is also tried alone and left out."""


def _random_model(rng: random.Random) -> ModelSpec:
    heads = rng.choice([4, 6, 8, 12])
    shape: dict[str, Any] = {
        "n_layers": rng.choice([4, 6, 7, 8]),
        "n_heads": heads,
        "n_kv_heads": rng.choice(divisors(heads)),
        "ffn_size": rng.choice([24, 32, 96]),
        "tied_embeddings": rng.random() < 0.3,
    }
    if rng.random() < 0.1:
        shape |= {"position": "learned", "max_sequence_length": 32}
    if rng.random() < 0.5:
        return dense(**shape)
    layers = range(rng.choice([0, 1]), shape["n_layers"])
    experts = rng.choice([4, 6, 8])
    return moe(
        **shape,
        n_experts=experts,
        moe_ffn_size=rng.choice([12, 16]),
        moe_layers=tuple(layers),
        moe_bias=rng.random() < 0.3,
    )


def _some(rng: random.Random, values: list[int], most: int) -> tuple[int, ...]:
    return tuple(sorted(rng.sample(values, min(len(values), rng.randint(1, most)))))


def _instance(seed: int) -> tuple[Problem, Space]:
    """A small problem and space, knobs narrowed now and then so that they bind."""
    rng = random.Random(seed)  # noqa: S311  drawing test cases, not secrets
    gpus = rng.choice([1, 2, 3, 4, 6, 7, 8, 9, 12, 15, 16])
    p = problem(
        _random_model(rng),
        gpus=gpus,
        batch=rng.choice([6, 7, 8, 12, 24, 30]),
        sequence=rng.choice([48, 60, 63, 64]),
        launcher=rng.choice(list(LAUNCHERS)),
        uneven_stages=rng.random() < 0.5,
        partition=rng.choice(["even", "embedding_and_head_as_layers", "parameter_weight"]),
    )
    degrees = divisors(gpus)
    experts = p.model.is_moe or rng.random() < 0.2
    axes: dict[str, tuple[Any, ...]] = {
        "tp": _some(rng, degrees, 3),
        "pp": _some(rng, degrees, 3),
        "cp": _some(rng, degrees, 2),
        "dp": _some(rng, degrees, 4),
        "ep": _some(rng, degrees, 2) if experts else (1,),
        "etp": _some(rng, degrees, 2) if experts else (1,),
        "vpp": _some(rng, [1, 2, 3, 4], 2),
        "schedule": tuple(Schedule(i) for i in _some(rng, list(range(7)), 3)),
        "micro_batch_size": _some(rng, [1, 2, 3, 4], 2),
    }
    if rng.random() < 0.5:
        axes |= {
            "sequence_parallel": rng.choice([(True,), (False,), (False, True)]),
            "cp_comm": rng.choice([(kind,) for kind in ContextParallel]),
            "order": rng.choice([(order,) for order in Order]),
            "sharding": rng.choice([(kind,) for kind in Sharding]),
            "overlap_p2p": rng.choice([(True,), (False,)]),
            "overlap_ep": rng.choice([(True,), (False,)]),
            "recompute": rng.choice([(Recompute.FULL,), (Recompute.NONE,)]),
        }
    return p, Space.full(p).with_(**axes)


def _rows(layouts: Strategies) -> list[Row]:
    columns = [np.broadcast_to(layouts.columns[axis], layouts.shape) for axis in LAYOUT_AXES]
    return [tuple(int(x) for x in row) for row in np.stack(columns, axis=-1).reshape(-1, 9)]


def _knobs_obey(rule: Rule, p: Problem, space: Space, row: Row) -> bool:
    """Some knobs of the axes the rule reads, canonically spelled, obey it."""
    values: dict[str, Any] = dict(zip(LAYOUT_AXES, row, strict=True))
    layout = Strategy(**(values | {"schedule": Schedule(values["schedule"])}))
    for choice in product(*(space.axes[knob] for knob in rule.knobs)):
        knobs: dict[str, Any] = dict(zip(rule.knobs, choice, strict=True))
        if isinstance(knobs.get("recompute_layers"), float):
            knobs["recompute_layers"] = 0
        if "dp_shard" in knobs:
            knobs["dp_shard"] = max(knobs["dp_shard"], 1)
        spelled = canonical_strategy(layout.with_(**knobs), moe=space.moe)
        if rule.mask(p, Strategies.of(spelled)).all():
            return True
    return False


def _brute_force(space: Space, p: Problem, rules: list[Rule]) -> list[Row]:
    plain = Schedule._1F1B in space.axes["schedule"]
    found = []
    for row in product(*(sorted(space.axes[axis]) for axis in LAYOUT_AXES)):
        x = SimpleNamespace(**dict(zip(LAYOUT_AXES, row, strict=True)))
        if plain and x.pp == 1 and x.schedule == Schedule.GPIPE:
            continue
        if all(SCALAR_RULES[r.name](p, x) for r in rules if not r.knobs) and all(
            _knobs_obey(r, p, space, row) for r in rules if r.knobs
        ):
            found.append(tuple(int(value) for value in row))
    return found


@pytest.mark.parametrize("seed", INSTANCES)
def test_all_rules_together(seed: int) -> None:
    """Solver, growth and brute force list the same layouts in the same order."""
    p, space = _instance(seed)
    rules = rules_for(p.launcher.name)
    expected = _brute_force(space, p, list(rules))
    grown, removed = grow_layouts(space, p, rules)
    assert _rows(solve_layouts(space, p, rules)) == expected
    assert _rows(grown) == expected
    assert sum(removed.values()) + len(grown) == space.layout_size


@pytest.mark.parametrize("seed", SOLO_INSTANCES)
def test_rule_by_rule(seed: int) -> None:
    """Each layout rule alone removes the same layouts in the solver and in plain Python."""
    p, space = _instance(seed)
    for rule in RULES:
        if not rule.knobs:
            expected = _brute_force(space, p, [rule])
            assert _rows(solve_layouts(space, p, [rule])) == expected, rule.name
            assert _rows(grow_layouts(space, p, [rule])[0]) == expected, rule.name


@pytest.mark.parametrize("seed", SOLO_INSTANCES)
def test_knob_rule_by_knob_rule(seed: int) -> None:
    """A rule on inner knobs alone removes the layouts that its own mask condemns."""
    p, space = _instance(seed + 100)
    raw = grow_layouts(space, p, [])[0]
    for rule in RULES:
        if rule.knobs:
            expected = _rows(raw.take(layout_mask(rule, p, space, raw)))
            assert _rows(solve_layouts(space, p, [rule])) == expected, rule.name


@pytest.mark.parametrize("seed", SOLO_INSTANCES)
def test_every_rule_left_out(seed: int) -> None:
    """Without any one rule the solver and numpy still agree."""
    p, space = _instance(seed)
    rules = rules_for(p.launcher.name)
    for rule in rules:
        others = [other for other in rules if other is not rule]
        assert _rows(solve_layouts(space, p, others)) == _rows(grow_layouts(space, p, others)[0]), (
            rule.name
        )


def test_every_layout_rule_has_a_scalar_twin() -> None:
    """No rule that reads layouts alone is forgotten by brute force, and encoders are of rules."""
    names = {rule.name for rule in RULES if not rule.knobs}
    assert set(SCALAR_RULES) == names
    assert set(ENCODERS) <= names


@pytest.mark.parametrize("seed", INSTANCES)
def test_a_conflict_is_minimal(seed: int) -> None:
    """A conflict leaves no layout, and leaving out any of its rules leaves one."""
    p, space = _instance(seed)
    rules = rules_for(p.launcher.name)
    found = conflict(space, p, rules)
    legal = len(grow_layouts(space, p, rules)[0])
    assert bool(found) == (legal == 0)
    if found:
        assert not len(grow_layouts(space, p, found)[0])
        for rule in found:
            others = [other for other in found if other is not rule]
            assert len(grow_layouts(space, p, others)[0]), rule.name


def test_a_conflict_names_the_rules() -> None:
    """Seven ranks split neither eight layers evenly nor sixteen sequences."""
    p = without_nvlink(problem(gpus=7, launcher="maxtext"))
    names = [rule.name for rule in conflict(Space.core(p), p, rules_for("maxtext"))]
    assert names == [
        "world_size",
        "layers_divide_stages_exactly",
        "batch_divides",
    ]


def test_memory_removes_layouts_and_is_counted() -> None:
    """Layouts above the capacity go, charged to memory; what is left carries its bytes."""
    p = problem()
    space, rules = Space.core(p), rules_for("megatron")
    everything = find_layouts(space, p, rules)
    found = find_layouts(
        space,
        p,
        rules,
        min_memory_bytes=lambda s: np.asarray(100.0 / (s.tp * s.pp)),
        capacity_bytes=25.0,
    )
    assert found.n_legal == len(everything)
    assert found.pruned_by["fits_memory"].removed == len(everything) - len(found)
    assert found.memory_bytes is not None
    assert (found.memory_bytes <= 25).all()
    assert (found.strategies.tp * found.strategies.pp >= 4).all()
    removed = sum(pruned.removed for pruned in found.pruned_by.values())
    assert removed + len(found) == found.n_raw


def test_breaking_counts_what_a_rule_would_remove_alone() -> None:
    """A rule alone removes as many raw layouts as it is said to break."""
    p, space = _instance(3)
    for rule in RULES:
        if not rule.knobs:
            removed = grow_layouts(space, p, [rule])[1][rule.name]
            assert count_breaking(space, p, [rule])[rule.name] == removed, rule.name


def test_the_order_is_canonical_and_repeats() -> None:
    """Two runs give the same layouts in ascending order of the axes."""
    p = problem(moe(), gpus=12)
    rules = rules_for("megatron")
    first = _rows(find_layouts(Space.full(p), p, rules).strategies)
    assert first == sorted(first)
    assert first == _rows(find_layouts(Space.full(p), p, rules).strategies)


def test_one_stage_has_one_schedule() -> None:
    """Without a pipeline only 1F1B is kept of all schedules."""
    p = problem(launcher="any")
    layouts = grow_layouts(Space.full(p), p, rules_for("any"))[0]
    assert distinct_schedule(Space.full(p), layouts).all()
    assert set(layouts.schedule[layouts.pp == 1].tolist()) == {int(Schedule._1F1B)}


def test_extreme_layouts_are_the_ends_of_the_range() -> None:
    """The leanest layout comes first; each degree's largest value is among the rest."""
    p = problem()
    layouts = find_layouts(Space.core(p), p, rules_for("megatron")).strategies
    memory = np.asarray(100.0 / (layouts.tp * layouts.pp))
    seeds = extreme_layouts(layouts, memory)
    assert 100.0 / (seeds[0].tp * seeds[0].pp) == memory.min()
    assert max(s.tp for s in seeds) == layouts.tp.max()
    assert max(s.dp for s in seeds) == layouts.dp.max()
    assert len(seeds) == len(set(seeds))
    assert extreme_layouts(layouts.take(np.zeros(0, dtype=np.int64)), memory[:0]) == []


def test_the_solver_is_not_imported_before_it_is_needed() -> None:
    """Spaces, rules, grids and explanations load without OR-Tools."""
    code = (
        "import sys, search.space.space, search.rules, search.sweep.legality, "
        "search.feasible.explain;"
        "sys.exit('ortools' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_axes_are_every_column_once() -> None:
    """Layout axes and knobs together are the strategy's columns."""
    assert len(set(AXES)) == len(AXES)
    assert not set(LAYOUT_AXES) & set(KNOB_AXES)

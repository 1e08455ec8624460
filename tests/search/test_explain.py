"""An empty answer names what binds, by how much, and what would help."""

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.strategy import Recompute, Sharding, Strategies
from search.feasible.explain import Illegal, Misfit, explain_empty, explain_illegal
from search.rules import Problem, broken_rules, rules_for
from search.space.space import Space
from search.sweep.layouts import grow_layouts
from search.sweep.least_memory import leanest, min_memory
from tests.search.small_problems import problem, without_nvlink

GB = 1e9


def _memory(scale_bytes: float, p: Problem, s: Strategies) -> NDArray[np.float64]:
    """State over tp, pp and shards; activations per micro-batch, none under full recompute."""
    full = (s.recompute & Recompute.FULL) != 0
    state = scale_bytes / (s.tp * s.pp) * (1 - 0.5 * s.optimizer_offload)
    shards = np.where(s.sharding == Sharding.FSDP, s.dp_shard * s.cp, 1)
    return np.asarray(state / shards + np.where(full, 0.1, 0.4) * GB * s.micro_batch_size / s.tp)


def test_leanest_is_the_least_over_all_knobs() -> None:
    """Layout by layout, nothing in the space is below it and one strategy reaches it."""
    p = problem()
    space, rules = Space.core(p), rules_for("megatron")
    layouts, _ = grow_layouts(space, p, rules)
    lean = leanest(space, p, rules, layouts, lambda q, s: _memory(GB, q, s))
    assert np.allclose(_memory(GB, p, lean.strategies), lean.memory_bytes)
    assert (lean.strategies.recompute == Recompute.FULL).all()
    assert (lean.strategies.tp == layouts.tp).all()
    assert not any(broken_rules(p, row) for row in lean.strategies.rows()[:40])
    best = lean.best()
    assert best is not None
    assert _memory(GB, p, Strategies.of(best))[0] == lean.memory_bytes.min()
    again = min_memory(space, p, rules, lambda q, s: _memory(GB, q, s))(layouts)
    assert np.array_equal(again, lean.memory_bytes)


def test_nothing_to_explain_where_something_fits() -> None:
    """A space with a fitting strategy has no explanation."""
    p = problem()
    assert (
        explain_empty(Space.core, p, rules_for("megatron"), lambda q, s: _memory(GB, q, s)) is None
    )


def test_a_misfit_says_how_far_and_what_helps() -> None:
    """The leanest strategy's shortfall, each opening that suffices alone, and more GPUs."""
    p = problem(gpus=4)
    narrow = {"recompute": "none", "sharding": "zero1", "micro_batch_size": "2", "tp": "1"}
    found = explain_empty(
        lambda q: Space.core(q).narrowed(narrow),
        p,
        rules_for("megatron"),
        lambda q, s: _memory(2 * GB, q, s),
    )
    assert isinstance(found, Misfit)
    assert found.closest.pp == 4
    assert np.isclose(found.memory_bytes, 1.3 * GB)
    assert np.isclose(found.short_bytes, 0.3 * GB)
    remedies = {remedy.change: remedy for remedy in found.remedies}
    assert remedies["recompute"].value == "full"
    assert remedies["micro_batch_size"].value == "1"
    assert "tp " in remedies["degrees"].value
    assert all((r.memory_bytes or 0) <= found.capacity_bytes for r in found.remedies)


def test_more_gpus_are_tried_until_something_fits() -> None:
    """The first larger world on which the same space holds a fitting strategy."""
    p = problem(gpus=2)
    found = explain_empty(Space.core, p, rules_for("megatron"), lambda q, s: _memory(6 * GB, q, s))
    assert isinstance(found, Misfit)
    gpus = next(remedy for remedy in found.remedies if remedy.change == "gpus")
    assert gpus.strategy is not None
    assert gpus.strategy.world_size == int(gpus.value) > 2


def test_an_illegal_world_names_rules_and_neighbours() -> None:
    """Seven GPUs have no legal layout; eight have one, and so has a batch of fourteen."""
    p = without_nvlink(problem(gpus=7, launcher="maxtext"))
    found = explain_illegal(Space.core, p, rules_for("maxtext"))
    assert isinstance(found, Illegal)
    assert "world_size" in [rule.name for rule in found.rules]
    assert {(r.change, r.value) for r in found.remedies} == {
        ("gpus", "8"),
        ("global_batch_size", "14"),
    }
    same = explain_empty(Space.core, p, rules_for("maxtext"), lambda q, s: _memory(GB, q, s))
    assert same == found

"""Every rule accepts what its launcher accepts, refuses what it refuses, and says why."""

from typing import Any

import numpy as np
import pytest

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Sharding, Strategies, Strategy
from search.rules import (
    RULES,
    broken_rules,
    count_pruned,
    launcher_called,
    legal_mask,
    rules_for,
)
from tests.search.rule_cases import CASES, DENSE, EVEN, MOE, TITAN, Case
from tests.search.small_problems import dense, moe, problem

BY_NAME = {rule.name: rule for rule in RULES}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_rule_accepts_and_refuses(case: Case) -> None:
    """One legal and one illegal strategy, and the numbers in the refusal."""
    name, p, legal, illegal, why = case
    rule = BY_NAME[name]
    assert p.launcher.name in rule.launchers
    assert rule.mask(p, Strategies.of(Strategy(**legal))).all()
    if illegal:
        bad = Strategy(**illegal)
        assert not rule.mask(p, Strategies.of(bad)).any()
        assert why in rule.why(p, bad)


def test_learned_positions_limit_the_sequence() -> None:
    """A sequence beyond the table of learned positions is refused whatever the layout."""
    p = problem(dense(position="learned", max_sequence_length=32), sequence=64)
    rule = BY_NAME["sequence_fits_positions"]
    assert not rule.mask(p, Strategies.of(Strategy())).any()
    assert "sequence 64 is longer than the model's 32" in rule.why(p, Strategy())


def test_some_models_and_machines_are_refused_whatever_the_layout() -> None:
    """No experts in nanotron; MaxText needs equal parts of NVLink domains."""
    experts, odd = problem(moe(), launcher="nanotron"), problem(gpus=9, launcher="maxtext")
    for name, p, why in (
        ("model_is_llama_like", experts, "moe is not a dense model"),
        ("slices_are_equal", problem(gpus=11, launcher="maxtext"), "11 GPUs are not equal parts"),
    ):
        assert not BY_NAME[name].mask(p, Strategies.of(Strategy())).any()
        assert why in BY_NAME[name].why(p, Strategy())
    assert BY_NAME["slices_are_equal"].mask(odd, Strategies.of(Strategy())).all()


def test_every_rule_has_a_case() -> None:
    """The table of cases forgets no rule, and names are not used twice."""
    assert {case[0] for case in CASES} == set(BY_NAME)
    assert len(BY_NAME) == len(RULES) == len(CASES)


def test_rules_read_what_they_say() -> None:
    """A rule touches no column that it does not list."""

    class Watched(Strategies):
        __slots__ = ("seen",)
        seen: set[str]

        def __getattr__(self, name: str) -> Any:
            if name != "seen":
                self.seen.add(name)
            return super().__getattr__(name)

    for rule in RULES:
        watched = Watched(**dict(Strategies.of(Strategy()).columns))
        watched.seen = set()
        for p in (DENSE, MOE, EVEN, TITAN):
            rule.mask(p, watched)
        assert watched.seen <= set(rule.reads), rule.name


def test_broken_rules_come_with_their_numbers() -> None:
    """All rules that a strategy breaks, in the fixed order, with messages."""
    found = broken_rules(DENSE, Strategy(tp=3, dp=8, sharding=Sharding.ZERO1, dp_shard=8))
    assert [rule.name for rule, _ in found][:2] == ["world_size", "tp_divides_heads"]
    assert found[1][1] == "heads 8 is not divisible by tensor_parallel 3"
    fine = Strategy(tp=2, dp=4, sharding=Sharding.ZERO1, dp_shard=4, sequence_parallel=True)
    assert broken_rules(DENSE, fine) == []


def test_a_degree_of_zero_is_refused_by_name() -> None:
    """Degrees below one never reach the rules' divisions."""
    with pytest.raises(SpecError, match=r"strategy\.tp must be >= 1, got 0"):
        broken_rules(DENSE, Strategy(tp=0))


def test_masks_broadcast_over_a_grid() -> None:
    """Layout columns (L, 1) and knob columns (1, K) give the same verdicts as single strategies."""
    grid = Strategies(
        tp=np.array([[1], [2], [3]]),
        dp=np.array([[8], [4], [2]]),
        sharding=np.array([[0, 1]]),
        dp_shard=np.array([[1, 8]]),
        overlap_param_gather=np.array([[False, True]]),
    )
    rules = rules_for("megatron")
    mask, masks = legal_mask(DENSE, grid, rules)
    assert mask.shape == (3, 2)
    for index, row in enumerate(grid.rows()):
        broken = {rule.name for rule, _ in broken_rules(DENSE, row)}
        assert mask.reshape(-1)[index] == (not broken)
        flat = {n: np.broadcast_to(m, grid.shape).reshape(-1)[index] for n, m in masks.items()}
        assert {name for name, fine in flat.items() if not fine} == broken


def test_pruned_strategies_are_charged_once() -> None:
    """Removals add up to the illegal strategies; breaking counts can overlap."""
    some = Strategies(tp=np.array([1, 3, 3, 8]), dp=np.array([8, 8, 1, 1]))
    rules = [BY_NAME["world_size"], BY_NAME["tp_divides_heads"]]
    counts = count_pruned(DENSE, some, rules)
    assert (counts["world_size"].removed, counts["world_size"].breaking) == (2, 2)
    assert (counts["tp_divides_heads"].removed, counts["tp_divides_heads"].breaking) == (0, 2)


def test_an_unknown_launcher_gets_its_near_miss() -> None:
    """A typo is answered with the name that was meant."""
    with pytest.raises(SpecError, match="unknown launcher 'megatorn'") as caught:
        launcher_called("megatorn")
    assert caught.value.hint == "did you mean 'megatron'?"

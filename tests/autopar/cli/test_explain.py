"""``autopar explain`` says what is wrong with a strategy, or what it loses."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
EIGHT = "explain --model 8b --gpus 8"


def test_explain_runs_from_a_shell() -> None:
    """An illegal strategy is an answer like any other."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", "explain", "--model", "8b", "--gpus", "6", "--tp", "3"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tp_divides_heads: heads 32 is not divisible by tensor_parallel 3" in done.stdout
    assert done.stderr == ""


def test_a_strategy_that_does_not_fit_is_told_by_how_much(run: Run) -> None:
    """The excess, its largest parts, and a setting of the same degrees that fits."""
    out = run(EIGHT, "--tp 1 --micro-batch-size 8").out
    assert "does not fit" in out
    assert "most of it: activations" in out
    assert "the same degrees work with: " in out


def test_a_slower_strategy_is_compared_term_by_term(run: Run) -> None:
    """Losses by term, the knobs to change, and a total."""
    out = run(EIGHT, "--tp 8 --sharding zero1 --recompute full").out
    assert "slower than dp" in out
    assert "recompute" in out
    assert "knobs to change: --" in out


def test_losses_sum_to_the_difference(run: Run) -> None:
    """What the terms lose is what the step loses."""
    words = "--tp 8 --sharding zero1 --recompute full --json -"
    document = json.loads(run(EIGHT, words).out)
    lost = document["row"]["step_time_s"] - document["fastest"]["step_time_s"]
    assert document["schema"] == "autopar/explain/1"
    assert sum(document["time_lost_s"].values()) == pytest.approx(lost)


def test_without_an_axis_every_rule_of_the_search_is_accounted_for(run: Run) -> None:
    """The table of rules has a sentence for each."""
    out = run(EIGHT).out
    assert "world_size" in out
    assert "dp x tp x pp x cp is the number of GPUs." in out

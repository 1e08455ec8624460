"""``autopar estimate`` prints one strategy whole, published totals among it."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

Run = Callable[..., Any]
REPLICA = "estimate --model 405b --tp 8 --seq-len 8192 --global-batch 128"


def terabytes(text: str, what: str) -> float:
    """The figure that stands behind ``what``."""
    found = re.search(rf"{what}\s+([\d.]+) TB", text)
    assert found is not None, text
    return float(found[1])


def test_estimate_runs_from_a_shell() -> None:
    """One strategy's time, memory and totals, on standard output alone."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", *REPLICA.split()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama3.1-405b (405.9B parameters) on 8 x h100-sxm\n")
    assert done.stderr == ""


def test_model_state_of_405b_is_7_3_terabytes(run: Run) -> None:
    """One replica, unsharded: 405.9e9 parameters at 18 bytes."""
    assert terabytes(run(REPLICA).out, "model state") == pytest.approx(7.3, abs=0.05)


def test_activations_of_405b_without_recompute(run: Run) -> None:
    """About 0.57 TB at micro-batch 1, four times as much and over 2 TB at micro-batch 4."""
    one = terabytes(run(REPLICA).out, "activations")
    four = terabytes(run(REPLICA, "--micro-batch-size 4").out, "activations")
    assert one == pytest.approx(0.57, rel=0.1)
    assert four == pytest.approx(4 * one, rel=0.02)
    assert four > 2


def test_full_sharding_needs_far_less_than_replication(run: Run) -> None:
    """On the same 128 GPUs, state falls nearly sixteenfold and the total by over four fifths."""
    replicated = run(REPLICA, "--gpus 128").out
    sharded = run(REPLICA, "--gpus 128 --sharding fsdp").out
    assert terabytes(sharded, "model state") < terabytes(replicated, "model state") / 14
    assert terabytes(sharded, "all 128 GPUs:") < 0.2 * terabytes(replicated, "all 128 GPUs:")


def test_breakdowns_of_the_document_sum_up(run: Run) -> None:
    """autopar/estimate/1 is one row of a frontier with its problem."""
    document = json.loads(run("estimate --gpus 16 --tp 4 --pp 2 --sharding zero1 --json -").out)
    assert document["schema"] == "autopar/estimate/1"
    assert document["strategy"]["dp"] == 2
    times, sizes = document["time_breakdown_s"], document["memory_breakdown_bytes"]
    assert sum(times.values()) == pytest.approx(document["step_time_s"])
    assert sum(sizes.values()) == pytest.approx(document["memory_bytes"])
    assert document["legal"]
    assert not document["fits"]


def test_an_illegal_strategy_is_refused_with_every_rule_it_breaks(run: Run) -> None:
    """Each broken rule is a line with its numbers; nothing is printed."""
    ran = run("estimate --gpus 6 --tp 3 --pp 2")
    lines = ran.err.splitlines()
    assert (ran.code, ran.out) == (2, "")
    assert len(lines) > 2
    assert "error: tp_divides_heads: heads 64 is not divisible by tensor_parallel 3" in lines
    assert lines[-1] == "hint: --force prices it all the same"


def test_force_prices_an_illegal_strategy_and_says_so(run: Run) -> None:
    """The numbers come with the broken rules above them."""
    ran = run("estimate --gpus 6 --tp 3 --pp 2 --force")
    assert ran.code == 0
    assert "broken: tp_divides_heads: " in ran.out
    assert "step time" in ran.out


def test_a_search_row_can_be_estimated_by_the_line_below_the_table(run: Run) -> None:
    """The command that a search suggests gives the fastest row's step time."""
    found = run("search --model 8b --gpus 8 --tp 1,2 --pp 1,2")
    words = re.search(r"autopar (estimate .*)", found.out)
    assert words is not None
    step = re.search(r"^ *1 .*?([\d.]+ m?s) ", found.out, re.MULTILINE)
    assert step is not None
    assert f"step time {step[1]}" in run(words[1]).out

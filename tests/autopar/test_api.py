"""The door for programs: names or specs in, results out, and nothing heavy before it is needed."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import autopar
from autopar.job.inputs import default_batch
from cost_models.specs.strategy import Precision

ROOT = Path(autopar.__file__).parents[1]


def run(code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter with ``paths`` before our own."""
    search = ":".join(map(str, (*paths, ROOT)))
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": search},
        cwd=paths[0] if paths else ROOT,
    )


def test_importing_brings_nothing_heavy() -> None:
    """``import autopar`` reads none of the packages that a search needs."""
    heavy = ("numpy", "scipy", "ortools", "optuna", "cost_models", "search")
    done = run(f"import autopar, sys; print([m for m in {heavy!r} if m in sys.modules])")

    assert done.stdout.strip() == "[]", done.stderr


def test_a_search_needs_no_solver_and_no_sampler() -> None:
    """The sweep imports neither OR-Tools nor Optuna."""
    done = run(
        "import autopar, sys; autopar.search('8b', 8);"
        "print([m for m in ('ortools', 'optuna') if m in sys.modules])"
    )

    assert done.stdout.strip() == "[]", done.stderr


def test_a_users_own_search_py_is_named(tmp_path: Path) -> None:
    """A module that hides one of our packages is refused with the way out."""
    (tmp_path / "search.py").write_text("")
    done = run("import autopar", tmp_path)

    assert f"but Python finds {tmp_path.resolve() / 'search.py'}" in done.stderr
    assert "hint: rename that file" in done.stderr


def test_names_are_enough() -> None:
    """The main job in one line: the frontier of a 70B model on 512 GPUs."""
    result = autopar.search("70b", 512)
    best = result.frontier[0]

    assert result.model.name == "llama3-70b"
    assert result.cluster.n_gpus == best.world_size == 512
    assert result.workload.sequence_length == 8192
    assert result.certificate.complete
    assert best.memory_bytes <= result.cluster.usable_memory_bytes
    assert 0.2 < best.mfu < 0.7


@pytest.mark.parametrize("gpus", [1, 7, 96])
def test_any_number_of_gpus_has_an_answer(gpus: int) -> None:
    """One GPU, a prime number and whole nodes: a frontier, or the reason why not."""
    result = autopar.search("llama2-7b", gpus, gpu="h200")

    assert result.frontier or result.explanation
    assert all(row.strategy.world_size == gpus for row in result.frontier)


@pytest.mark.parametrize(
    ("axis", "value", "expected"),
    [
        ("tp", "4,8", {4, 8}),
        ("tp", 2, {2}),
        ("micro-batch-size", [1, 2], {1, 2}),
        ("precision", "fp8", {Precision.FP8}),
    ],
)
def test_axes_can_be_fixed(axis: str, value: Any, expected: set[int]) -> None:
    """Text, one value or several narrow an axis."""
    result = autopar.search("8b", 16, fixed={axis: value})

    assert result.frontier
    assert {getattr(row.strategy, axis.replace("-", "_")) for row in result.frontier} <= expected


def test_an_estimate_is_the_searchs_price() -> None:
    """A row of a frontier costs the same when it is asked about by itself."""
    row = autopar.search("8b", 16, global_batch=64).frontier[0]
    alone = autopar.estimate("8b", row.strategy, global_batch=64)
    read = autopar.estimate("8b", row.strategy.to_json(), global_batch=64)

    assert alone.step_time_s == pytest.approx(row.step_time_s, rel=1e-12)
    assert alone.memory_bytes == pytest.approx(row.memory_bytes, rel=1e-12)
    assert read == alone


def test_a_strategy_is_completed_as_on_the_command_line() -> None:
    """Data parallel takes what is left, and sharding spans it."""
    short = autopar.estimate("70b", {"tp": 8, "sharding": "fsdp", "recompute": "full"}, gpus=512)

    assert (short.strategy.dp, short.strategy.dp_shard) == (64, 64)
    assert short.strategy.sequence_parallel
    assert short == autopar.estimate("70b", short.strategy)


def test_rules_hold_for_whoever_asks() -> None:
    """A strategy that breaks rules is refused with all of them, and priced by force."""
    with pytest.raises(autopar.SpecError, match=r"tp_divides_heads: .*; tp_divides_"):
        autopar.estimate("70b", {"tp": 3}, gpus=6)
    assert autopar.estimate("70b", {"tp": 3}, gpus=6, force=True).step_time_s > 0


def test_a_launcher_says_whose_runs_are_priced() -> None:
    """Its recipe is taken unless another is named, which the job then notes."""
    own = autopar.Job.of("8b", 8, launcher="torchtitan")
    other = autopar.Job.of("8b", 8, launcher="torchtitan", framework="megatron-lm")

    assert own.problem.workload.framework.name == "torchtitan"
    assert not own.notes
    assert "though jobs of torchtitan run as torchtitan does" in other.notes[0]
    assert autopar.estimate(own, {"sharding": "fsdp"}) != autopar.estimate(
        other, {"sharding": "fsdp"}
    )


def test_explain_names_every_broken_rule() -> None:
    """Each rule comes with its numbers; a legal strategy breaks none."""
    legal = autopar.search("8b", 16).frontier[0].strategy
    broken = autopar.explain("8b", legal.with_(tp=16, dp=1, pp=1, vpp=1, ep=2), gpus=16)

    assert autopar.explain("8b", legal) == []
    assert any(line.startswith("ep_needs_experts: ") for line in broken)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"model": "7000b"}, "no model named '7000b'"),
        ({"gpus": 0}, "gpus must be >= 1, got 0"),
        ({"gpus": None}, "GPUs is missing"),
        ({"gpu": "h1000"}, "h1000"),
        ({"space": "all"}, "unknown space 'all'"),
        ({"framework": "nobody"}, "no framework is called 'nobody'"),
        ({"global_batch": 8, "tokens_per_batch": 65536}, "say the same thing"),
        ({"tokens_per_batch": 100}, "less than one sequence"),
        ({"seq_len": 0}, "seq_len must be >= 1, got 0"),
        ({"fixed": {"tq": "4"}}, "unknown axis 'tq'"),
        ({"method": "guess"}, "unknown method 'guess'"),
        ({"trials": 0, "method": "explore"}, "trials must be >= 1, got 0"),
    ],
)
def test_bad_words_are_answered(words: dict[str, Any], message: str) -> None:
    """What cannot be is said in one line with its value."""
    asked: dict[str, Any] = {"model": "8b", "gpus": 8} | words
    with pytest.raises(autopar.SpecError, match=message):
        autopar.search(**asked)


@pytest.mark.parametrize("gpus", [1, 7, 96, 500, 512, 16384])
def test_the_default_batch_divides_over_replicas(gpus: int) -> None:
    """The odd part of the world size divides it, and large clusters get more."""
    batch = default_batch(8192, gpus)

    assert batch % (gpus // (gpus & -gpus)) == 0
    assert batch * 8192 >= 4 * 2**20
    assert batch * 8 >= gpus


def test_same_seed_same_answer() -> None:
    """Two searches give the same rows and the same counts."""
    one, two = (autopar.search("8x7b", 64, space="core", seed=1) for _ in range(2))

    assert one == two


def test_unknown_names_are_no_attributes() -> None:
    """The facade offers what it lists and nothing else."""
    with pytest.raises(AttributeError, match="no attribute 'serch'"):
        autopar.serch  # noqa: B018
    assert "search" in dir(autopar)

"""``autopar improve``: what it prints and writes, and what it keeps."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopar.launchers import dossier
from tests.autopar.cli.processes import autopar

Run = Callable[..., Any]

JOB = (
    "torchrun --nnodes 2 --nproc-per-node 8 pretrain_gpt.py --num-layers 32 --hidden-size 4096 "
    "--num-attention-heads 32 --group-query-attention --num-query-groups 8 --swiglu --bf16 "
    "--ffn-hidden-size 14336 --seq-length 4096 --micro-batch-size 1 --global-batch-size 64 "
    "--vocab-size 128256 --tensor-model-parallel-size 4 --pipeline-model-parallel-size 2 "
    "--untie-embeddings-and-output-weights --recompute-granularity full "
    "--recompute-method uniform --recompute-num-layers 1"
)


@pytest.fixture(scope="module")
def better(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What ``improve`` prints of the job, and the document that it writes."""
    path = tmp_path_factory.mktemp("improve") / "better.json"
    code, out, err = autopar("improve", "--from", JOB, "--json", str(path)).ended()
    assert code == 0, err
    return out, path


def improved(run_words: Run, *words: str) -> dict[str, Any]:
    """The document of ``autopar improve``."""
    ran = run_words("improve", "--json", "-", *words)
    assert ran.code == 0, ran.err
    document: dict[str, Any] = json.loads(ran.out)
    return document


def test_the_gains_add_up_to_the_whole(better: tuple[str, Path]) -> None:
    """Every change is priced, and all of them together lead to the better plan."""
    found = json.loads(better[1].read_text())
    assert found["schema"] == "autopar/improve/1"
    assert found["yours"]["legal"]
    assert found["yours"]["fits"]
    total = found["yours"]["step_time_s"] - found["better"]["step_time_s"]
    assert total > 0
    assert sum(step["gain_s"] for step in found["steps"]) == pytest.approx(total)
    assert found["steps"][-1]["step_time_s"] == pytest.approx(found["better"]["step_time_s"])
    strategy = dict(found["yours"]["strategy"])
    for step in found["steps"]:
        for knob, change in step["changes"].items():
            assert strategy[knob] == change["from"]
            strategy[knob] = change["to"]
    assert strategy == found["better"]["strategy"]


def test_kept_knobs_stay(run_words: Run) -> None:
    """What --keep names is the same before and after."""
    found = improved(run_words, "--from", JOB, "--keep", "tp,pp,micro-batch-size,recompute")
    assert found["kept"] == ["tp", "pp", "micro_batch_size", "recompute"]
    for knob in found["kept"]:
        assert found["better"]["strategy"][knob] == found["yours"]["strategy"][knob]


def test_the_problem_stays(better: tuple[str, Path]) -> None:
    """Batch, sequence, GPUs and precision are the job's."""
    found = json.loads(better[1].read_text())
    assert found["workload"]["global_batch_size"] == 64
    assert found["workload"]["sequence_length"] == 4096
    assert found["better"]["world_size"] == found["yours"]["world_size"] == 16
    assert found["better"]["strategy"]["precision"] == "bf16"


def test_the_better_plan_can_be_emitted(
    run_words: Run, better: tuple[str, Path], tmp_path: Path
) -> None:
    """From a job to a better one's files in two commands."""
    (said, path), out = better, tmp_path / "run"
    assert said.splitlines()[-1].endswith(f"emit {path} --launcher megatron --out DIR")
    assert run_words("emit", str(path), "--out", str(out)).code == 0
    text = (out / "megatron.sh").read_text()
    read = dossier("megatron").read({"megatron.sh": text}).strategy.to_json()
    assert read == json.loads(path.read_text())["better"]["strategy"]


def test_the_way_is_a_table(better: tuple[str, Path]) -> None:
    """Yours, the better one, a line for each change, and their sum."""
    lines = better[0].splitlines()
    assert any(line.startswith("yours:  dp2 tp4 pp2") for line in lines)
    assert any(line.startswith("better: ") for line in lines)
    assert any(line.startswith("1  tp 4 -> 1 (dp 2 -> 8)") for line in lines)
    assert any(line.strip().startswith("together ") for line in lines)


def test_the_best_cannot_be_improved(
    run_words: Run, better: tuple[str, Path], tmp_path: Path
) -> None:
    """Improving what improve found ends there."""
    out, second = tmp_path / "run", tmp_path / "second.json"
    run_words("emit", str(better[1]), "--out", str(out))
    again = run_words("improve", "--from", str(out), "--json", str(second))
    assert again.code == 0
    assert "nothing faster fits" in again.out
    assert json.loads(second.read_text())["better"] is None
    assert "holds no strategy" in run_words("emit", str(second), "--out", f"{out}2").err


def test_an_illegal_job_is_led_to_a_legal_one(run_words: Run) -> None:
    """Broken rules are named, and the way ends where none is broken."""
    found = improved(run_words, "--from", JOB.replace("batch-size 64", "batch-size 66"))
    assert found["yours"]["broken_rules"] == {}
    odd = improved(run_words, "--from", JOB.replace("size 4 ", "size 2 "), "--global-batch", "34")
    assert list(odd["yours"]["broken_rules"]) == ["batch_divides"]
    assert odd["better"] is not None
    assert sum(step["gain_s"] for step in odd["steps"]) == pytest.approx(
        odd["yours"]["step_time_s"] - odd["better"]["step_time_s"]
    )


def test_a_job_that_does_not_fit_is_helped(run_words: Run) -> None:
    """Too much memory is said, and the better plan fits though it may be slower."""
    large = JOB.replace(" --recompute-granularity full", "").replace(
        " --recompute-method uniform --recompute-num-layers 1", ""
    ).replace("micro-batch-size 1", "micro-batch-size 16")  # fmt: skip
    ran = run_words("improve", "--from", large)
    assert "does not fit" in ran.out
    assert "better: " in ran.out


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "--from is missing"),
    "knob": (("--from", JOB, "--keep", "tpp"), "--keep: unknown axis 'tpp'"),
    "space": (("--from", JOB, "--space", "huge"), "unknown space 'huge'"),
    "file": (("--from", "nowhere.sh"), "no such file"),
    "json": (("--from", JOB, "--json", "/nowhere/x.json"), "--json /nowhere/x.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_words_are_one_line(run_words: Run, name: str) -> None:
    """Exit code 2, and nothing on standard output."""
    words, message = WRONG[name]
    ran = run_words("improve", *words)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) <= 2


def test_nothing_that_fits_is_exit_one(run_words: Run) -> None:
    """Where no plan at all fits, the numbers of the job are still printed."""
    ran = run_words("improve", "--from", JOB, "--model", "405b", "--keep", "tp,pp,micro_batch_size")
    assert ran.code == 1
    assert ran.err == "error: nothing in the space is legal and fits\n"

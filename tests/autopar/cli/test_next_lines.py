"""What is printed to be typed next asks the same question."""

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from autopar.cli import cli
from autopar.cli.question import described_by, job_of, strategy_of
from autopar.job.job import PRICED, SEARCHED, Job
from cost_models.calibrate.calibration import SHIPPED

Run = Callable[..., Any]
SMALL = "--model 8b --gpus 8 --tp 1,2 --pp 1"
MEGATRON = (
    "torchrun --nproc-per-node 8 pretrain_gpt.py --num-layers 16 --hidden-size 2048 --bf16 "
    "--num-attention-heads 32 --seq-length 4096 --micro-batch-size 1 --global-batch-size 64 "
    "--vocab-size 32000 --tensor-model-parallel-size 4 --use-distributed-optimizer"
)


def asked(words: list[str]) -> tuple[Mapping[str, Any], Job]:
    """The options and the job of a command line."""
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None
    with command.make_context(words[0], words[1:]) as context:
        options = context.params
        if options.get("sources"):
            return options, described_by(options).job
        if words[0] == "search":
            return options, job_of(options)
        rules = SEARCHED if words[0] == "explain" else PRICED
        return options, strategy_of(options, rules=rules)[0]


def printed(out: str) -> Iterator[list[str]]:
    """The commands below ``next:``, as words."""
    for line in out.split("next:\n", 1)[1].splitlines():
        yield shlex.split(line)[1:]


SEARCHES = {
    "axes": SMALL,
    "memory": f"{SMALL} --reserve-gib 20 --seq-len 4096 --global-batch 64 --precision fp8",
    "launcher": f"{SMALL} --launcher torchtitan --gpu h200",
    "both": f"{SMALL} --launcher deepspeed --framework megatron-lm --seed 3 --no-refine",
    "cluster": "--model 8b --gpus 16 --cluster aws-p5en --tp 2 --optimizer adamw --space core",
    "sizes": "--model 8b --gpus 8-16 --tp 1,2 --pp 1 --objective gpus",
}


@pytest.mark.parametrize("name", SEARCHES)
def test_lines_after_a_search_ask_about_the_same_job(run: Run, run_words: Run, name: str) -> None:
    """The search is repeated whole; estimate and explain have its problem and constants."""
    words = ["search", *SEARCHES[name].split()]
    ran = run_words(*words)
    assert ran.code == 0, ran.err
    options, job = asked(words)
    verbs = []
    for line in printed(ran.out):
        verbs.append(line[0])
        again, found = asked(line)
        if line[0] == "search":
            assert {**again, "json_path": None} == options
            assert found == job
        else:
            same = job.on(found.problem.cluster.n_gpus)
            assert (found.problem, found.constants) == (same.problem, same.constants)
            assert found.launcher == job.launcher
    assert verbs == ["estimate", "explain", "search"]


def test_lines_of_a_study_ask_about_its_job(run_words: Run, tmp_path: Path) -> None:
    """A study that goes on says its storage and its name; its axes and calibration come back."""
    storage, own = str(tmp_path / "trials.log"), tmp_path / "own.json"
    document = json.loads(SHIPPED.read_text())
    document["effects"][0][3] *= 1.5
    own.write_text(json.dumps(document))
    kept = ["--storage", storage, "--study", "s", "--trials", "20"]
    begun = ["search", *SMALL.split(), "--global-batch", "64", "--calibration", str(own), *kept]
    assert run_words(*begun).code == 0
    _, job = asked(begun)
    ran = run_words("search", "--storage", storage, "--study", "s")
    lines = list(printed(ran.out))
    assert [line[0] for line in lines] == ["estimate", "explain", "search"]
    for line in lines[:2]:
        _, found = asked(line)
        assert found.problem.workload == job.problem.workload
        assert found.constants == job.constants != asked(begun[:-8])[1].constants
        assert line[line.index("--calibration") + 1] == str(own)
    assert asked(lines[1])[0]["sharding"] == asked(lines[0])[0]["sharding"]  # axes were narrowed
    assert lines[2][1:] == ["--storage", storage, "--study", "s", "--json", "result.json"]


def test_the_line_after_improve_holds_every_option(run_words: Run) -> None:
    """What was typed beside --from is typed again."""
    words = ["improve", "--from", MEGATRON, "--keep", "tp", "--seq-len", "2048", "--gpus", "16"]
    ran = run_words(*words)
    options, job = asked(words)
    first, second = printed(ran.out)
    again, found = asked(first)
    assert {**again, "json_path": None} == options
    assert found == job
    assert second[0] == "emit"


def test_emitted_files_name_the_command_behind_them(run_words: Run, tmp_path: Path) -> None:
    """The head of a file holds the line whose estimate is the plan's prediction."""
    path, out = tmp_path / "result.json", tmp_path / "run"
    ran = run_words("search", *SMALL.split(), "--launcher", "torchtitan", "--json", str(path))
    assert ran.code == 0, ran.err
    assert run_words("emit", str(path), "--rank", "2", "--out", str(out)).code == 0
    text = "\n".join(file.read_text() for file in out.rglob("*") if file.is_file())
    line = next(row for row in text.splitlines() if "Again: " in row).partition("Again: ")[2]
    again = json.loads(run_words(*shlex.split(line)[1:], "--json", "-").out)
    row = json.loads(path.read_text())["frontier"][1]
    for key in ("step_time_s", "memory_bytes", "strategy"):
        assert again[key] == row[key]


FORCED = "estimate --model 8b --gpus 8 --tp 8 --pp 1 --micro-batch-size 3 --force"
STAGES = "estimate --model 8b --gpus 8 --pp 4 --stage-layers 8,9,9,6"
FOUND = {
    "forced": FORCED.split(),
    "files": ["estimate", "--from", MEGATRON, "--gpus", "16", "--recompute", "full"],
    "better": ["improve", "--from", MEGATRON, "--gpus", "16", "--seq-len", "2048"],
    "stages": STAGES.split(),
}


@pytest.mark.parametrize("name", FOUND)
def test_files_of_one_plan_name_the_command_behind_them(
    run_words: Run, tmp_path: Path, name: str
) -> None:
    """Forced, read from files or found from there: the line in the head prices that plan."""
    path, out = tmp_path / "answer.json", tmp_path / "run"
    ran = run_words(*FOUND[name], "--json", str(path))
    assert ran.code == 0, ran.err
    ran = run_words("emit", str(path), "--launcher", "megatron", "--out", str(out))
    assert ran.code == 0, ran.err
    text = "\n".join(file.read_text() for file in out.rglob("*") if file.is_file())
    line = next(row for row in text.splitlines() if "Again: " in row).partition("Again: ")[2]
    again = json.loads(run_words(*shlex.split(line)[1:], "--json", "-").out)
    document = json.loads(path.read_text())
    row = document.get("better", document)
    for key in ("step_time_s", "memory_bytes", "strategy"):
        assert again[key] == row[key]

"""Whatever is wrong with an input is one line, a hint at most, exit code 2, and no file."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

WRONG: dict[str, str] = {
    "serch": "no command is called 'serch'",
    "search": "--gpus is missing",
    "search --gpus": "--gpus requires an argument",
    "search --gpus 8 --modle 8b": "autopar search has no option --modle",
    "search --gpus 8 surplus": "unexpected extra argument",
    "search --gpus 0": "--gpus must be >= 1, got 0",
    "search --gpus -4": "--gpus must be >= 1, got -4",
    "search --gpus 1e12": "--gpus must be <= 1,000,000, got 1e12",
    "search --gpus nan": "--gpus must be a whole number, got 'nan'",
    "search --gpus inf": "--gpus must be a whole number, got 'inf'",
    "search --gpus 2.5": "--gpus must be a whole number, got '2.5'",
    "search --gpus many": "--gpus must be a whole number, got 'many'",
    "search --gpus 512-256": "--gpus range 512-256 runs backwards",
    "search --gpus 8 --model 80b": "no model named '80b'",
    "search --gpus 8 --model nowhere/config.json": "nowhere/config.json: no such file",
    "search --gpus 8 --gpu h101": "is called 'h101'",
    "search --gpus 8 --cluster nowhere.toml": "nowhere.toml: cannot read",
    "search --gpus 8 --seq-len 0": "--seq-len must be >= 1, got 0",
    "search --gpus 8 --seq-len 1e99": "--seq-len must be <= 100,000,000, got 1e99",
    "search --gpus 8 --global-batch -1": "--global-batch must be >= 1, got -1",
    "search --gpus 8 --global-batch 8 --tokens-per-batch 4M": "say the same thing",
    "search --gpus 8 --tokens-per-batch 10": "less than one sequence",
    "search --gpus 8 --precision fp9": "unknown precision 'fp9'",
    "search --gpus 8 --optimizer adamx": "no optimizer is called 'adamx'",
    "search --gpus 8 --launcher megatrn": "unknown launcher 'megatrn'",
    "search --gpus 8 --space medium": "unknown space 'medium'",
    "search --gpus 8 --method guess": "--method: 'guess' is not one of",
    "search --gpus 8 --trials 0": "--trials must be >= 1, got 0",
    "search --gpus 8 --timeout -1": "--timeout must be >= 0, got -1",
    "search --gpus 8 --objective fun": "--objective: 'fun' is not one of",
    "search --gpus 8 --objective cost": "no price is known for an hour of h100-sxm",
    "search --gpus 8 --top 0": "--top must be >= 1, got 0",
    "search --gpus 8 --seed -1": "--seed must be >= 0, got -1",
    "search --gpus 8 --reserve-gib nan": "--reserve-gib must be >= 0, got nan",
    "search --gpus 8 --reserve-gib 900": "reserved",
    "search --gpus 8 --tp 0": "tp must be >= 1, got 0",
    "search --gpus 8 --tp x": "tp must be whole numbers, got 'x'",
    "search --gpus 8 --tp 8-1": "tp range '8-1' runs backwards",
    "search --gpus 8 --sharding zero9": "unknown sharding 'zero9'",
    "search --gpus 6 --tp 4": "tp 4 does not divide 6 GPUs",
    "search --gpus 8 --json - --csv -": "both want standard output",
    "estimate --gpus 6 --tp 4": "--gpus 6 is not divisible by tp 4",
    "estimate --gpus 8 --tp 2,4": "--tp must be one value here, got 2,4",
    "estimate --gpus 8,16": "--gpus must be one number here, got 8,16",
    "estimate --gpus 8 --tp 4 --dp 3": "12 GPUs, but --gpus is 8",
    "estimate --gpus 8 --sharding hsdp": "--sharding hsdp needs --dp-shard",
    "estimate --pp 2 --stage-layers 40": "--stage-layers must name the layers of all 2 chunks",
    "estimate --pp 2 --stage-layers a,b": "--stage-layers must be counts",
    "estimate --gpus 8 --global-batch 12": "batch",
    "models nothing": "no model named 'nothing'",
    "gpus nothing": "no GPU is called 'nothing'",
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_one_line(run: Run, words: str, tmp_path: Path) -> None:
    """The line names the option and the value; nothing else is printed or written."""
    target = tmp_path / "answer.json"
    asked = words.startswith("search --gpus ") and "--json" not in words
    ran = run(words, *([f"--json {target}"] if asked else []))
    lines = ran.err.splitlines()
    assert ran.code == 2
    assert ran.out == ""
    assert lines[0].startswith("error: ")
    assert WRONG[words] in lines[0]
    assert all(line.startswith("hint: ") for line in lines[1:])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("serch", "did you mean search?"),
        ("search --gpus 8 --seqlen 8192", "did you mean --seq-len"),
        ("search --gpus 8 --model llama3-80b", "llama3-70b"),
        ("search --gpus 8 --gpu h101", "h100"),
        ("search --gpus 8 --sharding zero9", "zero"),
        ("estimate --gpus 6 --tp 4", "4 or 8"),
    ],
)
def test_a_near_miss_is_named(run: Run, words: str, hint: str) -> None:
    """What would be right stands on a line of its own."""
    last = run(words).err.splitlines()[-1]
    assert last.startswith("hint: ")
    assert hint in last


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("bad.toml", "n_layers = = 3\n", "bad.toml"),
        ("bad.toml", "n_layers = 3\nhiden_size = 4\n", "bad.toml:2"),
        ("config.json", '{"model_type": "llama",', "config.json"),
        ("config.json", '{"model_type": "resnet"}', "resnet"),
    ],
)
def test_a_broken_model_file_is_named(
    run: Run, tmp_path: Path, name: str, text: str, where: str
) -> None:
    """File, line where there is one, and no traceback."""
    path = tmp_path / name
    path.write_text(text)
    ran = run(f"search --gpus 8 --model {path}")
    assert (ran.code, ran.out) == (2, "")
    assert where in ran.err.splitlines()[0]


@pytest.mark.parametrize("option", ["--json", "--csv"])
def test_an_unwritable_path_is_found_before_the_search(
    run: Run, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search does not even begin."""
    monkeypatch.setattr("autopar.api.search", lambda *_, **__: pytest.fail("searched"))
    ran = run(f"search --gpus 8 {option} /nowhere/at/all.json")
    assert ran.code == 2
    assert ran.err == f"error: {option} /nowhere/at/all.json: cannot write: " + (
        "No such file or directory\n"
    )


def test_ctrl_c_is_one_line_and_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted search leaves no traceback."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("autopar.api.search", interrupted)
    ran = run("search --gpus 8")
    assert (ran.code, ran.out, ran.err) == (130, "", "error: interrupted\n")


INTERRUPTED_AT_A_LINE = """
import os, signal, sys
place = {place!r}

def stop(frame, event, _):
    if frame.f_code.co_filename.endswith(place[0]) and frame.f_code.co_name == place[1]:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(stop)
from autopar.cli import main
sys.argv[1:] = {words!r}
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "place",
    [
        ("click/core.py", "<module>"),
        ("autopar/cli/commands/search.py", "<module>"),
        ("<string>", "__create_fn__"),
        ("search/sweep/sweep.py", "sweep"),
        ("autopar/report/documents.py", "search_document"),
    ],
)
def test_a_real_ctrl_c_ends_a_real_search(place: tuple[str, str]) -> None:
    """The signal is one line and 130 while libraries load, in the search, and after it.

    It is sent when the program comes to a place, not after some seconds: a machine may be
    quicker or slower than any number of them.
    """
    words = ["search", "--gpus", "64", "--model", "8b", "--json", "-"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_AT_A_LINE.format(place=place, words=words)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_broken_pipe_is_silent() -> None:
    """``autopar models --json - | head -1`` has nothing to say on standard error."""
    child = subprocess.Popen(
        [sys.executable, "-m", "autopar", "models", "--json", "-"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.close()
    child.stdout = None
    err = child.communicate(timeout=60)[1]
    assert (child.returncode, err) == (141, b"")


def test_a_terminal_that_knows_only_ascii_gets_an_answer() -> None:
    """Letters that it lacks become question marks, not a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", "explain", "--model", "8b", "--gpus", "8", "--tp", "2"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

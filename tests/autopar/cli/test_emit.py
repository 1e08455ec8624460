"""``autopar emit``: whole folders or none, safe names, and one line for what cannot be."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopar.launchers import WRAPPERS, dossier, names
from tests.autopar.cli.processes import autopar

Run = Callable[..., Any]
OF_SLURM = ("megatron.sh", "run.sh", "job.sbatch")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A frontier of llama3-8b on 16 GPUs, searched for Megatron-LM."""
    path = tmp_path_factory.mktemp("result") / "result.json"
    words = f"search --gpus 16 --model 8b --seq-len 4096 --launcher megatron --json {path}"
    code, _, err = autopar(*words.split(), "--tp", "1,2,4", "--pp", "1,2").ended()
    assert code == 0, err
    return path


def changed(result: Path, folder: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of the document with something done to it."""
    document = json.loads(result.read_text())
    change(document)
    path = folder / "changed.json"
    path.write_text(json.dumps(document))
    return path


def test_the_best_row_is_written_and_read_back(run: Run, result: Path, tmp_path: Path) -> None:
    """What Megatron-LM's reader finds in the folder is the strategy of the document."""
    ran = run(f"emit {result} --out {tmp_path}/run")
    assert (ran.code, ran.err) == (0, "")
    assert "megatron.sh" in ran.out
    text = (tmp_path / "run" / "megatron.sh").read_text()
    strategy = dossier("megatron").read({"megatron.sh": text}).strategy
    assert strategy.to_json() == json.loads(result.read_text())["frontier"][0]["strategy"]
    assert "Predicted: step " in text


@pytest.mark.parametrize("kind", WRAPPERS)
def test_every_wrapper_adds_a_file(run: Run, result: Path, tmp_path: Path, kind: str) -> None:
    """The folder holds more than without, and the last line says what to type."""
    ran = run(f"emit {result} --rank 2 --wrap {kind} --out {tmp_path}/run")
    assert ran.code == 0, ran.err
    assert ran.out.splitlines()[-1].startswith(f"next: cd {tmp_path}/run && ")
    assert len(list((tmp_path / "run").iterdir())) >= 2


@pytest.mark.parametrize("name", names())
def test_search_writes_files_for_every_launcher(run: Run, tmp_path: Path, name: str) -> None:
    """``--emit`` narrows the search to the launcher, so that the best row can be written."""
    words = f"search --gpus 8 --model 8b --seq-len 4096 --emit {name} --out {tmp_path}/run"
    ran = run(words, "--tp 1,2 --pp 1,2 --json -")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["launcher"] == name
    files = {
        str(path.relative_to(tmp_path / "run")): path.read_text()
        for path in (tmp_path / "run").rglob("*")
        if path.is_file()
    }
    best = json.loads(ran.out)["frontier"][0]["strategy"]
    read = dossier(name).read(files).strategy.to_json()
    differing = {knob for knob in best if best[knob] != read[knob]}
    assert not differing or "not expressed" in ran.err, differing


@pytest.mark.parametrize("wanted", ["emit", "search"])
def test_what_does_not_fit_is_said_with_its_gigabytes(
    run: Run, tmp_path: Path, wanted: str
) -> None:
    """Priced as Megatron-LM a plan may fit that torchtitan has no room for: all three say so."""
    out, path = tmp_path / "run", tmp_path / "said.json"
    question = "search --gpus 8 --model 8b --framework megatron-lm --launcher torchtitan"
    if wanted == "search":
        ran = run(f"{question} --emit torchtitan --out {out}")
    else:
        assert run(f"{question} --json {path}").code == 0
        ran = run(f"emit {path} --out {out} --json -")
        assert "GiB" in json.loads(ran.out)["warnings"][0]
    assert ran.code == 0, ran.err
    said = r"warning: does not fit: .* needs (\S+) GiB .* there are (\S+)$"
    needed = re.search(said, ran.err, re.MULTILINE)
    assert needed is not None, ran.err
    assert float(needed[1]) > float(needed[2])
    assert f"needs {needed[1]} GiB" in (out / "launch.sh").read_text()


def test_a_second_time_changes_nothing(run: Run, result: Path, tmp_path: Path) -> None:
    """The same files are left alone; other ones need --force, which spares the rest."""
    out = tmp_path / "run"
    run(f"emit {result} --out {out}")
    before = (out / "megatron.sh").stat().st_mtime_ns
    assert run(f"emit {result} --out {out}").out.startswith("unchanged")
    assert (out / "megatron.sh").stat().st_mtime_ns == before

    (out / "notes.txt").write_text("mine")
    refused = run(f"emit {result} --rank 2 --out {out}")
    assert (refused.code, refused.out) == (2, "")
    assert "has other content" in refused.err
    assert "--force" in refused.err

    assert run(f"emit {result} --rank 2 --out {out} --force").code == 0
    assert (out / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in out.iterdir()) == ["megatron.sh", "notes.txt"]


def test_predictions_come_with_intervals(run: Run, result: Path, tmp_path: Path) -> None:
    """80 % intervals of what the shipped calibration predicts, and of nothing else."""
    ran = run(f"emit {result} --rank 2 --out {tmp_path}/run --json -")
    said = json.loads(ran.out)
    assert said["step_time_low_s"] < said["step_time_s"] < said["step_time_high_s"]
    assert said["memory_low_bytes"] < said["memory_bytes"] < said["memory_high_bytes"]
    text = (tmp_path / "run" / "megatron.sh").read_text()
    assert "per GPU; in brackets 80 % intervals." in text

    other = changed(result, tmp_path, lambda d: d["frontier"][0].update(step_time_s=1.0))
    ran = run(f"emit {other} --out {tmp_path}/other --json -")
    assert "step_time_low_s" not in json.loads(ran.out)


def test_what_is_printed_can_be_typed(run_words: Run, result: Path, tmp_path: Path) -> None:
    """Folders with blanks and quotes are quoted, and the script asks for its checkout."""
    out = tmp_path / "a b; touch 'owned'"
    ran = run_words("emit", str(result), "--wrap", "slurm", "--out", str(out))
    assert ran.code == 0
    first, last = ran.out.splitlines()
    assert shlex.split(first)[1:4] == [f"{out}/{name}" for name in OF_SLURM]
    typed = last.removeprefix("next: ")
    assert shlex.split(typed) == [
        *("cd", str(out), "&&", "MEGATRON_LM=~/Megatron-LM", "sbatch", "job.sbatch")
    ]


def test_a_file_that_is_not_there_is_said_plainly(run_words: Run, tmp_path: Path) -> None:
    """No word about JSON where there is nothing to read."""
    ran = run_words("emit", "nowhere.json", "--launcher", "megatron", "--out", f"{tmp_path}/run")
    assert (ran.code, ran.err) == (
        2,
        "error: nowhere.json: cannot read: No such file or directory\n",
    )


def test_json_names_the_files(run: Run, result: Path, tmp_path: Path) -> None:
    """The document says which files there are, for what, and what they leave unsaid."""
    ran = run(f"emit {result} --rank 3 --out {tmp_path}/run --wrap slurm --json -")
    document = json.loads(ran.out)
    assert document["schema"] == "autopar/emit/1"
    assert document["files"] == ["megatron.sh", "run.sh", "job.sbatch"]
    assert (document["rank"], document["wrapper"]) == (3, "slurm")
    assert document["step_time_s"] > 0
    assert document["not_expressed"] == []


def test_an_estimate_can_be_emitted_too(run: Run, tmp_path: Path) -> None:
    """The document of one strategy serves like a frontier of one row."""
    path = tmp_path / "one.json"
    run(f"estimate --model 8b --gpus 8 --sharding fsdp --json {path}")
    assert run(f"emit {path} --launcher torchtitan --out {tmp_path}/run").code == 0
    refused = run(f"emit {path} --out {tmp_path}/other")
    assert "searched for no launcher" in refused.err


def test_several_numbers_of_gpus_keep_their_own(run: Run, tmp_path: Path) -> None:
    """A row of a search over several sizes is written for its own number of GPUs."""
    path = tmp_path / "sizes.json"
    run(f"search --model 8b --gpus 8,16 --seq-len 4096 --tp 1,2 --pp 1 --json {path}")
    rows = json.loads(path.read_text())["frontier"]
    rank = next(row["rank"] for row in rows if row["world_size"] == 8)
    assert run(f"emit {path} --rank {rank} --wrap slurm --out {tmp_path}/run").code == 0
    assert "#SBATCH --nodes=1\n" in (tmp_path / "run" / "job.sbatch").read_text()


WRONG: dict[str, tuple[str, str]] = {
    "--launcher megatrn --out OUT": ("unknown launcher 'megatrn'", "did you mean 'megatron'?"),
    "--launcher= --out OUT": ("unknown launcher ''", "known: accelerate, "),
    "--wrap slurmm --out OUT": ("unknown wrapper 'slurmm'", "did you mean 'slurm'?"),
    "--rank 999 --out OUT": ("--rank must be 1 to ", ""),
    "--rank 0 --out OUT": ("--rank must be >= 1, got 0", ""),
    "": ("--out is missing", ""),
    "--out /nowhere/at/all": ("--out /nowhere/at/all: cannot write", ""),
    "--out RESULT": ("is a file", "name a directory"),
    "--launcher deepspeed --rank PIPELINED --out OUT": ("cannot be expressed for deepspeed", ""),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_words_are_one_line(run: Run, result: Path, tmp_path: Path, words: str) -> None:
    """The line names what is wrong, a hint what would be right, and nothing is written."""
    rows = json.loads(result.read_text())["frontier"]
    pipelined = next(row["rank"] for row in rows if row["strategy"]["pp"] > 1)
    typed = words.replace("OUT", f"{tmp_path}/run").replace("RESULT", str(result))
    typed = typed.replace("PIPELINED", str(pipelined))
    ran = run(f"emit {result} {typed}")
    message, hint = WRONG[words]
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err.splitlines()[0]
    assert hint in ran.err
    assert len(ran.err.splitlines()) <= 2
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_expressed_names_what_can(run: Run, tmp_path: Path) -> None:
    """The hint holds the nearest knob and the first row of the frontier that can be written."""
    path = tmp_path / "result.json"
    run(f"search --gpus 64 --model 70b --seq-len 4096 --launcher megatron --json {path}")
    ran = run(f"emit {path} --launcher torchtitan --out {tmp_path}/run")
    assert ran.code == 2
    assert "cannot be expressed for torchtitan" in ran.err
    hint = ran.err.splitlines()[1]
    rank = hint.rpartition("--rank ")[2].split()[0]
    assert run(f"emit {path} --rank {rank} --launcher torchtitan --out {tmp_path}/run").code == 0


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "version": (lambda d: d.update(schema="autopar/search/2"), "schema is 'autopar/search/2'"),
    "none": (lambda d: d.pop("schema"), "schema is None"),
    "empty": (lambda d: d.update(frontier=[]), "holds no strategy"),
    "rows": (lambda d: d.update(frontier={"a": 1}), "frontier must be a list"),
    "model": (lambda d: d.pop("model"), "model must be an object"),
    "layers": (lambda d: d["model"].update(n_layers=-3), "n_layers must be > 0"),
    "type": (lambda d: d["model"].update(n_layers="x"), "n_layers must be int"),
    "key": (lambda d: d["model"].update(colour="red"), "unknown key 'colour'"),
    "gpu": (lambda d: d["cluster"].update(gpu=3), "gpu must be an object"),
    "batch": (lambda d: d["workload"].update(global_batch_size=0), "global_batch_size"),
    "knob": (lambda d: d["frontier"][0]["strategy"].update(zz=1), "unknown strategy key 'zz'"),
    "value": (lambda d: d["frontier"][0]["strategy"].update(tp="x"), "no strategy can be read"),
    "word": (lambda d: d["frontier"][0]["strategy"].update(sharding="zero9"), "zero9"),
    "dp": (lambda d: d["frontier"][0]["strategy"].update(dp=10**9), "GPUs, but there are 16"),
    "time": (lambda d: d["frontier"][0].update(step_time_s="soon"), "must be a number"),
    "zero": (lambda d: d["frontier"][0]["strategy"].update(tp=0), "must be"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_document_is_one_line(run: Run, result: Path, tmp_path: Path, name: str) -> None:
    """The line names the file and what is wrong in it; no folder is made."""
    damage, message = DAMAGE[name]
    path = changed(result, tmp_path, damage)
    ran = run(f"emit {path} --launcher megatron --out {tmp_path}/run")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err.splitlines()[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"', "\0", '{"schema": ["autopar/search/1"]}'])
def test_other_files_are_refused(run: Run, tmp_path: Path, text: str) -> None:
    """What is no document is said to be none."""
    path = tmp_path / "x.json"
    path.write_text(text)
    ran = run(f"emit {path} --launcher megatron --out {tmp_path}/run")
    assert ran.code == 2
    assert ran.err.startswith(f"error: {path}")


@pytest.mark.parametrize("name", names())
def test_names_never_become_code(run: Run, result: Path, tmp_path: Path, name: str) -> None:
    """A model's name may hold anything: every script parses, and runs nothing of it."""
    evil = "x'; touch OWNED; $(touch OWNED) `touch OWNED`\ntouch OWNED\n#SBATCH --wrap=id"
    words = f"search --gpus 8 --model 8b --seq-len 4096 --launcher {name} --json {tmp_path}/r.json"
    assert run(words, "--tp 8 --pp 1 --micro-batch-size 1").code == 0
    path = changed(tmp_path / "r.json", tmp_path, lambda d: d["model"].update(name=evil))
    out = tmp_path / "run"
    ran = run(f"emit {path} --launcher {name} --wrap slurm --out {out}")
    assert ran.code == 0, ran.err
    for script in (*out.rglob("*.sh"), *out.rglob("*.sbatch")):
        done = subprocess.run(["bash", "-n", script], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        lines = script.read_text().split("\n")
        assert not any(line.startswith(("touch", "#SBATCH --wrap")) for line in lines)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_is_one_line(run: Run, result: Path, tmp_path: Path) -> None:
    """Found before anything is written."""
    tmp_path.chmod(0o500)
    ran = run(f"emit {result} --out {tmp_path}/run")
    tmp_path.chmod(0o700)
    assert ran.code == 2
    assert "cannot write: Permission denied" in ran.err


def test_emit_and_out_go_together(run: Run, tmp_path: Path) -> None:
    """``search`` takes neither without the other, and finds it before the search."""
    assert "--emit needs --out" in run("search --gpus 8 --emit megatron").err
    assert "--out goes with --emit" in run(f"search --gpus 8 --out {tmp_path}/run").err
    assert "unknown launcher 'mega'" in run(f"search --gpus 8 --emit mega --out {tmp_path}/r").err
    blocked = run("search --gpus 8 --emit megatron --out /nowhere/at/all")
    assert "--out /nowhere/at/all: cannot write" in blocked.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["torchtitan", "nanotron", "maxtext"])
def test_a_model_that_a_launcher_lacks_is_said_before_the_search(run: Run, name: str) -> None:
    """Nothing of the frontier could be written, so there is none."""
    ran = run(f"search --gpus 64 --model gpt3-175b --launcher {name}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("error: model 'gpt3-175b' cannot be expressed for ")
    assert "hint: the closest that can: " in ran.err

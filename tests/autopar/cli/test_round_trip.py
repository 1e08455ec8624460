"""A plan that is searched, emitted and read back costs what the search said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopar.launchers import names

Run = Callable[..., Any]

JOBS = {
    "dense": "--model 8b --gpus 16 --global-batch 64 --seq-len 4096 --tp 2,4 --pp 1,2",
    "moe": "--model 8x7b --gpus 32 --global-batch 64 --seq-len 4096 --tp 1,4 --pp 1,4",
    "long": "--model 8b --gpus 16 --global-batch 16 --seq-len 32768 --cp 2,4 --pp 1",
    "fsdp": "--model 8b --gpus 8 --global-batch 32 --sharding fsdp,zero3 --tp 1,2 --pp 1",
    "odd": "--model 8b --gpus 24 --global-batch 48 --seq-len 4096 --tp 1,2 --pp 1,3",
    "one": "--model 8b --gpu b300 --gpus 1 --global-batch 8",
}
CANNOT = {"nanotron": {"moe", "fsdp"}}
"""Jobs that a launcher has no words for: nanotron has neither experts nor full sharding."""
ASKED_FOR = {"sequence_length": "--seq-len", "global_batch_size": "--global-batch"}
"""What a file may leave to its trainer, and the options that say it."""


def read_back(run_words: Run, folder: Path, document: dict[str, Any]) -> dict[str, Any]:
    """The estimate of the files; what they have no field for, as the GPU, is said beside them."""
    words = ["estimate", "--from", str(folder), "--json", "-"]
    cluster = document["cluster"]
    words += ["--gpus", str(cluster["n_gpus"]), "--gpu", cluster["gpu"]["name"]]
    ran = run_words(*words)
    if "which model it is for is not said" in ran.err:
        words += ["--model", document["said"]["model"]]
        ran = run_words(*words)
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)
    unsaid = [name for name in ASKED_FOR if name in found["read"]["notes"]]
    for name in unsaid:
        words += [ASKED_FOR[name], str(document["workload"][name])]
    return dict(json.loads(run_words(*words).out)) if unsaid else found


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("job", JOBS)
def test_files_cost_what_the_search_said(
    run_words: Run, tmp_path: Path, name: str, job: str
) -> None:
    """Seconds and bytes of the best row come back from its files, priced as their launcher."""
    path, out = tmp_path / "result.json", tmp_path / "run"
    words = ["search", *JOBS[job].split(), "--micro-batch-size", "1,2", "--launcher", name]
    ran = run_words(*words, "--json", str(path))
    if job in CANNOT.get(name, ()):
        assert ran.code == 2
        return
    assert ran.code == 0, ran.err
    document = json.loads(path.read_text())
    assert run_words("emit", str(path), "--out", str(out)).code == 0
    found = read_back(run_words, out, document)
    best = document["frontier"][0]
    framework = found["workload"]["framework"]["name"]
    assert framework == document["workload"]["framework"]["name"]
    for key in ("step_time_s", "memory_bytes"):
        assert found[key] == pytest.approx(best[key], rel=1e-9)

"""``autopar models`` and ``autopar gpus`` list what the catalog holds."""

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cost_models.catalog.gpus import gpu_names
from cost_models.catalog.models import model_names

Run = Callable[..., Any]


def test_models_run_from_a_shell() -> None:
    """Every model of the catalog is a line."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", "models"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    assert names == set(model_names())


def test_gpus_run_from_a_shell() -> None:
    """Every GPU of the catalog is a line."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", "gpus"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {line.split()[0] for line in done.stdout.splitlines()[1:]}
    assert names == set(gpu_names())


def test_models_by_alias_and_as_json(run: Run) -> None:
    """An alias finds its model, whose counts are in the document."""
    document = json.loads(run("models 70b --json -").out)
    assert document["schema"] == "autopar/models/1"
    assert [model["name"] for model in document["models"]] == ["llama3-70b"]
    assert document["models"][0]["n_parameters"] == 70_553_706_496


def test_every_number_of_a_gpu_has_a_source(run: Run) -> None:
    """``--sources`` names where the peak is from."""
    out = run("gpus h100 --sources").out
    assert out.startswith("h100-sxm\n")
    assert "peak_flop_per_s: " in out


def test_gpus_as_json_are_in_si_units(run: Run) -> None:
    """Bytes and FLOP per second, not GiB and TFLOPS."""
    gpu = json.loads(run("gpus a100 --json -").out)["gpus"][0]
    assert gpu["memory_bytes"] > 8e10
    assert gpu["peak_flop_per_s"]["bf16"] == 312e12

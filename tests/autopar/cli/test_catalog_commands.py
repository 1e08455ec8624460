"""``autopar models`` and ``autopar gpus`` list what the catalog holds."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cost_models.catalog.gpus import cluster_names, gpu_names, load_gpu
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


CARD = """\
name = "rtx4090"
architecture = "ada"
memory_bytes = 25_757_220_864
memory_bandwidth_Bps = 1.008e12
n_sm = 128
nvlink_domain = 1
gpus_per_node = 8
nvlink_bandwidth_Bps = 32e9
nic_bandwidth_Bps = 12.5e9
host_bandwidth_Bps = 32e9
[peak_flop_per_s]
bf16 = 165e12
"""


def test_a_card_of_ones_own_is_searched(run: Run, tmp_path: Path) -> None:
    """``--gpu FILE`` is that GPU, and an architecture that nobody measured is named."""
    path = tmp_path / "card.toml"
    path.write_text(CARD)
    done = run(f"search --model gpt2-xl --gpus 8 --gpu {path}")
    assert done.code == 0
    assert "8 x rtx4090 (no ada in the calibration: kernels as on ampere, " in done.out


@pytest.mark.parametrize(
    ("old", "new", "line", "hint"),
    [
        ("n_sm =", "n_sn =", "card.toml:5: unknown key 'n_sn'", "did you mean 'n_sm'?"),
        ("n_sm = 128", "", "card.toml: missing key 'n_sm'", "autopar gpus h100 --toml"),
        ("165e12", "'fast'", "peak_flop_per_s must be a table of numbers", ""),
    ],
)
def test_a_wrong_card_is_refused_with_its_line(
    run: Run, tmp_path: Path, old: str, new: str, line: str, hint: str
) -> None:
    """One line says file, line and key, another what would be right."""
    path = tmp_path / "card.toml"
    path.write_text(CARD.replace(old, new))
    done = run(f"search --model gpt2-xl --gpus 8 --gpu {path}")
    assert (done.code, done.out) == (2, "")
    assert line in done.err
    assert hint in done.err


def test_a_template_is_the_same_gpu(run: Run, tmp_path: Path) -> None:
    """What ``--toml`` prints can be read back, and is that GPU."""
    path = tmp_path / "mine.toml"
    path.write_text(run("gpus h100 --toml").out)
    assert load_gpu(str(path)) == load_gpu("h100")


def test_a_template_is_of_one_gpu(run: Run) -> None:
    """Several files in one would be none."""
    done = run("gpus h100 a100 --toml")
    assert done.code == 2
    assert "one GPU" in done.err


def test_clusters_are_listed(run: Run) -> None:
    """Every cluster of the catalog is a line, pools under their cluster's name."""
    lines = run("clusters").out.splitlines()[1:]
    assert {line.split()[0] for line in lines} == set(cluster_names())


def test_clusters_as_json_are_in_si_units(run: Run) -> None:
    """A node of each pool: bytes per second, not Gb/s."""
    document = json.loads(run("clusters aws-p5 --json -").out)
    (node,) = document["clusters"]["aws-p5"]
    assert node["n_gpus"] == 8
    assert node["nic_bandwidth_Bps"] == 50e9


@pytest.mark.parametrize("name", gpu_names())
def test_every_gpu_can_be_searched(run: Run, name: str) -> None:
    """Eight of each train an 8B model, or one line says by how much they cannot."""
    words = "--tp 2,8 --pp 1 --cp 1 --sharding none,zero3 --recompute full --micro-batch-size 1"
    done = run(f"search --model 8b --gpus 8 --gpu {name} {words} --csv -")
    if done.code == 0:
        steps = [float(row["step_time_s"]) for row in csv.DictReader(io.StringIO(done.out))]
        assert steps == sorted(steps)
        assert 0 < steps[0] < 1e4
    else:
        assert done.code == 1
        assert f"no strategy fits llama3-8b on 8 x {name}" in done.err

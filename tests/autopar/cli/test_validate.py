"""``autopar validate`` and ``calibrate``: tables, documents, codes, and what is wrong named."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autopar

Run = Callable[..., Any]
ROOT = Path(__file__).parents[3]
RUNS = ROOT / "benchmarks" / "data" / "runs.csv"

HEADER = (
    "source,row_id,gpu,num_gpus,model,n_layers,hidden,n_heads,seq_len,global_batch_seqs,"
    "micro_batch,dp,tp,pp,recompute,precision,framework,step_time_s"
)
GOOD = {
    "source": "mine",
    "row_id": "1",
    "gpu": "H100-SXM-80GB",
    "num_gpus": "8",
    "model": "llama3-8b",
    "n_layers": "",
    "hidden": "",
    "n_heads": "",
    "seq_len": "4096",
    "global_batch_seqs": "64",
    "micro_batch": "1",
    "dp": "8",
    "tp": "1",
    "pp": "1",
    "recompute": "full",
    "precision": "bf16",
    "framework": "Megatron-LM",
    "step_time_s": "4.2",
}


def written(tmp_path: Path, *changes: dict[str, str]) -> Path:
    """A file with one row for each change of the good one."""
    path = tmp_path / "runs.csv"
    rows = [",".join((GOOD | change).values()) for change in changes]
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


def test_good_rows_are_counted_in_tables(run: Run, tmp_path: Path) -> None:
    """By source, GPU, framework and model, with exit code 0."""
    path = written(tmp_path, {}, {"tp": "2", "dp": "4"}, {"tp": "4", "dp": "2"})
    ran = run(f"validate {path}")
    assert ran.code == 0
    heads = [line.split()[0] for line in ran.out.splitlines() if line and "runs" in line]
    assert heads == ["all", "source", "GPU", "framework", "model"]
    assert "h100-sxm" in ran.out
    assert "llama3-8b" in ran.out


def test_python_asks_the_same(run: Run, tmp_path: Path) -> None:
    """`autopar.validate` gives the document's rows and figures, and refuses an empty table."""
    path = written(tmp_path, {}, {"tp": "2", "dp": "4"})
    document = json.loads(run(f"validate {path} --json -").out)
    found = autopar.validate(str(path))
    assert json.loads(json.dumps(found.rows)) == document["rows"]
    assert json.loads(json.dumps(found.summary)) == document["summary"]
    with pytest.raises(autopar.SpecError, match="no row can be priced"):
        autopar.validate(written(tmp_path, {"tp": "two"}))


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "number": ({"tp": "two"}, ":3:13: tp: 'two' is not a number"),
    "layout": ({"dp": "4"}, ":3:4: num_gpus: must be dp 4 * tp 1 * pp 1 * cp 1 = 4, got 8"),
    "gpu": ({"gpu": "H101"}, ":3:3: gpu: no GPU is called 'H101'"),
    "model": ({"model": "secret"}, ":3:5: model: no model is called 'secret'"),
    "framework": ({"framework": "x"}, ":3:17: framework: no framework is called 'x'"),
    "precision": ({"precision": "fp9"}, ":3:16: precision: unknown precision 'fp9'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_row_is_named_and_the_others_count(run: Run, tmp_path: Path, case: str) -> None:
    """File, line, column and value on one line; exit code 1; the good rows validate."""
    change, message = WRONG[case]
    path = written(tmp_path, {}, change, {"tp": "2", "dp": "4"})
    report = tmp_path / "report.json"
    ran = run(f"validate {path} --json {report}")
    assert ran.code == 1
    assert any(
        line.startswith(f"error: {path}") and message in line for line in ran.err.splitlines()
    )
    document = json.loads(report.read_text())
    assert [row["status"] for row in document["rows"]] == ["ok", "skipped", "ok"]
    assert document["schema"] == "autopar/validate/1"
    assert document["summary"]["figures"]["all"]["step_time"]["n"] == 2


def test_a_row_that_says_too_little_is_skipped_without_blame(run: Run, tmp_path: Path) -> None:
    """The source did not state it: exit code 0."""
    ran = run(f"validate {written(tmp_path, {}, {'seq_len': ''})}")
    assert ran.code == 0
    assert "skipped: " in ran.err
    assert ":3:9: seq_len: is not stated" in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu,gpu,tp\nh100,h100,1\n", ":1: column 'gpu' stands there twice"),
        ("gpu,tp\nh100,1\n", ":1: missing column 'num_gpus'"),
        ("", ":1: missing column 'gpu'"),
    ],
)
def test_a_file_without_its_columns_is_refused(
    run: Run, tmp_path: Path, text: str, message: str
) -> None:
    """Exit code 2, one line, nothing written."""
    path = tmp_path / "runs.csv"
    path.write_text(text)
    ran = run(f"validate {path} --json {tmp_path / 'report.json'}")
    assert ran.code == 2
    assert message in ran.err
    assert ran.out == ""
    assert not (tmp_path / "report.json").exists()


def test_a_file_without_a_readable_row_is_refused(run: Run, tmp_path: Path) -> None:
    """Exit code 2, each row named."""
    ran = run(f"validate {written(tmp_path, {'tp': 'x'}, {'pp': '-1'})}")
    assert ran.code == 2
    assert ":2:13: tp:" in ran.err
    assert ":3:14: pp:" in ran.err
    assert "no row can be priced" in ran.err


SLOWER = (
    {"step_time_s": "5.5"},
    {"tp": "2", "dp": "4", "step_time_s": "5.9"},
    {"tp": "4", "dp": "2", "step_time_s": "6.5"},
)


def test_a_calibration_of_ones_own_serves_every_command(run: Run, tmp_path: Path) -> None:
    """Written once, it moves what validate and estimate say."""
    path = written(tmp_path, *SLOWER)
    own = tmp_path / "own.json"
    ran = run(f"calibrate {path} --out {own}")
    assert ran.code == 0
    assert json.loads(own.read_text())["schema"] == "autopar/calibration/1"
    words = (
        "estimate --model 8b --gpus 8 --seq-len 4096 --global-batch 64 --recompute full --json -"
    )
    shipped, mine = (json.loads(run(words, extra).out) for extra in ("", f"--calibration {own}"))
    assert mine["step_time_s"] > 1.1 * shipped["step_time_s"]
    assert run(f"validate {path} --calibration {own}").code == 0
    again = run(f"search --model 8b --gpus 8 --tp 1 --pp 1 --calibration {own}")
    assert again.code == 0
    assert f"--calibration {own}" in again.out


@pytest.mark.parametrize(
    "words",
    ["validate {runs} --calibration {bad}", "calibrate {runs} --out {out} --from {bad}",
     "search --gpus 8 --model 8b --calibration {bad}"],
)  # fmt: skip
def test_a_damaged_calibration_is_refused(run: Run, tmp_path: Path, words: str) -> None:
    """One line that names the file, exit code 2, nothing written."""
    bad, out = tmp_path / "bad.json", tmp_path / "out.json"
    bad.write_text('{"schema": "autopar/calibration/1"}')
    ran = run(words.format(runs=written(tmp_path, {}), bad=bad, out=out))
    assert ran.code == 2
    assert f"error: {bad}: damaged calibration" in ran.err
    assert not out.exists()


def test_an_interrupted_fit_leaves_the_old_file(tmp_path: Path) -> None:
    """Ctrl-C in the middle: what was there is there, and nothing beside it."""
    out = tmp_path / "own.json"
    out.write_text("old")
    program = [sys.executable, "-m", "autopar", "calibrate", str(RUNS), "--out", str(out)]
    process = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env=os.environ)  # fmt: skip
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["own.json"]


def test_all_runs_of_the_repository_are_predicted(run: Run, tmp_path: Path) -> None:
    """One document a row, in the file's order; what cannot be known is left out and no error."""
    report = tmp_path / "report.json"
    ran = run(f"validate {RUNS} --json {report}")
    document = json.loads(report.read_text())
    lines = RUNS.read_text(encoding="utf-8").count("\n")
    assert len(document["rows"]) == lines - 1
    refused = [row for row in document["rows"] if row["status"] == "skipped"]
    assert len(refused) < 30
    known = ("which the equations do not have", "is not stated")
    assert all(row["reason"].endswith(known) for row in refused)
    assert ran.code == 0
    assert document["summary"]["figures"]["all"]["step_time"]["n"] > 2500

"""Every row of a table has its prediction, or the reason why it has none."""

from pathlib import Path

import numpy as np
import pytest

from cost_models.calibrate.batch import run_batch
from cost_models.calibrate.calibration import load_calibration
from cost_models.calibrate.predictions import leaves_a_stage_empty
from cost_models.calibrate.validation import (
    CALIBRATED_ON,
    RunTable,
    calibrate_table,
    chosen_runs,
    read_run_table,
    validate_table,
)
from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.models import load_model

SHIPPED = load_calibration()
HEADER = (
    "source,row_id,gpu,num_gpus,model,seq_len,global_batch_seqs,micro_batch,dp,tp,pp,vpp,"
    "sharding,recompute,precision,framework,step_time_s,peak_mem_GiB,oom,colour"
)
GOOD = "mine,{id},h100,8,llama3-8b,4096,64,1,{dp},{tp},1,1,zero1,full,bf16,megatron-lm,{s},,0,red"
ROWS = [
    GOOD.format(id="first", dp=8, tp=1, s=4.2),
    "mine,open,h100,8,llama3-8b,4096,64,,4,2,1,,zero1,,bf16,megatron-lm,4.0,,,blue",
    "mine,bad,h100,8,llama3-8b,4096,64,1,x,1,1,1,zero1,full,bf16,megatron-lm,1,,,",
    "mine,unsaid,h100,8,llama3-8b,,64,1,8,1,1,1,zero1,full,bf16,megatron-lm,1,,,",
    GOOD.format(id="last", dp=2, tp=4, s=4.6),
]


def table_of(tmp_path: Path, rows: list[str]) -> RunTable:
    """A file with these rows, read."""
    path = tmp_path / "runs.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return read_run_table(path)


def test_there_is_one_document_for_each_row_in_order(tmp_path: Path) -> None:
    """Priced, unreadable and unknowable rows keep their places."""
    found = validate_table(table_of(tmp_path, ROWS), SHIPPED)
    assert [row["row_id"] for row in found.rows] == ["first", "open", "bad", "unsaid", "last"]
    assert [row["status"] for row in found.rows] == ["ok", "ok", "skipped", "skipped", "ok"]
    assert found.summary["counts"] == {
        "rows": 5,
        "ok": 3,
        "unreadable": 1,
        "unknowable": 1,
        "calibrated_on": 0,
    }


def test_a_refused_row_is_named_with_file_line_and_column(tmp_path: Path) -> None:
    """The ninth column of the fourth line."""
    found = validate_table(table_of(tmp_path, ROWS), SHIPPED)
    assert found.rows[2]["reason"].endswith("runs.csv:4:9: dp: 'x' is not a number")
    assert found.rows[3]["reason"].endswith("runs.csv:5:6: seq_len: is not stated")


def test_intervals_hold_the_prediction(tmp_path: Path) -> None:
    """Low, predicted, high; and a probability."""
    for row in validate_table(table_of(tmp_path, ROWS), SHIPPED).rows:
        if row["status"] == "ok":
            assert row["step_time_low_s"] < row["predicted_step_time_s"] < row["step_time_high_s"]
            assert row["memory_low_bytes"] < row["predicted_memory_bytes"]
            assert row["predicted_memory_bytes"] < row["memory_high_bytes"]
            assert 0 <= row["fit_probability"] <= 1


def test_open_knobs_are_said_with_what_fills_them(tmp_path: Path) -> None:
    """A row that states everything fills nothing."""
    rows = validate_table(table_of(tmp_path, ROWS), SHIPPED).rows
    assert rows[0]["filled"] == {}
    assert set(rows[1]["filled"]) == {"micro_batch", "recompute"}


def test_extra_columns_are_kept(tmp_path: Path) -> None:
    """They are reported once and stay beside their row."""
    table = table_of(tmp_path, ROWS)
    assert table.unknown_columns == ["colour"]
    assert validate_table(table, SHIPPED).rows[1]["extra"] == {"colour": "blue"}


def test_the_same_table_gives_the_same_documents(tmp_path: Path) -> None:
    """Twice read, twice predicted, twice calibrated on."""
    first, second = (
        validate_table(table_of(tmp_path, ROWS), SHIPPED, calibrate_on=1, seed=4) for _ in range(2)
    )
    assert first.rows == second.rows
    assert first.summary == second.summary


def test_runs_to_calibrate_on_are_not_reported(tmp_path: Path) -> None:
    """What is fitted is skipped, and counts in no figure."""
    found = validate_table(table_of(tmp_path, ROWS), SHIPPED, calibrate_on=1)
    used = [row for row in found.rows if row["reason"] == CALIBRATED_ON]
    assert len(used) == found.summary["counts"]["calibrated_on"] == 1
    assert "predicted_step_time_s" not in used[0]
    assert found.summary["figures"]["all"]["step_time"]["n"] == 2


def test_another_seed_calibrates_on_another_run(tmp_path: Path) -> None:
    """Some seed chooses differently from seed 0."""
    runs = table_of(tmp_path, ROWS).runs
    batch = run_batch(runs)
    chosen = {tuple(chosen_runs(runs, batch, 1, seed, SHIPPED)) for seed in range(6)}
    assert len(chosen) > 1


def test_a_calibration_is_judged_on_what_it_has_not_seen(tmp_path: Path) -> None:
    """Runs that take twice as long as predicted: the halves teach each other."""
    layouts = ({"id": "first", "dp": 8, "tp": 1}, {"id": "last", "dp": 2, "tp": 4})
    some = table_of(tmp_path, [GOOD.format(**layout, s=1) for layout in layouts])
    twice = [2 * row["predicted_step_time_s"] for row in validate_table(some, SHIPPED).rows]
    rows = [GOOD.format(**layout, s=s) for layout, s in zip(layouts, twice, strict=True)]
    found = calibrate_table(table_of(tmp_path, rows * 3), SHIPPED, {"runs": "mine"})
    assert found.before["step_time"]["n"] == found.after["step_time"]["n"] == 6
    assert found.before["step_time"]["median_error"] == pytest.approx(0.5, abs=1e-3)
    assert found.after["step_time"]["median_error"] < 0.25
    assert found.calibration.provenance == {"runs": "mine"}


def test_a_partition_with_an_empty_stage_never_fits(tmp_path: Path) -> None:
    """More stages than layers leave stages without a block in nanotron."""
    row = "mine,deep,h100,64,llama3-8b,4096,64,1,1,1,64,1,none,none,bf16,nanotron,,,,"
    found = validate_table(table_of(tmp_path, [row]), SHIPPED).rows[0]
    assert found["fit_probability"] == 0.0
    assert "stage" in found["reason"]


@pytest.mark.parametrize(("pp", "empty"), [(1, False), (2, False), (8, False), (64, True)])
def test_the_framework_s_own_partition_decides(pp: int, empty: bool) -> None:
    """Few stages are never empty, more stages than layers always are."""
    model = load_model("llama3-8b")
    assert leaves_a_stage_empty(model, load_framework("nanotron"), pp, 1) == empty


def test_a_table_without_runs_to_fit_keeps_the_constants(tmp_path: Path) -> None:
    """Rows without measurements calibrate nothing."""
    table = table_of(tmp_path, [GOOD.format(id="1", dp=8, tp=1, s="")])
    found = calibrate_table(table, SHIPPED, {})
    assert np.allclose(np.sort(found.calibration.values), np.sort(SHIPPED.values))

"""``autopar search`` answers people with a table and programs with a document."""

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.autopar.cli.processes import autopar

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
SMALL = "search --model 8b --gpus 8 --tp 1,2 --pp 1,2"

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def answer() -> str:
    """What the small search prints with ``--json -``."""
    code, out, err = autopar(*SMALL.split(), "--json", "-").ended()
    assert (code, err) == (0, "")
    return out


def keys_of(value: Any) -> Any:
    """The skeleton of a document: keys, and the first entry of each list."""
    if isinstance(value, dict):
        return {name: keys_of(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [keys_of(value[0])] if value and isinstance(value[0], dict) else []
    return type(value).__name__


def test_the_main_job_runs_from_a_shell() -> None:
    """The command that the README shows ends well and prints its frontier, and no ornament."""
    done = subprocess.run(
        [sys.executable, "-m", "autopar", *SMALL.split()],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("llama3-8b (8.03B parameters) on 8 x h100-sxm\n")
    assert " 1  dp" in done.stdout
    assert "\x1b" not in done.stdout
    assert not any(0x2500 <= ord(letter) < 0x25A0 for letter in done.stdout)
    assert done.stderr == ""


def test_the_table_says_what_was_searched_and_what_to_do_next(run: Run) -> None:
    """Defaults, counts, proof and the next commands stand around the table."""
    out = run(SMALL).out
    assert "8,192 tokens" in out
    assert "bf16, adamw" in out
    assert "frontier complete" in out
    assert "  autopar estimate --model 8b --gpus 8 " in out


def test_top_limits_the_table_and_says_what_it_hides(run: Run) -> None:
    """One row is printed, and how to see the others."""
    out = run(SMALL, "--top 1").out
    assert "more on the frontier: --top" in out
    assert "\n2  dp" not in out


def broken_promises(golden: Any, found: Any, path: str = "") -> list[str]:
    """Keys that are gone, and values whose type is another; new keys break nothing."""
    if isinstance(golden, dict) and isinstance(found, dict):
        return [
            promise
            for name, value in golden.items()
            for promise in broken_promises(value, found.get(name), f"{path}.{name}")
        ]
    if isinstance(golden, list) and isinstance(found, list) and golden and found:
        return broken_promises(golden[0], found[0], f"{path}[]")
    return [] if golden == found else [f"{path}: {golden} became {found}"]


def test_the_document_has_its_golden_skeleton(run: Run) -> None:
    """Keys and types of autopar/search/1 are a promise to programs."""
    document = json.loads(run(SMALL, "--no-refine --json -").out)
    golden = json.loads((GOLDEN / "search_keys.json").read_text())
    assert not broken_promises(golden, keys_of(document))
    assert document["schema"] == "autopar/search/1"


def test_rows_obey_the_law_of_ranks_and_sum_up(answer: str) -> None:
    """The degrees dp * tp * pp * cp are the world size, and breakdowns sum to their totals."""
    document = json.loads(answer)
    for rank, row in enumerate(document["frontier"], start=1):
        s = row["strategy"]
        assert row["rank"] == rank
        assert s["dp"] * s["tp"] * s["pp"] * s["cp"] == document["cluster"]["n_gpus"]
        assert sum(row["time_breakdown_s"].values()) == pytest.approx(row["step_time_s"])
        assert sum(row["memory_breakdown_bytes"].values()) == pytest.approx(row["memory_bytes"])


def test_counts_add_up(answer: str) -> None:
    """Whatever is not legal and does not fit was removed by a rule with a name."""
    counts = json.loads(answer)["counts"]
    assert counts["space"] - sum(counts["pruned_by"].values()) == counts["fits"]
    assert counts["legal"] - counts["pruned_by"].get("memory", 0) == counts["fits"]


def test_json_on_standard_output_is_the_same_every_time(run: Run, answer: str) -> None:
    """No table is mixed into what a program reads, nothing is narrated, and bytes repeat."""
    ran = run(SMALL, "--json -")
    assert json.loads(ran.out)["frontier"]
    assert (ran.err, ran.out) == ("", answer)


def test_csv_has_a_row_for_every_strategy_of_the_frontier(run: Run, tmp_path: Path) -> None:
    """The CSV and the JSON of one run hold the same frontier; both are announced."""
    ran = run(SMALL, f"--csv {tmp_path / 'rows.csv'} --json {tmp_path / 'all.json'}")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "rows.csv").read_text())))
    frontier = json.loads((tmp_path / "all.json").read_text())["frontier"]
    assert [float(row["step_time_s"]) for row in rows] == [r["step_time_s"] for r in frontier]
    assert [row["strategy.tp"] for row in rows] == [str(r["strategy"]["tp"]) for r in frontier]
    assert ran.err == f"wrote {tmp_path / 'all.json'}\nwrote {tmp_path / 'rows.csv'}\n"
    assert ran.out.startswith("llama3-8b")


def test_where_nothing_fits_the_reason_is_given(run: Run) -> None:
    """Exit code 1, no table, one error line."""
    ran = run("search --model 405b --gpus 8 --tp 8 --pp 1")
    assert ran.code == 1
    assert ran.out == ""
    assert ran.err.startswith("error: ")


def test_reserved_memory_is_left_alone(run: Run) -> None:
    """No row of the frontier reaches into what the user keeps back."""
    document = json.loads(run(SMALL, "--reserve-gib 30 --json -").out)
    usable = document["cluster"]["gpu"]["memory_bytes"] - 30 * 2**30
    assert all(row["memory_bytes"] <= usable for row in document["frontier"])

"""``autopar search`` on several pools: a table with shares, a document, clear refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Run = Callable[..., Any]

SMALL = "search --cluster mixed-a100-h100 --model 8b --space core --tp 2 --sharding zero1"


def test_the_table_says_what_each_pool_does(run: Run) -> None:
    """Both GPUs are named in every mixed row, and what was proved stands above."""
    ran = run(SMALL)
    assert ran.code == 0
    assert "32 x h100-sxm + 32 x a100-80" in ran.out
    assert "micro-batches" in ran.out
    assert "not searched" in ran.out


def test_the_document_holds_the_pools(run: Run, tmp_path: Path) -> None:
    """Pools in the file's order, parts with their place in it."""
    path = tmp_path / "mixed.json"
    assert run(SMALL, f"--json {path}").code == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["schema"] == "autopar/search-mixed/1"
    assert [pool["n_gpus"] for pool in document["pools"]] == [32, 32]
    assert {part["pool"] for row in document["frontier"] for part in row["pools"]} == {0, 1}


def test_options_for_one_cluster_are_refused(run: Run) -> None:
    """How many GPUs, and which, is the file's to say."""
    for option in ("--gpus 64", "--gpu h100", "--csv -"):
        ran = run(SMALL, option)
        assert ran.code == 2
        assert "several pools" in ran.err


def test_pools_alike_are_one_cluster(run: Run, tmp_path: Path) -> None:
    """Two halves give the frontier of the whole, byte for byte."""
    two, one = tmp_path / "two.toml", tmp_path / "one.toml"
    half = '[[pool]]\ngpu = "h100"\nn_gpus = 8\n'
    two.write_text(half + half, encoding="utf-8")
    one.write_text('gpu = "h100"\nn_gpus = 16\n', encoding="utf-8")
    frontiers = []
    for path in (two, one):
        out = tmp_path / f"{path.stem}.json"
        words = f"search --cluster {path} --model 8b --tp 1,2 --json {out}"
        assert run(words).code == 0
        frontiers.append(json.loads(out.read_text(encoding="utf-8"))["frontier"])
    assert frontiers[0] == frontiers[1]

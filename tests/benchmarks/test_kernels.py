"""The constants that price a step, held against the measured kernels that the catalog ships."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fit.kernels import above_best_kernels, all_misses


@pytest.fixture(scope="module")
def bounds() -> dict[str, Any]:
    """What is known to be missed."""
    path = Path(__file__).parents[2] / "benchmarks" / "fit" / "kernel_bounds.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def test_no_kind_of_kernel_is_missed_by_more_than_is_known(bounds: dict[str, Any]) -> None:
    """Mean error of log time over all rows of each device, collectives too."""
    found = {misses.what: misses.mean_error for misses in all_misses()}
    assert found.keys() == bounds["mean_error"].keys()
    assert {what for what, error in found.items() if error > bounds["mean_error"][what]} == set()


def test_gemms_in_training_beat_the_best_kernel_only_where_it_is_known(
    bounds: dict[str, Any],
) -> None:
    """A share of the peak above every kernel measured alone is a fault: none is new or larger."""
    known = {
        (gpu, precision): most
        for gpu, shares in bounds["above_best"].items()
        for precision, most in shares.items()
    }
    found = {(a.gpu, a.precision): a.share for a in above_best_kernels()}
    assert found.keys() == known.keys()
    assert {where for where, share in found.items() if share > known[where]} == set()

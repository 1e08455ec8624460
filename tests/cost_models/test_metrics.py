"""Figures of error, ranking, coverage and memory agree with sums done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from cost_models.calibrate.metrics import (
    Judged,
    all_figures,
    error_figures,
    out_of_memory_figures,
    summary_of,
    sweep_figures,
)

N = 6


def six_runs() -> Judged:
    """Two sweeps of three runs, predicted right but for one."""
    measured = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 40.0])
    names = np.array(["a", "a", "a", "b", "b", "b"])
    return Judged(
        source=names,
        gpu=names,
        framework=names,
        model=names,
        sweep=np.array([0, 0, 0, 1, 1, 1]),
        slow=np.zeros(N, dtype=bool),
        measured_s=measured,
        predicted_s=np.array([1.0, 2.0, 3.0, 30.0, 20.0, 40.0]),
        low_s=0.9 * measured,
        high_s=1.1 * measured,
        measured_bytes=np.full(N, np.nan),
        predicted_bytes=np.ones(N),
        low_bytes=np.ones(N),
        high_bytes=np.ones(N),
        out_of_memory=np.array([0, 0, 0, 1, 1, np.nan]),
        fit_probability=np.array([0.99, 0.97, 0.4, 0.1, 0.96, 0.5]),
    )


def test_errors_are_shares_of_what_was_measured() -> None:
    """Half again too long, and half as long, are both 50 %."""
    y, p = np.array([1.0, 2.0, np.nan]), np.array([1.5, 1.0, 7.0])
    found = error_figures(y, p, np.array([1.2, 0.0, 0.0]), np.array([2.0, 3.0, 9.0]))
    assert found["n"] == 2
    assert found["median_error"] == pytest.approx(0.5)
    assert found["bias"] == pytest.approx(0.0)
    assert found["coverage_80"] == pytest.approx(0.5)


def test_nothing_measured_is_no_figure() -> None:
    """No mean of nothing."""
    nothing = np.full(2, np.nan)
    assert error_figures(nothing, nothing, nothing, nothing) == {"n": 0}


def test_regret_is_what_our_pick_costs() -> None:
    """In the second sweep the least prediction stands for 20 s where 10 s was to be had."""
    found = sweep_figures(six_runs())
    assert found["n"] == 2
    assert found["median_regret"] == pytest.approx((0.0 + 1.0) / 2)
    assert found["median_spearman"] == pytest.approx((1.0 + 0.5) / 2)


def test_sweeps_of_two_rank_nothing() -> None:
    """Three runs are the least."""
    two = np.array([True, True, False, True, True, False])
    assert sweep_figures(six_runs().take(two)) == {"n": 0}


def test_balanced_accuracy_counts_both_kinds_alike() -> None:
    """Two of three that fit and one of two that failed are told right."""
    found = out_of_memory_figures(six_runs())
    assert (found["n"], found["n_out_of_memory"]) == (5, 2)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=1e-6)
    assert found["failed_among_safe"] == pytest.approx(1 / 3, abs=1e-6)
    assert sum(row["n"] for row in found["reliability"]) == 5


def test_slow_runs_stand_apart() -> None:
    """They are in no figure of the healthy ones."""
    slow = np.array([False, False, False, True, False, False])
    found = all_figures(replace(six_runs(), slow=slow))
    assert found["step_time"]["n"] == 5
    assert found["step_time"]["mean_error"] == 0.0
    assert found["step_time_slow_regime"]["median_error"] == pytest.approx(2.0)


def test_every_label_has_its_figures() -> None:
    """By source, GPU, framework and model."""
    found = summary_of(six_runs())
    for key in ("source", "gpu", "framework", "model"):
        assert list(found[f"by_{key}"]) == ["a", "b"]
    assert found["by_source"]["a"]["step_time"]["median_error"] == 0.0

"""Bounds that the figures are held to, in ``bounds.toml``: found broken, and stated anew."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def broken_bounds(figures: Mapping[str, Any], bounds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Every figure that is worse than its bound, in words."""
    broken = []
    for bound in bounds:
        value = figure_at(figures, bound["figure"])
        low, high = bound.get("least", -np.inf), bound.get("most", np.inf)
        if not low <= value <= high:
            limits = " and ".join(f"{k} {bound[k]}" for k in ("least", "most") if k in bound)
            broken.append(f"{bound['figure']} is {value}, bound: at {limits}")
    return broken


BOUNDED = (
    "left_out_source/complete_layouts/step_time/median_error",
    "left_out_source/worst_large_source/step_time/median_error",
    "left_out_source/moe/step_time/median_error",
    "left_out_source/fp8_and_below/step_time/median_error",
    "left_out_source/by_source/vtrain-single/step_time/median_error",
    "left_out_source/all/sweeps/median_spearman",
    "left_out_source/all/sweeps/median_regret",
    "left_out_source/all/sweeps/p90_regret",
    "left_out_source/all/memory/median_error",
    "left_out_source/all/out_of_memory/balanced_accuracy",
    "left_out_source/all/out_of_memory/failed_among_safe",
    "left_out_source/all/step_time/coverage_80",
    "left_out_model/step_time/median_error",
    "korthikanti_eight/mean_error",
    "calibrated_on/worst_large_source/median_error",
)
"""Figures that continuous integration holds to a bound."""
SLACK, LEAST_SLACK = 0.05, 0.003


def figure_at(figures: Mapping[str, Any], path: str) -> float:
    """The figure that a path of keys names."""
    value: Any = figures
    for key in path.split("/"):
        value = value[key]
    return float(value)


def bounds_of(figures: Mapping[str, Any]) -> str:
    """Bounds that the figures keep with a little slack, as TOML."""
    lines = [
        "# What the accuracy table must not fall behind; python -m benchmarks.accuracy --check"
    ]
    for path in BOUNDED:
        value = figure_at(figures, path)
        name = path.rsplit("/", maxsplit=1)[-1]
        slack = max(SLACK * abs(value), LEAST_SLACK)
        upward = name in ("median_spearman", "balanced_accuracy")
        lines += ["", "[[bound]]", f'figure = "{path}"']
        if name == "coverage_80" or upward:
            lines.append(f"least = {value - (0.02 if upward else 0.05):.4f}")
        if not upward:
            lines.append(f"most = {value + (0.05 if name == 'coverage_80' else slack):.4f}")
    return "\n".join(lines) + "\n"

"""Figures of how wrong the cost model is on runs that it was not fitted to."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.accuracy.judging import CALIBRATE_ON, SEEDS, Judgement, judge_all, predictions_of
from benchmarks.accuracy.naive import naive_step_time_s
from benchmarks.accuracy.table import misses_of
from benchmarks.leave_out import by_model, by_source
from benchmarks.measured import (
    PUBLISHED_CSV,
    RUNS_CSV,
    Bools,
    Measured,
    fit_all,
    load_measured,
    predict,
)
from cost_models.calibrate.calibration import load_calibration
from cost_models.calibrate.fitting import Fit, calibration_of
from cost_models.calibrate.metrics import (
    Judged,
    all_figures,
    error_figures,
    memory_figures,
    out_of_memory_figures,
    summary_of,
    sweep_figures,
    time_figures,
)
from cost_models.calibrate.validation import read_run_table
from cost_models.specs.strategy import Precision
from cost_models.specs.units import Floats

FULL_RECOMPUTE_CSV = RUNS_CSV.with_name("korthikanti_full.csv")
KORTHIKANTI, PLAYBOOK, VTRAIN = "korthikanti-2022", "ultrascale-playbook", "vtrain-single"
SWEEP_TP = 8
"""Tensor-parallel degrees inside a node: beyond, the sweep is bound by its network."""
LARGE_SOURCE = 20


def accuracy() -> dict[str, Any]:
    """Every figure, by fits that never saw the runs."""
    measured = load_measured()
    everything = np.ones(len(measured.runs), dtype=bool)
    start = fit_all(measured, everything)
    full = read_run_table(FULL_RECOMPUTE_CSV).runs
    sources = judge_all(by_source(measured), start, others={KORTHIKANTI: full}, adjust=True)
    models = judge_all(by_model(measured, PLAYBOOK), start)
    left_out = predictions_of(measured, sources)
    naive = replace(left_out, predicted_s=_naive(measured, sources))
    return {
        "schema": "autopar/accuracy/1",
        "date": load_calibration().provenance.get("date", ""),
        "runs_sha256": hashlib.sha256(RUNS_CSV.read_bytes()).hexdigest(),
        "left_out_source": _by_group(measured, left_out),
        "naive": _by_group(measured, naive, [time_figures]),
        "left_out_model": _models(measured, predictions_of(measured, models)),
        "korthikanti_eight": _eight(measured, sources, [run.step_time_s or 0.0 for run in full]),
        "calibrated_on": _calibrated(measured, sources),
        "published": _published(start),
        "misses": misses_of(measured, left_out),
    }


def _published(fits: tuple[Fit, Fit]) -> dict[str, Any]:
    """Figures of :data:`PUBLISHED_CSV`, by the fit to all runs: none of them is among these."""
    measured = load_measured(PUBLISHED_CSV)
    step_time_s = predict(measured, calibration_of(*fits)).step_time_s
    gpus = np.array([run.cluster.gpu.name for run in measured.runs])

    def figures(mask: Bools) -> dict[str, float | int]:
        unknown = np.full(int(np.sum(mask)), np.nan)
        found = error_figures(measured.step_time_s[mask], step_time_s[mask], unknown, unknown)
        return {name: value for name, value in found.items() if name != "coverage_80"}

    return {
        "all": figures(np.ones(len(gpus), dtype=bool)),
        "by_source": {
            str(s): figures(measured.mask(source=s)) for s in dict.fromkeys(measured.sources)
        },
        "by_gpu": {str(g): figures(gpus == g) for g in dict.fromkeys(gpus)},
    }


def _naive(measured: Measured, judgements: Sequence[Judgement]) -> Floats:
    found = np.full(len(measured.runs), np.nan)
    for one in judgements:
        mine = one.fold.left_out
        found[mine] = naive_step_time_s(measured, ~mine)[mine]
    return found


def groups_of(measured: Measured) -> dict[str, Bools]:
    """Kinds of runs that are reported apart."""
    moe = np.array([run.model.is_moe for run in measured.runs])
    eight = np.array([run.strategy.precision >= Precision.FP8 for run in measured.runs])
    complete = np.array([not run.open_knobs for run in measured.runs])
    return {
        "complete_layouts": complete,
        "dense": ~moe & ~eight,
        "moe": moe,
        "fp8_and_below": eight,
    }


def _by_group(
    measured: Measured,
    j: Judged,
    kinds: Sequence[Callable[[Judged], dict[str, Any]]] | None = None,
) -> dict[str, Any]:
    def figures(part: Judged) -> dict[str, Any]:
        if kinds is None:
            return all_figures(part)
        return {"step_time": time_figures(part.take(~part.slow))}

    found: dict[str, Any] = {"all": figures(j)}
    found |= {name: figures(j.take(mask)) for name, mask in groups_of(measured).items()}
    if kinds is None:
        summary = summary_of(j)
        found |= {key: summary[key] for key in ("by_source", "by_gpu", "by_framework")}
    else:
        found["by_source"] = {
            str(s): figures(j.take(j.source == s)) for s in dict.fromkeys(j.source)
        }
    worst = [
        figures["step_time"]["median_error"]
        for figures in found["by_source"].values()
        if figures["step_time"]["n"] >= LARGE_SOURCE
    ]
    found["worst_large_source"] = {"step_time": {"median_error": max(worst)}}
    return found


def _models(measured: Measured, j: Judged) -> dict[str, Any]:
    """The large sweep, one of its models left out at a time."""
    tp = np.array([run.strategy.tp for run in measured.runs])
    inside = j.take(measured.mask(source=PLAYBOOK) & (tp <= SWEEP_TP))
    healthy = inside.take(~inside.slow)
    return {
        "step_time": time_figures(healthy),
        "sweeps": sweep_figures(healthy),
        "memory": memory_figures(inside),
        "out_of_memory": out_of_memory_figures(inside),
        "by_model": {
            str(name): time_figures(healthy.take(healthy.model == name))
            for name in dict.fromkeys(healthy.model)
        },
    }


def _eight(
    measured: Measured, judgements: Sequence[Judgement], full_s: Sequence[float]
) -> dict[str, Any]:
    """Four models with selective and full recompute, their paper left out of the fit."""
    one = next(one for one in judgements if one.fold.name == KORTHIKANTI)
    mine = one.fold.left_out
    measured_s = np.array([*measured.step_time_s[mine], *full_s])
    predicted_s = np.array([*one.values["step_time_s"], *one.others])
    error = np.abs(predicted_s / measured_s - 1.0)
    return {
        "n": len(error),
        "mean_error": round(float(np.mean(error)), 6),
        "max_error": round(float(np.max(error)), 6),
        "measured_s": [round(float(v), 3) for v in measured_s],
        "predicted_s": [round(float(v), 3) for v in predicted_s],
    }


def _calibrated(measured: Measured, judgements: Sequence[Judgement]) -> dict[str, Any]:
    """Median error of each source's other runs after a few adjusted the constants."""
    found: dict[str, Any] = {}
    for one in judgements:
        mine = one.fold.left_out
        medians = []
        for chosen, step_time_s in one.adjusted:
            rest = (mine & measured.healthy & ~chosen & np.isfinite(measured.step_time_s))[mine]
            if rest.any():
                error = np.abs(step_time_s / measured.step_time_s[mine] - 1.0)[rest]
                medians.append(float(np.median(error)))
        if medians:
            found[one.fold.name] = {
                "n": int(np.sum(mine & measured.healthy & np.isfinite(measured.step_time_s))),
                "median_error": round(float(np.mean(medians)), 6),
                "by_seed": [round(value, 6) for value in medians],
            }
    large = [f["median_error"] for f in found.values() if f["n"] >= LARGE_SOURCE]
    return {
        "runs": CALIBRATE_ON,
        "seeds": len(SEEDS),
        "by_source": found,
        "worst_large_source": {"median_error": max(large)},
    }

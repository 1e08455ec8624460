"""Folds judged: what fits that never saw some runs say of them, with intervals of their own.

An interval's width comes from data that the judged source has no part in: the spread
inside sources from the fold's own fit, that between sources from the other folds.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr

from benchmarks.leave_out import WARM_STEPS, Fold
from benchmarks.measured import Bools, Measured, fit_all, load_measured
from cost_models.calibrate.batch import run_batch
from cost_models.calibrate.calibration import Calibration, Spread, load_calibration
from cost_models.calibrate.fitting import Fit, calibration_of
from cost_models.calibrate.metrics import Judged, judged
from cost_models.calibrate.predictions import PREDICTED, Predictions, predict_batch, predict_runs
from cost_models.calibrate.recalibration import recalibrated
from cost_models.calibrate.runs import Run
from cost_models.calibrate.uncertainty import Z80
from cost_models.calibrate.validation import chosen_runs
from cost_models.specs.units import Floats

SEEDS = (0, 1, 2)
CALIBRATE_ON = 5
NORMAL_QUARTILE = 0.6745


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One fold: predictions for its left-out runs by constants that never saw them."""

    fold: Fold
    values: Mapping[str, Floats]
    """By :data:`PREDICTED`, of the left-out runs in order; spreads are still to be added."""
    inside_time: Floats
    """Log measured over predicted step time of all runs, NaN for those left out."""
    inside_memory: Floats
    adjusted: tuple[tuple[Bools, Floats], ...]
    """For each seed: which of all runs adjusted the constants, and step times after that."""
    others: Floats
    """Step times of further runs, by the fold's constants."""


def judge(fold: Fold, start: tuple[Fit, Fit], others: Sequence[Run], adjust: bool) -> Judgement:
    """Fit without the fold's runs and predict them."""
    measured = load_measured()
    trained = ~fold.left_out
    fits = fit_all(measured, trained, start=start, max_steps=WARM_STEPS)
    calibration = calibration_of(*fits)
    everything = predict_batch(measured.batch, calibration)
    residual = np.log(measured.step_time_s / everything.step_time_s)
    inside = np.where(trained & measured.healthy, residual, np.nan)
    memory = np.log(measured.memory_bytes / everything.memory_bytes)
    known = replace(
        calibration,
        time_spread=Spread(residual_sd=_inside_sd(inside, measured.sources), source_sd=0.0),
        memory_spread=Spread(
            residual_sd=_inside_sd(np.where(trained, memory, np.nan), measured.sources),
            source_sd=0.0,
        ),
    )
    seeds = SEEDS if adjust else ()
    return Judgement(
        fold=fold,
        values={name: getattr(everything, name)[fold.left_out] for name in PREDICTED},
        inside_time=inside,
        inside_memory=np.where(trained & measured.healthy, memory, np.nan),
        adjusted=tuple(_adjusted(measured, fold, known, seed) for seed in seeds),
        others=predict_runs(others, calibration).step_time_s if others else np.zeros(0),
    )


def _adjusted(
    measured: Measured, fold: Fold, calibration: Calibration, seed: int
) -> tuple[Bools, Floats]:
    """What ``autopar validate --calibrate-on`` does to the fold's source."""
    own = np.flatnonzero(fold.left_out)
    runs = [measured.runs[i] for i in own]
    part = run_batch(runs)
    chosen = chosen_runs(runs, part, CALIBRATE_ON, seed, calibration)
    few = run_batch([run for run, on in zip(runs, chosen, strict=True) if on])
    everywhere = np.zeros(len(measured.runs), dtype=bool)
    everywhere[own] = chosen
    return everywhere, predict_batch(part, recalibrated(calibration, few)).step_time_s


def judge_all(
    folds: Sequence[Fold],
    start: tuple[Fit, Fit],
    *,
    others: Mapping[str, Sequence[Run]] | None = None,
    adjust: bool = False,
) -> list[Judgement]:
    """Every fold; ``others`` are further runs to price by a fold's constants, by its name."""
    extra = [list((others or {}).get(fold.name, ())) for fold in folds]
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        one = partial(judge, start=start, adjust=adjust)
        jobs = [pool.submit(one, fold, others=o) for fold, o in zip(folds, extra, strict=True)]
        return [job.result() for job in jobs]


def robust_sd(values: Floats) -> float:
    """Standard deviation from the median absolute deviation."""
    return float(np.median(np.abs(values - np.median(values))) / NORMAL_QUARTILE)


def _inside_sd(residuals: Floats, sources: Sequence[str] | np.ndarray) -> float:
    """Median over sources of the spread between runs of one source."""
    known = np.isfinite(residuals)
    found = [
        robust_sd(residuals[known & (sources == source)])
        for source in dict.fromkeys(np.asarray(sources)[known])
        if np.sum(known & (sources == source)) >= 3
    ]
    return float(np.median(found)) if found else 0.0


def left_out_variance(
    residuals: Floats, fitted: Floats, sources: np.ndarray, inside_sd: float
) -> float:
    """Variance to add to the fit's own, so that 80 % intervals hold 80 % of ``residuals``.

    Sources speak by the square root of their size; at least the spread inside them.
    """
    known = np.isfinite(residuals) & np.isfinite(fitted)
    e, v, names = np.abs(residuals[known]), fitted[known], sources[known]
    size = {name: int(np.sum(names == name)) for name in dict.fromkeys(names)}
    weight = np.array([size[name] ** -0.5 for name in names])
    weight = weight / weight.sum()

    def too_much(log_sd: float) -> float:
        soft = ndtr((Z80 * np.sqrt(v + np.exp(2.0 * log_sd)) - e) / 1e-3)
        return float(np.sum(weight * soft)) - 0.8

    low, high = np.log(max(inside_sd, 1e-3)), np.log(5.0)
    if too_much(low) >= 0.0:
        return float(np.exp(2.0 * low))
    return float(np.exp(2.0 * brentq(too_much, low, high)))


def predictions_of(measured: Measured, judgements: Sequence[Judgement]) -> Judged:
    """All folds' predictions with the spread that the other folds' sources taught."""
    n = len(measured.runs)
    values: dict[str, Any] = {name: np.full(n, np.nan) for name in PREDICTED}
    for one in judgements:
        for name in PREDICTED:
            values[name][one.fold.left_out] = one.values[name]
    healthy = measured.healthy
    time = np.log(measured.step_time_s / values["step_time_s"])
    memory = np.log(measured.memory_bytes / values["memory_bytes"])
    added_time, added_memory = np.full(n, np.nan), np.full(n, np.nan)
    for one in judgements:
        mine = one.fold.left_out
        apart = healthy & ~np.isin(measured.sources, measured.sources[mine])
        if not np.any(apart & np.isfinite(time)):
            apart = healthy & ~mine
        added_time[mine] = left_out_variance(
            np.where(apart, time, np.nan),
            values["time_log_sd"] ** 2,
            measured.sources,
            _inside_sd(one.inside_time, measured.sources),
        )
        added_memory[mine] = left_out_variance(
            np.where(apart, memory, np.nan),
            values["memory_log_sd"] ** 2,
            measured.sources,
            _inside_sd(one.inside_memory, measured.sources),
        )
    # the shipped calibration only says which stages are empty; every number is replaced
    bare = replace(predict_batch(measured.batch, load_calibration()), **values)
    wide: Predictions = bare.with_spread(added_time, added_memory)
    return judged(measured.runs, wide)

"""Fits that leave whole sources out, so that every run is judged by a fit that never saw it."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.measured import Bools, Measured, Predicted, fit_all, load_measured, predict
from cost_models.calibrate.fitting import Fit, calibration_of

WARM_STEPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Runs left out together."""

    name: str
    left_out: Bools


def by_source(measured: Measured) -> list[Fold]:
    """One fold for each source."""
    return [Fold(name=s, left_out=measured.mask(source=s)) for s in dict.fromkeys(measured.sources)]


def by_model(measured: Measured, source: str) -> list[Fold]:
    """One fold for each model of one source; its other models stay in the fit."""
    names = np.array([run.model.name for run in measured.runs])
    inside = measured.mask(source=source)
    return [
        Fold(name=f"{source}/{name}", left_out=inside & (names == name))
        for name in dict.fromkeys(names[inside])
    ]


def _one(fold: Fold, start: tuple[Fit, Fit]) -> Predicted:
    measured = load_measured()
    trained = ~fold.left_out
    assert not np.any(trained & fold.left_out)
    memory, time = fit_all(measured, trained, start=start, max_steps=WARM_STEPS)
    everything = predict(measured, calibration_of(memory, time))
    return Predicted(
        step_time_s=everything.step_time_s[fold.left_out],
        reported_bytes=everything.reported_bytes[fold.left_out],
        fullest_bytes=everything.fullest_bytes[fold.left_out],
    )


def left_out_predictions(
    measured: Measured, folds: Sequence[Fold], start: tuple[Fit, Fit]
) -> Predicted:
    """Predictions of each fold's runs by the fit without them; NaN for runs in no fold.

    ``start`` is where the fits begin, never what they report.
    """
    n = len(measured.runs)
    step, reported, fullest = (np.full(n, np.nan) for _ in range(3))
    with ProcessPoolExecutor(max_workers=os.cpu_count()) as pool:
        found = pool.map(partial(_one, start=start), folds)
        for fold, predicted in zip(folds, found, strict=True):
            step[fold.left_out] = predicted.step_time_s
            reported[fold.left_out] = predicted.reported_bytes
            fullest[fold.left_out] = predicted.fullest_bytes
    return Predicted(step_time_s=step, reported_bytes=reported, fullest_bytes=fullest)

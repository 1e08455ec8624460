"""How wrong predictions are: errors, ranking inside sweeps, out of memory, coverage.

With p the predicted and y the measured value of a run, the error is |p / y - 1| (1), the
bias the median of p / y - 1, and the regret of a sweep the measured time of the run with
the least p over the least y, minus 1 (2).  A sweep is all runs of one source, GPU, model,
number of GPUs, sequence length and batch.  A layout counts as out of memory where its
probability to fit is below 1/2; balanced accuracy is the mean of the shares of both
kinds that are predicted right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from cost_models.calibrate.predictions import Predictions
from cost_models.calibrate.runs import Run
from cost_models.specs.units import Floats

Bools = NDArray[np.bool_]

SWEEP_RUNS = 3
"""Runs from which on ranking them means something."""
SAFE = 0.95
"""Probability to fit from which on a layout is called safe."""
FIT_BINS = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0)
KEYS = ("source", "gpu", "framework", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Runs with what was measured and predicted; arrays of shape (runs,), NaN for unknown."""

    source: NDArray[np.str_]
    gpu: NDArray[np.str_]
    framework: NDArray[np.str_]
    model: NDArray[np.str_]
    sweep: NDArray[np.int64]
    slow: Bools
    """Disturbed, by the word of their rows."""
    measured_s: Floats
    predicted_s: Floats
    low_s: Floats
    high_s: Floats
    measured_bytes: Floats
    predicted_bytes: Floats
    low_bytes: Floats
    high_bytes: Floats
    out_of_memory: Floats
    fit_probability: Floats

    def take(self, mask: Bools) -> "Judged":
        """Some of the runs."""
        return Judged(**{f.name: getattr(self, f.name)[mask] for f in fields(self)})


def judged(runs: Sequence[Run], predictions: Predictions) -> Judged:
    """What was measured in ``runs`` beside what is predicted for each."""
    places: dict[tuple[object, ...], int] = {}
    unknown = np.nan
    return Judged(
        source=np.array([run.source for run in runs], dtype=np.str_),
        gpu=np.array([run.cluster.gpu.name for run in runs], dtype=np.str_),
        framework=np.array([run.workload.framework.name for run in runs], dtype=np.str_),
        model=np.array([run.model.name for run in runs], dtype=np.str_),
        sweep=np.array(
            [places.setdefault(sweep_of(run), len(places)) for run in runs], dtype=np.int64
        ),
        slow=np.array([run.slow_regime for run in runs], dtype=np.bool_),
        measured_s=np.array([run.step_time_s or unknown for run in runs], dtype=np.float64),
        predicted_s=predictions.step_time_s,
        low_s=predictions.step_time_low_s,
        high_s=predictions.step_time_high_s,
        measured_bytes=np.array([run.memory_bytes or unknown for run in runs], dtype=np.float64),
        predicted_bytes=predictions.memory_bytes,
        low_bytes=predictions.memory_low_bytes,
        high_bytes=predictions.memory_high_bytes,
        out_of_memory=np.array(
            [unknown if run.out_of_memory is None else float(run.out_of_memory) for run in runs],
            dtype=np.float64,
        ),
        fit_probability=predictions.fit_probability,
    )


def sweep_of(run: Run) -> tuple[object, ...]:
    """What all runs of one sweep share."""
    return (
        run.source,
        run.cluster.gpu.name,
        run.model.name,
        run.cluster.n_gpus,
        run.workload.sequence_length,
        run.workload.global_batch_size,
    )


def error_figures(
    measured: Floats, predicted: Floats, low: Floats, high: Floats
) -> dict[str, float | int]:
    """Errors (1), bias and coverage of the runs where both values are known."""
    known = np.isfinite(measured) & np.isfinite(predicted)
    y, p = measured[known], predicted[known]
    if not len(y):
        return {"n": 0}
    error = np.abs(p / y - 1.0)
    return {
        "n": len(y),
        "median_error": _short(np.median(error)),
        "mean_error": _short(np.mean(error)),
        "p90_error": _short(np.quantile(error, 0.9)),
        "bias": _short(np.median(p / y) - 1.0),
        "coverage_80": _short(np.mean((low[known] <= y) & (y <= high[known]))),
    }


def time_figures(j: Judged) -> dict[str, float | int]:
    """:func:`error_figures` of the step time."""
    return error_figures(j.measured_s, j.predicted_s, j.low_s, j.high_s)


def memory_figures(j: Judged) -> dict[str, float | int]:
    """:func:`error_figures` of the memory."""
    return error_figures(j.measured_bytes, j.predicted_bytes, j.low_bytes, j.high_bytes)


def sweep_figures(j: Judged) -> dict[str, float | int]:
    """Spearman's correlation and regret (2) over all sweeps, each sweep counting once."""
    correlations, regrets = [], []
    known = np.isfinite(j.measured_s) & np.isfinite(j.predicted_s)
    for sweep in np.unique(j.sweep[known]):
        mask = known & (j.sweep == sweep)
        y, p = j.measured_s[mask], j.predicted_s[mask]
        if len(y) < SWEEP_RUNS or np.ptp(y) == 0 or np.ptp(p) == 0:
            continue
        correlations.append(float(spearmanr(y, p).statistic))
        regrets.append(float(y[np.argmin(p)] / y.min() - 1.0))
    if not correlations:
        return {"n": 0}
    return {
        "n": len(correlations),
        "median_spearman": _short(np.median(correlations)),
        "p10_spearman": _short(np.quantile(correlations, 0.1)),
        "median_regret": _short(np.median(regrets)),
        "p90_regret": _short(np.quantile(regrets, 0.9)),
    }


def out_of_memory_figures(j: Judged) -> dict[str, Any]:
    """Out of memory as a classification, with the reliability of the probability to fit."""
    known = np.isfinite(j.out_of_memory)
    failed, fits = j.out_of_memory[known] > 0, j.fit_probability[known]
    if not len(fits):
        return {"n": 0}
    said = fits < 0.5
    shares = [
        float(np.mean(right[kind]))
        for kind, right in ((failed, said), (~failed, ~said))
        if kind.any()
    ]
    safe = fits >= SAFE
    return {
        "n": len(fits),
        "n_out_of_memory": int(failed.sum()),
        "balanced_accuracy": _short(np.mean(shares)) if len(shares) == 2 else None,
        "n_called_safe": int(safe.sum()),
        "failed_among_safe": _short(np.mean(failed[safe])) if safe.any() else None,
        "reliability": _reliability(fits, failed),
    }


def _reliability(fits: Floats, failed: Bools) -> list[dict[str, float | int]]:
    """Predicted against observed share of layouts that fit, by bins of the former."""
    place = np.clip(np.digitize(fits, FIT_BINS) - 1, 0, len(FIT_BINS) - 2)
    return [
        {
            "from": FIT_BINS[i],
            "to": FIT_BINS[i + 1],
            "n": int(np.sum(place == i)),
            "predicted": _short(np.mean(fits[place == i])),
            "observed": _short(1.0 - np.mean(failed[place == i])),
        }
        for i in range(len(FIT_BINS) - 1)
        if np.any(place == i)
    ]


def all_figures(j: Judged) -> dict[str, Any]:
    """Every figure of one group of runs; slow ones are apart."""
    healthy = j.take(~j.slow)
    figures: dict[str, Any] = {"step_time": time_figures(healthy)}
    if j.slow.any():
        figures["step_time_slow_regime"] = time_figures(j.take(j.slow))
    return figures | {
        "sweeps": sweep_figures(healthy),
        "memory": memory_figures(j),
        "out_of_memory": out_of_memory_figures(j),
    }


def summary_of(j: Judged) -> dict[str, Any]:
    """Figures of all runs, and of each source, GPU, framework and model."""
    found: dict[str, Any] = {"all": all_figures(j)}
    for key in KEYS:
        labels = getattr(j, key)
        found[f"by_{key}"] = {
            str(label): all_figures(j.take(labels == label)) for label in dict.fromkeys(labels)
        }
    return found


def _short(value: float | np.floating[Any]) -> float:
    return round(float(value), 6)

"""The measured runs that the calibration is fitted to and judged on."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cost_models.calibrate.batch import RunBatch, batch_constants, batch_cost, cheapest, run_batch
from cost_models.calibrate.calibration import Calibration, prior_constants
from cost_models.calibrate.fitting import USABLE, Fit, calibration_of, fit_memory, fit_step_time
from cost_models.calibrate.runs import Run
from cost_models.calibrate.validation import read_run_table
from cost_models.specs.units import Floats

RUNS_CSV = Path(__file__).parent / "data" / "runs.csv"
PUBLISHED_CSV = Path(__file__).parent / "data" / "published_runs.csv"
"""Figures that vendors and papers publish, collected after the model was built: judged on
and never fitted."""
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All readable runs, counted, with what is known of each; arrays of shape (runs,)."""

    runs: list[Run]
    batch: RunBatch
    sources: NDArray[np.str_]
    step_time_s: Floats
    memory_bytes: Floats
    healthy: Bools
    """Outside the slow regime of :mod:`benchmarks.fit.slow_regime`."""
    out_of_memory: Floats
    """1.0, 0.0, or NaN where the source does not say."""

    def mask(self, *, source: str) -> Bools:
        """The runs of one source."""
        return np.asarray(self.sources == source)


def load_measured(path: Path = RUNS_CSV) -> Measured:
    """Read and count the runs; rows that cannot be priced are left out."""
    runs = read_run_table(path).runs
    return Measured(
        runs=runs,
        batch=run_batch(runs),
        sources=np.array([run.source for run in runs]),
        step_time_s=np.array([run.step_time_s or np.nan for run in runs]),
        memory_bytes=np.array([run.memory_bytes or np.nan for run in runs]),
        healthy=~np.array([run.slow_regime for run in runs]),
        out_of_memory=np.array(
            [np.nan if run.out_of_memory is None else float(run.out_of_memory) for run in runs]
        ),
    )


def fit_all(
    measured: Measured,
    trained: Bools,
    *,
    start: tuple[Fit, Fit] | None = None,
    max_steps: int = 25,
) -> tuple[Fit, Fit]:
    """(memory, time) fitted to the healthy runs that ``trained`` marks."""
    used = trained & measured.healthy
    memory_start, time_start = start if start else (None, None)
    memory = fit_memory(measured.batch, used, prior_constants(), start=memory_start)
    base = batch_constants(measured.batch, calibration_of(memory))
    time = fit_step_time(measured.batch, used, base, start=time_start, max_steps=max_steps)
    return memory, time


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Predictions per run, arrays of shape (runs,)."""

    step_time_s: Floats
    reported_bytes: Floats
    fullest_bytes: Floats


def predict(measured: Measured, calibration: Calibration) -> Predicted:
    """Price every run, open knobs at the cheapest setting that fits."""
    batch = measured.batch
    cost = batch_cost(batch, batch_constants(batch, calibration))
    pick = cheapest(batch, cost, USABLE * batch.usable_bytes)
    return Predicted(
        step_time_s=cost.step_time_s[pick],
        reported_bytes=cost.reported_bytes[pick],
        fullest_bytes=cost.memory_bytes[pick],
    )

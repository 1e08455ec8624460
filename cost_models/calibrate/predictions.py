"""What is expected of measured runs: step time, memory and the chance to fit, with intervals."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from cost_models.calibrate.batch import (
    RunBatch,
    batch_constants,
    batch_cost,
    batch_memory,
    cheapest,
    run_batch,
)
from cost_models.calibrate.calibration import Calibration, levels_of
from cost_models.calibrate.fitting import MEMORY_CONSTANTS, USABLE
from cost_models.calibrate.runs import Run
from cost_models.calibrate.uncertainty import fit_probability, interval, log_sd
from cost_models.counting.partition import even_stage_layers
from cost_models.equations.constants import Constants
from cost_models.equations.step import price
from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats, Ints

EMPTY_STAGE = "a pipeline stage is left without any layer"
TIME_CONSTANTS = tuple(
    name for name in Constants.__dataclass_fields__ if name not in MEMORY_CONSTANTS
)
PREDICTED = (
    "step_time_s",
    "step_time_low_s",
    "step_time_high_s",
    "memory_bytes",
    "memory_low_bytes",
    "memory_high_bytes",
    "fullest_rank_bytes",
    "fit_probability",
    "usable_bytes",
    "time_log_sd",
    "memory_log_sd",
    "fullest_log_sd",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What is predicted for each run; arrays of shape (runs,), intervals hold 80 %."""

    strategies: Strategies
    """With open knobs filled."""
    step_time_s: Floats
    step_time_low_s: Floats
    step_time_high_s: Floats
    memory_bytes: Floats
    """What the framework's log would print: of the rank and the kind that it shows."""
    memory_low_bytes: Floats
    memory_high_bytes: Floats
    fullest_rank_bytes: Floats
    """Reserved memory of the fullest rank: what runs out."""
    fit_probability: Floats
    usable_bytes: Floats
    time_log_sd: Floats
    """Standard deviation of the logarithm, by equation (1) of uncertainty."""
    memory_log_sd: Floats
    fullest_log_sd: Floats
    notes: list[str]

    def with_runs(self, places: Ints, others: "Predictions") -> "Predictions":
        """The same with the runs at ``places`` as ``others`` has them, in its order."""

        def put(name: str) -> Floats:
            values = np.array(getattr(self, name))
            values[places] = getattr(others, name)
            return values

        order = np.arange(len(self.notes))
        order[places] = len(self.notes) + np.arange(len(places))
        notes = [*self.notes, *others.notes]
        return Predictions(
            strategies=Strategies.concatenate([self.strategies, others.strategies]).take(order),
            notes=[notes[i] for i in order],
            **{name: put(name) for name in PREDICTED},
        )

    def with_spread(self, time_variance: Floats, memory_variance: Floats) -> "Predictions":
        """The same with so much added to the variances of the logarithms."""
        time_sd = np.sqrt(self.time_log_sd**2 + time_variance)
        memory_sd = np.sqrt(self.memory_log_sd**2 + memory_variance)
        fullest_sd = np.sqrt(self.fullest_log_sd**2 + memory_variance)
        time = interval(self.step_time_s, time_sd)
        shown = interval(self.memory_bytes, memory_sd)
        fits = fit_probability(self.fullest_rank_bytes, self.usable_bytes, fullest_sd)
        return replace(
            self,
            step_time_low_s=time.low,
            step_time_high_s=time.high,
            memory_low_bytes=shown.low,
            memory_high_bytes=shown.high,
            fit_probability=np.where([note == EMPTY_STAGE for note in self.notes], 0.0, fits),
            time_log_sd=time_sd,
            memory_log_sd=memory_sd,
            fullest_log_sd=fullest_sd,
        )


def predict_runs(runs: Sequence[Run], calibration: Calibration) -> Predictions:
    """Price ``runs`` under ``calibration``."""
    return predict_batch(run_batch(runs), calibration)


def predict_batch(batch: RunBatch, calibration: Calibration) -> Predictions:
    """:func:`predict_runs` for runs whose work is already counted."""
    picked = picked_candidates(batch, calibration)
    return predict_picked(picked, calibration)


def picked_candidates(batch: RunBatch, calibration: Calibration) -> RunBatch:
    """One candidate a run: the fastest that fits."""
    cost = batch_cost(batch, batch_constants(batch, calibration))
    return batch.take(cheapest(batch, cost, USABLE * batch.usable_bytes))


def predict_picked(batch: RunBatch, calibration: Calibration) -> Predictions:
    """Predictions where each run has one candidate."""
    constants = batch_constants(batch, calibration)
    levels, index = distinct_levels(batch)

    def sd(log_of: Any, spread: Any, names: Collection[str]) -> Floats:
        return log_sd(log_of, constants, calibration, levels, index, spread, names)

    def log_time(c: Constants) -> Floats:
        return np.log(price(batch.work, batch.strategies, c, breakdown=False).total_s)

    def log_reported(c: Constants) -> Floats:
        return np.log(batch_memory(batch, c)[1])

    def log_fullest(c: Constants) -> Floats:
        return np.log(batch_memory(batch, c)[0])

    cost = batch_cost(batch, constants)
    time_sd = sd(log_time, calibration.time_spread, TIME_CONSTANTS)
    spread = calibration.memory_spread
    memory_sd = sd(log_reported, spread, MEMORY_CONSTANTS)
    fullest_sd = sd(log_fullest, spread, MEMORY_CONSTANTS)
    time = interval(cost.step_time_s, time_sd)
    shown = interval(cost.reported_bytes, memory_sd)
    fits = fit_probability(cost.memory_bytes, batch.usable_bytes, fullest_sd)
    s = batch.strategies
    empty = np.array(
        [
            leaves_a_stage_empty(run.model, run.workload.framework, int(pp), int(vpp))
            for run, pp, vpp in zip(
                (batch.runs[o] for o in batch.owner), s.flat().pp, s.flat().vpp, strict=True
            )
        ],
        dtype=bool,
    )
    return Predictions(
        strategies=s,
        step_time_s=cost.step_time_s,
        step_time_low_s=time.low,
        step_time_high_s=time.high,
        memory_bytes=cost.reported_bytes,
        memory_low_bytes=shown.low,
        memory_high_bytes=shown.high,
        fullest_rank_bytes=cost.memory_bytes,
        fit_probability=np.where(empty, 0.0, fits),
        usable_bytes=batch.usable_bytes,
        time_log_sd=time_sd,
        memory_log_sd=memory_sd,
        fullest_log_sd=fullest_sd,
        notes=[EMPTY_STAGE if none else "" for none in empty],
    )


def distinct_levels(batch: RunBatch) -> tuple[list[dict[str, str]], Ints]:
    """The different levels among the candidates, and which of them each candidate has."""
    places: dict[tuple[str, ...], int] = {}
    levels = [levels_of(run.cluster.gpu, run.workload.framework) for run in batch.runs]
    of_run = [places.setdefault(tuple(level.values()), len(places)) for level in levels]
    distinct = [dict(zip(levels[0], key, strict=True)) for key in places] if levels else []
    return distinct, np.array(of_run, dtype=np.int64)[batch.owner]


@cache
def leaves_a_stage_empty(model: ModelSpec, framework: Framework, pp: int, vpp: int) -> bool:
    """Whether the framework's own partition gives some stage neither a layer nor an end.

    The first stage holds the embedding and the last the head, whatever else they hold;
    where blocks are assigned one by one, the last but one may hold the final norm alone.
    """
    last = -2 if framework.partition == "parameter_weight" else -1
    return min(even_stage_layers(model, framework, pp, vpp)[1:last], default=1) < 1

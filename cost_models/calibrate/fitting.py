"""Fit the constants to measured runs.

With y the logarithm of a measured step time, t of the predicted one, u the source's own
factor, w weights that let large sources speak no louder than the square root of their
size, and rho(r) = C^2 log(1 + (r / C)^2) Cauchy's loss, the fit minimises

    sum w^2 rho((t + u - y) / sigma)  +  sum (x / sd)^2                                (1)

over the terms x of :mod:`cost_models.calibrate.calibration` and the factors u.  sigma is lowered in
stages, so that the first steps see the whole field and the last the noise.  Knobs that a
run leaves open take the cheapest setting that fits under the current constants.  The
Jacobian needs one perturbed pricing per constant, since a term moves its constant alone.

References
----------
.. [1] P. W. Holland, R. E. Welsch, "Robust regression using iteratively reweighted least
   squares," Commun. Stat. Theory Methods, vol. 6, no. 9, 1977.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from cost_models.calibrate.batch import RunBatch, batch_cost, batch_memory, cheapest
from cost_models.calibrate.calibration import (
    Calibration,
    Effect,
    Prior,
    Spread,
    levels_of,
    load_priors,
)
from cost_models.equations.constants import Constants
from cost_models.equations.step import price
from cost_models.specs.units import Floats, Ints

Bools = NDArray[np.bool_]

CAUCHY = 1.5
"""Residuals beyond this many sigma lose their pull."""
SOURCE_SD = 0.03
STAGES = (0.3, 0.12, 0.08)
"""Sigma of each stage: log step time."""
MEMORY_STAGES = (0.3, 0.1, 0.06)
STEP = 1e-3
TOLERANCE = 2e-5
"""Relative gain below which a stage stops."""
SHORTEST = 1e-3
"""Share of a step below which none is taken."""
NO_SPREAD = Spread(residual_sd=0.0, source_sd=0.0)
MEMORY_CONSTANTS = (
    "framework_bytes",
    "pool_bytes",
    "communicator_bytes",
    "fragmentation",
    "state_fragmentation",
    "update_fraction",
    "transient_fraction",
    "activation_factor",
)
USABLE = 0.97
"""Share of the device that the engineers let a plan fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Terms of the constants and factors of the sources, as fitted."""

    effects: tuple[Effect, ...]
    values: Floats
    covariance: Floats
    source_effects: Mapping[str, float]
    picked: Ints
    """Candidate chosen for each run of the fit."""


class Design:
    """Which terms act on which candidates."""

    def __init__(self, batch: RunBatch, priors: Sequence[Prior], trained: Bools) -> None:
        self.priors = priors
        levels = [levels_of(run.cluster.gpu, run.workload.framework) for run in batch.runs]
        self.owner_levels = levels
        self.effects: list[Effect] = []
        sds: list[float] = []
        active = [level for level, used in zip(levels, trained, strict=True) if used]
        for prior in priors:
            self.effects.append(Effect(prior.name))
            sds.append(prior.sd)
            for kind, sd in prior.by.items():
                for level in sorted({found[kind] for found in active}):
                    self.effects.append(Effect(prior.name, kind, level))
                    sds.append(sd)
        used = [run.source for run, on in zip(batch.runs, trained, strict=True) if on]
        self.sources = sorted(set(used))
        self.sd = np.array(sds + [SOURCE_SD] * len(self.sources))

    def rows(self, batch: RunBatch) -> "DesignRows":
        """The design for the candidates of ``batch``."""
        return DesignRows(self, batch)


class DesignRows:
    """A design applied to some candidates: masks, starting values, transforms."""

    def __init__(self, design: Design, batch: RunBatch) -> None:
        self.design = design
        levels = [design.owner_levels[owner] for owner in batch.owner]
        self._kinds = {kind: np.array([level[kind] for level in levels]) for kind in levels[0]}
        source = np.array([batch.runs[owner].source for owner in batch.owner])
        self.source_masks = [source == name for name in design.sources]
        architectures = self._kinds["architecture"]
        self.start = {p.name: np.array([p.start(a) for a in architectures]) for p in design.priors}
        self.n = len(levels)

    def mask(self, effect: Effect) -> Floats:
        """1.0 on the candidates that the term acts on."""
        if not effect.kind:
            return np.ones(self.n)
        return np.asarray(self._kinds[effect.kind] == effect.level, dtype=np.float64)

    def scaled(self, x: Floats) -> dict[str, Floats]:
        """Every constant on its scale, per candidate."""
        scaled = dict(self.start)
        for effect, value in zip(self.design.effects, x[: len(self.design.effects)], strict=True):
            if value:
                scaled[effect.constant] = scaled[effect.constant] + value * self.mask(effect)
        return scaled

    def constants(self, scaled: Mapping[str, Floats], base: Constants) -> Constants:
        """Constants from scaled values, the others as in ``base``."""
        values = {p.name: p.inverse(scaled[p.name]) for p in self.design.priors}
        return replace(base, **values)

    def source_factor(self, x: Floats) -> Floats:
        """The factor u of each candidate's source."""
        u: Floats = np.zeros(self.n)
        for value, mask in zip(x[len(self.design.effects) :], self.source_masks, strict=True):
            u = np.asarray(u + value * mask)
        return u


def source_weights(sources: Sequence[str]) -> Floats:
    """Weights of mean square 1 under which a source counts as the root of its size."""
    size = Counter(sources)
    weight: Floats = np.array([size[s] ** -0.25 for s in sources], dtype=np.float64)
    return np.asarray(weight / np.sqrt(np.mean(weight**2)))


class _Objective:
    """Equation (1) for one set of rows, with its gradient by re-weighted least squares."""

    def __init__(
        self,
        rows: DesignRows,
        log_prediction: "LogPrediction",
        measured: Floats,
        weight: Floats,
        sigma: float,
    ) -> None:
        self._rows, self._predict = rows, log_prediction
        self._measured, self._weight, self._sigma = measured, weight, sigma
        self._masks = [rows.mask(effect) for effect in rows.design.effects]

    def residual(self, x: Floats) -> Floats:
        """(t + u - y) / sigma of every row."""
        t = self._predict(self._rows.scaled(x)) + self._rows.source_factor(x)
        return np.asarray((t - self._measured) / self._sigma)

    def value(self, x: Floats, r: Floats) -> float:
        """The sum (1), given the residual at x."""
        loss = CAUCHY**2 * np.log1p((r / CAUCHY) ** 2)
        return float(np.sum(self._weight**2 * loss) + np.sum((x / self._rows.design.sd) ** 2))

    def _slopes(self, x: Floats) -> Floats:
        """Derivative of the residual by x; one perturbed pricing for each constant."""
        scaled = self._rows.scaled(x)
        t = self._predict(scaled)
        by_constant = {}
        for prior in self._rows.design.priors:
            moved = scaled | {prior.name: scaled[prior.name] + STEP}
            by_constant[prior.name] = (self._predict(moved) - t) / STEP
        effects = self._rows.design.effects
        columns = [by_constant[e.constant] * m for e, m in zip(effects, self._masks, strict=True)]
        return np.stack([*columns, *self._rows.source_masks], axis=1) / self._sigma

    def step(self, x: Floats, r: Floats) -> tuple[Floats, Floats]:
        """(Gauss-Newton step, normal matrix) at x."""
        slopes = self._slopes(x)
        pull = self._weight**2 / (1.0 + (r / CAUCHY) ** 2)
        weighted = slopes * pull[:, None]
        normal = np.asarray(weighted.T @ slopes + np.diag(self._rows.design.sd**-2.0))
        gradient = weighted.T @ r + x / self._rows.design.sd**2
        return np.asarray(-cho_solve(cho_factor(normal), gradient)), normal


def _solve(objective: _Objective, x: Floats, max_steps: int) -> tuple[Floats, Floats]:
    """Minimise (1) [1]; returns x and the normal matrix of the last step."""
    r = objective.residual(x)
    value = objective.value(x, r)
    normal = np.diag(np.ones_like(x))
    for _ in range(max_steps):
        direction, normal = objective.step(x, r)
        length = 1.0
        while length > SHORTEST:
            trial = x + length * direction
            r_trial = objective.residual(trial)
            better = objective.value(trial, r_trial)
            if better < value:
                break
            length /= 2.0
        else:
            break
        gained, x, r, value = value - better, trial, r_trial, better
        if gained < TOLERANCE * value:
            break
    return x, normal


class LogPrediction:
    """Log of a predicted quantity as a function of the scaled constants."""

    def __init__(self, rows: DesignRows, base: Constants) -> None:
        self._rows, self._base = rows, base

    def constants(self, scaled: Mapping[str, Floats]) -> Constants:
        """The constants that ``scaled`` stands for."""
        return self._rows.constants(scaled, self._base)

    def __call__(self, scaled: Mapping[str, Floats]) -> Floats:
        """Overridden by what is predicted."""
        raise NotImplementedError


class LogStepTime(LogPrediction):
    """Log step time of each candidate."""

    def __init__(self, rows: DesignRows, base: Constants, batch: RunBatch) -> None:
        super().__init__(rows, base)
        self._batch = batch

    def __call__(self, scaled: Mapping[str, Floats]) -> Floats:
        """Log seconds."""
        constants = self.constants(scaled)
        work, strategies = self._batch.work, self._batch.strategies
        time = price(work, strategies, constants, breakdown=False)
        return np.asarray(np.log(time.total_s))


class LogMemory(LogPrediction):
    """Log of the bytes that the framework's log would print."""

    def __init__(self, rows: DesignRows, base: Constants, batch: RunBatch) -> None:
        super().__init__(rows, base)
        self._batch = batch

    def __call__(self, scaled: Mapping[str, Floats]) -> Floats:
        """Log bytes."""
        return np.asarray(np.log(batch_memory(self._batch, self.constants(scaled))[1]))


def _fit(
    batch: RunBatch,
    trained: Bools,
    priors: Sequence[Prior],
    measured: Floats,
    base: Constants,
    stages: Sequence[float],
    predict: type[LogStepTime] | type[LogMemory],
    start: Fit | None,
    max_steps: int,
) -> Fit:
    design = Design(batch, priors, trained)
    x = np.zeros(len(design.sd))
    if start is not None:
        known = dict(zip(start.effects, start.values, strict=True))
        x[: len(design.effects)] = [known.get(e, 0.0) for e in design.effects]
        x[len(design.effects) :] = [start.source_effects.get(s, 0.0) for s in design.sources]
    everywhere = design.rows(batch)
    normal = np.diag(design.sd**-2.0)
    pick = np.zeros(0, dtype=np.int64)
    for sigma in stages:
        constants = everywhere.constants(everywhere.scaled(x), base)
        pick = cheapest(batch, batch_cost(batch, constants), USABLE * batch.usable_bytes)
        pick = pick[trained[batch.owner[pick]]]
        part = batch.take(pick)
        rows = design.rows(part)
        weight = source_weights([batch.runs[o].source for o in part.owner])
        target = measured[part.owner]
        objective = _Objective(rows, predict(rows, base, part), target, weight, sigma)
        x, normal = _solve(objective, x, max_steps)
    n = len(design.effects)
    return Fit(
        effects=tuple(design.effects),
        values=x[:n],
        covariance=np.asarray(np.linalg.inv(normal)[:n, :n], dtype=np.float64),
        source_effects=dict(zip(design.sources, (float(v) for v in x[n:]), strict=True)),
        picked=pick,
    )


def calibration_of(
    *fits: Fit,
    time_spread: Spread = NO_SPREAD,
    memory_spread: Spread = NO_SPREAD,
    provenance: Mapping[str, Any] | None = None,
) -> Calibration:
    """One calibration from the fits of time and memory, which share no constant."""
    sizes = [len(fit.effects) for fit in fits]
    covariance = np.zeros((sum(sizes), sum(sizes)))
    offset = 0
    for fit, size in zip(fits, sizes, strict=True):
        covariance[offset : offset + size, offset : offset + size] = fit.covariance
        offset += size
    return Calibration(
        effects=tuple(effect for fit in fits for effect in fit.effects),
        values=np.concatenate([fit.values for fit in fits]),
        covariance=covariance,
        time_spread=time_spread,
        memory_spread=memory_spread,
        provenance=provenance or {},
    )


def time_priors() -> tuple[Prior, ...]:
    """Priors of the constants that move the step time."""
    return tuple(p for p in load_priors() if p.name not in MEMORY_CONSTANTS)


def memory_priors() -> tuple[Prior, ...]:
    """Priors of the constants that move the memory."""
    return tuple(p for p in load_priors() if p.name in MEMORY_CONSTANTS)


def fit_step_time(
    batch: RunBatch,
    trained: Bools,
    base: Constants,
    *,
    start: Fit | None = None,
    max_steps: int = 25,
) -> Fit:
    """Fit the constants of the step time to the runs that ``trained`` marks.

    ``base`` holds the constants of the memory, which decide what an open knob is set to.
    A ``start`` from a neighbouring fit saves the first stages.
    """
    measured = np.log([run.step_time_s or np.nan for run in batch.runs])
    has = trained & np.isfinite(measured)
    stages = STAGES if start is None else STAGES[-1:]
    return _fit(batch, has, time_priors(), measured, base, stages, LogStepTime, start, max_steps)


def fit_memory(
    batch: RunBatch,
    trained: Bools,
    base: Constants,
    *,
    start: Fit | None = None,
    max_steps: int = 25,
) -> Fit:
    """Fit the constants of the memory to the runs that ``trained`` marks."""
    measured = np.log([run.memory_bytes or np.nan for run in batch.runs])
    has = trained & np.isfinite(measured)
    stages = MEMORY_STAGES if start is None else MEMORY_STAGES[-1:]
    return _fit(batch, has, memory_priors(), measured, base, stages, LogMemory, start, max_steps)

"""How sure a prediction is.

On the log scale a prediction's variance is

    v = s^2 (r^2 + tau^2)  +  sum_ij D_i S_ij D_j  +  sum_i D_i^2 q_i                  (1)

with r the spread between runs of one source, tau that between sources, s the factor that
makes intervals hold what they promise on left-out sources, D_i the derivative of the log
prediction by a constant's term (on the scale of :mod:`cost_models.calibrate.calibration`), S the
fit's covariance and q_i the prior variance of deviations that no run has informed: those
of an unknown GPU or framework.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from cost_models.calibrate.calibration import Calibration, Spread, load_priors
from cost_models.equations.constants import Constants
from cost_models.specs.units import Floats, Ints

STEP = 1e-3
Z80 = 1.2815515655446004
"""Half width of a central 80 % interval, in standard deviations."""

LogOf = Callable[[Constants], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """Central 80 % interval; arrays of the prediction's shape."""

    low: Floats
    high: Floats


def log_sd(
    log_of: LogOf,
    constants: Constants,
    calibration: Calibration,
    levels: Sequence[Mapping[str, str]],
    index: Ints,
    spread: Spread,
    names: Collection[str] | None = None,
) -> Floats:
    """Standard deviation of a log prediction, equation (1); shape (n,).

    ``log_of`` predicts from constants with values per row; row i has ``levels[index[i]]``.
    Constants that cannot move the prediction may be left out of ``names``.
    """
    base = log_of(constants)
    priors = {prior.name: prior for prior in load_priors() if names is None or prior.name in names}
    derivative: dict[str, Floats] = {}
    for name, prior in priors.items():
        value = getattr(constants, name)
        moved = replace(constants, **{name: prior.inverse(prior.forward(value) + STEP)})
        change = (log_of(moved) - base) / STEP
        if np.any(np.abs(change) > 1e-9):
            derivative[name] = change
    rows = np.asarray(index, dtype=np.int64)
    matrix = np.zeros((len(base), len(calibration.effects)))
    for j, effect in enumerate(calibration.effects):
        if effect.constant in derivative:
            on = np.array([not effect.kind or lv[effect.kind] == effect.level for lv in levels])
            matrix[:, j] = derivative[effect.constant] * on[rows]
    fitted = np.einsum("ij,jk,ik->i", matrix, calibration.covariance, matrix, optimize=True)
    unseen = np.zeros(len(base))
    table = [calibration.unseen_variance(level) for level in levels]
    for name, change in derivative.items():
        unseen += change**2 * np.array([row[name] for row in table])[rows]
    known = spread.scale**2 * (spread.residual_sd**2 + spread.source_sd**2)
    return np.asarray(np.sqrt(known + np.maximum(fitted, 0.0) + unseen))


def interval(predicted: Floats, sd: Floats) -> Interval:
    """The central 80 % interval of a log-normal prediction around its median."""
    return Interval(low=predicted * np.exp(-Z80 * sd), high=predicted * np.exp(Z80 * sd))


def fit_probability(fullest_bytes: Floats, usable_bytes: Floats, sd: Floats) -> Floats:
    """Probability that the fullest rank's memory stays within what a job may ask for."""
    return np.asarray(ndtr(np.log(usable_bytes / fullest_bytes) / np.maximum(sd, 1e-6)))

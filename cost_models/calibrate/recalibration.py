"""Fit a calibration to a site of one's own, starting from what is believed already.

A site is one set of machines and software, measured in a few runs.  Its constants are the
calibration's, with a further deviation of each for every framework that the site runs,

    x ~ N(x_0, P),   P = S + diag(q) + LOCAL^2 diag(sd^2)                              (1)

with x_0 and S the calibration's terms and their covariance, q the prior variance of terms
that no run has informed, and the last part the deviations.  With y the log of what was
measured, t(x) of what is predicted, D the slope of t and W the weights of Cauchy's loss,

    x = x_0 + P D' (D P D' + sigma^2 / W)^-1 (y - t(x) + D (x - x_0))                  (2)

is iterated: Gauss-Newton steps in the space of the runs, so that five runs cost five
equations however many constants there are.

Which runs tell most can be said before they are measured: with K = D P D', the next is

    argmax_i  sum_j K_ij^2 / (K_ii + sigma^2)                                          (3)

and K loses K_i K_i' / (K_ii + sigma^2) to it.

References
----------
.. [1] C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning,"
   MIT Press, 2006, section 2.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from cost_models.calibrate.batch import RunBatch, batch_constants, batch_memory
from cost_models.calibrate.calibration import Calibration, Effect, Prior, Spread, levels_of
from cost_models.calibrate.fitting import CAUCHY, MEMORY_CONSTANTS, memory_priors, time_priors
from cost_models.calibrate.predictions import picked_candidates
from cost_models.equations.constants import Constants
from cost_models.equations.step import price
from cost_models.specs.units import Floats, Ints

LOCAL = 1.5
"""Spread of a site's own deviations, over that of the prior."""
LOCAL_MEMORY = 0.5
"""The same of the constants of the memory, which is arithmetic more than physics."""
STEP = 1e-3
AT_ONCE = 2000
"""Candidates, counted once for each constant, that are priced in one call."""
MOST_STEPS = 8
ENOUGH = 1e-3
"""Change of the log predictions at which the steps end."""
SITE_KIND = "framework"
PASSES = 2
LEAST_SD = 0.05
"""Repeated measurements of one layout differ by 3 to 5 %: nothing is fitted more closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """Prior (1) of one quantity's constants."""

    effects: tuple[Effect, ...]
    mean: Floats
    covariance: Floats


def _terms(
    calibration: Calibration,
    priors: Sequence[Prior],
    levels: Sequence[Mapping[str, str]],
    local: float,
) -> _Terms:
    """The calibration's terms of ``priors`` and those that the site adds."""
    names = {prior.name for prior in priors}
    kept = [i for i, effect in enumerate(calibration.effects) if effect.constant in names]
    effects = [calibration.effects[i] for i in kept]
    mean = list(calibration.values[kept])
    covariance = _nearest_covariance(calibration.covariance[np.ix_(kept, kept)])
    extra: dict[Effect, float] = {}
    for prior in priors:
        for kind, sd in prior.by.items():
            for level in sorted({found[kind] for found in levels}):
                effect = Effect(prior.name, kind, level)
                if effect not in effects:
                    extra[effect] = sd**2
        for level in sorted({found[SITE_KIND] for found in levels}):
            effect = Effect(prior.name, SITE_KIND, level)
            extra[effect] = extra.get(effect, 0.0) + (local * prior.sd) ** 2
    added = [effect for effect in extra if effect not in effects]
    size = len(effects) + len(added)
    whole = np.zeros((size, size))
    whole[: len(effects), : len(effects)] = covariance
    effects += added
    place = {effect: i for i, effect in enumerate(effects)}
    for effect, variance in extra.items():
        whole[place[effect], place[effect]] += variance
    return _Terms(
        effects=tuple(effects),
        mean=np.array([*mean, *np.zeros(len(added))]),
        covariance=whole,
    )


def _nearest_covariance(matrix: Floats) -> Floats:
    """The same without the negative eigenvalues that rounded correlations can have."""
    return _nearest(matrix.tobytes(), len(matrix))


@lru_cache(maxsize=4)
def _nearest(matrix: bytes, size: int) -> Floats:
    values, vectors = np.linalg.eigh(np.frombuffer(matrix).reshape(size, size))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


class _Model:
    """Log predictions of some candidates as a function of the terms."""

    def __init__(self, batch: RunBatch, terms: _Terms, priors: Sequence[Prior]) -> None:
        self._batch, self._priors = batch, priors
        known = {o: levels_of(batch.runs[o].cluster.gpu, batch.runs[o].workload.framework)
                 for o in set(batch.owner.tolist())}  # fmt: skip
        mine = [known[owner] for owner in batch.owner.tolist()]
        self._start = {
            p.name: np.array([p.start(level["architecture"]) for level in mine]) for p in priors
        }
        self._on = np.array(
            [[not e.kind or level[e.kind] == e.level for e in terms.effects] for level in mine],
            dtype=np.float64,
        )
        self._active = [p.name for p in priors]
        self._of = {
            p.name: np.array([e.constant == p.name for e in terms.effects], dtype=np.float64)
            for p in priors
        }

    def scaled(self, x: Floats) -> dict[str, Floats]:
        return {
            name: start + self._on @ (x * self._of[name]) for name, start in self._start.items()
        }

    def log_prediction(self, scaled: Mapping[str, Floats], base: Constants) -> Floats:
        """Log of the step time, or of the reported memory."""
        return self._log(self._batch, scaled, base)

    def _log(self, batch: RunBatch, scaled: Mapping[str, Floats], base: Constants) -> Floats:
        values = {p.name: p.inverse(scaled[p.name]) for p in self._priors}
        c = replace(base, **values)
        if self._priors[0].name in MEMORY_CONSTANTS:
            return np.asarray(np.log(batch_memory(batch, c)[1]))
        return np.asarray(np.log(price(batch.work, batch.strategies, c, breakdown=False).total_s))

    def slopes(self, scaled: Mapping[str, Floats], base: Constants, at: Floats) -> Floats:
        """Derivative of each log prediction by each term.

        Few candidates are priced once for all constants that move, many once for each.
        """
        n = len(at)
        together = max(AT_ONCE // max(n, 1), 1)
        slope = np.zeros_like(self._on)
        for first in range(0, len(self._active), together):
            names = self._active[first : first + together]
            copies = np.tile(np.arange(n), len(names))
            moved = {name: np.tile(value, len(names)) for name, value in scaled.items()}
            for i, name in enumerate(names):
                moved[name][i * n : (i + 1) * n] += STEP
            each = _take_constants(base, copies)
            changed = self._log(self._batch.take(copies), moved, each).reshape(len(names), n)
            for name, row in zip(names, changed, strict=True):
                slope += ((row - at) / STEP)[:, None] * self._of[name] * self._on
        moving = np.abs(slope).max(axis=0)
        self._active = [name for name in self._active if np.any(moving * self._of[name] > 0.0)]
        return slope


def _take_constants(c: Constants, index: Ints) -> Constants:
    return Constants(**{f.name: np.asarray(getattr(c, f.name))[index] for f in fields(c)})


def _solve(
    model: _Model, terms: _Terms, base: Constants, measured: Floats, sigma: float
) -> tuple[Floats, Floats]:
    """Iterate (2); returns the terms and their covariance."""
    x = terms.mean
    scaled = model.scaled(x)
    at = model.log_prediction(scaled, base)
    covariance = terms.covariance
    for _ in range(MOST_STEPS):
        slope = model.slopes(scaled, base, at)
        residual = measured - at
        noise = sigma**2 * (1.0 + (residual / (CAUCHY * sigma)) ** 2)
        spread = terms.covariance @ slope.T
        gram = cho_factor(slope @ spread + np.diag(noise))
        x = terms.mean + spread @ cho_solve(gram, residual + slope @ (x - terms.mean))
        covariance = terms.covariance - spread @ cho_solve(gram, spread.T)
        scaled, before = model.scaled(x), at
        at = model.log_prediction(scaled, base)
        if np.max(np.abs(at - before), initial=0.0) < ENOUGH:
            break
    return x, covariance


def informative_runs(
    calibration: Calibration, batch: RunBatch, n: int, rng: np.random.Generator
) -> list[int]:
    """``n`` runs of ``batch`` that tell most about the others' step times, by (3).

    The first is drawn at random; no measurement is looked at.
    """
    picked = picked_candidates(batch, calibration)
    owners = [int(o) for o in picked.owner]
    levels = _levels(picked)
    terms = _terms(calibration, time_priors(), levels, LOCAL)
    model = _Model(picked, terms, time_priors())
    base = batch_constants(picked, calibration)
    scaled = model.scaled(terms.mean)
    slope = model.slopes(scaled, base, model.log_prediction(scaled, base))
    gram = slope @ terms.covariance @ slope.T
    noise = max(calibration.time_spread.residual_sd, LEAST_SD) ** 2
    found: list[int] = []
    for _ in range(min(n, len(owners))):
        gain = (gram**2).sum(axis=0) / (np.diag(gram) + noise)
        gain[found] = -1.0
        one = int(np.argmax(gain)) if found else int(rng.integers(len(owners)))
        found.append(one)
        gram = gram - np.outer(gram[:, one], gram[one]) / (gram[one, one] + noise)
    return [owners[one] for one in found]


def _levels(batch: RunBatch) -> list[dict[str, str]]:
    """Levels of the runs that have candidates."""
    runs = [batch.runs[owner] for owner in dict.fromkeys(batch.owner)]
    return [levels_of(run.cluster.gpu, run.workload.framework) for run in runs]


def recalibrated(
    calibration: Calibration,
    batch: RunBatch,
    *,
    provenance: Mapping[str, Any] | None = None,
) -> Calibration:
    """``calibration`` fitted to the runs of ``batch`` that were measured.

    Open knobs take the cheapest setting that fits, under the old constants and then under
    the new ones.
    """
    found = calibration
    if not len(batch.owner):
        return replace(calibration, provenance=provenance or calibration.provenance)
    picked = picked_candidates(batch, found)
    for _ in range(PASSES):
        time = _fitted(calibration, picked, "time")
        memory = _fitted(calibration, picked, "memory")
        found = _joined(calibration, time, memory, provenance)
        again = picked_candidates(batch, found)
        if again.strategies.rows() == picked.strategies.rows():
            break
        picked = again
    return found


def _fitted(
    calibration: Calibration, picked: RunBatch, quantity: Literal["time", "memory"]
) -> tuple[_Terms, bool]:
    """Terms of one quantity after its measured runs; whether there were any."""
    values = [
        (run.step_time_s if quantity == "time" else run.memory_bytes) or np.nan
        for run in picked.runs
    ]
    measured = np.log(values)[picked.owner]
    priors = time_priors() if quantity == "time" else memory_priors()
    kept = np.flatnonzero(np.isfinite(measured))
    if not len(kept):
        return _terms(calibration, priors, [], 0.0), False
    part = picked.take(kept)
    spread = calibration.time_spread if quantity == "time" else calibration.memory_spread
    local = LOCAL if quantity == "time" else LOCAL_MEMORY
    terms = _terms(calibration, priors, _levels(part), local)
    model = _Model(part, terms, priors)
    base = batch_constants(part, calibration)
    x, covariance = _solve(model, terms, base, measured[kept], max(spread.residual_sd, LEAST_SD))
    return _Terms(effects=terms.effects, mean=x, covariance=covariance), True


def _joined(
    old: Calibration,
    time: tuple[_Terms, bool],
    memory: tuple[_Terms, bool],
    provenance: Mapping[str, Any] | None,
) -> Calibration:
    parts = [memory[0], time[0]]
    size = [len(part.effects) for part in parts]
    covariance = np.zeros((sum(size), sum(size)))
    covariance[: size[0], : size[0]] = parts[0].covariance
    covariance[size[0] :, size[0] :] = parts[1].covariance

    def known_site(spread: Spread, fitted: bool) -> Spread:
        return replace(spread, source_sd=0.0, bias=0.0) if fitted else spread

    return Calibration(
        effects=parts[0].effects + parts[1].effects,
        values=np.concatenate([part.mean for part in parts]),
        covariance=covariance,
        time_spread=known_site(old.time_spread, time[1]),
        memory_spread=known_site(old.memory_spread, memory[1]),
        provenance=provenance or old.provenance,
    )

"""Calibrated constants: what they are, how sure they are, and where they come from.

Every constant c of :class:`~cost_models.equations.constants.Constants` is, on a scale where it can
take any value (its logarithm, or its log-odds where it is a share),

    g(c) = g(prior median) + base + deviation[architecture] + deviation[host] + ...      (1)

with normal priors on every term (``catalog/priors.toml``).  Terms of GPUs or frameworks
that no run speaks of stay at zero with their prior's spread, so that a prediction there is
the family's, with a wider interval.  Runs of one source share a further factor exp(u),
u ~ N(0, tau^2), that a fit takes out of the constants and a prediction adds to its spread.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from cost_models.catalog.files import CATALOG, read_toml
from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Gpu
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework
from cost_models.specs.units import Constant, Floats

SHIPPED = CATALOG / "calibrations" / "calibration.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is believed of one constant before any run is seen."""

    name: str
    unit: str
    low: float
    """No less and no more than this can a GPU or its software do at all."""
    high: float
    source: str
    """Of value and bounds."""
    value: float
    sd: float
    share: bool = False
    at: Mapping[str, float]
    """Other medians for some architectures, from their micro-benchmarks."""
    by: Mapping[str, float]
    """Spread of the deviations, by kind."""

    def forward(self, value: Constant) -> Constant:
        """The scale on which the priors are normal."""
        return np.log(value / (1.0 - value)) if self.share else np.log(value)

    def inverse(self, scaled: Constant) -> Constant:
        """Inverse of :meth:`forward`."""
        return 1.0 / (1.0 + np.exp(-scaled)) if self.share else np.exp(scaled)

    def start(self, architecture: str) -> float:
        """The prior median for an architecture or its nearest relative, scaled."""
        relative = relatives().get(architecture, "")
        return float(self.forward(self.at.get(architecture, self.at.get(relative, self.value))))


@cache
def relatives() -> Mapping[str, str]:
    """The architecture whose medians stand for one that nobody measured, by name."""
    return read_toml(CATALOG / "calibrations" / "relatives.toml")


@cache
def load_priors(path: Path = CATALOG / "calibrations" / "priors.toml") -> tuple[Prior, ...]:
    """All priors, in the file's order; raises SpecError for a name that is no constant."""
    known = {f.name for f in fields(Constants)}
    priors = []
    for name, table in read_toml(path).items():
        if name not in known:
            raise SpecError(f"{path}: {name!r} is not a constant of the cost model")
        priors.append(Prior(name=name, at=table.pop("at", {}), by=table.pop("by", {}), **table))
    return tuple(priors)


def prior_constants(architecture: str = "") -> Constants:
    """The prior medians, of one architecture where the priors name it: no run has a say."""
    return Constants(
        **{p.name: float(np.asarray(p.inverse(p.start(architecture)))) for p in load_priors()}
    )


@dataclass(frozen=True, slots=True, order=True)
class Effect:
    """One term of equation (1); ``kind`` and ``level`` are empty for the base."""

    constant: str
    kind: str = ""
    level: str = ""


def levels_of(gpu: Gpu, framework: Framework) -> dict[str, str]:
    """The level of each kind that a run on this GPU and framework has."""
    return {
        "architecture": gpu.architecture,
        "host": gpu.host,
        "family": framework.family,
        "framework": framework.name,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What a prediction of step time or memory leaves open, on the log scale."""

    residual_sd: float
    """Between runs of one source."""
    source_sd: float
    """Between sources."""
    scale: float = 1.0
    """Factor on the whole, fitted so that 80 % intervals hold 80 % of left-out runs."""
    bias: float = 0.0
    """Median of the left-out residuals, log measured over predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Fitted terms of equation (1) with their covariance."""

    effects: tuple[Effect, ...]
    values: Floats
    covariance: Floats
    time_spread: Spread
    memory_spread: Spread
    provenance: Mapping[str, Any]

    def constants(self, gpu: Gpu, framework: Framework) -> Constants:
        """The constants for one GPU and framework."""
        levels = levels_of(gpu, framework)
        return Constants(**self.values_for([levels], scalar=True))

    def values_for(
        self, levels: Sequence[Mapping[str, str]], *, scalar: bool = False
    ) -> dict[str, Any]:
        """Every constant's value per entry of ``levels``, arrays of shape (n,)."""
        terms: dict[str, list[tuple[Effect, float]]] = {}
        for effect, value in zip(self.effects, self.values, strict=True):
            terms.setdefault(effect.constant, []).append((effect, float(value)))
        found: dict[str, Any] = {}
        for prior in load_priors():
            scaled = np.array([prior.start(level["architecture"]) for level in levels])
            for effect, value in terms.get(prior.name, ()):
                applies = [
                    not effect.kind or level[effect.kind] == effect.level for level in levels
                ]
                scaled = scaled + np.where(applies, value, 0.0)
            value_s = prior.inverse(scaled)
            found[prior.name] = float(np.asarray(value_s)[0]) if scalar else value_s
        return found

    def has_seen(self, architecture: str) -> bool:
        """Whether a run on a GPU of that architecture was fitted."""
        return any(
            effect.kind == "architecture" and effect.level == architecture
            for effect in self.effects
        )

    def unseen_variance(self, levels: Mapping[str, str]) -> dict[str, float]:
        """Prior variance of each constant's deviations that no run has informed."""
        seen = set(self.effects)
        return {
            prior.name: sum(
                sd**2
                for kind, sd in prior.by.items()
                if Effect(prior.name, kind, levels[kind]) not in seen
            )
            for prior in load_priors()
        }


def to_json(calibration: Calibration) -> dict[str, Any]:
    """Plain values; numbers rounded to five significant digits."""

    def short(number: float) -> float:
        return float(f"{number:.5g}")

    lower = np.tril_indices(len(calibration.effects))
    return {
        "schema": "autopar/calibration/1",
        "provenance": dict(calibration.provenance),
        "time_spread": {
            f.name: short(getattr(calibration.time_spread, f.name)) for f in fields(Spread)
        },
        "memory_spread": {
            f.name: short(getattr(calibration.memory_spread, f.name)) for f in fields(Spread)
        },
        "effects": [
            [e.constant, e.kind, e.level, short(v), short(math.sqrt(max(c, 0.0)))]
            for e, v, c in zip(
                calibration.effects,
                calibration.values,
                np.diag(calibration.covariance),
                strict=True,
            )
        ],
        "correlation_lower": [
            round(float(x), 3) for x in _correlation(calibration.covariance)[lower]
        ],
    }


def _correlation(covariance: Floats) -> Floats:
    sd = np.sqrt(np.maximum(np.diag(covariance), 1e-300))
    return np.asarray(covariance / np.outer(sd, sd))


def from_json(document: Mapping[str, Any], path: Path) -> Calibration:
    """Inverse of :func:`to_json`; raises SpecError for another schema or missing parts."""
    if document.get("schema") != "autopar/calibration/1":
        raise SpecError(f"{path}: not a calibration of schema autopar/calibration/1")
    try:
        rows = document["effects"]
        sd = np.array([row[4] for row in rows])
        correlation = np.zeros((len(rows), len(rows)))
        correlation[np.tril_indices(len(rows))] = document["correlation_lower"]
        correlation = correlation + np.tril(correlation, -1).T
        return Calibration(
            effects=tuple(Effect(*row[:3]) for row in rows),
            values=np.array([row[3] for row in rows], dtype=np.float64),
            covariance=correlation * np.outer(sd, sd),
            time_spread=Spread(**document["time_spread"]),
            memory_spread=Spread(**document["memory_spread"]),
            provenance=document["provenance"],
        )
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SpecError(f"{path}: damaged calibration: {error!r}") from None


@cache
def load_calibration(path: Path = SHIPPED) -> Calibration:
    """The shipped calibration, or one of the user's own.

    Raises
    ------
    SpecError
        When the file cannot be read or is no calibration.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path}: cannot read: {error.strerror}") from None
    except ValueError as error:
        raise SpecError(f"{path}: not valid JSON: {error}") from None
    return from_json(document, path)


def load_constants(gpu: Gpu, framework: Framework, path: Path = SHIPPED) -> Constants:
    """The calibrated constants for one GPU and framework."""
    return load_calibration(path).constants(gpu, framework)

"""Optuna's samplers by name or path, and one that starts anew for every trial.

The trials of a study have *slots*, 0 to the budget: the first slots hold the points that
the exploration starts from, and slot k's sampler is seeded by the study's seed and k.
So a study that was stopped goes on as if it had not been, and workers beside each other
draw different numbers whoever they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from inspect import signature
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from cost_models.specs.errors import SpecError
from search.explore.storage import storage_errors

SAMPLERS = {
    "nsga2": "optuna.samplers:NSGAIISampler",
    "nsga3": "optuna.samplers:NSGAIIISampler",
    "tpe": "optuna.samplers:TPESampler",
    "gp": "optuna.samplers:GPSampler",
    "random": "optuna.samplers:RandomSampler",
}
FITS = "fits_memory"
"""The constraint that a strategy has to fit."""

_STRIDE = 1_000_003
"""Between the seeds of two slots: a prime, so that seeds of neighbouring studies differ."""


def sampler_called(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers by name, or any by import path ``package.module:Class``."""
    path = SAMPLERS.get(name, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    if not module:
        raise SpecError(
            f"unknown sampler {name!r}",
            hint=f"known: {', '.join(SAMPLERS)}, or an import path like package.module:Class",
        )
    try:
        kind: Callable[..., Any] = getattr(import_module(module), attribute)
        accepted = signature(kind).parameters
        words: dict[str, Any] = {"seed": seed % 2**32} if "seed" in accepted else {}
        if not hasattr(Trial, "set_constraint") and "constraints_func" in accepted:
            words["constraints_func"] = lambda trial: (trial.user_attrs.get(FITS, 0.0),)
        sampler = kind(**words)
    except (ImportError, AttributeError, TypeError) as error:
        raise SpecError(f"sampler {name!r} cannot be used: {error}") from None
    if not isinstance(sampler, BaseSampler):
        raise SpecError(f"sampler {name!r} is no Optuna sampler")
    return sampler


class Slotted(BaseSampler):
    """One of Optuna's samplers, made anew for the slot of every trial.

    ``claim`` gives a new trial its slot.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        points: Sequence[Mapping[str, int]],
        claim: Callable[[Study, FrozenTrial], int],
    ) -> None:
        self._name = name
        self._seed = seed
        self._points = points
        self._claim = claim
        self._inner = sampler_called(name, seed)
        self._fixed: Mapping[str, int] = {}
        self.slot = -1
        """Of the latest trial."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Claim a slot for the trial and start its sampler."""
        self.slot = self._claim(study, trial)
        self._fixed = self._points[self.slot] if self.slot < len(self._points) else {}
        self._inner = sampler_called(self._name, self._seed + _STRIDE * self.slot)
        with self._named():
            self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """The sampler's own."""
        with self._named():
            return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The sampler's choice, under the slot's own point.

        It is asked even where nothing is left of its choice: an evolving sampler counts
        the trial among a generation only then, and its start would have no offspring.
        """
        with self._named():
            drawn = self._inner.sample_relative(study, trial, search_space)
        return drawn | {name: at for name, at in self._fixed.items() if name in search_space}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The slot's own position, or the sampler's choice."""
        if param_name in self._fixed:
            return self._fixed[param_name]
        with self._named():
            return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the sampler note what it needs of a trial that has ended."""
        with self._named():
            self._inner.after_trial(study, trial, state, values)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Blame the sampler by name for what it raises, and the storage for its own."""
        try:
            yield
        except (SpecError, OptunaError):
            raise
        except storage_errors():
            raise
        except ImportError as error:
            raise SpecError(f"sampler {self._name!r} cannot be used: {error}") from None
        except Exception as error:  # any sampler by path, so anything
            said = str(error).strip().splitlines()
            line = said[0] if said else type(error).__name__
            raise SpecError(f"sampler {self._name!r} failed: {line}") from error

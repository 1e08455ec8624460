"""How Optuna is to explore; apart from what does it, so that nobody imports Optuna to ask."""

from dataclasses import dataclass
from typing import Any

from cost_models.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """Budget, sampler and memory of an exploration."""

    trials: int = 500
    """Strategies to price, seeds among them."""
    timeout_s: float | None = None
    sampler: str = "nsga2"
    """``nsga2``, ``nsga3``, ``tpe``, ``random``, ``gp``, or the import path of any sampler."""
    storage: str | None = None
    """Where trials are kept: an Optuna storage URL, or the path of a journal file."""
    study: str | None = None
    """Name of the study in there; an existing one of the same problem is continued."""
    seeds: Any = "coarse"
    """``coarse`` starts from the frontier of a thin sample; ``none`` from nothing."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SpecError(f"trials must be >= 1, got {self.trials}")

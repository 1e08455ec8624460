"""Optuna's samplers, held in the middle of a trial by a gate until a test has seen it there."""

import os
import time
from pathlib import Path
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler, TPESampler
from optuna.trial import FrozenTrial

GATE = "AUTOPAR_TEST_GATE"
"""The environment's name for a file; while it is missing, trials wait from number ``HELD`` on."""
HELD = 9


def wait(trial: FrozenTrial) -> None:
    """Stand at the gate."""
    gate = Path(os.environ[GATE])
    while trial.number >= HELD and not gate.exists():
        time.sleep(0.02)


class GatedNSGA2(NSGAIISampler):
    """NSGA-II with generations short enough for a test to see some."""

    def __init__(self, seed: int) -> None:
        super().__init__(population_size=6, seed=seed)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The same choice behind the gate."""
        wait(trial)
        return super().sample_relative(study, trial, search_space)


class GatedTPE(TPESampler):
    """TPE."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The same choice behind the gate."""
        wait(trial)
        return super().sample_relative(study, trial, search_space)

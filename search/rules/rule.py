"""What a rule is, and how strategies are held against many of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.workload import Workload
from search.rules.launchers import LAUNCHERS, Launcher, launcher_called

Mask = NDArray[np.bool_]

LAYOUT_AXES = ("tp", "pp", "cp", "dp", "ep", "etp", "vpp", "schedule", "micro_batch_size")
"""The outer choice: how ranks, layers and batch are divided."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is trained, on what, by which launcher."""

    model: ModelSpec
    cluster: Cluster
    workload: Workload
    launcher: Launcher = field(default_factory=lambda: LAUNCHERS["megatron"])
    uneven_stages: bool = True
    """Chunks may differ by a layer, as a pipeline layout written stage by stage allows."""

    @classmethod
    def of(
        cls,
        model: ModelSpec,
        cluster: Cluster,
        workload: Workload,
        launcher: str = "megatron",
        *,
        uneven_stages: bool = True,
    ) -> "Problem":
        """The same with the launcher by name."""
        return cls(model, cluster, workload, launcher_called(launcher), uneven_stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One thing that a launcher refuses, or that cannot be."""

    name: str
    sentence: str
    reads: tuple[str, ...]
    """Columns that decide it; with none of them an inner knob it prunes whole layouts."""
    holds: Callable[[Problem, Strategies], Any]
    """Which strategies obey, of the broadcast shape of the columns read (or a scalar)."""
    why: Callable[[Problem, Strategy], str]
    """The numbers of one strategy that breaks it."""
    launchers: frozenset[str] = frozenset(LAUNCHERS)

    @property
    def knobs(self) -> tuple[str, ...]:
        """Columns read beyond the layout's."""
        return tuple(name for name in self.reads if name not in LAYOUT_AXES)

    def mask(self, problem: Problem, strategies: Strategies) -> Mask:
        """Which strategies obey, broadcastable to ``strategies.shape``."""
        return np.asarray(self.holds(problem, strategies), dtype=np.bool_)


def only(*launchers: str) -> frozenset[str]:
    """The launchers a rule is limited to."""
    return frozenset(launchers)


def legal_mask(
    problem: Problem, strategies: Strategies, rules: Sequence[Rule]
) -> tuple[Mask, dict[str, Mask]]:
    """Which strategies obey all ``rules``, and each rule's own mask by name."""
    masks = {rule.name: rule.mask(problem, strategies) for rule in rules}
    legal = np.ones((), dtype=np.bool_)
    for mask in sorted(masks.values(), key=lambda m: m.size):
        legal = legal & mask
    return np.broadcast_to(legal, strategies.shape), masks


@dataclass(frozen=True, slots=True)
class Pruned:
    """What one rule took out of a set of strategies."""

    removed: int
    """Strategies that no earlier rule had already removed."""
    breaking: int
    """Strategies that break it, whatever else they break."""


def count_pruned(
    problem: Problem, strategies: Strategies, rules: Sequence[Rule]
) -> dict[str, Pruned]:
    """How many strategies each rule removes, each charged to its first broken rule."""
    alive = np.ones(strategies.shape, dtype=np.bool_)
    left = alive.size
    counts = {}
    for rule in rules:
        mask = np.broadcast_to(rule.mask(problem, strategies), strategies.shape)
        alive &= mask
        remaining = int(np.count_nonzero(alive))
        counts[rule.name] = Pruned(left - remaining, mask.size - int(np.count_nonzero(mask)))
        left = remaining
    return counts

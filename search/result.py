"""What a search found, how it was found, and what that proves."""

from dataclasses import dataclass, field
from typing import Any

from cost_models.equations.memory import MemoryCost
from cost_models.equations.step import StepCost
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Priced:
    """One strategy with its cost: a row of a frontier, or an estimate."""

    strategy: Strategy
    step_time_s: float
    memory_bytes: float
    time_breakdown_s: dict[str, float]
    memory_breakdown_bytes: dict[str, float]
    hidden_communication_s: float
    tokens_per_s_per_gpu: float
    mfu: float
    fullest_rank: int
    """Pipeline rank whose memory is ``memory_bytes``."""
    step_time_low_s: float | None = None
    step_time_high_s: float | None = None
    memory_low_bytes: float | None = None
    memory_high_bytes: float | None = None
    fit_probability: float | None = None
    usd_per_step: float | None = None
    world_size: int = 0

    def to_json(self) -> dict[str, Any]:
        """A row of the public documents; empty fields are left out."""
        document: dict[str, Any] = {"strategy": self.strategy.to_json()}
        for name in self.__slots__:
            value = getattr(self, name)
            if name != "strategy" and value is not None:
                document[name] = value
        return document


def priced_rows(cost: StepCost, strategies: list[Strategy]) -> list[Priced]:
    """Rows from a batch of n strategies priced with columns of shape (n,)."""
    memory: MemoryCost = cost.memory
    return [
        Priced(
            strategy=strategy,
            step_time_s=float(cost.step_time_s[i]),
            memory_bytes=float(memory.total_bytes[i]),
            time_breakdown_s={k: float(v[i]) for k, v in cost.time_terms.items()},
            memory_breakdown_bytes={k: float(v[i]) for k, v in memory.terms.items()},
            hidden_communication_s=float(cost.hidden_s[i]),
            tokens_per_s_per_gpu=float(cost.tokens_per_s_per_gpu[i]),
            mfu=float(cost.mfu[i]),
            fullest_rank=int(memory.rank[i]),
            world_size=strategy.world_size,
        )
        for i, strategy in enumerate(strategies)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How the space shrank, in strategies unless said otherwise."""

    space: int
    """Points of the raw product of all axes."""
    legal: int
    fits: int
    priced: int
    layouts: int = 0
    """Legal layouts (the outer axes)."""
    pruned_by: dict[str, int] = field(default_factory=dict)
    """Strategies removed, by the first rule they break; ``memory`` is one of the rules."""
    cut_by_bound: int = 0
    """Legal strategies never priced because a bound shows that they are dominated."""
    cut_by: dict[str, int] = field(default_factory=dict)
    """Strategies cut, by the bound that cut them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What was proved about the frontier."""

    complete: bool
    """No strategy of the space is missing from the frontier."""
    method: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """The Pareto frontier of memory against step time, fastest first."""

    model: ModelSpec
    cluster: Cluster
    workload: Workload
    frontier: list[Priced]
    counts: Counts
    certificate: Certificate
    seed: int
    launcher: str
    versions: dict[str, str]
    explanation: str | None = None
    """Why nothing fits, where the frontier is empty."""

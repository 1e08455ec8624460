"""A strategy on several pools: which part of it runs where, and what the whole costs."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cost_models.specs.strategy import Strategy

Family = Literal["alone", "replicas", "stages"]
SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPart:
    """What one pool does."""

    pool: int
    """Its place in the cluster file."""
    gpu: str
    n_gpus: int
    replicas: int
    """Data-parallel replicas, or parts of them, on this pool."""
    stages: int
    """Pipeline stages of each."""
    micro_batches: int
    """Of one replica in one step."""
    layers: tuple[int, ...] = ()
    """Of each stage, where the pipeline runs through several pools."""
    memory_bytes: float
    """Of its fullest GPU."""
    usable_bytes: float
    price_usd_per_hour: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRow:
    """One row of a mixed cluster's frontier."""

    family: Family
    strategy: Strategy
    """With the replicas and stages of all pools together."""
    parts: tuple[PoolPart, ...]
    """In the order of the pipeline where stages are shared out."""
    step_time_s: float

    @property
    def memory_bytes(self) -> float:
        """Of the fullest GPU of any pool."""
        return max(part.memory_bytes for part in self.parts)

    @property
    def usd_per_step(self) -> float | None:
        """What the GPUs cost that take part; None where a price is missing."""
        prices = [part.price_usd_per_hour for part in self.parts]
        known = [price for price in prices if price is not None]
        if len(known) < len(prices):
            return None
        each = sum(p.n_gpus * price for p, price in zip(self.parts, known, strict=True))
        return each * self.step_time_s / SECONDS_PER_HOUR

    def to_json(self) -> dict[str, Any]:
        """A row of the public document."""
        document: dict[str, Any] = {
            "family": self.family,
            "strategy": self.strategy.to_json(),
            "pools": [asdict(part) for part in self.parts],
            "step_time_s": self.step_time_s,
            "memory_bytes": self.memory_bytes,
        }
        if self.usd_per_step is not None:
            document["usd_per_step"] = self.usd_per_step
        return document

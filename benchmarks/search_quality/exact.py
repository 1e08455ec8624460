"""Exact frontiers, kept beside the digest of what they are the frontiers of.

A kept one is used where the digest is the same and today's equations still give its fastest
and its leanest row; otherwise it is found again, by the sweep or by pricing everything.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from autopar.report.files import write_text
from benchmarks.search_quality.instances import Instance
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from search.explore.start import SLOW

KEPT = Path(__file__).parents[1] / "data" / "search_frontiers.json"
ROUNDING = 1e-9
"""Relative difference of prices that another machine's rounding explains."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """The exact frontier of an instance, fastest first."""

    strategies: Strategies
    """All of it, or the fastest and the leanest of one that was kept."""
    memory_bytes: Floats
    step_time_s: Floats
    seconds: float
    """What it took to find."""

    def near(self, usable_bytes: float) -> tuple[float, float]:
        """Reference point: all usable memory and twice the fastest step."""
        return usable_bytes, SLOW * float(self.step_time_s.min())

    def far(self, usable_bytes: float) -> tuple[float, float]:
        """The same with the slowest step of the exact frontier, which the leanest row takes."""
        return usable_bytes, float(self.step_time_s.max())


def find(instance: Instance) -> Exact:
    """The exact frontier, found now."""
    start = perf_counter()
    strategies, memory, seconds = instance.exact()
    took = perf_counter() - start
    return Exact(strategies=strategies, memory_bytes=memory, step_time_s=seconds, seconds=took)


def exact_of(instance: Instance, kept: dict[str, Any]) -> Exact:
    """The kept frontier, or the one found now where it is not this problem's any more."""
    row = kept.get(instance.name)
    if row is None or row["key"] != instance.key:
        return find(instance)
    ends = Strategies.of([Strategy.from_json(one) for one in row["ends"]])
    known = Exact(
        strategies=ends,
        memory_bytes=np.array(row["memory_bytes"]),
        step_time_s=np.array(row["step_time_s"]),
        seconds=row["seconds"],
    )
    said = (known.memory_bytes[[0, -1]], known.step_time_s[[0, -1]])
    same = np.allclose(instance.prices(ends), said, rtol=ROUNDING, atol=0.0)
    return known if same else find(instance)


def read_kept(path: Path = KEPT) -> dict[str, Any]:
    """What is kept, by instance."""
    if not path.exists():
        return {}
    kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return kept


def keep(instances: Iterable[Instance], path: Path = KEPT) -> None:
    """Find and write the frontiers of all these instances."""
    document = {}
    for instance in instances:
        found = find(instance)
        rows = found.strategies.rows()
        document[instance.name] = {
            "key": instance.key,
            "legal": instance.census.legal,
            "seconds": round(found.seconds, 2),
            "ends": [rows[0].to_json(), rows[-1].to_json()],
            "memory_bytes": found.memory_bytes.tolist(),
            "step_time_s": found.step_time_s.tolist(),
        }
    write_text("frontiers", str(path), json.dumps(document) + "\n")

"""A strategy together with everything a launcher's files must say."""

from dataclasses import dataclass, field

from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What the cost model says of the strategy; ``low`` and ``high`` bound 80 %."""

    step_time_s: float
    memory_bytes: float
    step_time_low_s: float | None = None
    step_time_high_s: float | None = None
    memory_low_bytes: float | None = None
    memory_high_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One strategy for one model, cluster and workload."""

    model: ModelSpec
    cluster: Cluster
    workload: Workload
    strategy: Strategy
    prediction: Prediction | None = None
    command: str | None = None
    """What to type to see the plan again, from the words that were said."""
    warnings: tuple[str, ...] = ()
    """What whoever starts it should know first, for the heading of its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """Files that run a plan, and what they could not say."""

    files: dict[str, str]
    """Text by file name, relative to the output directory."""
    not_expressed: tuple[str, ...] = ()
    """Knobs of the strategy that the launcher has no field for, each with the reason."""
    warnings: tuple[str, ...] = ()
    """The plan's."""
    launcher: str = ""
    targets: str = ""
    """The launcher's version that the files are written for; its dossier fills in both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a launcher's files say, as far as they say it."""

    strategy: Strategy
    world_size: int | None = None
    model: ModelSpec | None = None
    global_batch_size: int | None = None
    sequence_length: int | None = None
    ignored: tuple[str, ...] = ()
    """Fields that have no bearing on cost or that are not understood, by name."""
    notes: dict[str, str] = field(default_factory=dict)

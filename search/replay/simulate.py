"""One training step of one pipeline, replayed as events.

Each rank works through its order (:mod:`search.replay.schedules`) without a choice: an
operation starts when the rank is free and its input has arrived.

    start = max(end of the rank's last operation, end of the input's maker + hop)

F of a stage needs F of the stage before it, B needs B of the stage after it, and B of
the last stage its own F; W needs the rank's own B.  Ranks that split the backward pass
skip the optimizer's barrier, as the Zero Bubble paper does (arXiv:2401.10241, Section 4):
their step is the longest span of one rank, since the next step starts as staggered as
this one.  For all others it is the time from the first start to the last end.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Floats, Ints
from search.replay.chains import Chains, replay
from search.replay.events import Event
from search.replay.schedules import (
    SPLIT,
    Kind,
    check_schedule,
    fixed_order,
    n_stages,
    stage_of,
)
from search.replay.trace import chrome_trace
from search.replay.zero_bubble import zero_bubble_orders


def _table(name: str, value: ArrayLike, shape: tuple[int, ...]) -> Floats:
    """``value`` broadcast to ``shape``; raises SpecError if it cannot be, or is negative."""
    array = np.asarray(value, dtype=np.float64)
    try:
        array = np.broadcast_to(array, shape)
    except ValueError:
        raise SpecError(f"pipeline.{name} must have shape {shape}, got {array.shape}") from None
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise SpecError(f"pipeline.{name} must be finite and >= 0, got {array.min()}")
    return array


@dataclass(frozen=True, kw_only=True, eq=False)
class Pipeline:
    """What the ranks of one pipeline do in one step.

    Tables have shape (pp, chunks), a value per rank and chunk for one micro-batch;
    anything that broadcasts to it will do.
    """

    schedule: Schedule
    n_micro_batches: int
    pp: int
    n_chunks: int = 1
    """Model chunks on each rank; 2 for ZB-V and DualPipe."""
    forward_s: ArrayLike
    backward_input_s: ArrayLike
    backward_weight_s: ArrayLike
    exposed_forward_s: ArrayLike = 0.0
    """Collectives that no compute hides, part of each forward."""
    exposed_backward_s: ArrayLike = 0.0
    """Exposed communication that is part of each backward."""
    p2p_s: ArrayLike = 0.0
    """One hop over each link, shape (pp,): rank r to r + 1 and back, the last one to rank 0."""
    overlap_p2p: bool = True
    """The sender goes on while its message travels."""
    activation_bytes: ArrayLike = 0.0
    """Kept from the start of F until the end of B."""
    weight_grad_bytes: ArrayLike | None = None
    """The part of them kept until the end of W; None is all."""
    static_bytes: ArrayLike = 0.0
    """Held throughout, shape (pp,)."""
    grad_sync_s: ArrayLike = 0.0
    """Exposed gradient reduction after a rank's last operation, shape (pp,)."""
    optimizer_s: ArrayLike = 0.0
    """Optimizer step, shape (pp,)."""
    synchronized: bool | None = None
    """All ranks enter the optimizer together; None: unless the schedule splits B and W."""

    def __post_init__(self) -> None:
        check_schedule(self.schedule, self.n_micro_batches, self.pp, self.n_chunks)
        per_chunk, per_rank = (self.pp, self.n_chunks), (self.pp,)
        if self.weight_grad_bytes is None:
            object.__setattr__(self, "weight_grad_bytes", self.activation_bytes)
        if self.synchronized is None:
            object.__setattr__(self, "synchronized", self.schedule not in SPLIT)
        for name in _PER_CHUNK:
            object.__setattr__(self, name, _table(name, getattr(self, name), per_chunk))
        for name in ("p2p_s", "static_bytes", "grad_sync_s", "optimizer_s"):
            object.__setattr__(self, name, _table(name, getattr(self, name), per_rank))
        if (np.asarray(self.weight_grad_bytes) > np.asarray(self.activation_bytes)).any():
            raise SpecError("pipeline.weight_grad_bytes must be part of activation_bytes")

    @classmethod
    def of_stages(
        cls,
        schedule: Schedule,
        n_micro_batches: int,
        pp: int,
        n_chunks: int = 1,
        *,
        first: Sequence[float] = (0.0, 0.0, 0.0),
        last: Sequence[float] = (0.0, 0.0, 0.0),
        **values: Any,
    ) -> Self:
        """A pipeline whose tables per chunk are given in model order, one value per stage.

        ``first`` and ``last`` are seconds of F, B and W that the first and the last stage
        take on top: the embedding, the head and the loss.
        """
        check_schedule(schedule, n_micro_batches, pp, n_chunks)
        where = stage_of(schedule, pp, n_chunks)
        stages = n_stages(schedule, pp, n_chunks)
        for name in _PER_CHUNK:
            if values.get(name) is not None:
                values[name] = _table(name, values[name], (stages,)).copy()
        for name, begin, end in zip(_PER_CHUNK[:3], first, last, strict=True):
            values[name][0] += begin
            values[name][-1] += end
        for name in _PER_CHUNK:
            if values.get(name) is not None:
                values[name] = values[name][where]
        return cls(
            schedule=schedule,
            n_micro_batches=n_micro_batches,
            pp=pp,
            n_chunks=n_chunks,
            **values,
        )

    @cached_property
    def seconds(self) -> Floats:
        """Length of each kind of operation, shape (kind, pp, chunks)."""
        forward = np.add(self.forward_s, self.exposed_forward_s)
        backward = np.add(self.backward_input_s, self.exposed_backward_s)
        weight = np.asarray(self.backward_weight_s, dtype=np.float64)
        return np.stack([forward, backward, weight, backward + weight])

    @cached_property
    def exposed(self) -> Floats:
        """Exposed collectives at the end of each kind of operation, shape (kind, pp, chunks)."""
        forward = np.asarray(self.exposed_forward_s, dtype=np.float64)
        backward = np.asarray(self.exposed_backward_s, dtype=np.float64)
        return np.stack([forward, backward, np.zeros_like(forward), backward])


_PER_CHUNK = (
    "forward_s",
    "backward_input_s",
    "backward_weight_s",
    "exposed_forward_s",
    "exposed_backward_s",
    "activation_bytes",
    "weight_grad_bytes",
)


@dataclass(frozen=True, eq=False)
class Simulation:
    """What the replay found; arrays are per rank, shape (pp,)."""

    pipeline: Pipeline
    orders: list[Ints]
    """Operations of each rank: columns kind, chunk, micro-batch."""
    start_s: list[Floats]
    """Start of each of them."""
    end_s: list[Floats]

    @cached_property
    def busy_s(self) -> Floats:
        """Seconds in which the rank works, exposed collectives included."""
        return np.array([(e - s).sum() for s, e in zip(self.start_s, self.end_s, strict=True)])

    @cached_property
    def first_s(self) -> Floats:
        """Start of each rank's first operation."""
        return np.array([start[0] for start in self.start_s])

    @cached_property
    def last_s(self) -> Floats:
        """End of each rank's last operation."""
        return np.array([end[-1] for end in self.end_s])

    @cached_property
    def pipeline_s(self) -> float:
        """The step without gradient reduction and optimizer."""
        if self.pipeline.synchronized:
            return float(self.last_s.max())
        return float((self.last_s - self.first_s).max())

    @cached_property
    def step_time_s(self) -> float:
        """The whole step."""
        sync = np.asarray(self.pipeline.grad_sync_s)
        optimizer = np.asarray(self.pipeline.optimizer_s)
        if self.pipeline.synchronized:
            return float((self.last_s + sync).max() + optimizer.max())
        return float((self.last_s - self.first_s + sync + optimizer).max())

    @cached_property
    def busy_fraction(self) -> Floats:
        """Share of the pipeline's time in which the rank works."""
        return np.asarray(self.busy_s / self.pipeline_s)

    @cached_property
    def bubble_fraction(self) -> Floats:
        """Share of the pipeline's time in which the rank waits."""
        return 1 - self.busy_fraction

    def memory(self, rank: int) -> tuple[Floats, Floats]:
        """Times at which the rank's memory changes, and the bytes held from then on."""
        kind, chunk, _ = self.orders[rank].T
        whole = np.asarray(self.pipeline.activation_bytes)[rank][chunk]
        late = np.asarray(self.pipeline.weight_grad_bytes)[rank][chunk]
        change = np.choose(kind, [whole, late - whole, -late, -whole])
        time = np.where(kind == Kind.F, self.start_s[rank], self.end_s[rank])
        held = np.asarray(self.pipeline.static_bytes)[rank] + np.cumsum(change)
        return time, held

    @cached_property
    def peak_bytes(self) -> Floats:
        """The most that each rank holds at once."""
        return np.array([self.memory(rank)[1].max() for rank in range(self.pipeline.pp)])

    def events(self) -> Iterator[Event]:
        """Every operation, rank by rank."""
        for rank, order in enumerate(self.orders):
            times = zip(self.start_s[rank].tolist(), self.end_s[rank].tolist(), strict=True)
            for (kind, chunk, micro_batch), (start, end) in zip(order.tolist(), times, strict=True):
                yield Event(rank, Kind(kind), chunk, micro_batch, start, end)

    def trace(self) -> dict[str, Any]:
        """The step as a Chrome trace, which Perfetto opens too: write it as JSON."""
        pipeline = self.pipeline
        return chrome_trace(
            self.events(),
            _chains(pipeline),
            exposed_s=pipeline.exposed,
            memory=[self.memory(rank) for rank in range(pipeline.pp)],
        )


def _chains(pipeline: Pipeline) -> Chains:
    return Chains.of(
        pipeline.schedule,
        pipeline.n_micro_batches,
        pipeline.pp,
        pipeline.n_chunks,
        seconds=pipeline.seconds,
        p2p_s=np.asarray(pipeline.p2p_s),
        overlap_p2p=pipeline.overlap_p2p,
        hidden_s=pipeline.exposed,
    )


def simulate(pipeline: Pipeline) -> Simulation:
    """Replay one step.

    >>> step = simulate(Pipeline(schedule=Schedule._1F1B, n_micro_batches=8, pp=4,
    ...                          forward_s=1, backward_input_s=1, backward_weight_s=1,
    ...                          activation_bytes=1))
    >>> step.step_time_s, step.peak_bytes.tolist()
    (33.0, [4.0, 3.0, 2.0, 1.0])
    """
    chains = _chains(pipeline)
    if pipeline.schedule in SPLIT and pipeline.pp > 1:
        orders = zero_bubble_orders(
            chains,
            activation_bytes=np.asarray(pipeline.activation_bytes),
            weight_grad_bytes=np.asarray(pipeline.weight_grad_bytes),
        )
    else:
        orders = fixed_order(
            pipeline.schedule, pipeline.n_micro_batches, pipeline.pp, pipeline.n_chunks
        )
    start_s, end_s = replay(chains, orders)
    return Simulation(pipeline, orders, start_s, end_s)

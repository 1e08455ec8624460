"""The question of an uneven pipeline in numbers, and what an answer to it looks like.

Times and bytes become whole numbers for the solver: time by rounding to ``TIME_STEPS``-ths
of the model's, memory by rounding up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.errors import SpecError
from cost_models.specs.units import Floats, Ints
from search.stages.bounds import StageUnits

TIME_STEPS = 10**6
"""Units of time in one micro-batch's pass through the whole model."""
MEMORY_STEPS = 2**30
"""Units of memory in one rank."""


class Assignment(NamedTuple):
    """Layers of each chunk, and how many of its first it recomputes."""

    stage_layers: tuple[int, ...]
    recompute_layers: tuple[int, ...]


class Proof(Enum):
    """What is known about a plan."""

    OPTIMAL = "optimal"
    """No layout is faster."""
    FEASIBLE = "feasible"
    """It fits; time ran out before the bound was met."""
    INFEASIBLE = "infeasible"
    """No layout fits."""
    UNKNOWN = "unknown"
    """Time ran out before any layout was found or excluded."""


def _row(name: str, value: ArrayLike, n: int) -> Floats:
    """``value`` broadcast to n; raises SpecError if it cannot be, or is negative."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim > 1 or (array.ndim == 1 and len(array) not in (1, n)):
        raise SpecError(f"stages.{name} must have {n} values, got shape {array.shape}")
    if not (np.isfinite(array).all() and (array >= 0).all()):
        raise SpecError(f"stages.{name} must be finite and >= 0, got {array.min()}")
    return np.broadcast_to(array, (n,))


@dataclass(frozen=True, kw_only=True, eq=False)
class StageProblem:
    """Layers in model order, chunks in model order, and what each rank can hold.

    Per layer and micro-batch; values that are the same for all may be given once.
    """

    n_layers: int
    pp: int
    vpp: int = 1
    layer_s: ArrayLike
    """Forward and both gradients."""
    recompute_s: ArrayLike = 0.0
    """Seconds that a recomputed layer takes more than others."""
    layer_bytes: ArrayLike = 0.0
    """Weights, gradients and optimizer state."""
    activation_bytes: ArrayLike = 0.0
    """Kept for the backward pass."""
    recomputed_bytes: ArrayLike = 0.0
    """Bytes that a recomputed layer keeps for the backward pass."""
    chunk_s: ArrayLike = 0.0
    """What a chunk takes beside its layers, shape (pp * vpp,): embedding first, head last."""
    chunk_bytes: ArrayLike = 0.0
    """What a chunk holds beside its layers."""
    in_flight: ArrayLike = 1.0
    """Micro-batches whose activations a chunk holds at the peak, shape (pp * vpp,)."""
    capacity_bytes: ArrayLike
    """Memory of each rank, shape (pp,)."""
    min_layers: int = 1
    """Fewest layers in one chunk; Megatron-LM's layouts allow 0."""
    equal_recompute: bool = False
    """All chunks recompute the same number of layers, or all that they have."""
    folded: bool = False
    """Chunk 2 * p - 1 - r goes to rank r, as under ZB-V, instead of chunk r + p."""

    def __post_init__(self) -> None:
        for name, least_value in (("n_layers", 1), ("pp", 1), ("vpp", 1), ("min_layers", 0)):
            value = getattr(self, name)
            if int(value) != value or value < least_value:
                raise SpecError(
                    f"stages.{name} must be a whole number >= {least_value}, got {value}"
                )
        if self.folded and self.vpp != 2:
            raise SpecError(f"stages.vpp must be 2 when folded, got {self.vpp}")
        for names, n in ((_PER_LAYER, self.n_layers), (_PER_CHUNK, self.n_chunks)):
            for name in names:
                object.__setattr__(self, name, _row(name, getattr(self, name), n))
        object.__setattr__(
            self, "capacity_bytes", _row("capacity_bytes", self.capacity_bytes, self.pp)
        )
        if (np.asarray(self.recomputed_bytes) > np.asarray(self.activation_bytes)).any():
            raise SpecError("stages.recomputed_bytes must be part of activation_bytes")

    @property
    def n_chunks(self) -> int:
        """Chunks in the model."""
        return self.pp * self.vpp

    @cached_property
    def rank(self) -> Ints:
        """Rank of each chunk."""
        chunk = np.arange(self.n_chunks)
        if self.folded:
            return np.minimum(chunk, self.n_chunks - 1 - chunk)
        return chunk % self.pp

    def row(self, name: str) -> Floats:
        """A field, one value per layer, chunk or rank."""
        return np.asarray(getattr(self, name), dtype=np.float64)

    @cached_property
    def time_unit_s(self) -> float:
        """Seconds of one unit of time."""
        parts = ("layer_s", "recompute_s", "chunk_s")
        return max(sum(float(self.row(part).sum()) for part in parts), 1e-300) / TIME_STEPS

    @cached_property
    def units(self) -> StageUnits:
        """The problem in whole units, memory never rounded down."""
        unit = max(float(self.row("capacity_bytes").max()), 1e-300) / MEMORY_STEPS
        too_much = 8.0 * MEMORY_STEPS

        def time(name: str) -> Ints:
            return np.rint(self.row(name) / self.time_unit_s).astype(np.int64)

        def memory(size_bytes: Floats) -> Floats:
            return np.minimum(size_bytes / unit, too_much)

        saved = self.row("activation_bytes") - self.row("recomputed_bytes")
        kept = np.outer(self.row("in_flight"), self.row("activation_bytes"))
        return StageUnits(
            layer_time=time("layer_s"),
            again_time=time("recompute_s"),
            chunk_time=time("chunk_s"),
            layer_held=np.ceil(memory(self.row("layer_bytes") + kept)).astype(np.int64),
            layer_saved=np.floor(memory(np.outer(self.row("in_flight"), saved))).astype(np.int64),
            chunk_held=np.ceil(memory(self.row("chunk_bytes"))).astype(np.int64),
            capacity=np.floor(memory(self.row("capacity_bytes"))).astype(np.int64),
            rank=self.rank,
            min_layers=self.min_layers,
        )

    def costs(
        self, stage_layers: Sequence[int], recompute_layers: Sequence[int]
    ) -> tuple[Floats, Floats]:
        """Seconds and bytes of each rank under a layout, shape (pp,)."""
        end = np.cumsum(stage_layers)
        begin = end - np.asarray(stage_layers)
        kept = begin + np.asarray(recompute_layers)

        def between(name: str, low: Ints, high: Ints) -> Floats:
            before = np.concatenate([[0.0], np.cumsum(self.row(name))])
            return np.asarray(before[high] - before[low])

        seconds = self.row("chunk_s") + between("layer_s", begin, end)
        seconds = seconds + between("recompute_s", begin, kept)
        activations = between("activation_bytes", kept, end)
        activations = activations + between("recomputed_bytes", begin, kept)
        held = self.row("chunk_bytes") + between("layer_bytes", begin, end)
        held = held + self.row("in_flight") * activations
        return (
            np.bincount(self.rank, seconds, self.pp).astype(np.float64),
            np.bincount(self.rank, held, self.pp).astype(np.float64),
        )


_PER_LAYER = ("layer_s", "recompute_s", "layer_bytes", "activation_bytes", "recomputed_bytes")
_PER_CHUNK = ("chunk_s", "chunk_bytes", "in_flight")


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """Layers of each chunk in model order, and what is known about it."""

    proof: Proof
    stage_layers: tuple[int, ...] = ()
    recompute_layers: tuple[int, ...] = ()
    """The first so many of each chunk."""
    slowest_s: float = float("inf")
    """Time of the slowest rank for one micro-batch."""
    bound_s: float = 0.0
    """No layout's slowest rank is faster, but for rounding."""
    rank_s: tuple[float, ...] = ()
    rank_bytes: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, problem: StageProblem, proof: Proof, found: Assignment | None, bound_s: float
    ) -> Self:
        """The plan that the solver's answer stands for, priced anew."""
        if found is None:
            return cls(proof=proof, bound_s=bound_s)
        seconds, held = problem.costs(found.stage_layers, found.recompute_layers)
        slowest_s = float(seconds.max())
        return cls(
            proof=proof,
            stage_layers=found.stage_layers,
            recompute_layers=found.recompute_layers,
            slowest_s=slowest_s,
            bound_s=slowest_s if proof == Proof.OPTIMAL else min(bound_s, slowest_s),
            rank_s=tuple(seconds.tolist()),
            rank_bytes=tuple(held.tolist()),
        )

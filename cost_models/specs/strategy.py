"""The vocabulary of a parallel layout: one strategy, and many of them as columns.

``Strategies`` holds one array per knob.  The arrays broadcast against each other, so
a list of n strategies has columns of shape (n,), and a grid of L layouts by K inner
knobs has layout columns of shape (L, 1) and knob columns of shape (1, K): a term that
depends on the layout alone is then computed L times, not L K times, by the very same
equation.

Ranks: dp * tp * pp * cp is the world size.  The experts' mapping is its own
factorization of the same ranks: world / pp = etp * ep * edp.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from enum import IntEnum, IntFlag
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.errors import SpecError


class Label(IntEnum):
    """A choice with the name that people and files use."""

    @property
    def label(self) -> str:
        """The name in lower case with dashes, as on the command line."""
        return self.name.lower().replace("_", "-").lstrip("-")

    @classmethod
    def parse(cls, text: str) -> Self:
        """The member called ``text``; raises SpecError with the known names."""
        for member in cls:
            if member.label == text.lower():
                return member
        known = [member.label for member in cls]
        close = get_close_matches(text.lower(), known, n=1)
        raise SpecError(
            f"unknown {cls.__name__.lower()} {text!r}",
            hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}",
        )


class Schedule(Label):
    """Pipeline schedules; with one stage they are all the same."""

    _1F1B = 0
    INTERLEAVED = 1
    GPIPE = 2
    ZB_1P = 3
    ZB_2P = 4
    ZB_V = 5
    DUALPIPE = 6


class Sharding(Label):
    """What data-parallel ranks share out among themselves instead of repeating."""

    NONE = 0
    ZERO1 = 1
    """Optimizer state (Megatron's distributed optimizer)."""
    ZERO2 = 2
    """Optimizer state and gradients."""
    ZERO3 = 3
    """Optimizer state, gradients and weights, as DeepSpeed does."""
    FSDP = 4
    """Optimizer state, gradients and weights, as PyTorch's fully_shard and Megatron-FSDP do."""
    HSDP = 5
    """FSDP inside groups of ``dp_shard`` ranks, replicated between the groups."""


class ContextParallel(Label):
    """How attention sees the whole sequence when ranks hold parts of it."""

    P2P = 0
    """Keys and values go round a ring (Ring Attention)."""
    ALL_GATHER = 1
    A2A = 2
    """Heads for sequence, as DeepSpeed-Ulysses."""
    A2A_P2P = 3
    """All-to-all inside the NVLink domain, a ring between domains."""


class Precision(Label):
    """Format of the GEMMs' inputs."""

    BF16 = 0
    FP16 = 1
    FP8 = 2
    MXFP8 = 3
    NVFP4 = 4


class Order(Label):
    """Placement of the dimensions on the network, innermost first."""

    TP_CP_EP_DP_PP = 0
    TP_CP_EP_PP_DP = 1
    """Megatron-LM's --use-tp-pp-dp-mapping."""


class Recompute(IntFlag):
    """What is computed again in the backward pass instead of being kept."""

    NONE = 0
    CORE_ATTN = 1
    LAYERNORM = 2
    ACTIVATION = 4
    """The MLP's non-linearity: Megatron's moe_act, and its like in dense layers."""
    MLA_UP_PROJ = 8
    MLP = 16
    """The whole dense MLP."""
    MOE = 32
    """The whole MoE block, dispatch included."""
    SHARED_EXPERTS = 64
    FULL = 128
    """Whole layers, ``recompute_layers`` of them on each pipeline rank."""

    @property
    def label(self) -> str:
        """``none``, ``full``, or the modules joined by ``+``; ``selective`` is core_attn."""
        if self == Recompute.NONE:
            return "none"
        if self & Recompute.FULL:
            return "full"
        if self == Recompute.CORE_ATTN:
            return "selective"
        return "+".join(str(flag.name).lower() for flag in Recompute if flag & self)

    @classmethod
    def parse(cls, text: str) -> "Recompute":
        """Inverse of :attr:`label`; raises SpecError with the known modules."""
        if text == "selective":
            return cls.CORE_ATTN
        value = cls.NONE
        for part in text.lower().split("+"):
            if part.upper() not in cls.__members__:
                known = ["none", "selective", "full"]
                known += [str(flag.name).lower() for flag in cls if flag is not cls.FULL]
                raise SpecError(
                    f"unknown recompute {part!r} in {text!r}", hint=f"known: {', '.join(known)}"
                )
            value |= cls[part.upper()]
        if value & cls.FULL and value != cls.FULL:
            raise SpecError(f"recompute {text!r}: full already covers the other modules")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """One layout with all its knobs; see the module docstring for the law of ranks."""

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    etp: int = 1
    """Expert tensor parallel: how many ranks share one expert's matrices."""
    vpp: int = 1
    """Model chunks on each pipeline rank."""
    micro_batch_size: int = 1
    schedule: Schedule = Schedule._1F1B
    sequence_parallel: bool = False
    sharding: Sharding = Sharding.NONE
    dp_shard: int = 1
    """Data-parallel ranks in one sharding group: dp, or a divisor of it under HSDP; 1 for none."""
    reshard_after_forward: bool = True
    """FSDP frees the gathered weights after the forward pass and gathers them again."""
    recompute: Recompute = Recompute.NONE
    recompute_layers: int = 0
    """With ``full``: layers recomputed on each pipeline rank; 0 is all of them."""
    cp_comm: ContextParallel = ContextParallel.P2P
    optimizer_offload: float = 0.0
    """Share of the optimizer state kept in host memory."""
    activation_offload: float = 0.0
    """Share of the kept activations sent to host memory between forward and backward."""
    precision: Precision = Precision.BF16
    overlap_grad_reduce: bool = True
    overlap_param_gather: bool = True
    overlap_tp: bool = False
    """Collectives of tensor parallel pipelined with their GEMMs (--tp-comm-overlap)."""
    overlap_ep: bool = False
    """All-to-all of one micro-batch under the compute of another."""
    overlap_p2p: bool = True
    order: Order = Order.TP_CP_EP_DP_PP
    stage_layers: tuple[int, ...] | None = None
    """Layers of each pipeline chunk in model order (pp * vpp of them); None is even."""

    @property
    def world_size(self) -> int:
        """GPUs that the strategy uses."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def edp(self) -> int:
        """Data-parallel copies of one expert."""
        return self.world_size // (self.pp * self.ep * self.etp)

    def to_json(self) -> dict[str, Any]:
        """Plain values under the short keys of the public documents."""
        document: dict[str, Any] = {}
        for name, value in ((f.name, getattr(self, f.name)) for f in fields(self)):
            if isinstance(value, (Label, Recompute)):
                document[name] = value.label
            elif isinstance(value, tuple):
                document[name] = list(value)
            else:
                document[name] = value
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Strategy":
        """Inverse of :meth:`to_json`; missing keys take their defaults, unknown ones raise."""
        values: dict[str, Any] = {}
        for name, value in document.items():
            if name not in COLUMN_KINDS and name != "stage_layers":
                raise SpecError(f"unknown strategy key {name!r}")
            kind = COLUMN_KINDS.get(name)
            if name == "stage_layers":
                values[name] = None if value is None else tuple(int(n) for n in value)
            elif kind is not None and issubclass(kind, (Label, Recompute)):
                values[name] = kind.parse(value) if isinstance(value, str) else kind(value)
            elif kind is not None:
                values[name] = kind(value)
        return cls(**values)

    def with_(self, **changes: Any) -> "Strategy":
        """A copy with some knobs changed."""
        return replace(self, **changes)


COLUMN_KINDS: Mapping[str, type[Any]] = {
    f.name: type(f.default) for f in fields(Strategy) if f.name != "stage_layers"
}
"""Python type of each column's values."""

_DTYPES = {bool: np.bool_, float: np.float64}
Column = NDArray[Any]


class Strategies:
    """Many strategies as columns that broadcast against each other.

    Columns are attributes with the names of :class:`Strategy`'s fields: integer codes
    for the choices, float64 for the shares, bool for the switches.  ``stage_layers`` is
    ``None``, or an integer array of shape (chunks, *shape) padded with zeros.
    """

    __slots__ = ("_columns", "shape", "stage_layers")

    def __init__(self, *, stage_layers: NDArray[np.int64] | None = None, **columns: Any) -> None:
        defaults = Strategy()
        table: dict[str, Column] = {}
        for name, kind in COLUMN_KINDS.items():
            value = columns.pop(name, getattr(defaults, name))
            dtype = _DTYPES.get(kind, np.int64)
            table[name] = np.asarray(value, dtype=dtype)
        if columns:
            raise SpecError(f"unknown strategy column {next(iter(columns))!r}")
        self._columns = table
        self.shape = np.broadcast_shapes(*(c.shape for c in table.values()))
        self.stage_layers = stage_layers

    def __getattr__(self, name: str) -> Column:
        try:
            return self._columns[name]
        except KeyError:
            raise AttributeError(name) from None

    def __len__(self) -> int:
        """How many strategies, whatever the shape."""
        return int(np.prod(self.shape))

    @property
    def columns(self) -> Mapping[str, Column]:
        """All columns by name, as they are stored."""
        return self._columns

    @classmethod
    def of(cls, strategies: Iterable[Strategy] | Strategy) -> "Strategies":
        """Columns of shape (n,) from single strategies; one strategy is a batch of one."""
        rows: Sequence[Strategy] = (
            [strategies] if isinstance(strategies, Strategy) else list(strategies)
        )
        columns = {name: [getattr(row, name) for row in rows] for name in COLUMN_KINDS}
        stage_layers = None
        if any(row.stage_layers for row in rows):
            chunks = max(len(row.stage_layers or ()) for row in rows)
            stage_layers = np.zeros((chunks, len(rows)), dtype=np.int64)
            for i, row in enumerate(rows):
                given = row.stage_layers or ()
                stage_layers[: len(given), i] = given
        return cls(stage_layers=stage_layers, **columns)

    def flat(self) -> "Strategies":
        """The same strategies with every column of shape (n,)."""
        columns = {
            name: np.broadcast_to(c, self.shape).reshape(-1) for name, c in self._columns.items()
        }
        stages = self.stage_layers
        if stages is not None:
            stages = np.broadcast_to(stages, (stages.shape[0], *self.shape)).reshape(
                stages.shape[0], -1
            )
        return Strategies(stage_layers=stages, **columns)

    def take(self, indices: NDArray[Any]) -> "Strategies":
        """Rows by flat index or by mask, as columns of shape (k,)."""
        indices = np.asarray(indices)
        if indices.dtype == np.bool_:
            indices = np.flatnonzero(np.broadcast_to(indices, self.shape))
        where = np.unravel_index(indices, self.shape) if self.shape else None
        columns = {
            name: (
                np.broadcast_to(c, self.shape)[where]
                if where is not None
                else np.broadcast_to(c, indices.shape)
            )
            for name, c in self._columns.items()
        }
        stages = self.stage_layers
        if stages is not None and where is not None:
            stages = np.broadcast_to(stages, (stages.shape[0], *self.shape))
            stages = stages.reshape(stages.shape[0], -1)[:, indices]
        return Strategies(stage_layers=stages, **columns)

    def row(self, index: int) -> Strategy:
        """One strategy by its flat index."""
        one = self.take(np.array([index]))
        values: dict[str, Any] = {
            name: kind(one.columns[name][0].item()) for name, kind in COLUMN_KINDS.items()
        }
        if one.stage_layers is not None and one.stage_layers[:, 0].any():
            count = values["pp"] * values["vpp"]
            values["stage_layers"] = tuple(int(n) for n in one.stage_layers[:count, 0])
        return Strategy(**values)

    def rows(self) -> list[Strategy]:
        """All of them, one by one."""
        return [self.row(i) for i in range(len(self))]

    @classmethod
    def concatenate(cls, parts: Sequence["Strategies"]) -> "Strategies":
        """Flat columns of all parts, in order; none of them may have stage_layers."""
        flats = [part.flat() for part in parts]
        return cls(
            **{name: np.concatenate([f.columns[name] for f in flats]) for name in COLUMN_KINDS}
        )

    @property
    def world_size(self) -> Column:
        """GPUs of each strategy."""
        return np.asarray(self.dp * self.tp * self.pp * self.cp)

    @property
    def edp(self) -> Column:
        """Data-parallel copies of one expert, rounded down where the mapping is illegal."""
        return np.asarray(self.dp * self.tp * self.cp // (self.ep * self.etp))

    @property
    def state_shards(self) -> Column:
        """Ranks that share out the dense optimizer state: dp_shard * cp, or 1 unsharded."""
        return np.asarray(np.where(self.sharding == Sharding.NONE, 1, self.dp_shard * self.cp))

"""The inner knobs as axes of a grid, each with the columns that it decides.

Layouts that agree on a few facts (``tp`` above 1, a looped schedule, ...) form a class
and share one set of axes.  A grid has one dimension for every axis with more than one
value and the layouts as its last one, so that inner loops run over layouts and a term
is computed for the axes it depends on, no more.

Columns that depend on the layout as well, the shard group and the layers to recompute,
have the shape (axis, layout); entries of such an axis that a layout does not have, or
that repeat another one there, are masked out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
)
from cost_models.specs.units import Ints
from search.rules.rule import LAYOUT_AXES, Mask
from search.space.canonical import REGATHERED, replicas
from search.space.space import Space

LAYOUT = "layout"
"""Name of the last dimension."""


@dataclass(frozen=True, slots=True)
class KnobAxis:
    """Joint choices of one or a few knobs."""

    name: str
    columns: Mapping[str, NDArray[Any]]
    """Of shape (size,), or (size, layouts) where the layout has a say."""
    valid: Mask | None = None
    """Of shape (size, layouts): which choices each layout has, each once; None is all."""
    offered: tuple[Any, ...] = ()
    """Of the parameter gather's overlap: values that the space has where it has an effect."""
    labels: tuple[Any, ...] = ()
    """Names of the choices that are the same in every class; none where the columns tell."""

    @property
    def size(self) -> int:
        """Number of choices."""
        return len(next(iter(self.columns.values())))

    def only(self, choices: Mask | None, layouts: Mask) -> "KnobAxis":
        """The axis with some of its choices and for some layouts; None is all choices."""
        some = slice(None) if choices is None else choices

        def cut(column: NDArray[Any]) -> NDArray[Any]:
            return column[some] if column.ndim == 1 else column[some][:, layouts]

        columns = {name: cut(column) for name, column in self.columns.items()}
        valid = None if self.valid is None else cut(self.valid)
        kept = np.arange(self.size)[some]
        labels = tuple(self.labels[i] for i in kept) if self.labels else ()
        return KnobAxis(self.name, columns, valid, self.offered, labels)

    def of_layouts(self, layouts: Ints) -> "KnobAxis":
        """The axis for some of its layouts, any of them more than once."""

        def cut(column: NDArray[Any]) -> NDArray[Any]:
            return column[:, layouts] if column.ndim > 1 and column.shape[1] > 1 else column

        columns = {name: cut(column) for name, column in self.columns.items()}
        valid = None if self.valid is None else cut(self.valid)
        return KnobAxis(self.name, columns, valid, self.offered, self.labels)


@dataclass(frozen=True, slots=True)
class Facts:
    """What decides which knobs have an effect."""

    tensor: bool
    context: bool
    expert: bool
    shared: bool
    """Some ranks hold the same weights."""
    looped: bool
    """The schedule keeps p2p apart from compute: anything but 1F1B and GPipe."""
    ordered: bool
    """Stages and replicas both exist, so that their order on the network matters."""


def classes(space: Space, layouts: Strategies) -> Iterator[tuple[Facts, Ints]]:
    """Distinct facts with the positions of the layouts that have them, in a fixed order."""
    if not len(layouts):
        return
    sequential = np.isin(layouts.schedule, (Schedule._1F1B, Schedule.GPIPE))
    columns = (
        layouts.tp > 1,
        layouts.cp > 1,
        layouts.ep > 1,
        replicas(layouts, moe=space.moe),
        (layouts.pp > 1) & ~sequential,
        (layouts.pp > 1) & (layouts.dp > 1),
    )
    table = np.stack([np.broadcast_to(column, layouts.shape) for column in columns], axis=1)
    rows, which = np.unique(table, axis=0, return_inverse=True)
    for index, row in enumerate(rows):
        yield Facts(*(bool(fact) for fact in row)), np.flatnonzero(which.reshape(-1) == index)


def knob_axes(
    space: Space, facts: Facts, layouts: Strategies, n_layers: int
) -> tuple[KnobAxis, ...]:
    """The axes of a class's grid, for some of its layouts, in a fixed order."""
    axes = space.axes

    def choice(name: str, effective: bool, neutral: Any) -> KnobAxis:
        values = axes[name] if effective else (neutral,)
        return KnobAxis(name, {name: np.array(values)})

    return (
        _sharding(space, facts, layouts),
        choice("sequence_parallel", facts.tensor, False),
        choice("precision", True, None),
        choice("overlap_tp", facts.tensor, False),
        choice("cp_comm", facts.context, ContextParallel.P2P),
        choice("order", facts.ordered, Order.TP_CP_EP_DP_PP),
        choice("overlap_ep", facts.expert, False),
        _kept(space, layouts, n_layers),
        choice("optimizer_offload", True, 0.0),
        choice("overlap_p2p", facts.looped, False),
        _reduce(space, facts),
    )


def _sharding(space: Space, facts: Facts, layouts: Strategies) -> KnobAxis:
    """Sharding with its group and whether weights are freed after the forward pass."""
    rows: dict[tuple[Sharding, int, bool], None] = {}
    for sharding in space.axes["sharding"]:
        if not facts.shared:
            sharding = Sharding.NONE  # noqa: PLW2901  one rank shares nothing
        groups = space.axes["dp_shard"] if sharding == Sharding.HSDP else (0,)
        regathered = sharding in REGATHERED
        reshard = space.axes["reshard_after_forward"] if regathered else (True,)
        rows |= dict.fromkeys(product([sharding], groups, reshard))
    kind, group, reshards = (np.array(column) for column in zip(*rows, strict=True))
    dp = np.broadcast_to(layouts.dp, layouts.shape)
    group = group[:, None]
    hsdp = (kind == Sharding.HSDP)[:, None]
    whole = np.where((kind == Sharding.NONE)[:, None], 1, dp)
    inside = (group > 1) & (group < dp) & (dp % np.maximum(group, 1) == 0)
    return KnobAxis(
        "sharding",
        {
            "sharding": kind,
            "dp_shard": np.where(hsdp, np.maximum(group, 1), whole),
            "reshard_after_forward": reshards,
        },
        valid=~hsdp | inside,
        labels=tuple(rows),
    )


def layers_to_recompute(layers: float, n_layers: int, pp: int, vpp: int) -> int | None:
    """A count of a rank's layers, 0 for all of them, None for more than there are.

    Shares, between 0 and 1, are rounded up to as many layers in every chunk.
    """
    largest = -(-n_layers // pp)
    count = ceil(layers * largest / vpp) * vpp if isinstance(layers, float) else layers
    if count > largest and not isinstance(layers, float):
        return None
    return count if count < largest else 0


def _kept(space: Space, layouts: Strategies, n_layers: int) -> KnobAxis:
    """What is recomputed, in how many layers of a rank, and what is offloaded."""
    settings: list[tuple[Recompute, Any]] = []
    for recompute in space.axes["recompute"]:
        full = recompute == Recompute.FULL
        settings += [
            (recompute, layers) for layers in (space.axes["recompute_layers"] if full else (0,))
        ]
    chunks = np.stack(
        [np.broadcast_to(column, layouts.shape) for column in (layouts.pp, layouts.vpp)], axis=1
    )
    stages, which = np.unique(chunks, axis=0, return_inverse=True)
    counts = np.zeros((len(settings), len(stages)), dtype=np.int16)
    valid = np.zeros(counts.shape, dtype=np.bool_)
    for column, (pp, vpp) in enumerate(stages.tolist()):
        seen = set()
        for row, (recompute, layers) in enumerate(settings):
            count = layers_to_recompute(layers, n_layers, pp, vpp)
            if count is not None and (recompute, count) not in seen:
                seen.add((recompute, count))
                counts[row, column], valid[row, column] = count, True
    offloads = space.axes["activation_offload"]
    repeat = len(offloads)
    return KnobAxis(
        "kept",
        {
            "recompute": np.repeat(np.array([int(r) for r, _ in settings]), repeat),
            "recompute_layers": np.repeat(counts[:, which.reshape(-1)], repeat, axis=0),
            "activation_offload": np.tile(np.array(offloads), len(settings)),
        },
        valid=np.repeat(valid[:, which.reshape(-1)], repeat, axis=0),
        labels=tuple((*setting, offload) for setting in settings for offload in offloads),
    )


def _reduce(space: Space, facts: Facts) -> KnobAxis:
    """Overlap of the gradients' reduction and of the weights' gathering."""
    grads = space.axes["overlap_grad_reduce"] if facts.shared else (False,)
    params = space.axes["overlap_param_gather"] if facts.shared else (False,)
    rows = list(product(grads, dict.fromkeys((*params, False))))
    return KnobAxis(
        "reduce",
        {
            "overlap_grad_reduce": np.array([row[0] for row in rows]),
            "overlap_param_gather": np.array([row[1] for row in rows]),
        },
        offered=tuple(params),
    )


def grid(
    layouts: Strategies, axes: Sequence[KnobAxis], closed: Mapping[str, Any] = MappingProxyType({})
) -> Strategies:
    """Strategies of the shape (axes with several choices, layouts); ``closed`` columns are fixed.

    An axis whose columns are all closed takes no dimension.
    """
    opened = [axis for axis in axes if not all(name in closed for name in axis.columns)]
    wide = [axis for axis in opened if axis.size > 1]
    n_dims = len(wide) + 1
    columns: dict[str, Any] = {}
    for name in LAYOUT_AXES:
        column = np.broadcast_to(layouts.columns[name], layouts.shape)
        columns[name] = column.reshape((1,) * (n_dims - 1) + (-1,))
    for axis in opened:
        place = next((i for i, one in enumerate(wide) if one is axis), 0)
        for name, column in axis.columns.items():
            last = column.shape[1] if column.ndim > 1 else 1
            shape = [1] * n_dims
            if axis.size > 1:
                shape[place] = axis.size
            shape[-1] = last
            columns[name] = column.reshape(shape)
    for name, value in closed.items():
        columns[name] = np.reshape(value, (1,) * n_dims)
    return Strategies(**columns)


def dimensions(axes: Sequence[KnobAxis]) -> tuple[str, ...]:
    """Names of the dimensions of :func:`grid` with all axes open."""
    return (*(axis.name for axis in axes if axis.size > 1), LAYOUT)

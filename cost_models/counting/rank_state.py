"""What every representative pipeline rank holds: layers, parameters, bytes of their state.

Arrays of :class:`Stages`, and ``dense`` and ``experts`` of :class:`State`, have one axis in
front of the strategies' shape, the representative ranks
(:func:`cost_models.counting.partition.representative_ranks`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.counting import shards
from cost_models.counting.partition import StageLayers
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Sharding, Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """What the representative pipeline ranks hold; axis 0 is the rank."""

    n_layers: Floats
    n_moe: Floats
    n_windowed: Floats
    has_embedding: Floats
    has_head: Floats
    n_mtp: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Parameters on one rank of each representative stage, axis 0 the rank."""

    dense: Floats
    experts: Floats
    dense_shards: Floats
    expert_shards: Floats
    bucket_parameters: Floats
    """Parameters whose gradients travel in one collective."""
    grad_reduce_bytes: Floats
    param_gather_bytes: Floats
    overlaps: Floats
    """1.0 where the framework can reduce gradients during the backward pass."""
    scatters: Floats
    """1.0 where ZeRO-1 reduces a gradient to its owner alone."""
    accumulated_bytes: Floats
    """Bytes per parameter and micro-batch to add gradients to their buffer."""
    updated_bytes: Floats
    """Bytes that the optimizer reads and writes per parameter of its own."""
    offloaded_bytes: Floats
    """Bytes per parameter that cross to the host and back when its state lives there."""


def stack(values: Sequence[ArrayLike], shape: tuple[int, ...] | None = None) -> Floats:
    """One value per rank as an array with the ranks in front, ``shape`` behind them."""
    arrays = [np.asarray(value, dtype=np.float64) for value in values]
    shape = np.broadcast_shapes(*(a.shape for a in arrays)) if shape is None else shape
    return np.stack([np.broadcast_to(a, shape) for a in arrays])


def stages_of(
    model: ModelSpec, held: Sequence[StageLayers], shape: tuple[int, ...] | None = None
) -> Stages:
    """Layers, embedding and heads of the ranks that hold ``held``."""
    head = stack([h.has_head for h in held], shape)
    return Stages(
        n_layers=stack([h.n_layers for h in held], shape),
        n_moe=stack([h.n_moe for h in held], shape),
        n_windowed=stack([h.n_windowed for h in held], shape),
        has_embedding=stack([h.has_embedding for h in held], shape),
        has_head=head,
        n_mtp=head * model.mtp_layers,
    )


def state_of(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    held: Sequence[StageLayers],
    shape: tuple[int, ...] | None = None,
) -> State:
    """Parameters of the ranks that hold ``held``, and what their state moves."""
    p = shards.layer_parameters(model, s)
    framework, optimizer = workload.framework, workload.optimizer
    own = [shards.rank_parameters(p, model, rank) for rank in held]
    state = optimizer.moments_bytes + optimizer.master_bytes
    on_gpu = 1.0 - s.optimizer_offload
    overlapping = [int(Sharding.parse(kind)) for kind in framework.overlaps_gradients]
    return State(
        dense=stack([rank.dense for rank in own], shape),
        experts=stack([rank.experts for rank in own], shape),
        dense_shards=shards.dense_shards(s),
        expert_shards=shards.expert_shards(s),
        bucket_parameters=np.asarray(framework.bucket_parameters),
        grad_reduce_bytes=np.asarray(framework.grad_reduce_bytes),
        param_gather_bytes=np.asarray(framework.param_gather_bytes),
        overlaps=np.isin(s.sharding, overlapping).astype(np.float64),
        scatters=np.asarray(float(framework.scatters_gradients)),
        accumulated_bytes=np.asarray(framework.accumulated_bytes),
        updated_bytes=np.asarray(2.0 * state * on_gpu + framework.grads_bytes + 2.0),
        offloaded_bytes=np.asarray((framework.grads_bytes + 2.0) * s.optimizer_offload),
    )

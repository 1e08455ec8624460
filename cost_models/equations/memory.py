"""Bytes on the fullest GPU: state, activations in flight, logits, buffers.

Per pipeline rank r, with P_r parameters of its own (dense and experts apart, each
sharded over its own group of d ranks):

    weights     P b_w,  or P b_w / d + the gathered layers where weights are sharded   (1)
    gradients   P b_g,  or P b_g / d from ZeRO-2 on                                    (2)
    optimizer   P b_o / d from ZeRO-1 on                                               (3)
    activations f_r (l_r A + ...) + the working tensors of one layer                   (4)
    logits      tokens v / t b_v on the last stage                                     (5)
    update      copies that a sharded optimizer makes of P and P / d                   (6)
    held        full-width outputs of the layers that the host has launched and the
                GPU has yet to run, freed and not to be had again                      (7)

=========  ====================================================  ==========================
symbol     meaning                                               name or module
=========  ====================================================  ==========================
P, d       parameters of the rank; ranks that shard them         ``counting.shards``
b_w, b_g,  bytes per parameter: weight, gradient, optimizer      ``weights_bytes``, ...
b_o        state (moments and master copy)
l_r, A     layers of rank r; bytes that one keeps per token      ``counting.activations``
f_r        micro-batches in flight on rank r                     ``pipeline.in_flight``
v, t, b_v  vocabulary; tensor-parallel ranks; bytes per logit    ``logits_bytes``
=========  ====================================================  ==========================

f_r micro-batches are in flight on rank r (:func:`cost_models.equations.pipeline.in_flight`) and A
is what one layer keeps of a micro-batch (:mod:`cost_models.counting.activations`).  A rank's peak
is the larger of (4) + (5) during the backward pass, plus its state; of (6), made when no activation
is alive, the allocator finds room for a share only, and (7) is reserved memory without
being allocated [3].  The fullest of the representative ranks counts.

References
----------
.. [1] S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
   Models," SC 2020, section 5. arXiv:1910.02054
.. [2] V. Korthikanti et al., 2022, section 4. arXiv:2205.05198
.. [3] PyTorch, ``Tensor.record_stream``: a block that another stream uses is free for
   reuse only once that stream has passed the point of its release.
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting import shards
from cost_models.counting.activations import LayerActivations, layer_activations
from cost_models.counting.partition import StageLayers, representative_ranks, stage_layers
from cost_models.equations.constants import Constants
from cost_models.equations.pipeline import first_in_flight, in_flight
from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategies
from cost_models.specs.units import Floats, Ints
from cost_models.specs.workload import Workload

MEMORY_TERMS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "communication_buffers",
    "framework",
)

LAUNCHED_LAYERS = 28.0
"""CUDA queues 1024 launches; a layer's eager forward pass has about 36."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCost:
    """Bytes on the fullest rank; terms sum to ``total_bytes``, the reserved memory."""

    total_bytes: Floats
    terms: dict[str, Floats]
    first_rank_bytes: Floats
    """Total bytes on pipeline rank 0, whose memory many logs print."""
    by_rank: list[dict[str, Floats]]
    """Terms on each representative pipeline rank."""
    rank: Floats
    """The pipeline rank that is fullest."""


def _static(
    model: ModelSpec, workload: Workload, s: Strategies, held: StageLayers
) -> dict[str, Floats]:
    """Equations (1) to (3) and (6) on one pipeline rank."""
    p, f, o = shards.layer_parameters(model, s), workload.framework, workload.optimizer
    own = shards.rank_parameters(p, model, held)
    dense, experts = own.dense, own.experts
    d, e = shards.dense_shards(s), shards.expert_shards(s)
    sharded, split_grads = shards.shards_weights(s), shards.shards_gradients(s)
    spread = dense / d + experts / e
    whole = dense + experts
    layer = p.attention + np.maximum(p.dense_mlp, p.moe_dense + p.experts)
    gathered = np.where(
        s.reshard_after_forward,
        np.minimum(f.fsdp_prefetch_layers * layer + own.head, whole),
        whole,
    )
    eight_bit = s.precision >= Precision.FP8
    cached = np.where(eight_bit, f.eight_bit_weight_bytes, 0.0)
    weights_whole = whole * (f.weights_bytes + cached)
    weights_spread = spread * f.fsdp_weights_bytes + gathered * (f.param_gather_bytes + cached)
    grads_whole = np.where(split_grads, spread, whole) * f.grads_bytes
    grads_spread = spread * f.fsdp_grads_bytes + np.minimum(layer, whole) * f.weights_bytes
    # fp32 weights are their own master copy
    copy = o.master_bytes / 2.0 if f.master_remainder else o.master_bytes
    own_bytes = np.where(sharded > 0, f.fsdp_weights_bytes, f.weights_bytes)
    master = np.where(own_bytes >= 4.0, 0.0, copy)
    trained = 0.0 if workload.frozen_weights else 1.0
    alone = (s.sharding == Sharding.NONE) & (s.dp * s.cp > 1)
    sent = np.where((sharded > 0) | (s.dp * s.cp == 1), 0.0, whole)
    most = f.update_gather_parameters or np.inf
    update = np.minimum(sent, most) * f.update_gather_bytes
    update = update + spread * f.update_shard_bytes
    state = trained * (o.moments_bytes + master) * (1.0 - s.optimizer_offload)
    return {
        "weights": np.where(sharded > 0, weights_spread, weights_whole),  # (1)
        "gradients": trained  # (2)
        * (
            np.where(sharded > 0, grads_spread, grads_whole)
            + np.where(alone, whole, 0.0) * f.unsharded_bucket_bytes
        ),
        "optimizer": spread * state,  # (3)
        "update": trained * np.where(s.sharding == Sharding.NONE, 0.0, update),  # (6)
        "parameters": whole,
    }


def _recomputed_layers(s: Strategies, held: StageLayers) -> Floats:
    """Layers of this rank that are recomputed whole."""
    full = (s.recompute & int(Recompute.FULL)) != 0
    asked = np.where(s.recompute_layers > 0, s.recompute_layers, held.n_layers)
    return np.where(full, np.minimum(asked, held.n_layers), 0.0)


def activation_bytes_kept(act: LayerActivations, s: Strategies, held: StageLayers) -> Floats:
    """Bytes per token that one rank's layers keep of one micro-batch."""
    recomputed = _recomputed_layers(s, held)
    kept_share = 1.0 - recomputed / np.maximum(held.n_layers, 1.0)
    whole = (
        held.n_layers * act.attention + held.n_dense * act.dense_mlp + held.n_moe * act.moe
    ) * kept_share
    return np.asarray(whole + recomputed * act.checkpoint)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMemory:
    """What one pipeline rank holds, before anything calibrated."""

    weights: Floats
    gradients: Floats
    optimizer: Floats
    resident: Floats
    """Activations of the micro-batches in flight."""
    working: Floats
    """Everything that the layer in its backward pass keeps."""
    recomputed: Floats
    """The part of ``working`` that is not among ``resident``: it is computed again."""
    head_input: Floats
    logits: Floats
    overgrown: Floats
    """Unsharded gradients of a backward pass beyond the activations that it frees."""
    update: Floats
    """Copies that the optimizer step makes, while no activation is alive."""
    gathered: Floats
    """Buffers that collectives of sequence-parallel keep."""
    held: Floats
    """Freed before the GPU came to read them, and not to be had again before it has."""
    n_communicators: Floats


def rank_memory(
    model: ModelSpec, workload: Workload, s: Strategies, held: StageLayers, act: LayerActivations
) -> RankMemory:
    """Equations (1) to (7) on one pipeline rank."""
    tokens = shards.tokens_per_rank(s, workload.sequence_length)
    w = shards.widths(model, s)
    m = shards.micro_batches(s, workload.global_batch_size)
    flying = in_flight(s.schedule, m, s.pp, s.vpp, held.rank)
    kept = activation_bytes_kept(act, s, held)
    uneven = _uneven_chunks(s, held, flying, m) * kept / np.maximum(held.n_layers, 1.0)
    h = model.hidden_size / w.sequence_parts
    # the embedding's output is the first layer's input: only a dropout mask is left
    embedding = held.has_embedding * h * (1.0 if model.dropout else 0.0)
    again = _recomputed_layers(s, held) / np.maximum(held.n_layers, 1.0)
    module = act.attention + (act.moe if model.is_moe else act.dense_mlp)
    module = module * (1.0 - again) + act.checkpoint * again
    mtp = held.has_head * model.mtp_layers * (module + 4.0 * h)
    whole = np.where(held.n_moe > 0, np.maximum(act.whole_dense, act.whole_moe), act.whole_dense)
    gathered = 1.0 if workload.framework.vocab_parallel_loss else s.tp
    logits = held.has_head * w.vocab * gathered * workload.framework.logits_bytes
    static = _static(model, workload, s, held)
    of_logits = np.asarray(tokens * logits * (1.0 + model.mtp_layers))
    head_input = tokens * held.has_head * 4.0 * h
    # a backward pass leaves as much gradient as it frees activations, or more
    working_bytes = workload.framework.working_grads_bytes * (not workload.frozen_weights)
    working_grads = static["parameters"] * working_bytes
    freed = tokens * kept * (1.0 - s.activation_offload) + of_logits + head_input
    full_width = tokens * model.hidden_size * 2.0 * (w.sequence_parts > 1)
    return RankMemory(
        weights=static["weights"],
        gradients=static["gradients"],
        optimizer=static["optimizer"],
        resident=tokens  # (4), with working and recomputed
        * (flying * (kept + embedding + mtp) + uneven)
        * (1.0 - s.activation_offload),
        working=tokens * whole,
        recomputed=tokens * np.where(_recomputed_layers(s, held) > 0, whole, 0.0),
        head_input=head_input,
        logits=of_logits,  # (5)
        overgrown=np.maximum(working_grads - freed, 0.0) if working_bytes else np.zeros(()),
        update=static["update"],
        gathered=full_width * workload.framework.gathered_buffers,
        held=full_width * _layers_ahead(workload.framework, s, held, flying),  # (7)
        n_communicators=workload.framework.communicators * _communicators(s),
    )


def _layers_ahead(framework: Framework, s: Strategies, held: StageLayers, flying: Floats) -> Floats:
    """Buffers of layers whose kernels the host has launched and the GPU has yet to run.

    It waits for nothing inside a micro-batch, and in a pipeline's warm-up not before the last
    two, but for the driver's queue.
    """
    alone = s.pp == 1
    ahead = np.where(alone, 1.0, np.maximum(flying - 2.0, 0.0))
    ahead = np.where(alone | (s.tp <= framework.held_pipelined_tp), ahead, 0.0)
    return np.asarray(framework.held_buffers * np.minimum(ahead * held.n_layers, LAUNCHED_LAYERS))


def _uneven_chunks(s: Strategies, held: StageLayers, flying: Floats, m: Floats) -> Floats:
    """Layers in flight beyond the average where a rank's first chunk differs from the others.

    With f_1 micro-batches of the first chunk in flight, f of each other one, and n_1 of the
    rank's n layers in the first, that is (n_1 - n / v) (f_1 - f).
    """
    interleaved = (s.schedule == Schedule.INTERLEAVED) & (s.vpp > 1) & (s.pp > 1)
    first = first_in_flight(m, s.pp, held.rank)
    others = (flying * s.vpp - first) / np.maximum(s.vpp - 1, 1)
    more = (held.n_first - held.n_layers / s.vpp) * (first - others)
    return np.where(interleaved, more, 0.0)


def _communicators(s: Strategies) -> Floats:
    """Kinds of groups with more than one rank."""
    kinds = (s.tp > 1, s.pp > 1, s.dp * s.cp > 1, s.cp > 1, s.ep > 1, s.etp > 1)
    return np.asarray(sum(k.astype(np.float64) for k in kinds))


def memory_parts(model: ModelSpec, workload: Workload, strategies: Strategies) -> list[RankMemory]:
    """What every representative pipeline rank holds; shapes broadcast to the strategies'."""
    s = strategies
    act = layer_activations(model, workload.framework, s, workload.sequence_length)
    return [
        rank_memory(model, workload, s, stage_layers(model, workload.framework, s, rank), act)
        for rank in representative_ranks(model, s)
    ]


def memory_terms(part: RankMemory, constants: Constants) -> dict[str, Floats]:
    """Bytes of one pipeline rank by :data:`MEMORY_TERMS`."""
    c = constants
    working = part.recomputed + c.transient_fraction * part.working / 2.0
    activations = c.activation_factor * (part.resident + working + part.head_input)
    activations = activations + part.gathered
    update = c.update_fraction * part.update
    state = part.weights + part.gradients + part.optimizer
    slack = c.state_fragmentation * state + c.fragmentation * (activations + part.logits)
    return {
        "weights": part.weights,
        "gradients": part.gradients + part.overgrown,
        "optimizer": part.optimizer + update,
        "activations": activations,
        "logits": part.logits,
        "communication_buffers": c.communicator_bytes * part.n_communicators,
        "framework": c.framework_bytes + c.pool_bytes + slack + part.held,
    }


def state_bytes(part: RankMemory, constants: Constants) -> Floats:
    """Of :func:`rank_bytes`, what does not depend on the activations."""
    c = constants
    state = (part.weights + part.gradients + part.optimizer) * (1.0 + c.state_fragmentation)
    state = state + (c.communicator_bytes * part.n_communicators + c.framework_bytes)
    return np.asarray(state + (c.update_fraction * part.update + c.pool_bytes))


def moving_bytes(part: RankMemory, constants: Constants) -> Floats:
    """Of :func:`rank_bytes`, the activations and what they are computed into."""
    c = constants
    working = part.recomputed + c.transient_fraction * part.working / 2.0
    activations = c.activation_factor * (part.resident + working + part.head_input)
    moving = (activations + part.gathered + part.logits) * (1.0 + c.fragmentation)
    return np.asarray(moving + (part.held + part.overgrown))


def rank_bytes(part: RankMemory, constants: Constants) -> Floats:
    """Sum of :func:`memory_terms`: what depends on the state apart from what is in flight."""
    return np.asarray(state_bytes(part, constants) + moving_bytes(part, constants))


def peak_memory_bytes(
    model: ModelSpec, workload: Workload, strategies: Strategies, constants: Constants
) -> Floats:
    """Bytes on the fullest rank and no more; of a shape that broadcasts to the strategies'."""
    parts = memory_parts(model, workload, strategies)
    peak = rank_bytes(parts[0], constants)
    for part in parts[1:]:
        peak = np.maximum(peak, rank_bytes(part, constants))
    return peak


def memory_cost(
    model: ModelSpec,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
    *,
    breakdown: bool = True,
) -> MemoryCost:
    """Peak bytes per GPU, equations (1) to (7); shapes broadcast to the strategies'.

    Without ``breakdown`` the same totals are computed and ``terms`` is empty.
    """
    shape = strategies.shape
    parts = memory_parts(model, workload, strategies)
    by_rank = [memory_terms(part, constants) for part in parts]
    totals = np.stack([np.broadcast_to(rank_bytes(part, constants), shape) for part in parts])
    fullest = np.argmax(totals, axis=0)
    names = MEMORY_TERMS if breakdown else ()
    ranks = [np.asarray(r, dtype=np.float64) for r in representative_ranks(model, strategies)]
    return MemoryCost(
        total_bytes=np.take_along_axis(totals, fullest[None], axis=0)[0],
        terms={name: _choose([t[name] for t in by_rank], fullest, shape) for name in names},
        first_rank_bytes=totals[0],
        by_rank=by_rank,
        rank=_choose(ranks, fullest, shape),
    )


def _choose(values: list[Floats], index: Ints, shape: tuple[int, ...]) -> Floats:
    stacked = np.stack([np.broadcast_to(v, shape) for v in values])
    return np.asarray(np.take_along_axis(stacked, index[None], axis=0)[0])

"""Bytes on the fullest GPU: state, activations in flight, logits, buffers.

Per pipeline rank r, with P_r parameters of its own (dense and experts apart, each
sharded over its own group of d ranks):

    weights     P b_w,  or P b_w / d + the gathered layers where weights are sharded   (1)
    gradients   P b_g,  or P b_g / d from ZeRO-2 on                                    (2)
    optimizer   P b_o / d from ZeRO-1 on                                               (3)
    activations f_r (l_r A + ...) + the working tensors of one layer                   (4)
    logits      tokens v / t b_v on the last stage                                     (5)

f_r micro-batches are in flight on rank r (:func:`cost_models.pipeline.in_flight`) and A is
what one layer keeps of a micro-batch (:mod:`cost_models.activations`).  A rank's peak is the
larger of (4) + (5) during the backward pass, plus its state; the fullest of the
representative ranks counts.

References
----------
.. [1] S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
   Models," SC 2020, section 5. arXiv:1910.02054
.. [2] V. Korthikanti et al., 2022, section 4. arXiv:2205.05198
"""

from dataclasses import dataclass

import numpy as np

from cost_models import shards
from cost_models.activations import LayerActivations, layer_activations
from cost_models.cluster import Cluster
from cost_models.constants import Constants
from cost_models.model import ModelSpec
from cost_models.partition import StageLayers, representative_ranks, stage_layers
from cost_models.pipeline import in_flight
from cost_models.strategy import Precision, Recompute, Strategies
from cost_models.units import Floats, Ints
from cost_models.workload import Workload

MEMORY_TERMS = (
    "weights",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "communication_buffers",
    "framework",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryCost:
    """Bytes on the fullest rank; terms sum to ``total_bytes``, the reserved memory."""

    total_bytes: Floats
    terms: dict[str, Floats]
    first_rank_bytes: Floats
    """The same total on pipeline rank 0, whose memory many logs print."""
    by_rank: list[dict[str, Floats]]
    """Terms on each representative pipeline rank."""
    rank: Floats
    """The pipeline rank that is fullest."""


def _static(
    model: ModelSpec, workload: Workload, s: Strategies, held: StageLayers
) -> dict[str, Floats]:
    """Equations (1) to (3) on one pipeline rank."""
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
    weights_spread = spread * f.fsdp_weights_bytes + gathered * (f.weights_bytes + cached)
    grads_whole = np.where(split_grads, spread, whole) * f.grads_bytes
    grads_spread = spread * f.fsdp_grads_bytes + np.minimum(layer, whole) * f.weights_bytes
    state = (o.moments_bytes + o.master_bytes) * (1.0 - s.optimizer_offload)
    return {
        "weights": np.where(sharded > 0, weights_spread, weights_whole),
        "gradients": np.where(sharded > 0, grads_spread, grads_whole)
        + np.where(sharded > 0, 0.0, whole) * f.working_grads_bytes,
        "optimizer": spread * state,
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


def _activations(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    held: StageLayers,
    act: LayerActivations,
    constants: Constants,
) -> dict[str, Floats]:
    """Equations (4) and (5) on one pipeline rank."""
    tokens = shards.tokens_per_rank(s, workload.sequence_length)
    w = shards.widths(model, s)
    m = shards.micro_batches(s, workload.global_batch_size)
    flying = in_flight(s.schedule, m, s.pp, s.vpp, held.rank)
    kept = activation_bytes_kept(act, s, held)
    h = model.hidden_size / w.sequence_parts
    embedding = held.has_embedding * h * (3.0 if model.dropout else 2.0)
    head_input = held.has_head * 4.0 * h
    mtp = held.has_head * model.mtp_layers * (np.maximum(act.whole_dense, act.whole_moe) + 4.0 * h)
    whole = np.where(held.n_moe > 0, np.maximum(act.whole_dense, act.whole_moe), act.whole_dense)
    recomputed = _recomputed_layers(s, held) > 0
    # the layer whose backward pass runs: its gradients, and its own tensors if recomputed
    working = np.where(recomputed, whole, 0.0) + constants.transient_fraction * whole / 2.0
    resident = flying * (kept + embedding + mtp) * (1.0 - s.activation_offload)
    gathered = 1.0 if workload.framework.vocab_parallel_loss else s.tp
    logits = held.has_head * w.vocab * gathered * workload.framework.logits_bytes * tokens
    return {
        "activations": tokens * (resident + np.minimum(working, 2.0 * whole) + head_input),
        "logits": np.asarray(logits * (1.0 + model.mtp_layers)),
    }


def _buffers(s: Strategies, constants: Constants) -> Floats:
    kinds = (
        (s.tp > 1).astype(np.float64)
        + (s.pp > 1)
        + (s.dp * s.cp > 1)
        + (s.cp > 1)
        + (s.ep > 1)
        + (s.etp > 1)
    )
    return np.asarray(constants.communicator_bytes * kinds)


def memory_cost(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
    *,
    breakdown: bool = True,
) -> MemoryCost:
    """Peak bytes per GPU, equations (1) to (5); shapes broadcast to the strategies'.

    Without ``breakdown`` the same totals are computed and ``terms`` is empty.
    """
    del cluster
    s = strategies
    act = layer_activations(model, workload.framework, s, workload.sequence_length)
    ranks = representative_ranks(model, s)
    by_rank: list[dict[str, Floats]] = []
    totals = []
    for rank in ranks:
        held = stage_layers(model, workload.framework, s, rank)
        static = _static(model, workload, s, held)
        moving = _activations(model, workload, s, held, act, constants)
        state = static["weights"] + static["gradients"] + static["optimizer"]
        kept = moving["activations"] + moving["logits"]
        slack = constants.state_fragmentation * state + constants.fragmentation * kept
        terms = static | moving
        terms["communication_buffers"] = _buffers(s, constants)
        terms["framework"] = constants.framework_bytes + slack
        by_rank.append(terms)
        totals.append(np.broadcast_to(sum(terms.values()), s.shape))
    stacked = np.stack(totals)
    fullest = np.argmax(stacked, axis=0)
    total = np.take_along_axis(stacked, fullest[None], axis=0)[0]
    names = MEMORY_TERMS if breakdown else ()
    chosen = {name: _choose([t[name] for t in by_rank], fullest, s.shape) for name in names}
    return MemoryCost(
        total_bytes=total,
        terms=chosen,
        first_rank_bytes=stacked[0],
        by_rank=by_rank,
        rank=_choose([np.asarray(r, dtype=np.float64) for r in ranks], fullest, s.shape),
    )


def _choose(values: list[Floats], index: Ints, shape: tuple[int, ...]) -> Floats:
    stacked = np.stack([np.broadcast_to(v, shape) for v in values])
    return np.asarray(np.take_along_axis(stacked, index[None], axis=0)[0])

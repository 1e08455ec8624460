"""Bytes that one rank sends, and the groups of ranks that exchange them.

A group of ``size`` ranks ``stride`` apart has (1) of :mod:`cost_models.specs.cluster` members in
one NVLink domain.  Strides, innermost first (Megatron-LM, ``core/parallel_state.py``):

    tensor 1;  context t;  then data t c, pipeline t c d;  or pipeline t c, data t c p  (1)
    experts' tensor 1;  experts etp;  experts' data etp ep, or etp ep p                 (2)

Messages of one micro-batch of n tokens on the rank, 2 bytes a scalar:

    tensor parallel    2 h n,  the whole vectors of the group                           (3)
    experts' tensor    2 h n k etp / t                                                  (4)
    context parallel   keys and values 2 (kv + v) n;  queries and output 2 (q + v) n    (5)
    dispatch, combine  2 h n k / t                                                      (6)
    pipeline           2 h n / p_s                                                      (7)

==========  ======================================================  ===================
symbol      meaning                                                 name
==========  ======================================================  ===================
t, c, d, p  ranks of tensor, context, data, pipeline parallelism    ``tp``, ``cp``, ...
q, kv, v    widths of queries, keys, values on the rank             ``shards.Widths``
h, k        hidden size; experts of a token                         ``hidden_size``, ...
p_s         tensor-parallel ranks that send a part each             ``scatters_sends``
==========  ======================================================  ===================
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cost_models.counting import shards
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import ContextParallel, Order, Sharding, Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A group of communicating ranks: ``inside`` of one NVLink domain, in ``outside`` domains."""

    inside: Floats
    outside: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """Bytes on the wires, and the groups that exchange them."""

    tp: Group
    etp: Group
    cp: Group
    ep: Group
    dp: Group
    """Ranks that reduce a dense gradient: dp * cp of them."""
    edp: Group
    shard: Group
    """Shard group of dense weights under FSDP."""
    replica: Group
    """Copies of an HSDP group."""
    expert_shard: Group
    """Shard group of one expert's weights under FSDP."""
    expert_replica: Group
    """Copies of an expert's shard group under HSDP."""
    p2p_crosses: Floats
    """1.0 where some stage's next one is outside its NVLink domain."""
    tp_bytes: Floats
    """One tensor-parallel collective: the hidden vectors of a micro-batch."""
    sequence_parallel: Floats
    gathers_again: Floats
    """1.0 where the backward pass gathers the inputs of column-parallel GEMMs once more."""
    etp_bytes: Floats
    cp_kv_bytes: Floats
    """Keys and values of one rank's part of the sequence."""
    cp_qo_bytes: Floats
    """Queries and outputs of one rank's part of the sequence."""
    cp_ring: Floats
    """1.0 where the context-parallel exchange is a ring that attention can hide."""
    cp_all_gather: Floats
    is_moe: Floats
    ep_bytes: Floats
    """One dispatch, or one combine, of a micro-batch."""
    p2p_bytes: Floats


def _group(cluster: Cluster, stride: Any, size: Any) -> Group:
    inside = cluster.inside(stride, size)
    return Group(inside=inside, outside=np.asarray(size / inside, dtype=np.float64))


def traffic_of(
    model: ModelSpec, cluster: Cluster, workload: Workload, s: Strategies, tokens: Floats
) -> Traffic:
    """Equations (1) to (7); ``tokens`` is n, arrays broadcast with ``s``."""
    w = shards.widths(model, s)
    h = model.hidden_size
    inner = s.tp * s.cp
    pp_inside_dp = s.order == Order.TP_CP_EP_PP_DP
    dp_stride = inner * np.where(pp_inside_dp, s.pp, 1)
    pp_stride = inner * np.where(pp_inside_dp, 1, s.dp)
    edp_stride = s.etp * s.ep * np.where(pp_inside_dp, s.pp, 1)
    cp_group = _group(cluster, s.tp, s.cp)

    def with_cp(size: Any) -> Group:
        """``size`` data-parallel ranks with their context-parallel ones."""
        together = _group(cluster, s.tp, size * s.cp)
        apart = cp_group.inside * cluster.inside(dp_stride, size)
        inside = np.where(pp_inside_dp, apart, together.inside)
        return Group(inside=inside, outside=size * s.cp / inside)

    sent_parts = np.maximum(w.sequence_parts, s.tp if workload.framework.scatters_sends else 1)
    ring = (s.cp_comm == ContextParallel.P2P) | (s.cp_comm == ContextParallel.A2A_P2P)
    sharded = np.where(s.sharding == Sharding.NONE, 1, s.dp_shard)
    values = w.value if model.attention == "mla" else w.kv
    expert_shards = shards.expert_shards(s)
    edp = np.maximum(s.edp, 1)
    return Traffic(
        tp=_group(cluster, 1, s.tp),
        etp=_group(cluster, 1, s.etp),
        cp=cp_group,
        ep=_group(cluster, s.etp, s.ep),
        dp=with_cp(s.dp),
        edp=_group(cluster, edp_stride, edp),
        shard=with_cp(sharded),
        replica=_group(cluster, dp_stride * sharded, np.maximum(s.dp // sharded, 1)),
        expert_shard=_group(cluster, edp_stride, expert_shards),
        expert_replica=_group(
            cluster, edp_stride * expert_shards, np.maximum(edp / expert_shards, 1.0)
        ),
        p2p_crosses=np.asarray(
            (s.pp > 1) & (pp_stride * s.pp > cluster.nvlink_domain), dtype=np.float64
        ),
        tp_bytes=np.asarray(np.where(s.tp > 1, 2.0 * h * tokens, 0.0)),
        sequence_parallel=np.asarray(s.sequence_parallel, dtype=np.float64),
        gathers_again=np.asarray(
            s.sequence_parallel & (not workload.framework.saves_gathered_inputs), dtype=np.float64
        ),
        etp_bytes=np.asarray(np.where(s.etp > 1, 2.0 * h * tokens / s.tp * model.top_k * s.etp, 0)),
        cp_kv_bytes=np.asarray(np.where(s.cp > 1, 2.0 * (w.kv + values) * tokens, 0.0)),
        cp_qo_bytes=np.asarray(np.where(s.cp > 1, 2.0 * (w.query + w.value) * tokens, 0.0)),
        cp_ring=np.asarray(ring, dtype=np.float64),
        cp_all_gather=np.asarray(s.cp_comm == ContextParallel.ALL_GATHER, dtype=np.float64),
        is_moe=np.asarray(float(model.is_moe)),
        ep_bytes=np.asarray(
            np.where(s.ep > 1, 2.0 * h * tokens / s.tp * model.top_k, 0.0)
            if model.is_moe
            else np.zeros(())
        ),
        p2p_bytes=np.asarray(np.where(s.pp > 1, 2.0 * h * tokens / sent_parts, 0.0)),
    )

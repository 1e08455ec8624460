"""Seconds that one rank spends in one layer, for one micro-batch.

A layer is an attention block (A), a dense MLP (D) or a mixture of experts (M).  The time of
a block is that of its kernels and of the collectives that nothing hides:

    forward     G_f + S_f + V_f + exposed tensor-, context-, expert-parallel           (1)
    backward    G_i + S_b + V_b + exposed tensor-, context-, expert-parallel           (2)
    moved       V_f of A: v_n + mu b_A;  of D: v_n + mu b_D;  of M: v_n + mu_e b_M     (3)
                V_b = beta V_f;  of M both with the wait for the router, omega / 2     (4)

A mixture of experts waits for its fullest rank, and exchanges tokens while the kernels of
another micro-batch's whole layer run [1]_:

    GEMMs       G of M: iota (experts) + router + shared experts                       (5)
    exchange    X = (1 + rho) iota x,  each way                                        (6)
    exposed     max(X - eta (G_f + V_f + forward of A), 0),
                max(X - eta (G_i + G_w + V_b + backward and G_w of A), 0)              (7)
    experts     cut by expert tensor parallelism: a gather and a scatter, each way     (8)

What recomputing a module costs once more, by the layer [2]_:

    core attention S_f;  norms v_n;  non-linearity its bytes;  MLA's up-projections,
    an MLP, shared experts their forward GEMMs;  MoE all of (1)                        (9)
    whole MLP   G_f + its bytes + half of one all-reduce: its input is kept           (10)

Head: three GEMMs and the passes of the loss over the logits; embedding: its bytes    (11)

=============  =================================================  =====================
symbol         meaning                                            name
=============  =================================================  =====================
G_f, G_i, G_w  s, GEMMs forward, of input and weight gradients    ``gemm_forward``, ...
S_f, S_b       s, attention's scores                              ``attention_forward``
V_f, V_b       s, kernels that only move bytes                    ``memory_forward``
v_n            s, half of the layer's norms and residuals         ``norm``
b_A, b_D, b_M  bytes that the other kernels of a block move       ``attention_bytes``
mu, mu_e       passes over those bytes                            ``memory_passes``
beta           backward over forward bytes                        ``backward_memory_ratio``
omega          s, wait of one MoE layer for its router            ``moe_layer_s``
iota           fullest rank's tokens over the average             ``moe_imbalance``
x, rho         s, one dispatch of 16 bits; bytes sent over those  ``dispatch_share``
               returned
eta            share of other work that hides an exchange         ``ep_hidden``
=============  =================================================  =====================

Kernels are those of :mod:`cost_models.equations.layer.kernels`, collectives those of
:mod:`cost_models.equations.layer.exchanges`.

References
----------
.. [1] DeepSeek-AI, "DeepSeek-V3 Technical Report," 2024, section 3.2.1. arXiv:2412.19437
.. [2] Megatron-LM, ``megatron/core/transformer/transformer_config.py``, recompute_modules.
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.work import Work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.exchanges import (
    TensorParallel,
    context_parallel_s,
    dispatch_s,
    tensor_parallel,
)
from cost_models.equations.layer.kernels import Kernels
from cost_models.equations.layer.links import Links, links
from cost_models.specs.strategy import Recompute, Strategies
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockTime:
    """Seconds of one block: kernels by kind, and what its collectives leave exposed."""

    gemm_forward: Floats
    gemm_input: Floats
    """Gradients of the inputs."""
    gemm_weight: Floats
    """Gradients of the weights."""
    attention_forward: Floats
    attention_backward: Floats
    memory_forward: Floats
    memory_backward: Floats
    tp_forward: Floats
    tp_backward: Floats
    cp_forward: Floats
    cp_backward: Floats
    ep_forward: Floats
    ep_backward: Floats
    hidden: Floats
    """Communication of both passes that runs under compute."""

    @property
    def forward(self) -> Floats:
        """Equation (1)."""
        return np.asarray(
            self.gemm_forward
            + self.attention_forward
            + self.memory_forward
            + self.tp_forward
            + self.cp_forward
            + self.ep_forward
        )

    @property
    def backward(self) -> Floats:
        """Equation (2): up to the gradients of the inputs."""
        return np.asarray(
            self.gemm_input
            + self.attention_backward
            + self.memory_backward
            + self.tp_backward
            + self.cp_backward
            + self.ep_backward
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerTime:
    """One layer's blocks, what windows save, and what recomputing each module costs."""

    attention: BlockTime
    dense: BlockTime
    moe: BlockTime
    window_saves_forward: Floats
    window_saves_backward: Floats
    head_forward: Floats
    head_input: Floats
    head_weight: Floats
    head_memory: Floats
    """Logits and loss, both passes."""
    embedding: Floats
    recompute_attention: Floats
    """Modules of the attention block that run again, per layer."""
    recompute_dense: Floats
    recompute_moe: Floats


def layer_time(work: Work, s: Strategies, c: Constants) -> LayerTime:
    """Seconds of one layer's blocks, of head and embedding; arrays broadcast with ``s``."""
    kernels, wires = Kernels(work, c), links(work, c)
    layer = work.layer
    norm = kernels.moved(c.memory_passes * layer.norm_bytes / 2.0)
    tp = tensor_parallel(work, s, c, wires)
    attention, windows = _attention_block(work, c, kernels, wires, tp, norm)
    dense, dense_act = _dense_block(work, c, kernels, tp, norm)
    # a shared expert's collectives run under GEMMs of about the attention block's size
    shared_hidden = np.minimum(tp.hideable, attention.gemm_forward)
    moe, moe_act = _moe_block(work, s, c, kernels, wires, norm, shared_hidden, attention)

    def again(module: Recompute, seconds: Floats) -> Floats:
        return np.where((s.recompute & int(module)) != 0, seconds, 0.0)

    # what recomputing a module costs, by (9) and (10)
    norms = again(Recompute.LAYERNORM, norm)
    up_projections = kernels.three(layer.attention_gemms[2:])[0]
    shared_f = kernels.three(layer.shared_gemms)[0]
    whole_mlp = dense.gemm_forward + dense_act + dense.tp_forward / 2.0
    head = work.head
    return LayerTime(
        attention=attention,
        dense=dense,
        moe=moe,
        window_saves_forward=windows[0],
        window_saves_backward=windows[1],
        head_forward=kernels.sixteen_bit(head.m, head.n, head.k),
        head_input=kernels.sixteen_bit(head.m, head.k, head.n),
        head_weight=kernels.sixteen_bit(head.k, head.n, head.m),
        head_memory=kernels.moved(c.loss_passes * work.logits_bytes),
        embedding=kernels.moved(work.embedding_bytes),
        recompute_attention=again(Recompute.CORE_ATTN, attention.attention_forward)
        + again(Recompute.MLA_UP_PROJ, up_projections)
        + norms,
        recompute_dense=np.maximum(
            again(Recompute.ACTIVATION, dense_act), again(Recompute.MLP, whole_mlp)
        )
        + norms,
        recompute_moe=np.maximum(
            again(Recompute.MOE, moe.forward),
            again(Recompute.ACTIVATION, moe_act) + again(Recompute.SHARED_EXPERTS, shared_f),
        )
        + norms,
    )


def _attention_block(
    work: Work, c: Constants, kernels: Kernels, wires: Links, tp: TensorParallel, norm: Floats
) -> tuple[BlockTime, tuple[Floats, Floats]]:
    """The attention block, and what a sliding window saves it forward and backward."""
    layer, zero = work.layer, np.zeros(())
    score_f, score_b = kernels.attention(work, layer.attention.kept)
    window_f, window_b = kernels.attention(work, layer.attention.kept_windowed)
    cp_f, cp_b, cp_hidden = context_parallel_s(work, c, wires, score_f, score_b)
    gemm_f, gemm_b, gemm_w = kernels.three(layer.attention_gemms)
    moved = norm + kernels.moved(c.memory_passes * layer.attention_bytes)  # (3)
    tp_f, tp_b, tp_hidden = tp.exposed(gemm_f, gemm_b)
    block = BlockTime(
        gemm_forward=gemm_f,
        gemm_input=gemm_b,
        gemm_weight=gemm_w,
        attention_forward=score_f,
        attention_backward=score_b,
        memory_forward=moved,
        memory_backward=c.backward_memory_ratio * moved,  # (4)
        tp_forward=tp_f,
        tp_backward=tp_b,
        cp_forward=cp_f,
        cp_backward=cp_b,
        ep_forward=zero,
        ep_backward=zero,
        hidden=tp_hidden + cp_hidden,
    )
    return block, (score_f - window_f, score_b - window_b)


def _dense_block(
    work: Work, c: Constants, kernels: Kernels, tp: TensorParallel, norm: Floats
) -> tuple[BlockTime, Floats]:
    """The dense MLP, and its non-linearity alone."""
    zero = np.zeros(())
    gemm_f, gemm_b, gemm_w = kernels.three(work.layer.dense_gemms)
    act = kernels.moved(c.memory_passes * work.layer.dense_bytes)
    moved = norm + act  # (3)
    tp_f, tp_b, tp_hidden = tp.exposed(gemm_f, gemm_b)
    block = BlockTime(
        gemm_forward=gemm_f,
        gemm_input=gemm_b,
        gemm_weight=gemm_w,
        attention_forward=zero,
        attention_backward=zero,
        memory_forward=moved,
        memory_backward=c.backward_memory_ratio * moved,  # (4)
        tp_forward=tp_f,
        tp_backward=tp_b,
        cp_forward=zero,
        cp_backward=zero,
        ep_forward=zero,
        ep_backward=zero,
        hidden=tp_hidden,
    )
    return block, act


def _moe_block(
    work: Work,
    s: Strategies,
    c: Constants,
    kernels: Kernels,
    wires: Links,
    norm: Floats,
    tp_hidden: Floats,
    attention: BlockTime,
) -> tuple[BlockTime, Floats]:
    """Router, dispatch, experts, combine and shared experts; and the non-linearity alone.

    ``tp_hidden`` is what ``attention``'s GEMMs hide of a collective, ``norm`` v_n.
    """
    layer, t = work.layer, work.traffic
    *routed, router = layer.expert_gemms
    fullest = np.where(work.balanced_experts > 0, 1.0, c.moe_imbalance)
    expert = kernels.three(tuple(routed), grouped=True)
    others = kernels.three((router, *layer.shared_gemms))
    forward, backward, weight = (
        fullest * e + o for e, o in zip(expert, others, strict=True)
    )  # (5)
    act = kernels.moved(c.moe_memory_passes * layer.moe_bytes)
    moved = norm + act  # (3)
    swap = dispatch_s(work, wires)
    exchange = (1.0 + work.dispatch_share) * fullest * swap  # (6)
    gathered = 2.0 * wires.all_gather_s(t.etp_bytes, t.etp)  # (8)
    shared = layer.shared_gemms[0]
    tp, tp_hidden = (
        np.where(shared.n > 0, seconds, 0.0) for seconds in (attention.tp_forward, tp_hidden)
    )
    hideable = np.where(s.overlap_ep, c.ep_hidden, 0.0)
    # the kernels of another micro-batch run meanwhile, by (7)
    exposed = np.maximum(exchange - hideable * (forward + moved + attention.forward), 0.0)
    behind = backward + weight + c.backward_memory_ratio * moved + attention.backward
    exposed_b = np.maximum(exchange - hideable * (behind + attention.gemm_weight), 0.0)
    # where the experts' sizes are known beforehand nobody waits for the router
    host = c.moe_layer_s * np.where(work.host_experts > 0, 1.0, 0.0) / 2.0  # (4)
    block = BlockTime(
        gemm_forward=np.asarray(forward),
        gemm_input=np.asarray(backward),
        gemm_weight=np.asarray(weight),
        attention_forward=np.zeros(()),
        attention_backward=np.zeros(()),
        memory_forward=moved + host,
        memory_backward=c.backward_memory_ratio * moved + host,
        tp_forward=tp + gathered,
        tp_backward=tp + gathered,
        cp_forward=np.zeros(()),
        cp_backward=np.zeros(()),
        ep_forward=exposed,
        ep_backward=exposed_b,
        hidden=2.0 * (exchange + tp_hidden) - exposed - exposed_b,
    )
    return block, act

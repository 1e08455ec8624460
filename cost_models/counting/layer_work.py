"""Kernels of one layer on one rank, for one micro-batch, forward: shapes and bytes.

GEMMs as rows x columns x depth, with n tokens on the rank:

    attention   n x (q + 2 kv) x h,  n x h x v                                         (1)
    MLA [1]_    (n / p) x (r_q + r_kv + d_r) x h,  n x q x r_q,
                n x a (d_n + d_v) x r_kv,  n x h x v                                   (2)
    dense MLP   n x g f x h,  n x h x f;  g = 2 where gated, else 1                    (3)
    shared      the same with the width of the shared experts                          (4)
    experts     E / ep groups of N / (E / ep) rows, N = n k etp / t: each rank routes
                its own share of the tokens, expert tensor parallelism gathers them    (5)
    router      (n / t) x E x h                                                        (6)

Bytes, 2 a scalar, and scores:

    unfused     8 or, with dropout, 12 bytes of each of a n s scores [2]_              (7)
    scores      kept 1/2 by the causal mask; r (1 - r / 2) in a window of r s tokens   (8)
    norms       2 e (4 norms + 4 with dropout) h n / p                                 (9)
    queries     2 e (2, or 4 with their norms) (q + kv) n                             (10)
    MLP         2 e (g + 1) f n                                                       (11)
    MoE         non-linearity of the experts and shared experts, permutation there and
                back, the router's logits                                             (12)

=========  =======================================================  ===================
symbol     meaning                                                  name
=========  =======================================================  ===================
n, s       tokens of a micro-batch on the rank, of a sequence       ``tokens``, ...
q, kv, v   widths of queries, keys, values on the rank              ``shards.Widths``
h, f       hidden size; MLP width on the rank                       ``hidden_size``, ...
a          heads on the rank                                        ``heads``
r_q, r_kv  MLA's ranks; d_r, d_n, d_v its head widths               ``q_lora_rank``, ...
E, k       experts, and those of a token                            ``n_experts``, ...
t, p       tensor-parallel ranks; those that share out tokens       ``sequence_parts``
e          bytes over fused kernels'                                ``elementwise_passes``
=========  =======================================================  ===================

References
----------
.. [1] DeepSeek-AI, "DeepSeek-V2," 2024, section 2.1. arXiv:2405.04434
.. [2] V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
   Models," 2022, section 4.1: softmax, its dropout and mask. arXiv:2205.05198
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from cost_models.counting import shards
from cost_models.specs.cluster import PRECISIONS
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemm:
    """``groups`` equal products of m x k by k x n."""

    m: Floats
    n: Floats
    k: Floats
    groups: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """The scores of one layer; ``kept`` is the share of them that the mask leaves."""

    batch: Floats
    heads: Floats
    queries: Floats
    keys: Floats
    qk_width: Floats
    v_width: Floats
    kept: Floats
    kept_windowed: Floats
    unfused_bytes: Floats
    """Score matrices written and read where attention is not fused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's forward pass."""

    attention_gemms: tuple[Gemm, ...]
    dense_gemms: tuple[Gemm, ...]
    shared_gemms: tuple[Gemm, ...]
    expert_gemms: tuple[Gemm, ...]
    attention: Attention
    norm_bytes: Floats
    """Norms, residuals and dropout of the whole layer."""
    attention_bytes: Floats
    """Rotation and norms of queries and keys."""
    dense_bytes: Floats
    """The dense MLP's non-linearity."""
    moe_bytes: Floats
    """Router, permutation and the experts' non-linearity."""


def gemm(m: Any, n: Any, k: Any, groups: Any = 1.0) -> Gemm:
    """A :class:`Gemm` of numbers or arrays."""
    return Gemm(
        m=np.asarray(m, dtype=np.float64),
        n=np.asarray(n, dtype=np.float64),
        k=np.asarray(k, dtype=np.float64),
        groups=np.asarray(groups, dtype=np.float64),
    )


def layer_work(model: ModelSpec, workload: Workload, s: Strategies, tokens: Floats) -> Layer:
    """Equations (1) to (12); ``tokens`` is n, arrays broadcast with ``s``."""
    w = shards.widths(model, s)
    h, up = model.hidden_size, 2.0 if model.gated_mlp else 1.0
    framework = workload.framework
    passes = framework.elementwise_passes
    routed = tokens / s.tp * model.top_k * s.etp  # (5)
    queries = workload.sequence_length / s.cp
    window = model.sliding_window or workload.sequence_length
    share = np.minimum(window / workload.sequence_length, 1.0)
    score_passes = 6.0 if model.dropout else 4.0
    unfused = 0.0 if framework.flash_attention else 2.0 * score_passes  # (7)
    head_dim = model.query_size / model.n_heads
    hidden_passes = 4.0 * model.norms_per_layer + (4.0 if model.dropout else 0.0)
    return Layer(
        attention_gemms=_attention_gemms(model, w, tokens),
        dense_gemms=(gemm(tokens, up * w.ffn, h), gemm(tokens, h, w.ffn)),
        shared_gemms=(
            gemm(tokens, up * w.shared_ffn, h),
            gemm(tokens, h, w.shared_ffn),
        ),
        expert_gemms=_expert_gemms(model, s, w, tokens, routed),
        attention=Attention(
            batch=s.micro_batch_size.astype(np.float64),
            heads=w.heads,
            queries=np.asarray(queries),
            keys=np.asarray(float(workload.sequence_length)),
            qk_width=np.asarray(head_dim),
            v_width=np.asarray(model.value_size / model.n_heads),
            kept=np.asarray(0.5),
            kept_windowed=np.asarray(share * (1.0 - share / 2.0)),  # (8)
            unfused_bytes=np.asarray(unfused * w.heads * tokens * workload.sequence_length),
        ),
        norm_bytes=np.asarray(passes * 2.0 * hidden_passes * h / w.sequence_parts * tokens),  # (9)
        attention_bytes=np.asarray(
            passes * 2.0 * (4.0 if model.qk_norm else 2.0) * (w.query + w.kv) * tokens
        ),  # (10)
        dense_bytes=np.asarray(passes * 2.0 * (up + 1.0) * w.ffn * tokens),  # (11)
        moe_bytes=_moe_bytes(model, workload, s, w, tokens, routed),
    )


def _attention_gemms(model: ModelSpec, w: shards.Widths, tokens: Floats) -> tuple[Gemm, ...]:
    """Equations (1) and (2): down- or fused projection, output, and MLA's up-projections."""
    h = model.hidden_size
    out = gemm(tokens, h, w.value)
    if model.attention != "mla":
        empty = gemm(0, 0, 0)
        return (gemm(tokens, w.query + 2 * w.kv, h), out, empty, empty)
    few = tokens / w.sequence_parts
    latent = model.kv_lora_rank + model.qk_rope_head_dim
    up_kv = w.heads * (model.qk_nope_head_dim + model.v_head_dim)
    down = gemm(few, model.q_lora_rank + latent, h)
    if model.q_lora_rank:
        query_up = gemm(tokens, w.query, model.q_lora_rank)
    else:
        query_up = gemm(tokens, w.query, h)
    return (down, out, query_up, gemm(tokens, up_kv, model.kv_lora_rank))


def _expert_gemms(
    model: ModelSpec, s: Strategies, w: shards.Widths, tokens: Floats, routed: Floats
) -> tuple[Gemm, ...]:
    """Equations (5) and (6): both GEMMs of the experts, and the router's."""
    if not model.is_moe:
        return (gemm(0, 0, 0),) * 3
    h, up = model.hidden_size, 2.0 if model.gated_mlp else 1.0
    experts = np.maximum(model.n_experts / s.ep, 1.0)
    return (
        gemm(routed / experts, up * w.moe_ffn, h, experts),
        gemm(routed / experts, h, w.moe_ffn, experts),
        gemm(tokens / s.tp, model.n_experts, h),
    )


def fused_experts(model: ModelSpec, workload: Workload, s: Strategies) -> Floats:
    """1.0 where one kernel is all of the experts, by the format of the GEMMs."""
    formats = workload.framework.fused_expert_formats
    fused = np.isin(s.precision, [PRECISIONS.index(name) for name in formats])
    return np.asarray(fused & model.is_moe, dtype=np.float64)


def host_experts(model: ModelSpec, workload: Workload, s: Strategies) -> Floats:
    """Experts on the rank whose kernels the host issues one by one."""
    issued = (1.0 - fused_experts(model, workload, s)) * (not workload.drops_tokens)
    return np.asarray(issued * model.n_experts / s.ep)


def _moe_bytes(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    w: shards.Widths,
    tokens: Floats,
    routed: Floats,
) -> Floats:
    """Equation (12): router, permutation there and back, non-linearity of all experts.

    Fused experts activate inside their product, and the exchange writes where the product
    reads.  An expert's bias is added by kernels of its own, as an fp32 product with the
    router's probability, a sum and a cast: 20 bytes a scalar.
    """
    if not model.is_moe:
        return np.zeros(())
    up = 2.0 if model.gated_mlp else 1.0
    apart = 1.0 - fused_experts(model, workload, s)
    activated = 2.0 * (up + 1.0) * (apart * w.moe_ffn * routed + w.shared_ffn * tokens)
    biased = 20.0 * (apart * up * w.moe_ffn + model.hidden_size) * routed * model.moe_bias
    moved = 4.0 * (1.0 + apart) * model.hidden_size * routed
    return np.asarray(activated + biased + moved + 12.0 * model.n_experts * tokens / s.tp)

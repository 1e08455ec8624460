"""Bytes per token that one layer keeps between its forward and its backward pass.

Counted tensor by tensor as in [1] section 4.1 and re-derived for grouped queries, gated
MLPs, latent attention (MLA), mixtures of experts and flash attention.  For the layer of
[1] (plain MLP of 4h, dropout, no flash attention, tensor-parallel 1) the sum is

    34 h + 5 a s                                                              (1)

bytes per token, and with tensor- and sequence-parallel over t ranks

    34 h / t + 5 a s / t.                                                     (2)

A recomputed module keeps its input only; a recomputed layer keeps 2h bytes per token.

======  ===================================  ===========================================
symbol  meaning                              name here
======  ===================================  ===========================================
h       width of the residual stream         ``model.hidden_size``
a       attention heads of the whole model   ``model.n_heads``; a / t is ``Widths.heads``
s       tokens in a sequence                 ``sequence_length``
t       tensor-parallel ranks                ``strategies.tp``; ``Widths.sequence_parts``
                                             with sequence-parallel, else 1
======  ===================================  ===========================================

References
----------
.. [1] V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
   Models," 2022. arXiv:2205.05198
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.shards import Widths, widths
from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Strategies
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerActivations:
    """Bytes per token of one rank's micro-batch; shapes broadcast over the strategies."""

    attention: Floats
    dense_mlp: Floats
    moe: Floats
    checkpoint: Floats
    """What a wholly recomputed layer keeps."""
    whole_dense: Floats
    """A dense layer with nothing recomputed: alive while its backward pass runs."""
    whole_moe: Floats


def _recomputes(strategies: Strategies, module: Recompute) -> Floats:
    return np.asarray((strategies.recompute & int(module)) != 0, dtype=np.float64)


def gemm_input_bytes(strategies: Strategies) -> Floats:
    """Bytes per scalar of a GEMM's kept input: 1 where it is kept in 8 bits, else 2."""
    return np.where(strategies.precision >= Precision.FP8, 1.0, 2.0)


def _norm(model: ModelSpec, framework: Framework, w: Widths, strategies: Strategies) -> Floats:
    """One norm: its input, and its output where the next GEMM keeps it."""
    gemm_input = gemm_input_bytes(strategies) if framework.norm_output_saved else 0.0
    kept = 1.0 - _recomputes(strategies, Recompute.LAYERNORM)
    parts = 1.0 if framework.saves_gathered_inputs else w.sequence_parts
    own = framework.norm_saved_bytes / w.sequence_parts
    return np.asarray(model.hidden_size * (own + gemm_input * kept / parts))


def _attention(
    model: ModelSpec, framework: Framework, w: Widths, strategies: Strategies, sequence_length: int
) -> Floats:
    """Norm, projections, scores, output; with MLA the compressed vectors as well."""
    gemm = gemm_input_bytes(strategies)
    norm = _norm(model, framework, w, strategies)
    up_projected = 2.0 * (w.query + w.kv + w.value)
    if model.attention == "mla":
        # the down-projections are not cut by tensor-parallel, but their tokens are
        compressed = model.q_lora_rank + model.kv_lora_rank
        latent = 2.0 * (compressed + model.qk_rope_head_dim) + gemm * compressed
        keep = 1.0 - _recomputes(strategies, Recompute.MLA_UP_PROJ)
        qkv = latent / w.sequence_parts + up_projected * keep
    else:
        qkv = 2.0 * (w.query + 2.0 * w.kv)
    rope = (framework.rope_saved_bytes + (2.0 if model.qk_norm else 0.0)) * (w.query + w.kv)
    core_kept = 1.0 - _recomputes(strategies, Recompute.CORE_ATTN)
    if framework.flash_attention:
        core = 4.0 * w.heads * core_kept  # the row sums that the backward kernel reads
    else:
        core = (5.0 if model.dropout else 2.0) * w.heads * sequence_length * core_kept
    output = np.maximum(2.0 if framework.flash_attention else 0.0, gemm) * w.value
    mask = (model.hidden_size / w.sequence_parts) if model.dropout else 0.0
    return np.asarray(norm + qkv + rope + core + output + mask)


def _mlp(
    model: ModelSpec, framework: Framework, width: Floats, strategies: Strategies
) -> tuple[Floats, Floats]:
    """(pre-activation, activation) of an MLP of ``width``: inputs of its non-linearity and of FC2.

    ``width`` counts per token of the micro-batch.
    """
    up = 2.0 if model.gated_mlp else 1.0
    before = (2.0 * up + framework.activation_saved_bytes) * width
    after = gemm_input_bytes(strategies) * width
    return np.asarray(before), np.asarray(after)


def layer_activations(
    model: ModelSpec, framework: Framework, strategies: Strategies, sequence_length: int
) -> LayerActivations:
    """Bytes per token kept by each kind of layer, equations (1) and (2)."""
    w = widths(model, strategies)
    tokens_fraction = 1.0 / np.where(strategies.tp > 1, strategies.tp, 1.0)
    h = model.hidden_size
    norm = _norm(model, framework, w, strategies)
    mask = h / w.sequence_parts if model.dropout else 0.0
    recompute_act = _recomputes(strategies, Recompute.ACTIVATION)
    recompute_mlp = _recomputes(strategies, Recompute.MLP)
    recompute_moe = _recomputes(strategies, Recompute.MOE)
    recompute_shared = _recomputes(strategies, Recompute.SHARED_EXPERTS)

    before, after = _mlp(model, framework, w.ffn, strategies)
    inner = before + after * (1.0 - recompute_act)
    dense_mlp = norm + mask + inner * (1.0 - recompute_mlp)
    whole_dense_mlp = norm + mask + before + after

    attention = _attention(model, framework, w, strategies, sequence_length)
    if model.is_moe:
        # every token is sent to top_k experts; with expert-tensor-parallel each rank of that
        # group sees the tokens of all
        rows = tokens_fraction * model.top_k * strategies.etp
        before, after = _mlp(model, framework, rows * w.moe_ffn, strategies)
        dispatched = gemm_input_bytes(strategies) * rows * h
        weighed_late = 2.0 if framework.moe_output_saved else 0.0
        combined = weighed_late * rows * h / strategies.etp
        router = 4.0 * model.n_experts * tokens_fraction
        shared_before, shared_after = _mlp(model, framework, w.shared_ffn, strategies)
        experts = dispatched + before + after * (1.0 - recompute_act) + combined
        shared = (shared_before + shared_after * (1.0 - recompute_act)) * (1.0 - recompute_shared)
        moe = norm + mask + (router + experts + shared) * (1.0 - recompute_moe)
        whole_moe_mlp = (
            norm + mask + router + dispatched + before + after + combined + shared_before
        ) + shared_after
    else:
        moe = whole_moe_mlp = np.zeros_like(dense_mlp)
    return LayerActivations(
        attention=attention,
        dense_mlp=np.asarray(dense_mlp),
        moe=np.asarray(moe),
        checkpoint=np.asarray(2.0 * h / w.sequence_parts),
        whole_dense=np.asarray(attention + whole_dense_mlp),
        whole_moe=np.asarray(attention + whole_moe_mlp),
    )

"""Per-rank widths and parameter counts: what is left of the model after sharding.

Every function takes the strategies' columns and returns arrays that broadcast with
them.  Matrices are cut by tensor-parallel; norms, routers and MLA's down-projections
are repeated on every tensor-parallel rank (Megatron-LM, ``multi_latent_attention.py``
and ``moe/router.py``).
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.partition import StageLayers
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Sharding, Strategies
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Widths:
    """Scalars per token that one rank of the tensor-parallel group holds."""

    query: Floats
    kv: Floats
    """Keys, or values; never below one head."""
    value: Floats
    ffn: Floats
    shared_ffn: Floats
    moe_ffn: Floats
    """Of one expert, cut by expert-tensor-parallel."""
    vocab: Floats
    heads: Floats
    sequence_parts: Floats
    """Tensor-parallel ranks that share out the tokens between the matrices: tp or 1."""


def widths(model: ModelSpec, strategies: Strategies) -> Widths:
    """Per-rank widths; shapes broadcast over the strategies."""
    tp, etp = strategies.tp.astype(np.float64), strategies.etp.astype(np.float64)
    unit = model.make_vocab_size_divisible_by * tp
    padded = np.ceil(model.vocab_size / unit) * unit
    kv_head = model.kv_size / (model.n_heads if model.attention == "mla" else model.n_kv_heads)
    return Widths(
        query=model.query_size / tp,
        kv=np.maximum(model.kv_size / tp, kv_head),
        value=model.value_size / tp,
        ffn=model.ffn_size / tp,
        shared_ffn=model.shared_expert_ffn_size / tp,
        moe_ffn=model.moe_ffn_size / etp,
        vocab=padded / tp,
        heads=model.n_heads / tp,
        sequence_parts=np.where(strategies.sequence_parallel, tp, 1.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParameters:
    """Parameters on one rank, by the group that shares out their state."""

    attention: Floats
    """With the layer's norms."""
    dense_mlp: Floats
    moe_dense: Floats
    """Router and shared experts: they live on every expert-parallel rank."""
    experts: Floats
    """Routed experts of one layer on this rank."""
    embedding: Floats
    head: Floats
    """The output matrix on the last stage, also where it is a copy of the embedding's."""
    final_norm: float
    mtp_dense: Floats
    mtp_experts: Floats


def layer_parameters(model: ModelSpec, strategies: Strategies) -> LayerParameters:
    """Parameters of each part of the model on one rank; shapes broadcast."""
    tp = strategies.tp.astype(np.float64)
    h = model.hidden_size
    repeated: Floats | float = 0.0
    if model.attention == "mla":
        repeated = h * (model.q_lora_rank + model.kv_lora_rank + model.qk_rope_head_dim)
    elif model.n_kv_heads:
        # with more ranks than key heads every rank still holds one head of each
        copies = np.maximum(tp / model.n_kv_heads, 1.0)
        repeated = 2 * h * model.kv_size * (copies - 1.0) / tp
    cut = model.attention_parameters - (repeated if model.attention == "mla" else 0)
    attention = cut / tp + repeated + model.norms_per_layer * model.norm_parameters
    router = h * model.n_experts
    n_experts_here = model.n_experts / strategies.ep
    vocab = widths(model, strategies).vocab * h
    positions = model.embedding_parameters - model.vocab_size * h
    moe_dense = (model.moe_shared_parameters - router) / tp + router
    experts = n_experts_here * model.expert_parameters / strategies.etp
    mlp = moe_dense if model.is_moe else model.dense_mlp_parameters / tp
    mtp_norms = 3 * model.norm_parameters
    return LayerParameters(
        attention=np.asarray(attention),
        dense_mlp=np.asarray(model.dense_mlp_parameters / tp),
        moe_dense=np.asarray(moe_dense),
        experts=np.asarray(experts),
        embedding=vocab + positions,
        head=vocab,
        final_norm=float(model.norm_parameters),
        mtp_dense=np.asarray(model.mtp_layers * (2 * h * h / tp + attention + mlp + mtp_norms)),
        mtp_experts=np.asarray(model.mtp_layers * experts),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RankParameters:
    """Parameters on one pipeline rank."""

    dense: Floats
    experts: Floats
    head: Floats
    """Of the dense ones, the output matrix that this rank holds for itself."""


def rank_parameters(p: LayerParameters, model: ModelSpec, held: StageLayers) -> RankParameters:
    """Sum the parts over what a rank holds.

    Tied embeddings share one matrix only where both ends of the model are on one rank.
    """
    own_head = held.has_head & ~(held.has_embedding & model.tied_embeddings)
    dense = (
        held.n_layers * p.attention
        + held.n_dense * p.dense_mlp
        + held.n_moe * p.moe_dense
        + held.has_embedding * p.embedding
        + own_head * p.head
        + held.has_head * (p.final_norm + p.mtp_dense)
    )
    return RankParameters(
        dense=np.asarray(dense),
        experts=np.asarray(held.n_moe * p.experts + held.has_head * p.mtp_experts),
        head=np.asarray(own_head * p.head),
    )


def dense_shards(strategies: Strategies) -> Floats:
    """Ranks that share out the dense parameters' state; 1 where it is not sharded."""
    return strategies.state_shards.astype(np.float64)


def expert_shards(strategies: Strategies) -> Floats:
    """Ranks that share out one expert's state: world / (pp * ep * etp), less under HSDP."""
    s = strategies
    group = s.dp_shard * s.cp * s.tp / (s.ep * s.etp)
    return np.where(s.sharding == Sharding.NONE, 1.0, np.maximum(group, 1.0))


def shards_weights(strategies: Strategies) -> Floats:
    """1.0 where the weights themselves are sharded (ZeRO-3, FSDP, HSDP), else 0.0."""
    return np.asarray(strategies.sharding >= Sharding.ZERO3, dtype=np.float64)


def shards_gradients(strategies: Strategies) -> Floats:
    """1.0 where the gradients are sharded (ZeRO-2 and up), else 0.0."""
    return np.asarray(strategies.sharding >= Sharding.ZERO2, dtype=np.float64)


def micro_batches(strategies: Strategies, global_batch_size: int) -> Floats:
    """Micro-batches per data-parallel rank and step: m = global batch / (mbs dp)."""
    return global_batch_size / (strategies.micro_batch_size * strategies.dp).astype(np.float64)


def tokens_per_rank(strategies: Strategies, sequence_length: int) -> Floats:
    """Tokens of one micro-batch on one rank: mbs s / cp."""
    return np.asarray(strategies.micro_batch_size * (sequence_length / strategies.cp))

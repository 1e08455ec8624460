"""What one training step makes a GPU do, before anything is priced.

``step_work`` counts: GEMM shapes, scores and bytes of other kernels
(:mod:`cost_models.counting.layer_work`), bytes on the wires
(:mod:`cost_models.counting.traffic`), layers and parameters of each rank
(:mod:`cost_models.counting.rank_state`).  Nothing here depends on a calibrated constant, so
a fit counts once and prices many times; rows of different models can be joined by
:func:`concatenate` and priced together.

All arrays broadcast with the strategies' shape S; per-stage arrays have one axis more
in front, the representative pipeline ranks.  "Per layer" means one layer, one
micro-batch, one rank, forward.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from cost_models.counting import shards
from cost_models.counting.activations import layer_activations
from cost_models.counting.layer_work import (
    Gemm,
    Layer,
    fused_experts,
    gemm,
    host_experts,
    layer_work,
)
from cost_models.counting.machine import Machine, machine_of
from cost_models.counting.partition import representative_ranks, round_share, stage_layers
from cost_models.counting.rank_state import Stages, State, stages_of, state_of
from cost_models.counting.traffic import Traffic, traffic_of
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Everything that :func:`cost_models.equations.step.price` needs, and nothing calibrated."""

    machine: Machine
    layer: Layer
    stages: Stages
    traffic: Traffic
    state: State
    head: Gemm
    logits_bytes: Floats
    """Logits of one micro-batch, per pass over them."""
    embedding_bytes: Floats
    tokens: Floats
    """Tokens of one micro-batch on one rank."""
    trained: Floats
    """1.0 where the weights have gradients, 0.0 where they are frozen."""
    top_k: Floats
    routed_domains: Floats
    """Domains that one token's experts lie in at the most."""
    ep_deduplicates: Floats
    dispatch_share: Floats
    """Bytes sent to experts over bytes returned."""
    balanced_experts: Floats
    """1.0 where no expert receives more tokens than another."""
    host_experts: Floats
    """Experts on this rank whose kernels the host issues one by one, their sizes unknown
    until the router has run; 0 where fused or where sizes are fixed."""
    fused_experts: Floats
    """1.0 where one kernel is all of the experts and a graph holds the whole step."""
    n_micro_batches: Floats
    round_share: Floats
    """Share of the model's layers in its longest round of chunks, one on each rank."""
    activation_bytes_per_layer: Floats
    """Bytes kept per layer and micro-batch; what offload sends to the host and back."""
    model_layers: Floats
    model_moe: Floats
    model_windowed: Floats
    model_flop: Floats
    """FLOPs of the model's own mathematics in one step over all GPUs: the M of MFU."""


def model_flop(model: ModelSpec, workload: Workload, *, masked_scores: bool = False) -> float:
    """FLOPs of one step's forward and backward passes, recompute left out.

    6 per active weight of every matrix product and token, and causal attention at half
    the score matrix: 6 s a d per token and layer, less in windows (PaLM,
    arXiv:2204.02311, appendix B, with the causal half).  With ``masked_scores`` the whole
    matrix counts, as in Megatron-LM's and NeMo's own figures.
    """
    h, s = model.hidden_size, workload.sequence_length
    up = 3.0 if model.gated_mlp else 2.0
    dense = (model.n_layers - len(model.moe_layers)) * up * h * model.ffn_size
    active_width = model.top_k * model.moe_ffn_size + model.shared_expert_ffn_size
    moe = len(model.moe_layers) * (up * h * active_width + h * model.n_experts)
    attention = model.n_layers * model.attention_parameters
    head = model.vocab_size * h
    mtp = model.mtp_layers * (
        2 * h * h
        + model.attention_parameters
        + (up * h * (active_width if model.is_moe else model.ffn_size))
        + head
    )
    full = model.n_layers - len(model.sliding_window_layers) + model.mtp_layers
    window = min(model.sliding_window or s, s)
    seen = full * s / 2.0 + len(model.sliding_window_layers) * window * (1.0 - window / s / 2.0)
    scores = 2.0 * seen * (model.query_size + model.value_size)
    scores *= 2.0 if masked_scores else 1.0
    return workload.tokens_per_step * (6.0 * (dense + moe + attention + head + mtp) + 3.0 * scores)


def step_work(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
) -> Work:
    """Count the work of one step; every array broadcasts with ``strategies``."""
    s = strategies
    tokens = shards.tokens_per_rank(s, workload.sequence_length)
    w = shards.widths(model, s)
    kept = layer_activations(model, workload.framework, s, workload.sequence_length)
    held = [
        stage_layers(model, workload.framework, s, rank) for rank in representative_ranks(model, s)
    ]
    h = model.hidden_size
    one = np.asarray(1.0)
    return Work(
        machine=machine_of(cluster, workload, s),
        layer=layer_work(model, workload, s, tokens),
        stages=stages_of(model, held),
        traffic=traffic_of(model, cluster, workload, s, tokens),
        state=state_of(model, workload, s, held),
        head=gemm(tokens, w.vocab, h),
        logits_bytes=np.asarray(4.0 * w.vocab * tokens),
        embedding_bytes=np.asarray(4.0 * h * tokens),
        tokens=tokens,
        trained=one * (0.0 if workload.frozen_weights else 1.0),
        top_k=one * max(model.top_k, 1),
        routed_domains=one * float(model.routed_groups or model.n_experts or 1),
        ep_deduplicates=one * float(workload.framework.ep_deduplicates),
        dispatch_share=one * workload.framework.dispatch_bytes / 2.0,
        balanced_experts=one * float(workload.balanced_experts),
        host_experts=host_experts(model, workload, s),
        fused_experts=fused_experts(model, workload, s),
        n_micro_batches=shards.micro_batches(s, workload.global_batch_size),
        round_share=round_share(model, workload.framework, s),
        activation_bytes_per_layer=np.asarray(
            (kept.attention + np.maximum(kept.dense_mlp, kept.moe)) * tokens
        ),
        model_layers=one * model.n_layers,
        model_moe=one * len(model.moe_layers),
        model_windowed=one * len(model.sliding_window_layers),
        model_flop=one * model_flop(model, workload),
    )


T = TypeVar("T")


def concatenate(parts: Sequence[T], sizes: Sequence[int], n_stages: int) -> T:
    """Join flat works of ``sizes`` strategies each into one, stages padded to ``n_stages``.

    Padding repeats a part's last representative rank, which changes no maximum.
    """

    def join(values: Sequence[Any], per_stage: bool) -> Any:
        first = values[0]
        if isinstance(first, tuple):
            return tuple(join([v[i] for v in values], per_stage) for i in range(len(first)))
        if isinstance(first, (np.ndarray, np.generic, float)):
            columns = []
            for value, size in zip(map(np.asarray, values), sizes, strict=True):
                if per_stage and value.ndim == 2:
                    index = np.minimum(np.arange(n_stages), value.shape[0] - 1)
                    columns.append(np.broadcast_to(value[index], (n_stages, size)))
                else:
                    columns.append(np.broadcast_to(value, (size,)))
            return np.concatenate(columns, axis=-1)
        staged = isinstance(first, (Stages, State))
        names = [f.name for f in fields(first)]
        return type(first)(**{n: join([getattr(v, n) for v in values], staged) for n in names})

    joined: T = join(list(parts), False)
    return joined

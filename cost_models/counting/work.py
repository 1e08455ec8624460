"""What one training step makes a GPU do, before anything is priced.

``step_work`` counts: GEMM shapes, scores, bytes moved by other kernels, bytes on the
wires, parameters to update.  Nothing here depends on a calibrated constant, so a fit
counts once and prices many times; rows of different models can be joined by
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
from cost_models.counting.partition import (
    StageLayers,
    representative_ranks,
    round_share,
    stage_layers,
)
from cost_models.specs.cluster import PRECISIONS, Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import ContextParallel, Order, Sharding, Strategies
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
class Group:
    """A group of communicating ranks: ``inside`` of one NVLink domain, in ``outside`` domains."""

    inside: Floats
    outside: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The GPU and its wires as the data sheet gives them."""

    gemm_flop_per_s: Floats
    """At the strategy's precision; 0 where the GPU does not have it."""
    sixteen_bit_flop_per_s: Floats
    """What stays in 16 bits whatever the layers' GEMMs do."""
    attention_flop_per_s: Floats
    """Scores are, and by a kernel that may be slower than the fastest."""
    sustained: Floats
    """Of both peaks under load, over the GPU that most runs of its architecture are from."""
    memory_bandwidth_Bps: Floats
    n_sm: Floats
    nvlink_Bps: Floats
    nic_Bps: Floats
    host_Bps: Floats
    gemm_bytes: Floats
    """Per scalar that a GEMM reads."""
    eight_bit: Floats
    """1.0 where GEMMs run in 8 bits or fewer."""
    has_switch: Floats
    """1.0 where the NVLink switch adds up all-reduces (NVLS: Hopper and later)."""
    n_nodes: Floats


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
    """Ranks that share out dense weights under FSDP."""
    replica: Group
    """Copies of an HSDP group."""
    expert_shard: Group
    """Ranks that share out one expert's weights under FSDP."""
    expert_replica: Group
    """Copies of such a group under HSDP."""
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
    """Queries and outputs of the same."""
    cp_ring: Floats
    """1.0 where the context-parallel exchange is a ring that attention can hide."""
    cp_all_gather: Floats
    is_moe: Floats
    ep_bytes: Floats
    """One dispatch, or one combine, of a micro-batch."""
    p2p_bytes: Floats


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
    """Of the longest round of chunks, one on each rank, in the model's layers."""
    activation_bytes_per_layer: Floats
    """Kept per layer and micro-batch; what offload sends to the host and back."""
    model_layers: Floats
    model_moe: Floats
    model_windowed: Floats
    model_flop: Floats
    """FLOPs of the model's own mathematics in one step over all GPUs: the M of MFU."""


def _group(cluster: Cluster, stride: Any, size: Any) -> Group:
    inside = cluster.inside(stride, size)
    return Group(inside=inside, outside=np.asarray(size / inside, dtype=np.float64))


def _machine(cluster: Cluster, workload: Workload, s: Strategies) -> Machine:
    gpu = cluster.gpu
    kernel = dict(workload.framework.attention_speed).get(gpu.architecture, 1.0)
    peaks = np.array([gpu.peak_flop_per_s.get(name, 0.0) for name in PRECISIONS])
    sixteen = gpu.peak_flop_per_s.get("bf16") or gpu.peak_flop_per_s.get("fp16") or peaks.max()
    gemm_bytes = np.array([2.0, 2.0, 1.0, 1.0, 0.5])
    scalar = np.asarray
    return Machine(
        gemm_flop_per_s=peaks[s.precision],
        sixteen_bit_flop_per_s=scalar(float(sixteen)),
        attention_flop_per_s=scalar(float(sixteen) * kernel),
        sustained=scalar(gpu.sustained or 1.0),
        memory_bandwidth_Bps=scalar(gpu.memory_bandwidth_Bps),
        n_sm=scalar(float(gpu.n_sm)),
        nvlink_Bps=scalar(cluster.nvlink_bandwidth_Bps),
        nic_Bps=scalar(cluster.fabric_bandwidth_Bps),
        host_Bps=scalar(gpu.host_bandwidth_Bps),
        gemm_bytes=gemm_bytes[s.precision],
        eight_bit=scalar(s.precision >= 2, dtype=np.float64),
        has_switch=scalar(float(gpu.architecture in SWITCHED)),
        n_nodes=np.ceil(s.world_size / cluster.gpus_per_node),
    )


def _gemm(m: Any, n: Any, k: Any, groups: Any = 1.0) -> Gemm:
    return Gemm(
        m=np.asarray(m, dtype=np.float64),
        n=np.asarray(n, dtype=np.float64),
        k=np.asarray(k, dtype=np.float64),
        groups=np.asarray(groups, dtype=np.float64),
    )


def _attention_gemms(model: ModelSpec, w: shards.Widths, tokens: Floats) -> tuple[Gemm, ...]:
    h = model.hidden_size
    out = _gemm(tokens, h, w.value)
    if model.attention != "mla":
        empty = _gemm(0, 0, 0)
        return (_gemm(tokens, w.query + 2 * w.kv, h), out, empty, empty)
    few = tokens / w.sequence_parts
    latent = model.kv_lora_rank + model.qk_rope_head_dim
    up_kv = w.heads * (model.qk_nope_head_dim + model.v_head_dim)
    down = _gemm(few, model.q_lora_rank + latent, h)
    if model.q_lora_rank:
        query_up = _gemm(tokens, w.query, model.q_lora_rank)
    else:
        query_up = _gemm(tokens, w.query, h)
    return (down, out, query_up, _gemm(tokens, up_kv, model.kv_lora_rank))


def _layer(model: ModelSpec, workload: Workload, s: Strategies, tokens: Floats) -> Layer:
    w = shards.widths(model, s)
    h, up = model.hidden_size, 2.0 if model.gated_mlp else 1.0
    framework = workload.framework
    passes = framework.elementwise_passes
    # each rank routes its own share of the tokens; expert-tensor-parallel gathers them
    routed = tokens / s.tp * model.top_k * s.etp
    experts = np.maximum(model.n_experts / s.ep, 1.0)
    expert_gemms: tuple[Gemm, ...] = (_gemm(0, 0, 0),) * 3
    if model.is_moe:
        expert_gemms = (
            _gemm(routed / experts, up * w.moe_ffn, h, experts),
            _gemm(routed / experts, h, w.moe_ffn, experts),
            _gemm(tokens / s.tp, model.n_experts, h),
        )
    queries = workload.sequence_length / s.cp
    window = model.sliding_window or workload.sequence_length
    share = np.minimum(window / workload.sequence_length, 1.0)
    score_passes = 6.0 if model.dropout else 4.0
    unfused = 0.0 if framework.flash_attention else 2.0 * score_passes
    head_dim = model.query_size / model.n_heads
    hidden_passes = 4.0 * model.norms_per_layer + (4.0 if model.dropout else 0.0)
    return Layer(
        attention_gemms=_attention_gemms(model, w, tokens),
        dense_gemms=(_gemm(tokens, up * w.ffn, h), _gemm(tokens, h, w.ffn)),
        shared_gemms=(
            _gemm(tokens, up * w.shared_ffn, h),
            _gemm(tokens, h, w.shared_ffn),
        ),
        expert_gemms=expert_gemms,
        attention=Attention(
            batch=s.micro_batch_size.astype(np.float64),
            heads=w.heads,
            queries=np.asarray(queries),
            keys=np.asarray(float(workload.sequence_length)),
            qk_width=np.asarray(head_dim),
            v_width=np.asarray(model.value_size / model.n_heads),
            kept=np.asarray(0.5),
            kept_windowed=np.asarray(share * (1.0 - share / 2.0)),
            unfused_bytes=np.asarray(unfused * w.heads * tokens * workload.sequence_length),
        ),
        norm_bytes=np.asarray(passes * 2.0 * hidden_passes * h / w.sequence_parts * tokens),
        attention_bytes=np.asarray(
            passes * 2.0 * (4.0 if model.qk_norm else 2.0) * (w.query + w.kv) * tokens
        ),
        dense_bytes=np.asarray(passes * 2.0 * (up + 1.0) * w.ffn * tokens),
        moe_bytes=_moe_bytes(model, workload, s, w, tokens, routed),
    )


def _fused_experts(model: ModelSpec, workload: Workload, s: Strategies) -> Floats:
    formats = workload.framework.fused_expert_formats
    fused = np.isin(s.precision, [PRECISIONS.index(name) for name in formats])
    return np.asarray(fused & model.is_moe, dtype=np.float64)


def _host_experts(model: ModelSpec, workload: Workload, s: Strategies) -> Floats:
    issued = (1.0 - _fused_experts(model, workload, s)) * (not workload.drops_tokens)
    return np.asarray(issued * model.n_experts / s.ep)


def _moe_bytes(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    w: shards.Widths,
    tokens: Floats,
    routed: Floats,
) -> Floats:
    """Router, permutation there and back, and the non-linearity of all experts.

    Fused experts activate inside their product, and the exchange writes where the product
    reads.  An expert's bias is added by kernels of its own, as an fp32 product with the
    router's probability, a sum and a cast: 20 bytes a scalar.
    """
    if not model.is_moe:
        return np.zeros(())
    up = 2.0 if model.gated_mlp else 1.0
    apart = 1.0 - _fused_experts(model, workload, s)
    activated = 2.0 * (up + 1.0) * (apart * w.moe_ffn * routed + w.shared_ffn * tokens)
    biased = 20.0 * (apart * up * w.moe_ffn + model.hidden_size) * routed * model.moe_bias
    moved = 4.0 * (1.0 + apart) * model.hidden_size * routed
    return np.asarray(activated + biased + moved + 12.0 * model.n_experts * tokens / s.tp)


def _stack(values: Sequence[Any]) -> Floats:
    arrays = np.broadcast_arrays(*values)
    return np.stack([np.asarray(a, dtype=np.float64) for a in arrays])


def _stages(
    model: ModelSpec, workload: Workload, s: Strategies
) -> tuple[Stages, list[StageLayers]]:
    held = [
        stage_layers(model, workload.framework, s, rank) for rank in representative_ranks(model, s)
    ]
    head = _stack([h.has_head for h in held])
    stages = Stages(
        n_layers=_stack([h.n_layers for h in held]),
        n_moe=_stack([h.n_moe for h in held]),
        n_windowed=_stack([h.n_windowed for h in held]),
        has_embedding=_stack([h.has_embedding for h in held]),
        has_head=head,
        n_mtp=head * model.mtp_layers,
    )
    return stages, held


def _traffic(
    model: ModelSpec, cluster: Cluster, workload: Workload, s: Strategies, tokens: Floats
) -> Traffic:
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


def _state(model: ModelSpec, workload: Workload, s: Strategies, held: list[StageLayers]) -> State:
    p = shards.layer_parameters(model, s)
    framework, optimizer = workload.framework, workload.optimizer
    own = [shards.rank_parameters(p, model, rank) for rank in held]
    state = optimizer.moments_bytes + optimizer.master_bytes
    on_gpu = 1.0 - s.optimizer_offload
    overlapping = [int(Sharding.parse(kind)) for kind in framework.overlaps_gradients]
    return State(
        dense=_stack([rank.dense for rank in own]),
        experts=_stack([rank.experts for rank in own]),
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
    stages, held = _stages(model, workload, s)
    h = model.hidden_size
    one = np.asarray(1.0)
    return Work(
        machine=_machine(cluster, workload, s),
        layer=_layer(model, workload, s, tokens),
        stages=stages,
        traffic=_traffic(model, cluster, workload, s, tokens),
        state=_state(model, workload, s, held),
        head=_gemm(tokens, w.vocab, h),
        logits_bytes=np.asarray(4.0 * w.vocab * tokens),
        embedding_bytes=np.asarray(4.0 * h * tokens),
        tokens=tokens,
        trained=one * (0.0 if workload.frozen_weights else 1.0),
        top_k=one * max(model.top_k, 1),
        routed_domains=one * float(model.routed_groups or model.n_experts or 1),
        ep_deduplicates=one * float(workload.framework.ep_deduplicates),
        dispatch_share=one * workload.framework.dispatch_bytes / 2.0,
        balanced_experts=one * float(workload.balanced_experts),
        host_experts=_host_experts(model, workload, s),
        fused_experts=_fused_experts(model, workload, s),
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
SWITCHED = ("hopper", "blackwell")
"""Architectures whose NVLink switch computes (NVLink SHARP, third generation and later)."""


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

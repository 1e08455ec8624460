"""One training step: where every term meets.

Per micro-batch, pipeline rank r spends F_r forward, B_r on gradients of inputs (with
whatever is recomputed) and W_r on gradients of weights; the slowest rank is the clock:

    pipeline   T_p = m t_r + bubble          (:mod:`cost_models.equations.pipeline`)            (1)
    gradients  exposed = max(comm - hidden share of the last backward pass, 0)        (2)
    sharded weights, per micro-batch:
               exposed = max(gather - hidden share of the forward pass, 0)
                       + max(gather + scatter - hidden share of the backward, 0)      (3)
    optimizer  bytes of the rank's own state over the memory bandwidth                (4)
    step       (T_p + (2) + (4) + overhead) (1 + straggler log2(nodes))               (5)

A lower bound over all strategies that differ only by recomputing or offloading more, or
by overlapping p2p, gradients or parameters less, is at hand where t_r can only grow: with
(2) and (3) pooled, exposed = max(all of it - hidden share of both passes, 0), they fall by
less than t_r grows, so that (5) at max t_r and with the least (2) and (4) of any rank is
such a bound; where a schedule's bubble may shrink as work grows it counts as nothing.  (7)

A micro-batch whose kernels the GPU finishes before the host has issued them takes the
host's time: with x the GPU's seconds and y the host's, (x^k + y^k)^(1/k), k = 6.      (6)

Terms are seconds of the slowest rank and sum to the step; ``hidden_s`` is the
communication that runs under compute and costs only ``overlap_price`` of itself.
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.activations import layer_activations
from cost_models.counting.work import Group, Work, step_work
from cost_models.equations.collectives import all_reduce_s, send_s
from cost_models.equations.constants import Constants
from cost_models.equations.layer_time import (
    LayerTime,
    Links,
    group_gather_s,
    layer_time,
    links,
    ring_waits,
)
from cost_models.equations.memory import MemoryCost, memory_cost
from cost_models.equations.pipeline import pipeline_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Recompute, Schedule, Sharding, Strategies
from cost_models.specs.units import Floats, Ints
from cost_models.specs.workload import Workload

SHARP = 6.0
"""The k of equation (6): the longer of the two, with a rounded corner."""

TIME_TERMS = (
    "gemm",
    "attention",
    "memory_bound",
    "recompute",
    "tp_comm",
    "cp_comm",
    "ep_comm",
    "pp_comm",
    "fsdp_comm",
    "dp_comm",
    "bubble",
    "optimizer",
    "offload",
    "launch",
    "overlap_price",
    "straggler",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step; ``terms`` sum to ``total_s``."""

    total_s: Floats
    terms: dict[str, Floats]
    hidden_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Time and memory of every strategy; arrays of the strategies' shape."""

    step_time_s: Floats
    time_terms: dict[str, Floats]
    hidden_s: Floats
    memory: MemoryCost
    tokens_per_s_per_gpu: Floats
    mfu: Floats
    """Model FLOPs over the peak of the strategy's precision; recompute does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTime:
    """Seconds per micro-batch of every representative rank (axis 0), by kind."""

    forward: Floats
    backward: Floats
    weight: Floats
    terms: dict[str, Floats]
    only_steady: Floats
    """Of the launch overhead, what is not paid while the pipeline fills and drains."""
    hidden: Floats


def _sum_blocks(work: Work, blocks: LayerTime, name: str) -> Floats:
    """A block quantity summed over each rank's layers, MTP modules included."""
    st = work.stages
    n_dense = st.n_layers - st.n_moe
    moe = work.traffic.is_moe * st.n_mtp
    value: Floats = (
        (st.n_layers + st.n_mtp) * getattr(blocks.attention, name)
        + (n_dense + st.n_mtp - moe) * getattr(blocks.dense, name)
        + (st.n_moe + moe) * getattr(blocks.moe, name)
    )
    return value


def _recompute(work: Work, s: Strategies, blocks: LayerTime) -> Floats:
    """Seconds of forward work that each rank does again, per micro-batch."""
    st = work.stages
    layers = np.maximum(st.n_layers, 1.0)
    asked = np.where(s.recompute_layers > 0, s.recompute_layers, st.n_layers)
    full = np.where((s.recompute & int(Recompute.FULL)) != 0, np.minimum(asked / layers, 1.0), 0.0)
    core = np.where((s.recompute & int(Recompute.CORE_ATTN)) != 0, 1.0, 0.0)
    windows = st.n_windowed * blocks.window_saves_forward
    forward = _sum_blocks(work, blocks, "forward") - windows
    modules = (
        st.n_layers * blocks.recompute_attention
        - core * windows
        + (st.n_layers - st.n_moe) * blocks.recompute_dense
        + st.n_moe * blocks.recompute_moe
    )
    return np.asarray(full * forward + modules)


def _fsdp(
    work: Work,
    s: Strategies,
    c: Constants,
    wires: Links,
    forward: Floats,
    backward: Floats,
    *,
    bound: bool = False,
) -> tuple[Floats, Floats]:
    """Equation (3): exposed and hidden seconds per micro-batch; pooled for a bound (7)."""
    t, state = work.traffic, work.state

    def both(wire_bytes: Floats) -> Floats:
        return group_gather_s(state.dense * wire_bytes, t.shard, wires) + group_gather_s(
            state.experts * wire_bytes, t.expert_shard, wires
        )

    gather, scatter = both(state.param_gather_bytes), both(state.grad_reduce_bytes)
    sharded = s.sharding >= Sharding.ZERO3
    m = work.n_micro_batches
    # kept gathered, the weights come once a step; without resharding nothing is gathered twice
    first = gather / np.where(s.reshard_after_forward, 1.0, m)
    again = np.where(s.reshard_after_forward, gather, 0.0)
    # PyTorch's pipelines reduce gradients with the last micro-batch
    often = np.where((s.pp > 1) & ~s.reshard_after_forward, m, 1.0)
    scattered = work.trained * np.where(s.sharding >= Sharding.ZERO2, scatter / often, 0.0)
    first, again = np.where(sharded, first, 0.0), np.where(sharded, again, 0.0)
    if bound:
        pooled = first + again + scattered - c.fsdp_hidden * (forward + backward)
        exposed = np.maximum(pooled, 0.0)
    else:
        exposed = np.maximum(first - c.fsdp_hidden * forward, 0.0) + np.maximum(
            again + scattered - c.fsdp_hidden * backward, 0.0
        )
    return exposed, first + again + scattered - exposed


def rank_times(
    work: Work, s: Strategies, c: Constants, wires: Links, *, breakdown: bool, bound: bool
) -> RankTime:
    """Seconds per micro-batch of every rank that ``work.stages`` holds."""
    blocks = layer_time(work, s, c)
    st = work.stages
    windows_f = st.n_windowed * blocks.window_saves_forward
    windows_b = st.n_windowed * blocks.window_saves_backward
    heads = st.has_head + st.n_mtp
    forward = (
        _sum_blocks(work, blocks, "forward")
        - windows_f
        + heads * (blocks.head_forward + blocks.head_memory / 2.0)
        + st.has_embedding * blocks.embedding
    )
    recompute = _recompute(work, s, blocks)
    backward = (
        _sum_blocks(work, blocks, "backward")
        - windows_b
        + heads * (blocks.head_input + blocks.head_memory / 2.0)
        + st.has_embedding * blocks.embedding
        + recompute
    )
    gemm_weight = work.trained * (
        _sum_blocks(work, blocks, "gemm_weight") + heads * blocks.head_weight
    )
    accumulated = accumulate_s(work, c)
    weight = gemm_weight + accumulated

    # the longer of the two, by equation (6)
    layers = np.maximum(st.n_layers + st.n_mtp, 1.0)
    crossing = work.traffic.p2p_crosses * (s.pp > 1)
    floor = c.layer_floor_s + np.where(s.tp > 1, c.layer_floor_tp_s, 0.0)
    floor = floor + c.expert_host_s * work.host_experts * st.n_moe / layers
    # two blocks, both ways; hosts that alternate sends and receives wait twice as long as GPUs
    waits = 8.0 * ring_waits(work, c)
    steady = (c.layer_floor_pipeline_s * s.tp + waits) * crossing
    again = np.where((s.recompute & int(Recompute.FULL)) != 0, 4.0 / 3.0, 1.0)
    # a graph of the whole step leaves nothing to issue
    again = layers * again * (1.0 - work.fused_experts)
    busy = forward + backward + weight
    filling = _longer(busy, floor * again + c.micro_batch_s) - busy
    launch = _longer(busy, (floor + steady) * again + c.micro_batch_s) - busy
    only_steady = launch - filling
    launch = launch + np.where(s.pp > 1, c.pipeline_micro_batch_s, 0.0)

    hop = hop_s(work, wires)
    sends = np.where(s.pp > 1, 2.0 * s.vpp * hop, 0.0)
    pp_comm = sends * (1.0 - np.where(s.overlap_p2p, c.p2p_hidden, 0.0))
    share = forward / np.maximum(busy, 1e-12)
    fsdp, fsdp_hidden = _fsdp(
        work,
        s,
        c,
        wires,
        forward + launch * share,
        backward + weight + launch * (1.0 - share),
        bound=bound,
    )
    # the host link goes on while weights are awaited
    offload = np.maximum(_activation_offload(work, s, busy + launch) - fsdp, 0.0)
    if bound:  # the less is hidden the better, where the host link is waited for anyhow
        fsdp_hidden = np.maximum(fsdp_hidden - offload, 0.0)
    hidden = _sum_blocks(work, blocks, "hidden") + fsdp_hidden
    price = c.overlap_price * hidden
    stall = launch + pp_comm + fsdp + offload + price
    if bound:  # while a pipeline fills, the kernels alone are certain not to shrink
        only_steady = stall - filling
    stalls = {
        "pp_comm": pp_comm,
        "fsdp_comm": fsdp,
        "offload": offload,
        "launch": launch,
        "overlap_price": price,
    }
    kernels = _kernel_terms(work, blocks, recompute, gemm_weight, accumulated) if breakdown else {}
    return RankTime(
        forward=forward + stall * share,
        backward=backward + stall * (1.0 - share),
        weight=weight,
        terms=kernels | stalls if breakdown else {},
        hidden=hidden,
        only_steady=only_steady,
    )


def accumulate_s(work: Work, c: Constants) -> Floats:
    """Adding a micro-batch's gradients to their buffer, where no GEMM does it on the way."""
    moved = work.state.accumulated_bytes * (work.state.dense + work.state.experts)
    return np.asarray(
        work.trained * moved / (work.machine.memory_bandwidth_Bps * c.memory_fraction)
    )


def _longer(gpu: Floats, host: Floats) -> Floats:
    """Equation (6)."""
    longer = np.maximum(gpu, host)
    rest = np.minimum(gpu, host) / np.maximum(longer, 1e-12)
    return np.asarray(longer * (1.0 + rest**SHARP) ** (1.0 / SHARP))


def _kernel_terms(
    work: Work, blocks: LayerTime, recompute: Floats, gemm_weight: Floats, accumulated: Floats
) -> dict[str, Floats]:
    """Where each rank's compute and exposed layer collectives go, per micro-batch."""
    st = work.stages
    heads = st.has_head + st.n_mtp
    windows = st.n_windowed * (blocks.window_saves_forward + blocks.window_saves_backward)
    return {
        "gemm": _sum_blocks(work, blocks, "gemm_forward")
        + _sum_blocks(work, blocks, "gemm_input")
        + gemm_weight
        + heads * (blocks.head_forward + blocks.head_input),
        "attention": _both_ways(work, blocks, "attention") - windows,
        "memory_bound": _both_ways(work, blocks, "memory")
        + heads * blocks.head_memory
        + accumulated
        + st.has_embedding * 2.0 * blocks.embedding,
        "recompute": recompute,
        "tp_comm": _both_ways(work, blocks, "tp"),
        "cp_comm": _both_ways(work, blocks, "cp"),
        "ep_comm": _both_ways(work, blocks, "ep"),
    }


def _both_ways(work: Work, blocks: LayerTime, kind: str) -> Floats:
    return _sum_blocks(work, blocks, f"{kind}_forward") + _sum_blocks(
        work, blocks, f"{kind}_backward"
    )


def hop_s(work: Work, wires: Links) -> Floats:
    """Seconds of one message to the next pipeline stage."""
    t = work.traffic
    return np.where(
        t.p2p_crosses > 0, send_s(t.p2p_bytes, wires.inter), send_s(t.p2p_bytes, wires.intra)
    )


def _activation_offload(work: Work, s: Strategies, busy: Floats) -> Floats:
    """What the host link cannot carry while the GPU computes, per micro-batch."""
    moved = 2.0 * s.activation_offload * work.activation_bytes_per_layer * work.stages.n_layers
    return np.maximum(moved / work.machine.host_Bps - 0.5 * busy, 0.0)


def gradients_s(
    work: Work,
    s: Strategies,
    c: Constants,
    wires: Links,
    forward: Floats,
    backward: Floats,
    *,
    bound: bool = False,
) -> tuple[Floats, Floats]:
    """Equation (2) on every rank: exposed and hidden seconds per step; pooled for a bound."""
    t, state = work.traffic, work.state
    reduce_bytes, gather_bytes = state.grad_reduce_bytes, state.param_gather_bytes

    def over(group: Group, parameters: Floats) -> tuple[Floats, Floats, Floats]:
        # every bucket pays the latency of its own collective
        buckets = np.maximum(parameters / state.bucket_parameters, 1.0)
        bucket = parameters / buckets
        reduced = all_reduce_s(
            bucket * reduce_bytes,
            group.inside,
            group.outside,
            intra=wires.intra,
            inter=wires.inter,
        )
        return (
            buckets * group_gather_s(bucket * reduce_bytes, group, wires),
            buckets * group_gather_s(bucket * gather_bytes, group, wires),
            buckets * reduced,
        )

    dense, experts = over(t.dp, state.dense), over(t.edp, state.experts)
    scatter, gather, reduce = (a + b for a, b in zip(dense, experts, strict=True))
    # HSDP adds up its copies of every shard
    sides = {"intra": wires.intra, "inter": wires.inter}
    copies = all_reduce_s(
        (state.dense / state.dense_shards) * reduce_bytes,
        t.replica.inside,
        t.replica.outside,
        **sides,
    ) + all_reduce_s(
        (state.experts / state.expert_shards) * reduce_bytes,
        t.expert_replica.inside,
        t.expert_replica.outside,
        **sides,
    )
    none = s.sharding == Sharding.NONE
    whole = s.sharding >= Sharding.ZERO3
    # from ZeRO-2 on, every micro-batch has scattered its own: equation (3)
    owned = np.where(state.scatters > 0, scatter, reduce)
    grads = np.where(none, reduce, np.where(s.sharding >= Sharding.ZERO2, 0.0, owned))
    grads = grads + np.where(s.sharding == Sharding.HSDP, copies, 0.0)
    params = np.where(none | whole, 0.0, gather)
    one = 1.0 / np.maximum(np.where(s.vpp > 1, s.vpp, 1), 1)
    hidden = c.dp_hidden * state.overlaps * one
    hide_grads = np.where(s.overlap_grad_reduce, hidden, 0.0) * backward
    hide_params = np.where(s.overlap_param_gather, hidden, 0.0) * forward
    if bound:
        exposed = np.maximum(grads + params - hidden * (forward + backward), 0.0)
    else:
        exposed = np.maximum(grads - hide_grads, 0.0) + np.maximum(params - hide_params, 0.0)
    return work.trained * exposed, work.trained * (grads + params - exposed)


def optimizer_s(work: Work, s: Strategies, c: Constants) -> tuple[Floats, Floats]:
    """Equation (4), and the trip of offloaded state to the host and back."""
    state = work.state
    own = state.dense / state.dense_shards + state.experts / state.expert_shards
    own = work.trained * own
    bandwidth = work.machine.memory_bandwidth_Bps * c.optimizer_fraction
    update = own * state.updated_bytes / bandwidth
    host = own * state.offloaded_bytes / work.machine.host_Bps
    return update, host


_GROWING_BUBBLES = (Schedule._1F1B, Schedule.GPIPE, Schedule.INTERLEAVED)
"""Schedules whose pipeline takes longer whenever a rank's work grows."""


def choose_rank(values: Floats, index: Ints) -> Floats:
    """Row ``index`` of axis 0, entry by entry; values without that axis are all ranks'."""
    if values.ndim <= index.ndim:
        return values
    chosen: Floats = values[0]
    for rank in range(1, len(values)):
        chosen = np.where(index == rank, values[rank], chosen)
    return chosen


def price(
    work: Work,
    strategies: Strategies,
    constants: Constants,
    *,
    breakdown: bool = True,
    bound: bool = False,
) -> StepTime:
    """Seconds of one step, equations (1) to (6); shapes broadcast to the strategies'.

    Without ``breakdown`` the same total is computed and ``terms`` is empty.  ``bound``
    asks for the lower bound (7) instead.
    """
    s, c = strategies, constants
    wires = links(work, c)
    ranks = rank_times(work, s, c, wires, breakdown=breakdown, bound=bound)
    total = ranks.forward + ranks.backward + ranks.weight
    slowest = np.argmax(total, axis=0)

    def at_slowest(values: Floats) -> Floats:
        return choose_rank(values, slowest)

    def once(values: Floats) -> Floats:
        """What is paid once a step: the slowest rank's, or for a bound the least of any."""
        return values.min(axis=0) if bound and values.ndim > slowest.ndim else at_slowest(values)

    forward, backward, weight = (
        at_slowest(v) for v in (ranks.forward, ranks.backward, ranks.weight)
    )
    busy = forward + backward + weight
    # what the host loses where sends and receives alternate is not lost while a pipeline fills
    steady = at_slowest(ranks.only_steady)
    everywhere = _all_stages(work, s, total - ranks.only_steady, busy - steady)
    everywhere = everywhere if bound else everywhere + steady
    m = work.n_micro_batches
    _, bubble = pipeline_s(
        s.schedule,
        m,
        s.pp,
        s.vpp,
        forward_s=forward,
        backward_s=backward,
        weight_s=weight,
        all_stages_s=everywhere,
        p2p_s=hop_s(work, wires),
        round_share=work.round_share,
    )
    certain = np.isin(s.schedule, _GROWING_BUBBLES) if bound else True
    bubble = np.where((s.pp > 1) & certain, bubble, 0.0)
    exposed, hidden = gradients_s(work, s, c, wires, forward, backward + weight, bound=bound)
    update, host = optimizer_s(work, s, c)
    hidden = once(hidden)
    by_step = {
        "dp_comm": once(exposed),
        "bubble": bubble,
        "optimizer": once(update),
        "offload": once(host),
        "launch": np.asarray(c.step_s),
        "overlap_price": c.overlap_price * hidden,
    }
    before = m * busy + sum(by_step.values())
    straggler = before * c.straggler * np.log2(np.maximum(work.machine.n_nodes, 1.0))
    shape = np.broadcast_shapes(s.shape, before.shape)
    terms: dict[str, Floats] = {}
    if breakdown:
        by_step["straggler"] = straggler
        zero = np.zeros(())
        for name in TIME_TERMS:
            per_micro_batch = ranks.terms.get(name)
            repeated = zero if per_micro_batch is None else m * at_slowest(per_micro_batch)
            terms[name] = np.broadcast_to(repeated + by_step.get(name, zero), shape)
    return StepTime(
        total_s=np.broadcast_to(before + straggler, shape),
        terms=terms,
        hidden_s=np.broadcast_to(m * at_slowest(ranks.hidden) + hidden, shape),
    )


def _all_stages(work: Work, s: Strategies, total: Floats, slowest: Floats) -> Floats:
    """F + B + W of one micro-batch summed over all pipeline ranks.

    The representative ranks are priced; the layers that they do not hold take the time of
    a layer in the middle of the pipeline.  Given ``stage_layers``, all ranks are priced.
    """
    st = work.stages
    if s.stage_layers is not None:
        rank = np.arange(len(total)).reshape(-1, *(1,) * slowest.ndim)
        return np.asarray(np.where(rank < s.pp, total, 0.0).sum(axis=0))
    per_layer = total / np.maximum(st.n_layers, 1.0)
    middle = np.where((st.has_embedding + st.has_head > 0) | (st.n_layers == 0), 0.0, per_layer)
    per_layer = middle.max(axis=0)
    first, last = total[0], total[min(2, len(total) - 1)]
    held = st.n_layers[0] + st.n_layers[min(2, len(total) - 1)]
    between = np.maximum(work.model_layers - held, 0.0) * per_layer
    return np.where(s.pp > 1, first + last + between, slowest)


def step_time_s(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
    *,
    bound: bool = False,
) -> Floats:
    """Step time alone, or its lower bound (7); of the strategies' shape or broadcasting to it."""
    acts = layer_activations(model, workload.framework, strategies, workload.sequence_length)
    kept = acts.attention + np.maximum(acts.dense_mlp, acts.moe)
    work = step_work(model, cluster, workload, strategies, kept)
    return price(work, strategies, constants, breakdown=False, bound=bound).total_s


def step_cost(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
    *,
    breakdown: bool = True,
) -> StepCost:
    """Step time and peak memory of every strategy.

    A sweep that only needs the totals asks for no ``breakdown``: the terms stay empty.

    Parameters and result broadcast: columns of shape S in, arrays of shape S out; one
    strategy is a batch of one.  Nothing is raised for an illegal strategy: its numbers
    mean nothing, and :mod:`search.rules` is there to say so.
    """
    acts = layer_activations(model, workload.framework, strategies, workload.sequence_length)
    kept = acts.attention + np.maximum(acts.dense_mlp, acts.moe)
    work = step_work(model, cluster, workload, strategies, kept)
    time = price(work, strategies, constants, breakdown=breakdown)
    memory = memory_cost(model, workload, strategies, constants, breakdown=breakdown)
    gpus = strategies.world_size
    peak = np.maximum(work.machine.gemm_flop_per_s, 1.0)
    return StepCost(
        step_time_s=time.total_s,
        time_terms=time.terms,
        hidden_s=time.hidden_s,
        memory=memory,
        tokens_per_s_per_gpu=workload.tokens_per_step / (time.total_s * gpus),
        mfu=work.model_flop / (time.total_s * gpus * peak),
    )

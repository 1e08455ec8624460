"""Seconds that one rank spends in one layer, for one micro-batch.

A layer is an attention block (A), a dense MLP (D) or a mixture of experts (M).  Each
block's forward, input-gradient and weight-gradient time is the sum of its kernels:
GEMMs by their shape on this rank, scores, and kernels that only move bytes, by
:mod:`cost_models.equations.compute`; then the collectives of tensor, context and expert
parallelism by :mod:`cost_models.equations.collectives`, as far as nothing hides them.

Tensor parallelism in one block (Korthikanti et al. 2022, section 4.2.2)
    without sequence-parallel  1 all-reduce forward, 1 backward                      (1)
    with sequence-parallel     1 all-gather and 1 reduce-scatter each way            (2)
        and where its inputs were not kept whole, 1 all-gather more backward,
        under the gradient of those inputs' GEMM
Context parallelism
    ring        c - 1 sends of keys and values forward, twice the bytes backward,
                hidden under attention                                               (3)
    all-gather  keys and values gathered forward, gathered and scattered backward    (4)
    all-to-all  queries, keys, values and output exchanged, both ways                (5)
Expert parallelism
    dispatch and combine, both ways                                                  (6)
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.work import Gemm, Group, Work
from cost_models.equations.collectives import Link, all_gather_s, all_reduce_s, all_to_all_s, send_s
from cost_models.equations.compute import (
    AttentionEfficiency,
    GemmEfficiency,
    MemoryEfficiency,
    attention_backward_s,
    attention_forward_s,
    gemm_s,
    memory_bound_s,
)
from cost_models.equations.constants import Constants
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
        """All of the forward pass."""
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
        """The backward pass up to the gradients of the inputs."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The wires as training sees them."""

    intra: Link
    inter: Link


def links(work: Work, c: Constants) -> Links:
    """NVLink and NIC of the machine at the calibrated share of their data sheets."""
    nvlink = work.machine.nvlink_Bps
    return Links(
        intra=Link(
            latency_s=c.nvlink_latency_s,
            bandwidth_Bps=nvlink * c.nvlink_fraction,
            half_size_bytes=c.nvlink_half_size_bytes,
            switch_Bps=nvlink * c.switch_fraction * work.machine.has_switch,
            launch_s=c.collective_launch_s,
        ),
        inter=Link(
            latency_s=c.nic_latency_s,
            bandwidth_Bps=work.machine.nic_Bps * c.nic_fraction,
            half_size_bytes=c.nic_half_size_bytes,
            launch_s=c.collective_launch_s,
        ),
    )


ALIGNED = 64
"""Scalars of 16 bits in 128 bytes (NVIDIA, Matrix Multiplication Background User's Guide)."""


class Kernels:
    """The machine's kernels at calibrated efficiency; every method returns seconds."""

    def __init__(self, work: Work, c: Constants) -> None:
        machine = work.machine
        fraction = np.where(
            machine.gemm_bytes >= 2.0,
            c.gemm_fraction,
            np.where(machine.gemm_bytes >= 1.0, c.gemm_fraction_8bit, c.gemm_fraction_4bit),
        )
        self._machine = machine
        self._gemm_rate = np.maximum(machine.gemm_flop_per_s, 1.0) * machine.sustained
        self._sixteen_bit_rate = machine.sixteen_bit_flop_per_s * machine.sustained
        self._attention_rate = machine.attention_flop_per_s * machine.sustained
        self._misaligned = c.misaligned
        self._score_passes = c.score_passes
        self._gemm = GemmEfficiency(
            peak_fraction=fraction,
            memory_fraction=c.memory_fraction,
            launch_s=c.kernel_launch_s,
            half_depth=c.gemm_half_depth,
        )
        # a group of one is a plain product
        experts = np.maximum(work.layer.expert_gemms[0].groups, 1.0)
        slower = 1.0 + (1.0 / c.grouped_gemm_fraction - 1.0) * (1.0 - 1.0 / experts)
        self._grouped = GemmEfficiency(
            peak_fraction=fraction / slower,
            memory_fraction=c.memory_fraction,
            launch_s=c.kernel_launch_s,
            half_depth=c.gemm_half_depth,
            group_s=c.expert_launch_s,
        )
        self._head = GemmEfficiency(
            peak_fraction=c.gemm_fraction,
            memory_fraction=c.memory_fraction,
            launch_s=c.kernel_launch_s,
            half_depth=c.gemm_half_depth,
        )
        self._attention = AttentionEfficiency(
            forward_fraction=c.attention_forward_fraction,
            backward_fraction=c.attention_backward_fraction,
            launch_s=c.kernel_launch_s,
        )
        self._memory = MemoryEfficiency(
            memory_fraction=c.memory_fraction, launch_s=c.kernel_launch_s
        )
        self._fused = work.fused_experts
        self._quantize = machine.eight_bit * c.quantize_passes

    def moved(self, moved_bytes: Floats) -> Floats:
        """Kernels that only move bytes."""
        return memory_bound_s(moved_bytes, self._machine.memory_bandwidth_Bps, self._memory)

    def gemm(self, m: Floats, n: Floats, k: Floats, groups: Floats, *, grouped: bool) -> Floats:
        """One GEMM with the cast of its first input where it runs in 8 bits."""
        machine = self._machine
        seconds = gemm_s(
            m,
            n,
            k,
            flop_per_s=self._gemm_rate,
            n_sm=machine.n_sm,
            bytes_per_element=machine.gemm_bytes,
            memory_bandwidth_Bps=machine.memory_bandwidth_Bps,
            efficiency=self._grouped if grouped else self._gemm,
            groups=groups,
        )
        apart = 1.0 - self._fused if grouped else 1.0
        cast = self._quantize * apart * 4.0 * m * k * groups
        return np.asarray(seconds + self.moved(cast))

    def alignment(self, g: Gemm) -> Floats:
        """Slow-down where the rows of weights or outputs do not start on 128 bytes."""
        odd = (np.floor(g.n) % ALIGNED != 0) | (np.floor(g.k) % ALIGNED != 0)
        return np.where(odd, 1.0 + self._misaligned, 1.0)

    def sixteen_bit(self, m: Floats, n: Floats, k: Floats) -> Floats:
        """One GEMM that stays in 16 bits whatever the precision of the layers: the head's."""
        machine = self._machine
        return gemm_s(
            m,
            n,
            k,
            flop_per_s=self._sixteen_bit_rate,
            n_sm=machine.n_sm,
            bytes_per_element=2.0,
            memory_bandwidth_Bps=machine.memory_bandwidth_Bps,
            efficiency=self._head,
        )

    def three(
        self, gemms: tuple[Gemm, ...], *, grouped: bool = False
    ) -> tuple[Floats, Floats, Floats]:
        """Forward, input-gradient and weight-gradient seconds of a block's GEMMs."""
        total: list[Floats] = [np.zeros(()), np.zeros(()), np.zeros(())]
        for g in gemms:
            if g.m.ndim == 0 and g.m == 0:
                continue
            shapes = ((g.m, g.n, g.k), (g.m, g.k, g.n), (g.k, g.n, g.m))
            slower = self.alignment(g)
            for i, (m, n, k) in enumerate(shapes):
                total[i] = total[i] + slower * self.gemm(m, n, k, g.groups, grouped=grouped)
        return total[0], total[1], total[2]

    def attention(self, work: Work, kept: Floats) -> tuple[Floats, Floats]:
        """Forward and backward seconds of one layer's scores, fused or not."""
        a, machine = work.layer.attention, self._machine
        shape = {
            "qk_width": a.qk_width,
            "v_width": a.v_width,
            "flop_per_s": self._attention_rate,
            "n_sm": machine.n_sm,
            "efficiency": self._attention,
            # without a fused kernel the masked half is computed too
            "kept": np.where(a.unfused_bytes > 0, 1.0, kept),
        }
        sizes = (a.batch, a.heads, a.queries, a.keys)
        unfused = self.moved(self._score_passes * a.unfused_bytes)
        forward = attention_forward_s(*sizes, **shape)  # type: ignore[arg-type]
        backward = attention_backward_s(*sizes, **shape)  # type: ignore[arg-type]
        # nothing is recomputed inside an unfused backward pass: 4 products for 5
        backward = np.where(a.unfused_bytes > 0, 0.8 * backward, backward)
        return forward + unfused, backward + 2.0 * unfused


def _block_collective(work: Work, wires: Links) -> tuple[Floats, Floats]:
    """Equations (1) and (2): one way, and the all-gather that the backward pass may add."""
    t, group = work.traffic, work.traffic.tp
    reduce = all_reduce_s(
        t.tp_bytes, group.inside, group.outside, intra=wires.intra, inter=wires.inter
    )
    gather = group_gather_s(t.tp_bytes, group, wires)
    one_way = np.where(t.sequence_parallel > 0, 2.0 * gather, reduce)
    return one_way, np.where(t.gathers_again > 0, gather, 0.0)


def ring_waits(work: Work, c: Constants) -> Floats:
    """What a block's collectives wait, one way: between nodes every step of a ring does."""
    group = work.traffic.tp
    ranks = group.inside * group.outside
    return np.where(group.outside > 1.0, 2.0 * (ranks - 1.0) * c.tp_step_s, 0.0)


COLUMN_SHARE = 0.5
"""Of a block's input gradients, what its column-parallel GEMM makes: at least half."""


def _context_parallel(
    work: Work, c: Constants, wires: Links, forward: Floats, backward: Floats
) -> tuple[Floats, Floats, Floats]:
    """Equations (3) to (5): exposed forward, exposed backward, hidden."""
    t, group = work.traffic, work.traffic.cp
    size = group.inside * group.outside
    hop = np.where(
        group.outside > 1,
        send_s(t.cp_kv_bytes, wires.inter),
        send_s(t.cp_kv_bytes, wires.intra),
    )
    ring = (size - 1.0) * hop
    sides = {"intra": wires.intra, "inter": wires.inter}
    gather = all_gather_s(t.cp_kv_bytes * size, group.inside, group.outside, **sides)
    swap = all_to_all_s(t.cp_kv_bytes + t.cp_qo_bytes, group.inside, group.outside, **sides)
    by_kind = np.where(t.cp_all_gather > 0, gather, swap)
    cover_f, cover_b = c.cp_hidden * forward, c.cp_hidden * backward
    exposed_f = np.where(t.cp_ring > 0, np.maximum(ring - cover_f, 0.0), by_kind)
    exposed_b = np.where(
        t.cp_ring > 0,
        np.maximum(2.0 * ring - cover_b, 0.0),
        np.where(t.cp_all_gather > 0, 2.0, 1.0) * by_kind,
    )
    hidden = np.where(t.cp_ring > 0, 3.0 * ring - exposed_f - exposed_b, 0.0)
    return exposed_f, exposed_b, hidden


def group_gather_s(message: Floats, group: Group, wires: Links) -> Floats:
    """Seconds until every rank of ``group`` holds the whole message, or has scattered it."""
    return all_gather_s(message, group.inside, group.outside, intra=wires.intra, inter=wires.inter)


def layer_time(work: Work, s: Strategies, c: Constants) -> LayerTime:
    """Price one layer's blocks; arrays broadcast with the strategies."""
    kernels, wires = Kernels(work, c), links(work, c)
    layer = work.layer
    zero = np.zeros(())
    passes, ratio = c.memory_passes, c.backward_memory_ratio
    norm = kernels.moved(passes * layer.norm_bytes / 2.0)

    (collective, again_s), waits = _block_collective(work, wires), ring_waits(work, c)
    hideable = np.where(s.overlap_tp, c.tp_hidden, 0.0) * collective

    def tensor_parallel(gemm_f: Floats, gemm_b: Floats) -> tuple[Floats, Floats, Floats]:
        """Exposed seconds of both passes, and hidden ones: no more than the GEMMs take."""
        under_f, under_b = np.minimum(hideable, gemm_f), np.minimum(hideable, gemm_b)
        late = np.maximum(again_s - COLUMN_SHARE * gemm_b, 0.0)
        exposed_f, exposed_b = collective - under_f + waits, collective - under_b + waits
        return exposed_f, exposed_b + late, under_f + under_b + again_s - late

    score_f, score_b = kernels.attention(work, layer.attention.kept)
    window_f, window_b = kernels.attention(work, layer.attention.kept_windowed)
    cp_f, cp_b, cp_hidden = _context_parallel(work, c, wires, score_f, score_b)
    gemm_f, gemm_b, gemm_w = kernels.three(layer.attention_gemms)
    moved = norm + kernels.moved(passes * layer.attention_bytes)
    tp_f, tp_b, tp_hidden = tensor_parallel(gemm_f, gemm_b)
    attention = BlockTime(
        gemm_forward=gemm_f,
        gemm_input=gemm_b,
        gemm_weight=gemm_w,
        attention_forward=score_f,
        attention_backward=score_b,
        memory_forward=moved,
        memory_backward=ratio * moved,
        tp_forward=tp_f,
        tp_backward=tp_b,
        cp_forward=cp_f,
        cp_backward=cp_b,
        ep_forward=zero,
        ep_backward=zero,
        hidden=tp_hidden + cp_hidden,
    )

    dense_f, dense_b, dense_w = kernels.three(layer.dense_gemms)
    dense_act = kernels.moved(passes * layer.dense_bytes)
    tp_f, tp_b, tp_hidden = tensor_parallel(dense_f, dense_b)
    dense = BlockTime(
        gemm_forward=dense_f,
        gemm_input=dense_b,
        gemm_weight=dense_w,
        attention_forward=zero,
        attention_backward=zero,
        memory_forward=norm + dense_act,
        memory_backward=ratio * (norm + dense_act),
        tp_forward=tp_f,
        tp_backward=tp_b,
        cp_forward=zero,
        cp_backward=zero,
        ep_forward=zero,
        ep_backward=zero,
        hidden=tp_hidden,
    )
    # a shared expert's collectives run under GEMMs of about the attention block's size
    shared_hidden = np.minimum(hideable, gemm_f)
    moe, moe_act = _moe_block(work, s, c, kernels, wires, norm, shared_hidden, attention)

    head = work.head
    head_f = kernels.sixteen_bit(head.m, head.n, head.k)
    head_b = kernels.sixteen_bit(head.m, head.k, head.n)
    head_w = kernels.sixteen_bit(head.k, head.n, head.m)
    recompute = s.recompute

    def again(module: Recompute, seconds: Floats) -> Floats:
        return np.where((recompute & int(module)) != 0, seconds, 0.0)

    up_projections = kernels.three(layer.attention_gemms[2:])[0]
    shared_f = kernels.three(layer.shared_gemms)[0]
    whole_moe = again(Recompute.MOE, moe.forward)
    norms = again(Recompute.LAYERNORM, norm)
    return LayerTime(
        attention=attention,
        dense=dense,
        moe=moe,
        window_saves_forward=score_f - window_f,
        window_saves_backward=score_b - window_b,
        head_forward=head_f,
        head_input=head_b,
        head_weight=head_w,
        head_memory=kernels.moved(c.loss_passes * work.logits_bytes),
        embedding=kernels.moved(work.embedding_bytes),
        recompute_attention=again(Recompute.CORE_ATTN, score_f)
        + again(Recompute.MLA_UP_PROJ, up_projections)
        + norms,
        recompute_dense=np.maximum(
            again(Recompute.ACTIVATION, dense_act),
            again(Recompute.MLP, dense_f + dense_act + tp_f / 2.0),
        )
        + norms,
        recompute_moe=np.maximum(
            whole_moe,
            again(Recompute.ACTIVATION, moe_act) + again(Recompute.SHARED_EXPERTS, shared_f),
        )
        + norms,
    )


def dispatch_s(work: Work, wires: Links) -> Floats:
    """Seconds of one dispatch or combine, equation (6).

    Where copies of a token for one domain travel once, k experts drawn from o domains
    meet o (1 - (1 - 1/o)^k) of them on average, or as many as the router allows, and NVLink
    carries the copies further, one for each of the ranks that they meet.
    """
    message, group = work.traffic.ep_bytes, work.traffic.ep
    intra, inter = wires.intra, wires.inter
    plain = all_to_all_s(message, group.inside, group.outside, intra=intra, inter=inter)
    o = np.maximum(group.outside, 1.0)
    met = np.minimum(o * (1.0 - (1.0 - 1.0 / o) ** work.top_k), work.routed_domains)
    distinct = np.minimum(met / work.top_k, 1.0)
    n = group.inside * o
    ranks = np.minimum(n * (1.0 - (1.0 - 1.0 / n) ** work.top_k), work.top_k)
    once = message * ranks / work.top_k
    near = all_to_all_s(once, group.inside, 1.0, intra=intra, inter=inter)
    far = all_to_all_s(message * distinct, 1.0, group.outside, intra=intra, inter=inter)
    return np.where(work.ep_deduplicates > 0, np.minimum(np.maximum(near, far), plain), plain)


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
    """Router, dispatch, experts, combine and shared experts; and the non-linearity alone."""
    layer, t = work.layer, work.traffic
    *routed, router = layer.expert_gemms
    fullest = np.where(work.balanced_experts > 0, 1.0, c.moe_imbalance)
    expert = kernels.three(tuple(routed), grouped=True)
    others = kernels.three((router, *layer.shared_gemms))
    forward, backward, weight = (fullest * e + o for e, o in zip(expert, others, strict=True))
    act = kernels.moved(c.moe_memory_passes * layer.moe_bytes)
    moved = norm + act
    swap = dispatch_s(work, wires)
    exchange = (1.0 + work.dispatch_share) * fullest * swap
    gathered = 2.0 * group_gather_s(t.etp_bytes, t.etp, wires)
    shared = layer.shared_gemms[0]
    tp, tp_hidden = (
        np.where(shared.n > 0, seconds, 0.0) for seconds in (attention.tp_forward, tp_hidden)
    )
    hideable = np.where(s.overlap_ep, c.ep_hidden, 0.0)
    # another micro-batch's whole layer runs meanwhile
    exposed = np.maximum(exchange - hideable * (forward + moved + attention.forward), 0.0)
    behind = backward + weight + c.backward_memory_ratio * moved + attention.backward
    exposed_b = np.maximum(exchange - hideable * (behind + attention.gemm_weight), 0.0)
    # whoever knows the experts' sizes beforehand never waits for the router
    host = c.moe_layer_s * np.where(work.host_experts > 0, 1.0, 0.0) / 2.0
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

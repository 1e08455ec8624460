"""Seconds that a pipeline rank spends on one micro-batch, forward and backward.

What a rank computes, summed over its layers (:mod:`cost_models.equations.layer.layer_time`)
with what sliding windows save, its heads (MTP modules have one each) and its embedding:

    layers      L_f = sum of the blocks' forward - windows                             (1)
    forward     F = L_f + heads (h_f + h_l / 2) + e                                    (2)
    recompute   R = (recomputed layers / layers) L_f + modules  [1]_                   (3)
    backward    B = sum of the blocks' backward - windows + heads (h_i + h_l / 2)
                    + e + R                                                            (4)
    weights     W = sum of the blocks' weight gradients + heads h_w
                    + g_a P / (u w)                                                    (5)

What it waits for, with x = F + B + W:

    host        y = q l_r (c_l + c_t [t > 1] + n_e c_e) + c_m;  l_r is 4/3 of the layers where
                all is recomputed, q = 0 where one graph of the step leaves nothing to issue  (6)
    launch      (x^k + y^k)^(1/k) - x,  k = 6: the longer of the two, its corner round  (7)
    steady      (7) with 8 ring waits and t c_p more per layer where the pipeline leaves
                the NVLink domain, hosts alternating sends and receives; not while it
                fills and drains                                                       (8)
    hop         2 v sends, less the share that overlaps                                (9)
    gathers     sharded weights, (4) of :mod:`cost_models.equations.state_time`       (10)
    offload     max(2 o A / host's link - (x + launch) / 2 - (10), 0)                 (11)
    overlap     p_o times the communication that runs under compute                   (12)

(7) to (12) stall the rank, and are split between its passes as F to B + W.             (13)

=========  ==================================================  ==========================
symbol     meaning                                             name
=========  ==================================================  ==========================
h_f, h_i,  s, the head's GEMMs: forward, input and weight      ``head_forward``, ...
h_w        gradients
h_l, e     s, loss over the logits; embedding                  ``head_memory``, ...
g_a        bytes per parameter P moved to add up gradients     ``accumulated_bytes``
u w        bytes/s, memory bandwidth of other kernels          ``memory_fraction``
c_l, c_t,  s, host per layer: plain, with tensor parallelism,  ``layer_floor_s``,
c_e        for each of n_e experts issued one by one           ``layer_floor_tp_s``, ...
c_m        s, host per micro-batch                             ``micro_batch_s``
c_p        s, host per layer and tensor-parallel rank          ``layer_floor_pipeline_s``
o, A       share of the kept activations offloaded; bytes      ``activation_offload``
v          model chunks on each rank                           ``vpp``
p_o        s that compute loses per s of hidden communication  ``overlap_price``
=========  ==================================================  ==========================

References
----------
.. [1] V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
   Models," 2022, section 5. arXiv:2205.05198
"""

from dataclasses import dataclass, replace

import numpy as np

from cost_models.counting.work import Work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.exchanges import ring_wait_s
from cost_models.equations.layer.layer_time import LayerTime, layer_time
from cost_models.equations.layer.links import Links
from cost_models.equations.state_time import exposed_weights_s, weight_traffic
from cost_models.specs.strategy import Recompute, Strategies
from cost_models.specs.units import Floats

SHARP = 6.0
"""The k of equation (7)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankTime:
    """Seconds per micro-batch of every representative rank (axis 0)."""

    forward: Floats
    backward: Floats
    weight: Floats
    terms: dict[str, Floats]
    """Seconds by kind; empty without a breakdown."""
    only_steady: Floats
    """The part that is not lost while the pipeline fills and drains, equation (8)."""
    stall: Floats
    """The sum of (7) to (12)."""
    hidden: Floats
    """Communication that runs under compute."""

    @property
    def total(self) -> Floats:
        """A whole micro-batch."""
        return np.asarray(self.forward + self.backward + self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeTime:
    """Equations (1) to (5): kernels, and collectives of the layers that nothing hides."""

    blocks: LayerTime
    forward: Floats
    recompute: Floats
    """The part of ``backward`` that is computed again."""
    backward: Floats
    gemm_weight: Floats
    """The part of ``weight`` in GEMMs."""
    accumulated: Floats
    """The part of ``weight`` that adds gradients to their buffer."""
    weight: Floats
    busy: Floats
    """F + B + W."""
    share: Floats
    """F / (F + B + W)."""

    def with_launch(self, launch: Floats) -> tuple[Floats, Floats]:
        """Seconds of the forward pass, and of both gradients, the host's time included."""
        return (
            self.forward + launch * self.share,
            self.backward + self.weight + launch * (1.0 - self.share),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchTime:
    """Equations (6) to (8)."""

    filling: Floats
    """Equation (7), while the pipeline fills."""
    only_steady: Floats
    """What (8) adds to it."""
    total: Floats


def layer_sum(work: Work, blocks: LayerTime, name: str) -> Floats:
    """The block quantity ``name`` summed over each rank's layers, MTP modules included."""
    st = work.stages
    n_dense = st.n_layers - st.n_moe
    moe = work.traffic.is_moe * st.n_mtp
    value: Floats = (
        (st.n_layers + st.n_mtp) * getattr(blocks.attention, name)
        + (n_dense + st.n_mtp - moe) * getattr(blocks.dense, name)
        + (st.n_moe + moe) * getattr(blocks.moe, name)
    )
    return value


def accumulate_s(work: Work, c: Constants) -> Floats:
    """Adding a micro-batch's gradients to their buffer, where no GEMM does it on the way."""
    moved = work.state.accumulated_bytes * (work.state.dense + work.state.experts)
    return np.asarray(
        work.trained * moved / (work.machine.memory_bandwidth_Bps * c.memory_fraction)
    )


def compute_time(work: Work, s: Strategies, c: Constants) -> ComputeTime:
    """Equations (1) to (5) of every rank that ``work.stages`` holds."""
    blocks = layer_time(work, s, c)
    st = work.stages
    heads = st.has_head + st.n_mtp
    head_memory = blocks.head_memory / 2.0
    layers = layer_sum(work, blocks, "forward") - st.n_windowed * blocks.window_saves_forward
    embedding = st.has_embedding * blocks.embedding
    forward = layers + heads * (blocks.head_forward + head_memory) + embedding  # (2)
    recompute = _recompute(work, s, blocks, layers)
    backward = (
        layer_sum(work, blocks, "backward")
        - st.n_windowed * blocks.window_saves_backward
        + heads * (blocks.head_input + head_memory)
        + embedding
        + recompute
    )  # (4)
    gemm_weight = work.trained * (
        layer_sum(work, blocks, "gemm_weight") + heads * blocks.head_weight
    )
    accumulated = accumulate_s(work, c)
    weight = gemm_weight + accumulated  # (5)
    busy = forward + backward + weight
    return ComputeTime(
        blocks=blocks,
        forward=forward,
        recompute=recompute,
        backward=backward,
        gemm_weight=gemm_weight,
        accumulated=accumulated,
        weight=weight,
        busy=busy,
        share=forward / np.maximum(busy, 1e-12),
    )


def _recompute(work: Work, s: Strategies, blocks: LayerTime, layers_s: Floats) -> Floats:
    """Equation (3): forward work that each rank does again, ``layers_s`` being (1)."""
    st = work.stages
    layers = np.maximum(st.n_layers, 1.0)
    asked = np.where(s.recompute_layers > 0, s.recompute_layers, st.n_layers)
    full = np.where((s.recompute & int(Recompute.FULL)) != 0, np.minimum(asked / layers, 1.0), 0.0)
    core = np.where((s.recompute & int(Recompute.CORE_ATTN)) != 0, 1.0, 0.0)
    modules = (
        st.n_layers * blocks.recompute_attention
        - core * (st.n_windowed * blocks.window_saves_forward)
        + (st.n_layers - st.n_moe) * blocks.recompute_dense
        + st.n_moe * blocks.recompute_moe
    )
    return np.asarray(full * layers_s + modules)


def launch_time(work: Work, s: Strategies, c: Constants, busy: Floats) -> LaunchTime:
    """Equations (6) to (8): what the host adds to ``busy`` seconds of the GPU."""
    st = work.stages
    layers = np.maximum(st.n_layers + st.n_mtp, 1.0)
    per_layer = c.layer_floor_s + np.where(s.tp > 1, c.layer_floor_tp_s, 0.0)
    per_layer = per_layer + c.expert_host_s * work.host_experts * st.n_moe / layers
    crossing = work.traffic.p2p_crosses * (s.pp > 1)
    # a layer has two blocks and two passes, and alternating hosts wait for both directions
    waits = 8.0 * ring_wait_s(work, c)
    steady = (c.layer_floor_pipeline_s * s.tp + waits) * crossing
    again = np.where((s.recompute & int(Recompute.FULL)) != 0, 4.0 / 3.0, 1.0)
    again = layers * again * (1.0 - work.fused_experts)
    filling = _longer(busy, per_layer * again + c.micro_batch_s) - busy  # (7)
    launch = _longer(busy, (per_layer + steady) * again + c.micro_batch_s) - busy  # (8)
    return LaunchTime(
        filling=filling,
        only_steady=launch - filling,
        total=launch + np.where(s.pp > 1, c.pipeline_micro_batch_s, 0.0),
    )


def _longer(gpu: Floats, host: Floats) -> Floats:
    """The first half of (7): (x^k + y^k)^(1/k)."""
    longer = np.maximum(gpu, host)
    rest = np.minimum(gpu, host) / np.maximum(longer, 1e-12)
    return np.asarray(longer * (1.0 + rest**SHARP) ** (1.0 / SHARP))


def hop_s(work: Work, wires: Links) -> Floats:
    """Seconds of one message to the next pipeline stage."""
    return wires.send_s(work.traffic.p2p_bytes, work.traffic.p2p_crosses > 0)


def activation_offload_s(work: Work, s: Strategies, busy: Floats, gathers: Floats) -> Floats:
    """Equation (11): the host's link goes on while weights are awaited."""
    moved = 2.0 * s.activation_offload * work.activation_bytes_per_layer * work.stages.n_layers
    late = np.maximum(moved / work.machine.host_Bps - 0.5 * busy, 0.0)
    return np.maximum(late - gathers, 0.0)


def stalled(
    work: Work,
    s: Strategies,
    c: Constants,
    wires: Links,
    *,
    compute: ComputeTime,
    launch: LaunchTime,
    gathers: Floats,
    offload: Floats,
    hidden: Floats,
) -> RankTime:
    """Equation (13): ``compute`` with all that stalls it, ``hidden`` s running beside it."""
    sends = np.where(s.pp > 1, 2.0 * s.vpp * hop_s(work, wires), 0.0)
    pp_comm = sends * (1.0 - np.where(s.overlap_p2p, c.p2p_hidden, 0.0))  # (9)
    price = c.overlap_price * hidden  # (12)
    stall = launch.total + pp_comm + gathers + offload + price
    return RankTime(
        forward=compute.forward + stall * compute.share,
        backward=compute.backward + stall * (1.0 - compute.share),
        weight=compute.weight,
        terms={
            "pp_comm": pp_comm,
            "fsdp_comm": gathers,
            "offload": offload,
            "launch": launch.total,
            "overlap_price": price,
        },
        only_steady=launch.only_steady,
        stall=stall,
        hidden=hidden,
    )


def rank_times(
    work: Work, s: Strategies, c: Constants, wires: Links, *, breakdown: bool
) -> RankTime:
    """Seconds per micro-batch of every rank that ``work.stages`` holds, (1) to (13)."""
    compute = compute_time(work, s, c)
    launch = launch_time(work, s, c, compute.busy)
    weights = weight_traffic(work, s, wires)
    gathers = exposed_weights_s(weights, c, *compute.with_launch(launch.total))  # (10)
    ranks = stalled(
        work,
        s,
        c,
        wires,
        compute=compute,
        launch=launch,
        gathers=gathers,
        offload=activation_offload_s(work, s, compute.busy + launch.total, gathers),
        hidden=layer_sum(work, compute.blocks, "hidden") + (weights.total - gathers),
    )
    kernels = _kernel_terms(work, compute) if breakdown else {}
    return replace(ranks, terms=kernels | ranks.terms if breakdown else {})


def _kernel_terms(work: Work, compute: ComputeTime) -> dict[str, Floats]:
    """Where each rank's compute and exposed layer collectives go, per micro-batch."""
    st, blocks = work.stages, compute.blocks
    heads = st.has_head + st.n_mtp
    windows = st.n_windowed * (blocks.window_saves_forward + blocks.window_saves_backward)

    def both_ways(kind: str) -> Floats:
        forward = layer_sum(work, blocks, f"{kind}_forward")
        return forward + layer_sum(work, blocks, f"{kind}_backward")

    return {
        "gemm": layer_sum(work, blocks, "gemm_forward")
        + layer_sum(work, blocks, "gemm_input")
        + compute.gemm_weight
        + heads * (blocks.head_forward + blocks.head_input),
        "attention": both_ways("attention") - windows,
        "memory_bound": both_ways("memory")
        + heads * blocks.head_memory
        + compute.accumulated
        + st.has_embedding * 2.0 * blocks.embedding,
        "recompute": compute.recompute,
        "tp_comm": both_ways("tp"),
        "cp_comm": both_ways("cp"),
        "ep_comm": both_ways("ep"),
    }

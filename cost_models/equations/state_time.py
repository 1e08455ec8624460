"""Seconds that the model's state costs a rank: weights gathered, gradients reduced, updates.

Weights sharded over d ranks (ZeRO-3, FSDP, HSDP), per micro-batch of m [1]_ [2]_:

    first gather   G, or G / m where the weights stay gathered                         (1)
    second gather  G, or nothing where they stay gathered                              (2)
    scatter        S, or S / m where a pipeline reduces with its last micro-batch [3]_ (3)
    exposed        max((1) - phi F, 0) + max((2) + (3) - phi (B + W), 0)               (4)

Gradients once a step, of n parameters in buckets of n_b, each with its own latency [4]_:

    gradients      all-reduce of g n bytes; a reduce-scatter under ZeRO-1 where the
                   framework has one; nothing from ZeRO-2 on, by (3)                   (5)
    replicas       and under HSDP an all-reduce of g n / d between the shard groups    (6)
    weights        under ZeRO-1 and ZeRO-2 an all-gather of b n bytes                  (7)
    exposed        max((5) + (6) - delta / v (B + W), 0) + max((7) - delta / v F, 0)   (8)

    optimizer      u n / d over the memory bandwidth                                   (9)
    offload        o n / d over the host's link                                       (10)

=======  ==================================================  ==============================
symbol   meaning                                             name
=======  ==================================================  ==============================
n, d     parameters of the rank, and ranks that shard them   ``work.state.dense``, ...
G, S     s, all-gather of b n and reduce-scatter of g n      ``gather``, ``scatter``
b, g     bytes on the wire per weight, per gradient          ``param_gather_bytes``, ...
F, B, W  s, passes of one micro-batch, see ``rank_time``     ``forward``, ``backward``
v        model chunks on each rank                           ``vpp``
phi      share of a pass that hides (1) to (3)               ``fsdp_hidden``
delta    share of the last micro-batch that hides (5), (7)   ``dp_hidden``
n_b      parameters of one bucket                            ``bucket_parameters``
u, o     bytes per parameter updated, and sent to the host   ``updated_bytes``, ...
=======  ==================================================  ==============================

Dense parameters and experts are sharded over groups of their own; n / d stands for the sum.

References
----------
.. [1] S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter
   Models," SC 2020, section 7 (what each stage communicates). arXiv:1910.02054
.. [2] Y. Zhao et al., "PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel,"
   VLDB 2023, section 3. arXiv:2304.11277
.. [3] PyTorch, ``torch/distributed/pipelining/stage.py``, ``backward_maybe_with_nosync``.
.. [4] Megatron-LM, ``megatron/core/distributed/param_and_grad_buffer.py``.
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.traffic import Group
from cost_models.counting.work import Work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import Links
from cost_models.specs.strategy import Sharding, Strategies
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightTraffic:
    """Seconds per micro-batch that a rank's sharded weights travel, exposed or not."""

    before_forward: Floats
    """Equation (1)."""
    around_backward: Floats
    """Equations (2) and (3)."""
    total: Floats


def weight_traffic(work: Work, s: Strategies, wires: Links) -> WeightTraffic:
    """Equations (1) to (3); zero where weights are not sharded."""
    t, state = work.traffic, work.state

    def both(wire_bytes: Floats) -> Floats:
        return wires.all_gather_s(state.dense * wire_bytes, t.shard) + wires.all_gather_s(
            state.experts * wire_bytes, t.expert_shard
        )

    gather, scatter = both(state.param_gather_bytes), both(state.grad_reduce_bytes)
    sharded = s.sharding >= Sharding.ZERO3
    m = work.n_micro_batches
    first = gather / np.where(s.reshard_after_forward, 1.0, m)
    again = np.where(s.reshard_after_forward, gather, 0.0)
    often = np.where((s.pp > 1) & ~s.reshard_after_forward, m, 1.0)
    scattered = work.trained * np.where(s.sharding >= Sharding.ZERO2, scatter / often, 0.0)
    first, again = np.where(sharded, first, 0.0), np.where(sharded, again, 0.0)
    return WeightTraffic(
        before_forward=first,
        around_backward=again + scattered,
        total=first + again + scattered,
    )


def exposed_weights_s(
    traffic: WeightTraffic, c: Constants, forward: Floats, backward: Floats
) -> Floats:
    """Equation (4): what ``forward`` and ``backward`` seconds of work do not hide."""
    return np.asarray(
        np.maximum(traffic.before_forward - c.fsdp_hidden * forward, 0.0)
        + np.maximum(traffic.around_backward - c.fsdp_hidden * backward, 0.0)
    )


def gradient_traffic(work: Work, s: Strategies, wires: Links) -> tuple[Floats, Floats]:
    """Seconds per step of gradients, (5) and (6), and of weights, (7), exposed or not."""
    t, state = work.traffic, work.state
    reduce_bytes, gather_bytes = state.grad_reduce_bytes, state.param_gather_bytes

    def over(group: Group, parameters: Floats) -> tuple[Floats, Floats, Floats]:
        """Reduce-scatter, all-gather and all-reduce, bucket by bucket."""
        buckets = np.maximum(parameters / state.bucket_parameters, 1.0)
        bucket = parameters / buckets
        reduced = wires.all_reduce_s(bucket * reduce_bytes, group)
        return (
            buckets * wires.all_gather_s(bucket * reduce_bytes, group),
            buckets * wires.all_gather_s(bucket * gather_bytes, group),
            buckets * reduced,
        )

    dense, experts = over(t.dp, state.dense), over(t.edp, state.experts)
    scatter, gather, reduce = (a + b for a, b in zip(dense, experts, strict=True))
    replicas = wires.all_reduce_s(
        (state.dense / state.dense_shards) * reduce_bytes, t.replica
    ) + wires.all_reduce_s((state.experts / state.expert_shards) * reduce_bytes, t.expert_replica)
    none = s.sharding == Sharding.NONE
    zero1 = np.where(state.scatters > 0, scatter, reduce)
    gradients = np.where(none, reduce, np.where(s.sharding >= Sharding.ZERO2, 0.0, zero1))  # (5)
    gradients = gradients + np.where(s.sharding == Sharding.HSDP, replicas, 0.0)  # (6)
    weights = np.where(none | (s.sharding >= Sharding.ZERO3), 0.0, gather)  # (7)
    return gradients, weights


def hiding_share(work: Work, s: Strategies, c: Constants) -> Floats:
    """The share delta / v of (8); 0 where the framework reduces after the backward pass."""
    last_chunk = 1.0 / np.maximum(np.where(s.vpp > 1, s.vpp, 1), 1)
    return np.asarray(c.dp_hidden * work.state.overlaps * last_chunk)


def gradients_s(
    work: Work, s: Strategies, c: Constants, wires: Links, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Equation (8) on every rank: exposed and hidden seconds per step."""
    gradients, weights = gradient_traffic(work, s, wires)
    share = hiding_share(work, s, c)
    hide_gradients = np.where(s.overlap_grad_reduce, share, 0.0) * backward
    hide_weights = np.where(s.overlap_param_gather, share, 0.0) * forward
    exposed = np.maximum(gradients - hide_gradients, 0.0)
    exposed = exposed + np.maximum(weights - hide_weights, 0.0)  # (8)
    return work.trained * exposed, work.trained * (gradients + weights - exposed)


def optimizer_s(work: Work, s: Strategies, c: Constants) -> tuple[Floats, Floats]:
    """Seconds per step of the update, (9), and of offloaded state on the host's link, (10)."""
    state = work.state
    own = state.dense / state.dense_shards + state.experts / state.expert_shards
    own = work.trained * own
    bandwidth = work.machine.memory_bandwidth_Bps * c.optimizer_fraction
    update = own * state.updated_bytes / bandwidth  # (9)
    host = own * state.offloaded_bytes / work.machine.host_Bps  # (10)
    return update, host

"""Collectives: seconds until a group of ranks has exchanged its bytes.

A group of n ranks has i members in each of o NVLink domains, n = i o, and every rank
has its own share of a NIC.  NCCL's rings enter and leave a domain once per channel,
so the i NICs of a domain work side by side and the slowest hop of the ring carries

    w = min(w_intra, i w_inter)     (w = w_intra where o = 1)                    (1)

With S the size of the whole vector (one rank's own buffer in an all-to-all), p the
steps and a their latency:

    ring all-gather, reduce-scatter     t = p_i a_i + p_o a_o + (S + h) (n - 1)/n / w  (2)
        p_o = o - 1,  p_i = n - 1 - p_o
    two levels    t = (2) on i ranks with S, plus (2) on o ranks with S / i      (3)
    all-reduce    t = 2 (2), or 2 (3), or a tree of                              (4)
        2 (i - 1) a_i + 2 log2(o) a_o + 2 (S + h) / w,                           (5)
    or, where the NVLink switch adds and multicasts (NVLS),
        2 a_i + 2 log2(o) a_o + max((S + h) (i + 1)/i / w_switch, 2 S / (i w_inter))   (6)
    all-to-all    t = batches a + max(S (i - 1)/n / w_intra, S (n - i)/n / w_inter)    (7)
    send          t = a + (S + h) / w                                            (8)

Each collective takes the fastest of its algorithms, as NCCL's tuner does [2]_.  A
group of one is free, and so is an empty message.

============  ====================================================  =================
symbol        meaning                                               name
============  ====================================================  =================
S             bytes of the whole vector                             message_bytes
i             members in one NVLink domain                          inside
o             domains                                               outside
a             seconds per step                                      Link.latency_s
w             bandwidth of large messages, one rank, one direction  Link.bandwidth_Bps
h             size at which half of w is reached                    Link.half_size_bytes
w_switch      what the switch moves per rank in an all-reduce       Link.switch_Bps
============  ====================================================  =================

References
----------
.. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication
   Operations in MPICH," Int. J. High Perform. Comput. Appl., vol. 19, no. 1, 2005.
.. [2] NVIDIA NCCL, src/graph/tuning.cc.
.. [3] NVIDIA nccl-tests, doc/PERFORMANCE.md: bus bandwidth and algorithm bandwidth.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.errors import require_not_negative, require_positive
from cost_models.units import Constant, Floats

P2P_BATCH = 8
"""Peers that one NCCL kernel serves at a time in an all-to-all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one rank sees of the wire: NVLink inside a domain, or its share of the NICs."""

    latency_s: Constant
    """Start-up of one step, software included."""
    bandwidth_Bps: Constant
    """Reached by large messages in one direction, not the number on the box."""
    half_size_bytes: Constant = 0.0
    """Message at which half of the bandwidth is reached, latency of the steps aside."""
    switch_Bps: Constant = 0.0
    """Bandwidth of all-reduces made by the switch (NVLS); 0 where it cannot."""

    def __post_init__(self) -> None:
        require_positive("link", bandwidth_Bps=self.bandwidth_Bps)
        require_not_negative(
            "link",
            latency_s=self.latency_s,
            half_size_bytes=self.half_size_bytes,
            switch_Bps=self.switch_Bps,
        )


def _arrays(*values: ArrayLike) -> tuple[Floats, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


def _free(seconds: Floats, message: Floats, ranks: Floats) -> Floats:
    return np.where((message > 0) & (ranks > 1), seconds, 0.0)


def _slowest_hop(
    inside: Floats, outside: Floats, intra: Link, inter: Link
) -> tuple[Floats, Floats]:
    """Bandwidth of a ring over all ranks, equation (1), and the half size of that hop."""
    nics = inside * inter.bandwidth_Bps
    network = (outside > 1) & ((nics < intra.bandwidth_Bps) | (inside == 1))
    bandwidth = np.where(network, nics, intra.bandwidth_Bps)
    return bandwidth, np.where(outside > 1, inter.half_size_bytes, intra.half_size_bytes)


def all_gather_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank holds the whole message: the better of (2) and (3).

    ``message_bytes`` counts the gathered whole, not one rank's share.

    >>> nvlink = Link(latency_s=2e-6, bandwidth_Bps=400e9)
    >>> float(all_gather_s(400e6, 8, intra=nvlink, inter=nvlink))
    0.000889
    """
    S, i, o = _arrays(message_bytes, inside, outside)
    n = i * o
    bandwidth, half = _slowest_hop(i, o, intra, inter)
    latency = (n - o) * intra.latency_s + (o - 1) * inter.latency_s
    ring = latency + (S + half) * (n - 1) / n / bandwidth
    first = (i - 1) * (intra.latency_s + (S + intra.half_size_bytes) / i / intra.bandwidth_Bps)
    second = (o - 1) * (inter.latency_s + (S / i + inter.half_size_bytes) / o / inter.bandwidth_Bps)
    return _free(np.minimum(ring, first + second), S, n)


def reduce_scatter_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank holds its reduced share of ``message_bytes``.

    The mirror image of :func:`all_gather_s`; adding is free beside moving.
    """
    return all_gather_s(message_bytes, inside, outside, intra=intra, inter=inter)


def all_reduce_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank holds the reduced whole: the best of (4), (5) and (6)."""
    S, i, o = _arrays(message_bytes, inside, outside)
    n = i * o
    halves = 2 * all_gather_s(S, i, o, intra=intra, inter=inter)
    bandwidth, half = _slowest_hop(i, o, intra, inter)
    hops = np.log2(np.maximum(o, 1.0)) * inter.latency_s
    tree = 2 * ((i - 1) * intra.latency_s + hops + (S + half) / bandwidth)
    best = np.minimum(halves, tree)
    if np.any(intra.switch_Bps):
        wires = np.where(o > 1, 2 * (S + inter.half_size_bytes) / (i * inter.bandwidth_Bps), 0.0)
        switch = (S + intra.half_size_bytes) * (i + 1) / i / intra.switch_Bps
        in_switch = 2 * (intra.latency_s + hops) + np.maximum(switch, wires)
        best = np.where(i > 2, np.minimum(best, in_switch), best)
    return _free(best, S, n)


def all_to_all_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank has its slice from every other, equation (7).

    ``message_bytes`` is one rank's own buffer, n slices of which one stays.
    """
    S, i, o = _arrays(message_bytes, inside, outside)
    n = i * o
    near = np.ceil((i - 1) / P2P_BATCH) * intra.latency_s
    far = np.ceil((n - i) / P2P_BATCH) * inter.latency_s
    wire = (S + intra.half_size_bytes) * (i - 1) / n / intra.bandwidth_Bps
    nic = (S + inter.half_size_bytes) * (n - i) / n / inter.bandwidth_Bps
    return _free(near + far + np.maximum(wire, nic), S, n)


def send_s(message_bytes: ArrayLike, link: Link) -> Floats:
    """Seconds for one message between two ranks, equation (8); an empty one is free."""
    (S,) = _arrays(message_bytes)
    seconds = link.latency_s + (S + link.half_size_bytes) / link.bandwidth_Bps
    return np.where(S > 0, seconds, 0.0)

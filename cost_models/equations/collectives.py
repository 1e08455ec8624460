"""Collectives: seconds until a group of ranks has exchanged its bytes.

A group of n ranks has i members in each of o NVLink domains, n = i o, and every rank
owns its share of a NIC.  NCCL's rings enter and leave a domain once per channel, so
the i NICs of a domain work side by side.  A wire that carries x bytes needs

    w(x) = (x + sqrt(h x)) / B                                                   (1)

because small messages use protocols and pipelines that waste bandwidth; half of B is
reached at x = h.  With S the size of the whole vector and a the latency of one step,

    ring all-gather, reduce-scatter: (n - o) a_i + (o - 1) a_o
        + max(w_i(S (n - 1)/n), w_o(S (n - 1)/n / i))                            (2)
    two levels: (i - 1) a_i + w_i(S (i - 1)/i)
        + (o - 1) a_o + w_o(S (o - 1)/o / i)                                     (3)
    tree all-reduce: 2 (i - 1) a_i + 2 log2(o) a_o + max(w_i(2 S), w_o(u S / i)) (4)
    all-reduce in the switch (NVLS): 2 a_i + 2 log2(o) a_o
        + max(w_s(S (i + 1)/i), w_o(u S / i))                                    (5)
    all-to-all: a_i ceil((i - 1)/8) + a_o ceil((n - i)/8)
        + max(w_i(S (i - 1)/n), w_o(S (n - i)/n))                                (6)
    send: a + w(S)                                                               (7)

A double binary tree over o domains sends u = 2 times the vector through the NICs of
its domains, but u = 1 where there are only two.  All-gather and reduce-scatter take
the faster of (2) and (3); all-reduce twice that, (4) or (5), as NCCL's tuner, whose
latencies these are, picks the fastest [2]_.  A group of one is free, and so is an
empty message.

========  ========================================================  ===============
symbol    meaning                                                   name
========  ========================================================  ===============
S         bytes of the whole vector; one rank's own buffer in (6)   message_bytes
i         members in one NVLink domain                              inside
o         domains                                                   outside
a         seconds per step                                          latency_s
B         bandwidth of large messages, one rank, one direction      bandwidth_Bps
h         bytes on one wire at which half of B is reached           half_size_bytes
w_s       (1) with what the switch moves in an all-reduce for B     switch_Bps
========  ========================================================  ===============

References
----------
.. [1] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of Collective Communication
   Operations in MPICH," Int. J. High Perform. Comput. Appl., vol. 19, no. 1,
   pp. 49-66, 2005.
.. [2] NVIDIA NCCL, src/graph/tuning.cc, ncclTopoTuneModel.
.. [3] NVIDIA nccl-tests, issue 238, and nccl, issue 1506: n + 1 slices on the wire with
   NVLS where a ring has 2 (n - 1), and no gain for all-gather and reduce-scatter.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.errors import require_not_negative, require_positive
from cost_models.specs.units import Constant, Floats

P2P_BATCH = 8
"""Peers that NCCL serves at a time in an all-to-all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one rank sees of the wire: NVLink inside a domain, or its share of the NICs."""

    latency_s: Constant
    """Of one step between neighbours, software included."""
    bandwidth_Bps: Constant
    """Reached by large messages in one direction, not the number on the box."""
    half_size_bytes: Constant = 0.0
    """Bytes through one wire at which half of the bandwidth is reached."""
    switch_Bps: Constant = 0.0
    """Reached by all-reduces made in the switch (NVLS); 0 where it cannot."""
    launch_s: Constant = 0.0
    """Start of the kernel that serves a whole collective."""

    def __post_init__(self) -> None:
        require_positive("link", bandwidth_Bps=self.bandwidth_Bps)
        require_not_negative(
            "link",
            latency_s=self.latency_s,
            half_size_bytes=self.half_size_bytes,
            switch_Bps=self.switch_Bps,
            launch_s=self.launch_s,
        )


def _arrays(*values: ArrayLike) -> tuple[Floats, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


def _wire_s(carried: Floats, link: Link) -> Floats:
    """Equation (1): seconds of ``carried`` bytes on one wire, latency aside."""
    return _effective_bytes(carried, link) / link.bandwidth_Bps


def _effective_bytes(carried: Floats, link: Link) -> Floats:
    return carried + np.sqrt(link.half_size_bytes * carried)


def _hops(outside: Floats) -> Floats:
    return np.log2(np.maximum(outside, 1.0))


def _priced(seconds: Floats, message: Floats, ranks: Floats, link: Link) -> Floats:
    """Nothing for an empty message or a group of one, else ``seconds`` and the launch."""
    return np.where((message > 0) & (ranks > 1), seconds + link.launch_s, 0.0)


def _gather(S: Floats, i: Floats, o: Floats, intra: Link, inter: Link) -> Floats:
    n = i * o
    share = S * (n - 1) / n
    wires = np.maximum(
        np.where(i > 1, _wire_s(share, intra), 0.0),
        np.where(o > 1, _wire_s(share / i, inter), 0.0),
    )
    ring = (n - o) * intra.latency_s + (o - 1) * inter.latency_s + wires
    near = (i - 1) * intra.latency_s + _wire_s(S * (i - 1) / i, intra)
    far = (o - 1) * inter.latency_s + _wire_s(S / i * (o - 1) / o, inter)
    return np.minimum(ring, near + far)


def all_gather_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank holds the whole message: the faster of (2) and (3).

    ``message_bytes`` counts the gathered whole, not one rank's share.

    >>> nvlink = Link(latency_s=2e-6, bandwidth_Bps=400e9)
    >>> float(all_gather_s(400e6, 8, intra=nvlink, inter=nvlink))
    0.000889
    """
    S, i, o = _arrays(message_bytes, inside, outside)
    return _priced(_gather(S, i, o, intra, inter), S, i * o, intra)


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
    """Seconds until every rank holds the reduced whole: twice (2) or (3), or (4), or (5).

    Short messages in large groups may cost less than :func:`reduce_scatter_s`: the
    tree is short, and NCCL has none for the scatter.
    """
    S, i, o = _arrays(message_bytes, inside, outside)
    up_and_down = 2 * _hops(o) * inter.latency_s
    nics = np.where(o > 1, _wire_s(np.where(o > 2, 2.0, 1.0) * S / i, inter), 0.0)
    chain = np.where(i > 1, _wire_s(2 * S, intra), 0.0)
    tree = 2 * (i - 1) * intra.latency_s + up_and_down + np.maximum(chain, nics)
    best = np.minimum(2 * _gather(S, i, o, intra, inter), tree)
    if np.any(intra.switch_Bps):
        able = (i > 1) & (np.asarray(intra.switch_Bps) > 0)
        switch = _effective_bytes(S * (i + 1) / i, intra) / np.where(able, intra.switch_Bps, 1.0)
        in_switch = 2 * intra.latency_s + up_and_down + np.maximum(switch, nics)
        best = np.where(able, np.minimum(best, in_switch), best)
    return _priced(best, S, i * o, intra)


def all_to_all_s(
    message_bytes: ArrayLike,
    inside: ArrayLike,
    outside: ArrayLike = 1,
    *,
    intra: Link,
    inter: Link,
) -> Floats:
    """Seconds until every rank has its slice from every other, equation (6).

    ``message_bytes`` is one rank's own buffer of n slices, of which one stays at home.
    """
    S, i, o = _arrays(message_bytes, inside, outside)
    n = i * o
    near = np.ceil((i - 1) / P2P_BATCH) * intra.latency_s
    far = np.ceil((n - i) / P2P_BATCH) * inter.latency_s
    wires = np.maximum(_wire_s(S * (i - 1) / n, intra), _wire_s(S * (n - i) / n, inter))
    return _priced(near + far + wires, S, n, intra)


def send_s(message_bytes: ArrayLike, link: Link) -> Floats:
    """Seconds for one message between two ranks, equation (7); an empty one is free."""
    (S,) = _arrays(message_bytes)
    return np.where(S > 0, link.launch_s + link.latency_s + _wire_s(S, link), 0.0)

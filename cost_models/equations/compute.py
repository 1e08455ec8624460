"""Kernels on one GPU: GEMM, attention, and whatever only moves bytes.

A GEMM C[m, n] = A[m, k] B[k, n] is cut into tiles of C, b_m by b_n or turned, one tile
per SM at a time.  The last wave of tiles leaves SMs idle, yet by less than a whole wave
(split tiles, smaller tiles at the edge), and part of the memory traffic sticks out of
the compute it runs under:

    tiles       T = groups ceil(m / b_m) ceil(n / b_n)                           (1)
    waves       q = phi ceil(T / n_sm) + (1 - phi) T / n_sm                      (2)
    compute     t_c = 2 q n_sm b_m b_n (k + k_0) / (f e)                         (3)
    memory      t_m = groups (bytes (m k + k n) + bytes_out m n) / (u w)         (4)
    GEMM        t = t_0 + (groups - 1) t_g + max(t_c, t_m) + sigma min(t_c, t_m) (5)

Attention by blocks that never leave the chip [1]_: with a heads, s queries, z keys, c the
share of the score matrix that the mask keeps, and widths d_qk and d_v of one head, the
operations and the time are

    forward     F = 2 c a s z (d_qk + d_v)                                       (6)
    backward    F = 2 c a s z (3 d_qk + 2 d_v)                                   (7)
    attention   t = t_0 + F / (f e) (1 + r n_sm / (c a s)) (1 + z_0 / z) (1 + v) (8)

where r is the rows that the last, longest block keeps one SM busy with while the
others have finished.  Anything else waits for memory:

    t = t_0 + bytes / (u w)                                                      (9)

======  ============================================  ===========================
symbol  meaning                                       name
======  ============================================  ===========================
f       peak of the data sheet                        flop_per_s
w       memory bandwidth of the data sheet            memory_bandwidth_Bps
e       share of f that large shapes reach            peak_fraction and the like
u       share of w that large copies reach            memory_fraction
t_0     launch and drain of one kernel                launch_s
t_g     each further group of a grouped GEMM          group_s
k_0     depth that a tile's start and end cost        half_depth
phi     share of a ragged last wave that is lost      wave_fraction
sigma   share of the shorter of the two in sight      exposed_fraction
r       rows of the longest block                     forward_tail, backward_tail
z_0     keys that a block's start and end cost        half_sequence
v       extra time where d_qk and d_v differ          forward_uneven, ...
======  ============================================  ===========================

References
----------
.. [1] T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work
   Partitioning," arXiv:2307.08691, 2023.  The backward pass has five matrix products
   for the forward pass's two.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.errors import require_not_negative, require_positive
from cost_models.specs.units import Constant, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmEfficiency:
    """How near a GEMM comes to the data sheet; only ``peak_fraction`` differs much by GPU.

    The defaults are a fit to ``catalog/micro/gemm.csv`` (697 GEMMs, A100 PCIe and B200), rounded.
    """

    peak_fraction: Constant
    """Of the peak, for large shapes at the clock that the power limit allows."""
    memory_fraction: Constant = 0.9
    exposed_fraction: Constant = 0.38
    """Of the shorter of compute and memory time that does not overlap with the longer."""
    half_depth: Constant = 118.0
    """k at which a tile takes twice the time of its arithmetic."""
    wave_fraction: Constant = 0.24
    """Of a ragged last wave that is lost: 1 is full wave quantization, 0 none."""
    launch_s: Constant = 2e-6
    group_s: Constant = 0.0
    """Each further group of a grouped GEMM."""
    tile_m: Constant = 128.0
    tile_n: Constant = 256.0

    def __post_init__(self) -> None:
        require_positive(
            "gemm",
            peak_fraction=self.peak_fraction,
            memory_fraction=self.memory_fraction,
            tile_m=self.tile_m,
            tile_n=self.tile_n,
        )
        require_not_negative(
            "gemm",
            exposed_fraction=self.exposed_fraction,
            half_depth=self.half_depth,
            wave_fraction=self.wave_fraction,
            launch_s=self.launch_s,
            group_s=self.group_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionEfficiency:
    """How near fused attention comes to the data sheet, operations counted under the mask.

    The defaults are between fits to ``catalog/micro/attention.csv`` on A100 PCIe and on B200.
    """

    forward_fraction: Constant
    backward_fraction: Constant
    forward_tail: Constant = 128.0
    """Rows of the longest block: one tile of queries, for which the others wait."""
    backward_tail: Constant = 45.0
    forward_uneven: Constant = 0.1
    """Extra time where keys and values differ in width (MLA)."""
    backward_uneven: Constant = 0.2
    half_sequence: Constant = 0.0
    """Keys that the start and the end of a block cost."""
    launch_s: Constant = 3e-6

    def __post_init__(self) -> None:
        require_positive(
            "attention",
            forward_fraction=self.forward_fraction,
            backward_fraction=self.backward_fraction,
        )
        require_not_negative(
            "attention",
            forward_tail=self.forward_tail,
            backward_tail=self.backward_tail,
            forward_uneven=self.forward_uneven,
            backward_uneven=self.backward_uneven,
            half_sequence=self.half_sequence,
            launch_s=self.launch_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEfficiency:
    """How near a kernel that only moves bytes comes to the data sheet."""

    memory_fraction: Constant = 0.75
    launch_s: Constant = 3e-6

    def __post_init__(self) -> None:
        require_positive("memory", memory_fraction=self.memory_fraction)
        require_not_negative("memory", launch_s=self.launch_s)


def _arrays(*values: ArrayLike) -> tuple[Floats, ...]:
    return tuple(np.asarray(value, dtype=np.float64) for value in values)


def gemm_s(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    *,
    flop_per_s: ArrayLike,
    n_sm: ArrayLike,
    bytes_per_element: ArrayLike,
    memory_bandwidth_Bps: ArrayLike,
    efficiency: GemmEfficiency,
    groups: ArrayLike = 1,
    output_bytes_per_element: ArrayLike = 2.0,
) -> Floats:
    """Seconds of ``groups`` equal GEMMs of m x k by k x n in one kernel, equation (5).

    A grouped GEMM over experts has ``m`` tokens in each of ``groups`` experts.  The
    gradient of a weight that is added up in fp32 reads and writes 8 output bytes per
    element.  A shape without elements is free.

    >>> exact = GemmEfficiency(peak_fraction=0.5, half_depth=0, exposed_fraction=0, launch_s=0)
    >>> a100 = {"flop_per_s": 312e12, "n_sm": 128, "memory_bandwidth_Bps": 2e12}
    >>> round(1e6 * float(gemm_s(4096, 4096, 4096, bytes_per_element=2, efficiency=exact, **a100)))
    881
    """
    m, n, k, g, sm = _arrays(m, n, k, groups, n_sm)
    rate, bandwidth, width, out = _arrays(
        flop_per_s, memory_bandwidth_Bps, bytes_per_element, output_bytes_per_element
    )
    upright = np.ceil(m / efficiency.tile_m) * np.ceil(n / efficiency.tile_n)
    turned = np.ceil(m / efficiency.tile_n) * np.ceil(n / efficiency.tile_m)
    tiles = g * np.minimum(upright, turned)
    phi = efficiency.wave_fraction
    slots = phi * np.ceil(tiles / sm) * sm + (1 - phi) * tiles
    area = efficiency.tile_m * efficiency.tile_n
    compute = 2 * slots * area * (k + efficiency.half_depth) / (rate * efficiency.peak_fraction)
    moved = g * (width * (m * k + k * n) + out * m * n)
    memory = moved / (bandwidth * efficiency.memory_fraction)
    hidden = np.minimum(compute, memory)
    seconds = np.maximum(compute, memory) + efficiency.exposed_fraction * hidden
    starts = efficiency.launch_s + np.maximum(g - 1, 0.0) * efficiency.group_s
    return np.where(g * m * n * k > 0, starts + seconds, 0.0)


def attention_forward_s(
    batch: ArrayLike,
    heads: ArrayLike,
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    qk_width: ArrayLike,
    v_width: ArrayLike,
    flop_per_s: ArrayLike,
    n_sm: ArrayLike,
    efficiency: AttentionEfficiency,
    kept: ArrayLike = 0.5,
) -> Floats:
    """Seconds of fused attention forward, equations (6) and (8).

    ``kept`` is the share of the queries x keys scores that the mask leaves: 1/2 when
    causal, 1 without a mask, about window / keys with a sliding window.
    """
    b, a, s, z, qk, v, rate, sm, c = _arrays(
        batch, heads, queries, keys, qk_width, v_width, flop_per_s, n_sm, kept
    )
    busy = 2 * (qk + v) / (rate * efficiency.forward_fraction)
    busy = busy * np.where(qk == v, 1.0, 1 + efficiency.forward_uneven)
    return _attention_s(c * b * a * s, z, busy, efficiency.forward_tail * sm, efficiency)


def attention_backward_s(
    batch: ArrayLike,
    heads: ArrayLike,
    queries: ArrayLike,
    keys: ArrayLike,
    *,
    qk_width: ArrayLike,
    v_width: ArrayLike,
    flop_per_s: ArrayLike,
    n_sm: ArrayLike,
    efficiency: AttentionEfficiency,
    kept: ArrayLike = 0.5,
) -> Floats:
    """Seconds of fused attention backward, equations (7) and (8), scores computed again."""
    b, a, s, z, qk, v, rate, sm, c = _arrays(
        batch, heads, queries, keys, qk_width, v_width, flop_per_s, n_sm, kept
    )
    busy = 2 * (3 * qk + 2 * v) / (rate * efficiency.backward_fraction)
    busy = busy * np.where(qk == v, 1.0, 1 + efficiency.backward_uneven)
    return _attention_s(c * b * a * s, z, busy, efficiency.backward_tail * sm, efficiency)


def _attention_s(
    rows: Floats, keys: Floats, busy: Floats, tail: Floats, efficiency: AttentionEfficiency
) -> Floats:
    """``rows`` of kept scores, ``busy`` seconds per score, ``tail`` rows spent waiting."""
    seconds = efficiency.launch_s + (rows + tail) * (keys + efficiency.half_sequence) * busy
    return np.where(rows * keys > 0, seconds, 0.0)


def memory_bound_s(
    moved_bytes: ArrayLike,
    memory_bandwidth_Bps: ArrayLike,
    efficiency: MemoryEfficiency,
    *,
    kernels: ArrayLike = 1,
) -> Floats:
    """Seconds of ``kernels`` kernels that only move bytes, equation (9); no bytes, no kernel.

    >>> float(memory_bound_s(1.5e9, 2e12, MemoryEfficiency(memory_fraction=0.75, launch_s=0)))
    0.001
    """
    moved, bandwidth, launches = _arrays(moved_bytes, memory_bandwidth_Bps, kernels)
    seconds = launches * efficiency.launch_s + moved / (bandwidth * efficiency.memory_fraction)
    return np.where(moved > 0, seconds, 0.0)

"""Kernels on one GPU: GEMM, attention, and whatever only moves bytes.

A GEMM C[m, n] = A[m, k] B[k, n] is cut into tiles of C, one tile per SM at a time:

    tiles  T = ceil(m / b_m) ceil(n / b_n)
    waves  q = T / n_sm / ceil(T / n_sm)                                         (1)
    compute      t_c = 2 m n k / (f e q) (1 + k_0 / k)                           (2)
    memory       t_m = bytes (m k + k n + m n) / (u w)                           (3)
    GEMM         t = t_0 + max(t_c, t_m)                                         (4)

Attention by blocks that never leave the chip [1]_, with c the share of the score
matrix that the mask keeps (about 1/2 for a causal mask), s queries, z keys,
per-head widths d_qk and d_v:

    forward   FLOPs = 2 c b a s z (d_qk + d_v)                                   (5)
    backward  FLOPs = 2 c b a s z (3 d_qk + 2 d_v)                               (6)
    t = t_0 + FLOPs / (f e) (1 + s_0 / z)                                        (7)

with at least as many blocks of 128 queries as there are SMs to keep busy.

Anything else waits for memory: t = t_0 + bytes / (u w).                         (8)

======  ===================================  ===========================================
symbol  meaning                              name
======  ===================================  ===========================================
f       peak of the GPU's data sheet         flop_per_s
w       memory bandwidth of the data sheet   memory_bandwidth_Bps
e       share of f that large shapes reach   peak_fraction
u       share of w that large copies reach   memory_fraction
t_0     launch and drain of one kernel       launch_s
k_0     depth that costs a tile its start    half_depth
======  ===================================  ===========================================

References
----------
.. [1] T. Dao, "FlashAttention-2: Faster Attention with Better Parallelism and Work
   Partitioning," ICLR, 2024. arXiv:2307.08691
.. [2] NVIDIA, "Matrix Multiplication Background User's Guide": tile and wave quantization.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.errors import require_not_negative, require_positive
from cost_models.units import Constant, Floats

QUERY_BLOCK = 128.0
"""Queries of one head that one SM holds at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GemmEfficiency:
    """How near a GEMM comes to the data sheet."""

    peak_fraction: Constant
    memory_fraction: Constant = 0.8
    launch_s: Constant = 3e-6
    half_depth: Constant = 128.0
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
        require_not_negative("gemm", launch_s=self.launch_s, half_depth=self.half_depth)


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionEfficiency:
    """How near fused attention comes to the data sheet."""

    forward_fraction: Constant
    backward_fraction: Constant
    half_sequence: Constant = 512.0
    launch_s: Constant = 5e-6

    def __post_init__(self) -> None:
        require_positive(
            "attention",
            forward_fraction=self.forward_fraction,
            backward_fraction=self.backward_fraction,
        )
        require_not_negative("attention", half_sequence=self.half_sequence, launch_s=self.launch_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryEfficiency:
    """How near a kernel that only moves bytes comes to the data sheet."""

    memory_fraction: Constant = 0.8
    launch_s: Constant = 3e-6

    def __post_init__(self) -> None:
        require_positive("memory", memory_fraction=self.memory_fraction)
        require_not_negative("memory", launch_s=self.launch_s)


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
) -> Floats:
    """Seconds of ``groups`` equal GEMMs of m x k by k x n in one kernel, equation (4).

    A grouped GEMM over experts has ``m`` tokens in each of ``groups`` experts.  A shape
    without elements is free.
    """
    m, n, k = (np.asarray(size, dtype=np.float64) for size in (m, n, k))
    g = np.asarray(groups, dtype=np.float64)
    sm = np.asarray(n_sm, dtype=np.float64)
    tiles = g * np.ceil(m / efficiency.tile_m) * np.ceil(n / efficiency.tile_n)
    waves = np.ceil(tiles / sm)
    slots = waves * sm * efficiency.tile_m * efficiency.tile_n
    depth = k + efficiency.half_depth
    rate = np.asarray(flop_per_s, dtype=np.float64) * efficiency.peak_fraction
    compute = 2 * slots * depth / rate
    moved = g * (m * k + k * n + m * n) * np.asarray(bytes_per_element, dtype=np.float64)
    memory = moved / (np.asarray(memory_bandwidth_Bps) * efficiency.memory_fraction)
    seconds = efficiency.launch_s + np.maximum(compute, memory)
    return np.where(g * m * n * k > 0, seconds, 0.0)


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
    """Seconds of fused attention forward, equations (5) and (7).

    ``kept`` is the share of the queries x keys scores that the mask leaves: 1/2 when
    causal, 1 without a mask, about window / keys with a sliding window.
    """
    width = np.asarray(qk_width, dtype=np.float64) + np.asarray(v_width, dtype=np.float64)
    return _attention_s(
        batch,
        heads,
        queries,
        keys,
        width,
        kept,
        flop_per_s,
        n_sm,
        efficiency.forward_fraction,
        efficiency,
    )


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
    """Seconds of fused attention backward, equations (6) and (7), scores recomputed."""
    width = 3 * np.asarray(qk_width, dtype=np.float64) + 2 * np.asarray(v_width, dtype=np.float64)
    return _attention_s(
        batch,
        heads,
        queries,
        keys,
        width,
        kept,
        flop_per_s,
        n_sm,
        efficiency.backward_fraction,
        efficiency,
    )


def _attention_s(
    batch: ArrayLike,
    heads: ArrayLike,
    queries: ArrayLike,
    keys: ArrayLike,
    width: Floats,
    kept: ArrayLike,
    flop_per_s: ArrayLike,
    n_sm: ArrayLike,
    fraction: Constant,
    efficiency: AttentionEfficiency,
) -> Floats:
    b, a, s, z, c = (np.asarray(x, dtype=np.float64) for x in (batch, heads, queries, keys, kept))
    blocks = np.maximum(b * a * np.ceil(s / QUERY_BLOCK), np.asarray(n_sm, dtype=np.float64))
    flops = 2 * c * blocks * QUERY_BLOCK * (z + efficiency.half_sequence) * width
    seconds = efficiency.launch_s + flops / (np.asarray(flop_per_s, dtype=np.float64) * fraction)
    return np.where(b * a * s * z > 0, seconds, 0.0)


def memory_bound_s(
    moved_bytes: ArrayLike,
    memory_bandwidth_Bps: ArrayLike,
    efficiency: MemoryEfficiency,
    *,
    kernels: ArrayLike = 1,
) -> Floats:
    """Seconds of kernels that only move bytes, equation (8); no bytes, no kernel."""
    moved = np.asarray(moved_bytes, dtype=np.float64)
    bandwidth = np.asarray(memory_bandwidth_Bps, dtype=np.float64) * efficiency.memory_fraction
    launches = np.asarray(kernels, dtype=np.float64) * efficiency.launch_s
    return np.where(moved > 0, launches + moved / bandwidth, 0.0)

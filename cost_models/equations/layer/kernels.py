"""The machine's kernels at calibrated efficiency: what a layer asks of them, in seconds.

The equations are those of :mod:`cost_models.equations.compute`, whose numbers are here

======================  =====================================================================
number there            here
======================  =====================================================================
e of a GEMM             ``gemm_fraction`` by the bytes of its inputs, of the peak that its
                        format has; the head's GEMM stays in 16 bits (Megatron-LM,
                        ``core/tensor_parallel/layers.py``: no FP8 for the output layer)
e of a grouped GEMM     e / (1 + (1 / ``grouped_gemm_fraction`` - 1) (1 - 1 / experts))    (1)
alignment               1 + ``misaligned`` where n or k is no multiple of 64 scalars [1]_  (2)
cast to 8 bits          ``quantize_passes`` passes over the first input, 4 bytes each      (3)
unfused scores          forward pass over all of the score matrix, plus ``score_passes``
                        times its bytes; backward four products for five, bytes twice      (4)
======================  =====================================================================

References
----------
.. [1] NVIDIA, "Matrix Multiplication Background User's Guide": rows of weights or
   outputs that start on 128 bytes, 64 scalars of 16 bits.
"""

import numpy as np

from cost_models.counting.layer_work import Gemm
from cost_models.counting.work import Work
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
from cost_models.specs.units import Constant, Floats

ALIGNED = 64
"""Scalars of 16 bits in 128 bytes [1]."""


class Kernels:
    """The kernels of ``work.machine`` at the efficiency that ``c`` gives; all return seconds."""

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
        experts = np.maximum(work.layer.expert_gemms[0].groups, 1.0)
        slower = 1.0 + (1.0 / c.grouped_gemm_fraction - 1.0) * (1.0 - 1.0 / experts)  # (1)
        self._gemm = _gemm_efficiency(c, fraction)
        self._grouped = _gemm_efficiency(c, fraction / slower, group_s=c.expert_launch_s)
        self._head = _gemm_efficiency(c, c.gemm_fraction)
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
        """One kernel that only moves bytes."""
        return memory_bound_s(moved_bytes, self._machine.memory_bandwidth_Bps, self._memory)

    def gemm(self, m: Floats, n: Floats, k: Floats, groups: Floats, *, grouped: bool) -> Floats:
        """One GEMM, with the cast (3) of its first input where it runs in 8 bits."""
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
        cast = self._quantize * apart * 4.0 * m * k * groups  # (3)
        return np.asarray(seconds + self.moved(cast))

    def alignment(self, g: Gemm) -> Floats:
        """Factor (2) on the time of a GEMM whose rows do not start on 128 bytes."""
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
        """Forward and backward seconds of one layer's scores, fused or by (4).

        ``kept`` is the share of the score matrix that the mask leaves.
        """
        a, machine = work.layer.attention, self._machine
        shape = {
            "qk_width": a.qk_width,
            "v_width": a.v_width,
            "flop_per_s": self._attention_rate,
            "n_sm": machine.n_sm,
            "efficiency": self._attention,
            "kept": np.where(a.unfused_bytes > 0, 1.0, kept),
        }
        sizes = (a.batch, a.heads, a.queries, a.keys)
        unfused = self.moved(self._score_passes * a.unfused_bytes)
        forward = attention_forward_s(*sizes, **shape)  # type: ignore[arg-type]
        backward = attention_backward_s(*sizes, **shape)  # type: ignore[arg-type]
        # an unfused backward pass computes no score again
        backward = np.where(a.unfused_bytes > 0, 0.8 * backward, backward)
        return forward + unfused, backward + 2.0 * unfused  # (4)


def _gemm_efficiency(
    c: Constants, peak_fraction: Floats | float, **more: Constant
) -> GemmEfficiency:
    return GemmEfficiency(
        peak_fraction=peak_fraction,
        memory_fraction=c.memory_fraction,
        launch_s=c.kernel_launch_s,
        half_depth=c.gemm_half_depth,
        **more,
    )

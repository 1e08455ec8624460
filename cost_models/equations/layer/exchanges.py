"""Seconds that one block waits for other ranks: tensor, context and expert parallelism.

Tensor parallelism, one block, with M the hidden vectors of a micro-batch [1]_:

    without sequence parallel  x = an all-reduce of M, each way                        (1)
    with sequence parallel     x = an all-gather and a reduce-scatter of M, each way   (2)
        and where its inputs were not kept whole, one more all-gather y backward       (3)
    between nodes              2 (t - 1) t_r more each way: every step of a ring waits (4)
    exposed forward            x - min(tau x, G_f) + (4)                               (5)
    exposed backward           x - min(tau x, G_b) + (4) + max(y - G_b / 2, 0)         (6)

Context parallelism over c ranks; K keys and values of a rank, Q queries and output:

    ring        c - 1 sends of K forward, twice the bytes backward, hidden under
                kappa of the attention of the same pass [2]_                           (7)
    all-gather  of c K forward, gathered and scattered backward [3]_                   (8)
    all-to-all  of K + Q, each way [4]_                                                (9)

Expert parallelism, one dispatch or combine of k copies of a token, on o NVLink domains:

    all-to-all  of all copies                                                         (10)
    once a domain, where the framework sends a token there once [5]_: a token meets

        o (1 - (1 - 1/o)^k)  domains and  n (1 - (1 - 1/n)^k)  of n ranks             (11)

        on average, or as many domains as the router allows; the NICs carry the first
        while NVLink carries the second further, if that is faster than (10)          (12)

========  ======================================================  ====================
symbol    meaning                                                 name
========  ======================================================  ====================
M         bytes of a micro-batch's hidden vectors                 ``tp_bytes``
K, Q      bytes of a rank's keys and values, queries and output   ``cp_kv_bytes``, ...
G_f, G_b  s, the block's GEMMs forward, and of input gradients    ``gemm_f``, ``gemm_b``
t, t_r    tensor-parallel ranks; s, wait of one step of a ring    ``tp_step_s``
tau       share of a collective that is pipelined with its GEMM   ``tp_hidden``
kappa     share of the attention that a ring runs under           ``cp_hidden``
k, n      experts of a token; expert-parallel ranks               ``top_k``, ``ep``
========  ======================================================  ====================

References
----------
.. [1] V. Korthikanti et al., "Reducing Activation Recomputation in Large Transformer
   Models," 2022, section 4.2.2. arXiv:2205.05198
.. [2] H. Liu et al., "Ring Attention with Blockwise Transformers for Near-Infinite
   Context," 2023. arXiv:2310.01889
.. [3] Llama Team, "The Llama 3 Herd of Models," 2024, section 3.3.2. arXiv:2407.21783
.. [4] S. A. Jacobs et al., "DeepSpeed Ulysses," 2023, section 3. arXiv:2309.14509
.. [5] DeepSeek-AI, "DeepSeek-V3 Technical Report," 2024, section 3.2.2. arXiv:2412.19437
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.traffic import Group
from cost_models.counting.work import Work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import Links
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats

COLUMN_SHARE = 0.5
"""Share of a block's input-gradient GEMMs that its column-parallel one takes, at the least."""


def ring_wait_s(work: Work, c: Constants) -> Floats:
    """Equation (4): seconds that a block's ring between nodes waits, one way."""
    group = work.traffic.tp
    ranks = group.inside * group.outside
    return np.where(group.outside > 1.0, 2.0 * (ranks - 1.0) * c.tp_step_s, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorParallel:
    """Seconds of the tensor-parallel collectives of one block."""

    collective: Floats
    """Equations (1) and (2), one way."""
    again: Floats
    """Equation (3)."""
    waits: Floats
    """Equation (4), one way."""
    hideable: Floats
    """The part of ``collective`` that is pipelined with GEMMs."""

    def exposed(self, gemm_f: Floats, gemm_b: Floats) -> tuple[Floats, Floats, Floats]:
        """Equations (5) and (6): exposed forward, exposed backward, hidden."""
        under_f, under_b = np.minimum(self.hideable, gemm_f), np.minimum(self.hideable, gemm_b)
        late = np.maximum(self.again - COLUMN_SHARE * gemm_b, 0.0)
        exposed_f = self.collective - under_f + self.waits  # (5)
        exposed_b = self.collective - under_b + self.waits  # (6)
        return exposed_f, exposed_b + late, under_f + under_b + self.again - late


def tensor_parallel(work: Work, s: Strategies, c: Constants, wires: Links) -> TensorParallel:
    """Equations (1) to (4) of any block."""
    t = work.traffic
    reduce = wires.all_reduce_s(t.tp_bytes, t.tp)
    gather = wires.all_gather_s(t.tp_bytes, t.tp)
    collective = np.where(t.sequence_parallel > 0, 2.0 * gather, reduce)
    return TensorParallel(
        collective=collective,
        again=np.where(t.gathers_again > 0, gather, 0.0),
        waits=ring_wait_s(work, c),
        hideable=np.where(s.overlap_tp, c.tp_hidden, 0.0) * collective,
    )


def context_parallel_s(
    work: Work, c: Constants, wires: Links, attention_f: Floats, attention_b: Floats
) -> tuple[Floats, Floats, Floats]:
    """Equations (7) to (9): exposed forward, exposed backward, hidden."""
    t, group = work.traffic, work.traffic.cp
    size = group.inside * group.outside
    ring = (size - 1.0) * wires.send_s(t.cp_kv_bytes, group.outside > 1)
    gather = wires.all_gather_s(t.cp_kv_bytes * size, group)
    swap = wires.all_to_all_s(t.cp_kv_bytes + t.cp_qo_bytes, group)
    by_kind = np.where(t.cp_all_gather > 0, gather, swap)
    cover_f, cover_b = c.cp_hidden * attention_f, c.cp_hidden * attention_b
    exposed_f = np.where(t.cp_ring > 0, np.maximum(ring - cover_f, 0.0), by_kind)
    exposed_b = np.where(
        t.cp_ring > 0,
        np.maximum(2.0 * ring - cover_b, 0.0),
        np.where(t.cp_all_gather > 0, 2.0, 1.0) * by_kind,
    )
    hidden = np.where(t.cp_ring > 0, 3.0 * ring - exposed_f - exposed_b, 0.0)
    return exposed_f, exposed_b, hidden


def dispatch_s(work: Work, wires: Links) -> Floats:
    """Seconds of one dispatch or combine of a micro-batch: (10), or (12) where it applies."""
    message, group = work.traffic.ep_bytes, work.traffic.ep
    plain = wires.all_to_all_s(message, group)  # (10)
    one = np.asarray(1.0)
    o = np.maximum(group.outside, 1.0)
    domains = np.minimum(o * (1.0 - (1.0 - 1.0 / o) ** work.top_k), work.routed_domains)  # (11)
    distinct = np.minimum(domains / work.top_k, 1.0)
    n = group.inside * o
    ranks = np.minimum(n * (1.0 - (1.0 - 1.0 / n) ** work.top_k), work.top_k)  # (11)
    once = message * ranks / work.top_k
    near = wires.all_to_all_s(once, Group(inside=group.inside, outside=one))
    far = wires.all_to_all_s(message * distinct, Group(inside=one, outside=group.outside))
    once_a_domain = np.minimum(np.maximum(near, far), plain)  # (12)
    return np.where(work.ep_deduplicates > 0, once_a_domain, plain)

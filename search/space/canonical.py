"""One spelling for strategies that differ only in knobs without effect.

With one pipeline stage every schedule is the same, with one context rank every kind of
context parallel, and so on.  The canonical spelling turns switches off that have nothing
to act on and gives choices without effect their first member.
"""

from typing import Any

import numpy as np

from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from search.rules.rule import Mask

REGATHERED = (Sharding.ZERO3, Sharding.FSDP, Sharding.HSDP)
"""Shardings that free weights and gather them again."""


def replicas(s: Strategies, *, moe: bool) -> Mask:
    """Some ranks hold the same weights, so that gradients are reduced."""
    dense = np.asarray(s.dp * s.cp > 1)
    return np.asarray(dense | (s.edp > 1)) if moe else dense


def canonical(s: Strategies, *, moe: bool) -> Strategies:
    """The same strategies, knobs without effect at their neutral values.

    Columns keep broadcasting, each as wide as what decides it.
    """
    c: dict[str, Any] = dict(s.columns)
    shared = replicas(s, moe=moe)
    piped = s.pp > 1
    c["schedule"] = _schedule(s)
    c["sharding"] = np.where(shared, s.sharding, Sharding.NONE)
    sharded = c["sharding"] != Sharding.NONE
    c["dp_shard"] = np.where(c["sharding"] == Sharding.HSDP, s.dp_shard, np.where(sharded, s.dp, 1))
    c["reshard_after_forward"] = ~np.isin(c["sharding"], REGATHERED) | s.reshard_after_forward
    c["overlap_grad_reduce"] = s.overlap_grad_reduce & shared
    c["overlap_param_gather"] = s.overlap_param_gather & sharded
    c["sequence_parallel"] = s.sequence_parallel & (s.tp > 1)
    c["overlap_tp"] = s.overlap_tp & (s.tp > 1)
    c["overlap_ep"] = s.overlap_ep & (s.ep > 1)
    sequential = np.isin(c["schedule"], (Schedule._1F1B, Schedule.GPIPE))
    c["overlap_p2p"] = s.overlap_p2p & piped & ~sequential
    c["cp_comm"] = np.where(s.cp > 1, s.cp_comm, ContextParallel.P2P)
    c["order"] = np.where(piped & (s.dp > 1), s.order, Order.TP_CP_EP_DP_PP)
    c["recompute_layers"] = np.where(s.recompute & Recompute.FULL != 0, s.recompute_layers, 0)
    return Strategies(stage_layers=s.stage_layers, **c)


def _schedule(s: Strategies) -> Any:
    """Interleaved where there are chunks, plain where there are none or one stage."""
    loops = np.isin(s.schedule, (Schedule._1F1B, Schedule.INTERLEAVED))
    chunked = np.where(s.vpp > 1, Schedule.INTERLEAVED, Schedule._1F1B)
    named = np.where(loops, chunked, s.schedule)
    return np.where(s.pp > 1, named, Schedule._1F1B)


def canonical_strategy(strategy: Strategy, *, moe: bool) -> Strategy:
    """One strategy in its canonical spelling."""
    return canonical(Strategies.of(strategy), moe=moe).row(0)

"""What each launcher's configuration can say at all.

The tables hold what a launcher has no field for; what it has a field for but refuses in
some combination is a rule of its own beside this file.  ``any`` is the physical superset:
what some launcher could run.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Precision,
    Recompute,
    Schedule,
    Sharding,
)

EVERY_RECOMPUTE = Recompute((Recompute.FULL << 1) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """One launcher's vocabulary; the defaults are those of the physical superset."""

    name: str
    title: str
    schedules: tuple[Schedule, ...] = tuple(Schedule)
    shardings: tuple[Sharding, ...] = tuple(Sharding)
    cp_comms: tuple[ContextParallel, ...] = tuple(ContextParallel)
    precisions: tuple[Precision, ...] = tuple(Precision)
    orders: tuple[Order, ...] = tuple(Order)
    recompute: Recompute = EVERY_RECOMPUTE
    """Union of the modules that can be recomputed on their own, and FULL."""
    some_layers: bool = True
    """Full recompute can be limited to some layers of each pipeline rank."""
    pipeline: bool = True
    experts: bool = True
    expert_tensor: bool = True
    sequence_parallel: bool = True
    overlap_tp: bool = True
    overlap_ep: bool = True
    optimizer_offload: bool = True
    partial_offload: bool = True
    """A share of the optimizer state, not only all or nothing."""
    activation_offload: bool = True
    gathers_ahead: tuple[Sharding, ...] = tuple(Sharding)
    """Shardings whose weights it can gather under compute."""
    recomputed_along: Recompute = Recompute.NONE
    """Modules that are recomputed whenever any other is."""
    experts_cut_with_heads: bool = False
    """Expert tensor parallel is no choice of its own; see ``habits.py``."""
    lists_stages: bool = True
    """The layers of each stage can be said one by one; else it assigns them itself."""
    decides: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Axes that it decides by itself, with the values that it may come to."""

    def has_recompute(self, recompute: Recompute) -> bool:
        """All of the modules can be asked for."""
        return not recompute & ~self.recompute


_ZERO_BUBBLE = (Schedule.ZB_V, Schedule.GPIPE, Schedule.INTERLEAVED, Schedule._1F1B)
_ALWAYS_OVERLAPS = {"overlap_grad_reduce": (True,), "overlap_param_gather": (True,)}
_BLOCKWISE = (Precision.BF16, Precision.FP8, Precision.MXFP8)

LAUNCHERS: Mapping[str, Launcher] = {
    launcher.name: launcher
    for launcher in (
        Launcher(
            name="megatron",
            title="Megatron-LM",
            schedules=(Schedule._1F1B, Schedule.INTERLEAVED),
            shardings=(
                Sharding.NONE,
                Sharding.ZERO1,
                Sharding.ZERO2,
                Sharding.FSDP,
                Sharding.HSDP,
            ),
            decides={"reshard_after_forward": (True,)},
        ),
        Launcher(
            name="torchtitan",
            title="torchtitan",
            schedules=_ZERO_BUBBLE,
            shardings=(Sharding.NONE, Sharding.FSDP, Sharding.HSDP),
            cp_comms=(ContextParallel.ALL_GATHER,),
            precisions=_BLOCKWISE,
            orders=(Order.TP_CP_EP_DP_PP,),
            recompute=Recompute.CORE_ATTN | Recompute.FULL,
            some_layers=False,
            expert_tensor=False,
            overlap_ep=False,
            partial_offload=False,
            activation_offload=False,
            decides={**_ALWAYS_OVERLAPS, "overlap_p2p": (True,)},
        ),
        Launcher(
            name="deepspeed",
            title="DeepSpeed",
            schedules=(Schedule._1F1B,),
            shardings=(Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.ZERO3),
            cp_comms=(ContextParallel.A2A,),
            precisions=(Precision.BF16, Precision.FP16),
            orders=(Order.TP_CP_EP_DP_PP,),
            recompute=Recompute.FULL,
            some_layers=False,
            experts_cut_with_heads=True,
            sequence_parallel=False,
            overlap_ep=False,
            activation_offload=False,
            gathers_ahead=(Sharding.ZERO3,),
            lists_stages=False,
            decides={"overlap_param_gather": (True, False), "reshard_after_forward": (True,)},
        ),
        Launcher(
            name="accelerate",
            title="Accelerate",
            shardings=(Sharding.NONE, Sharding.FSDP, Sharding.HSDP),
            cp_comms=(ContextParallel.P2P, ContextParallel.ALL_GATHER),
            precisions=(Precision.BF16, Precision.FP16, Precision.FP8),
            orders=(Order.TP_CP_EP_DP_PP,),
            recompute=Recompute.FULL,
            some_layers=False,
            pipeline=False,
            experts=False,
            experts_cut_with_heads=True,
            sequence_parallel=False,
            overlap_tp=False,
            overlap_ep=False,
            partial_offload=False,
            activation_offload=False,
            decides=_ALWAYS_OVERLAPS,
        ),
        Launcher(
            name="nanotron",
            title="nanotron",
            schedules=(Schedule._1F1B, Schedule.GPIPE),
            shardings=(Sharding.NONE, Sharding.ZERO1),
            cp_comms=(ContextParallel.P2P,),
            precisions=(Precision.BF16, Precision.FP16),
            orders=(Order.TP_CP_EP_DP_PP,),
            recompute=Recompute.FULL,
            some_layers=False,
            experts=False,
            expert_tensor=False,
            overlap_ep=False,
            optimizer_offload=False,
            activation_offload=False,
            gathers_ahead=(),
            lists_stages=False,
            decides={"overlap_grad_reduce": (True,), "overlap_param_gather": (False,)},
        ),
        Launcher(
            name="maxtext",
            title="MaxText",
            schedules=(Schedule.GPIPE, Schedule.INTERLEAVED),
            shardings=(Sharding.NONE, Sharding.ZERO1, Sharding.FSDP, Sharding.HSDP),
            cp_comms=(ContextParallel.P2P, ContextParallel.ALL_GATHER),
            precisions=_BLOCKWISE,
            orders=(Order.TP_CP_EP_DP_PP,),
            recompute=Recompute.FULL | Recompute.CORE_ATTN | Recompute.MLP | Recompute.LAYERNORM,
            recomputed_along=Recompute.LAYERNORM,
            some_layers=False,
            experts_cut_with_heads=True,
            overlap_tp=False,
            overlap_ep=False,
            partial_offload=False,
            lists_stages=False,
            decides={
                **_ALWAYS_OVERLAPS,
                "overlap_p2p": (True,),
                "reshard_after_forward": (True,),
            },
        ),
        Launcher(name="any", title="no launcher in particular"),
    )
}

SAME_RULES: Mapping[str, str] = {"megatron-bridge": "megatron"}
"""Launchers that run another one's code, with the one whose rules hold."""


def launcher_called(name: str) -> Launcher:
    """The launcher of this name; raises SpecError with the near miss."""
    known = LAUNCHERS.get(SAME_RULES.get(name, name))
    if known is not None:
        return known
    names = [*LAUNCHERS, *SAME_RULES]
    close = get_close_matches(name, names, n=1)
    raise SpecError(
        f"unknown launcher {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names)}",
    )

"""The table: our knobs and torchtitan 0.3.0's fields, for writing and for reading."""

from collections.abc import Mapping

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Schedule

FIELDS: tuple[tuple[str, str], ...] = (
    ("tp", "parallelism.tensor_parallel_degree"),
    ("sequence_parallel", "parallelism.enable_sequence_parallel"),
    ("cp", "parallelism.context_parallel_degree"),
    ("ep", "parallelism.expert_parallel_degree"),
    ("pp", "parallelism.pipeline_parallel_degree"),
)
"""Knobs that are one field each and mean the same there."""

SCHEDULES: Mapping[Schedule, str] = {
    Schedule._1F1B: "1F1B",
    Schedule.GPIPE: "GPipe",
    Schedule.INTERLEAVED: "Interleaved1F1B",
    Schedule.ZB_1P: "InterleavedZeroBubble",
    Schedule.ZB_V: "ZBVZeroBubble",
    Schedule.DUALPIPE: "DualPipeV",
}
V_SHAPED = (Schedule.ZB_V, Schedule.DUALPIPE)
"""Schedules whose two chunks per rank are laid out there and back."""

AC: Mapping[str | None, tuple[Recompute, ...]] = {
    None: (Recompute.NONE,),
    "FullAC": (Recompute.FULL,),
    "SelectiveAC": (Recompute.CORE_ATTN,),
}
"""Class of the activation checkpointing and what we call it.

``SelectiveAC`` shares no more than the name with Megatron-LM's selective recompute: it
keeps attention and every other matrix product, and computes the rest again.
"""

CONVERTERS: Mapping[Precision, str] = {
    Precision.FP8: "Float8LinearConverter",
    Precision.MXFP8: "MXFP8LinearConverter",
    Precision.NVFP4: "NVFP4LinearConverter",
}


def assigned_stages(n_layers: int, chunks: int, first: int, last: int) -> tuple[int, ...]:
    """Layers of each stage where embedding and head weigh ``first`` and ``last`` layers.

    >>> assigned_stages(32, 4, 1, 1)
    (8, 9, 8, 7)
    """
    share, more = divmod(n_layers + first + last, chunks)
    if share < max(first, last, 1):
        raise SpecError(f"strategy.pp * vpp is {chunks} stages for {n_layers} layers")
    sizes = [share + (stage < more) for stage in range(chunks)]
    sizes[0] -= first
    sizes[-1] -= last
    return tuple(sizes)

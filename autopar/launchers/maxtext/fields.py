"""The table: our knobs and MaxText 0.2.5's fields, for writing and for reading."""

from collections.abc import Mapping
from typing import Literal

from cost_models.specs.strategy import ContextParallel, Precision, Recompute

Axis = Literal["tensor", "tensor_sequence", "context", "expert", "fsdp", "data", "pipeline"]
AXES: tuple[Axis, ...] = (
    "tensor",
    "tensor_sequence",
    "context",
    "expert",
    "fsdp",
    "data",
    "pipeline",
)
"""Axes of the mesh that a strategy uses, from the inside of an NVLink domain outwards."""

CP_STRATEGIES: Mapping[ContextParallel, str] = {
    ContextParallel.ALL_GATHER: "all_gather",
    ContextParallel.P2P: "ring",
}
QUANTIZATIONS: Mapping[Precision, str] = {
    Precision.FP8: "te_fp8_currentscaling",
    Precision.MXFP8: "te_mxfp8",
    Precision.NVFP4: "te_nvfp4",
}
OTHER_QUANTIZATIONS: Mapping[str, Precision] = {
    "": Precision.BF16,
    "fp8": Precision.FP8,
    "fp8_full": Precision.FP8,
    "fp8_gpu": Precision.FP8,
    "te_no_quant": Precision.BF16,
    "te_fp8_delayedscaling": Precision.FP8,
    "te_nvfp4_no_rht": Precision.NVFP4,
}

REMAT_TENSORS: Mapping[Recompute, tuple[str, ...]] = {
    Recompute.CORE_ATTN: ("context",),
    Recompute.MLP: ("mlpwi", "mlpwi_0", "mlpwi_1", "mlpwo"),
    Recompute.MOE: ("moe_mlpwi_0", "moe_mlpwi_1", "moe_mlpwo"),
    Recompute.NONE: ("query_proj", "key_proj", "value_proj", "qkv_proj", "out_proj"),
}
"""Tensors that the policy ``custom`` keeps or computes again; those of NONE are kept."""
ALWAYS_AGAIN = Recompute.LAYERNORM
"""Norms have no name there, so any policy but ``none`` computes them again."""
POLICIES: Mapping[str, Recompute] = {
    "none": Recompute.NONE,
    "full": Recompute.FULL,
    "minimal": ALWAYS_AGAIN | Recompute.CORE_ATTN,
    "minimal_with_context": ALWAYS_AGAIN,
    "minimal_flash": ALWAYS_AGAIN,
    "minimal_offloaded": Recompute.NONE,
    "save_dot_with_context_except_mlp": ALWAYS_AGAIN | Recompute.MLP,
    "save_dot_except_mlp": ALWAYS_AGAIN | Recompute.CORE_ATTN | Recompute.MLP,
    "save_dot_except_mlpwi": ALWAYS_AGAIN | Recompute.CORE_ATTN | Recompute.MLP,
    "save_qkv_proj": ALWAYS_AGAIN | Recompute.CORE_ATTN | Recompute.MLP,
    "save_out_proj": Recompute.FULL,
    "qkv_proj_offloaded": ALWAYS_AGAIN | Recompute.CORE_ATTN | Recompute.MLP,
}
"""What the named policies come nearest to."""

"""Arguments that Megatron-LM refuses beside each other, so that no strategy is meant by them.

They are what ``validate_args`` and the configurations of megatron-core 0.19.2 assert; layouts
that could run but for a divisor are the rules' business.
"""

from collections.abc import Mapping
from typing import Any

from autopar.launchers.megatron.args.flags import get
from cost_models.specs.errors import SpecError

_EXCLUSIVE = (
    ("fp16", "bf16"),
    ("fp8", "fp4"),
    ("num_layers_per_virtual_pipeline_stage", "num_virtual_stages_per_pipeline_rank"),
    ("num_layers_per_virtual_pipeline_stage", "pipeline_model_parallel_layout"),
    ("pipeline_model_parallel_layout", "decoder_first_pipeline_num_layers"),
    ("pipeline_model_parallel_layout", "decoder_last_pipeline_num_layers"),
    ("pipeline_model_parallel_layout", "account_for_embedding_in_pipeline_split"),
    ("pipeline_model_parallel_layout", "account_for_loss_in_pipeline_split"),
    ("use_torch_fsdp2", "use_distributed_optimizer"),
    ("use_torch_fsdp2", "use_megatron_fsdp"),
)
"""Of each group, one at most."""


def refuse_contradictions(values: Mapping[str, Any]) -> None:
    """Raise SpecError for arguments that exclude each other, the later ones of a group first."""
    for group in _EXCLUSIVE:
        given = [name for name in group if get(values, name)]
        if len(given) > 1:
            raise SpecError(f"{given[1]} and {given[0]} exclude each other")
    granularity, method = get(values, "recompute_granularity"), get(values, "recompute_method")
    if granularity == "full" and method not in ("uniform", "block"):
        raise SpecError(
            f"recompute_granularity full needs recompute_method uniform or block, got {method}"
        )
    if granularity == "selective" and method:
        raise SpecError(f"recompute_method {method} goes with recompute_granularity full only")

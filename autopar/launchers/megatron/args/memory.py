"""Recomputation, offload, precision and overlap as Megatron's arguments, and back."""

from collections.abc import Mapping
from typing import Any

from autopar.launchers.megatron.args.flags import Values, get
from autopar.launchers.plan import Plan
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Sharding

_MODULES = {
    Recompute.CORE_ATTN: "core_attn",
    Recompute.LAYERNORM: "layernorm",
    Recompute.ACTIVATION: "moe_act",
    Recompute.MLA_UP_PROJ: "mla_up_proj",
    Recompute.MLP: "mlp",
    Recompute.MOE: "moe",
    Recompute.SHARED_EXPERTS: "shared_experts",
}
_UNPRICED = ("gdn_norm_out", "gdp_in_proj", "gdp_qkv", "mhc")
"""Modules of models that we do not describe."""
_DENSE_OFFLOAD = ("attn_norm", "qkv_linear", "core_attn", "attn_proj", "mlp_norm")
_MOE_OFFLOAD = ("expert_fc1", "moe_act")
_MOMENTS = {8.0: None, 6.0: ("bf16", "fp32"), 4.0: ("bf16", "bf16"), 2.0: ("fp8", "fp8")}
_OPTIMIZERS = {"adamw": "adam", "adam": "adam", "sgd": "sgd", "lion": "lion", "muon": "muon"}


def write_recompute(plan: Plan) -> tuple[Values, dict[str, str]]:
    """What is computed again; ``block`` counts layers by model chunk, our knob by rank."""
    s = plan.strategy
    if s.recompute == Recompute.NONE:
        return {}, {}
    if s.recompute & Recompute.FULL:
        values: Values = {"recompute_granularity": "full"}
        if not s.recompute_layers:
            return values | {"recompute_method": "uniform", "recompute_num_layers": 1}, {}
        each = -(-s.recompute_layers // s.vpp)
        reason = f"layers are counted by model chunk, and a rank has {s.vpp}"
        return values | {"recompute_method": "block", "recompute_num_layers": each}, {
            "recompute_layers": reason
        }
    modules = [name for flag, name in _MODULES.items() if s.recompute & flag]
    reasons = {}
    if s.recompute & Recompute.ACTIVATION and not plan.model.is_moe:
        modules.remove("moe_act")
        reasons["recompute"] = "only the experts' activation can be recomputed alone"
    if not modules:
        return {}, reasons
    return {"recompute_granularity": "selective", "recompute_modules": modules}, reasons


def write_offload(plan: Plan) -> tuple[Values, tuple[str, ...]]:
    """State and activations in host memory, and what stays on the GPU all the same."""
    s, model = plan.strategy, plan.model
    values: Values = {}
    if s.optimizer_offload:
        values |= {
            "optimizer_cpu_offload": True,
            "optimizer_offload_fraction": s.optimizer_offload,
            "use_precision_aware_optimizer": True,
        }
    if not s.activation_offload:
        return values, ()
    layers = round(s.activation_offload * model.n_layers)
    whole = layers / model.n_layers == s.activation_offload and layers < model.n_layers
    if s.pp == 1 and s.recompute == Recompute.NONE and not model.is_moe and whole:
        return values | {"cpu_offloading_num_layers": layers}, ()
    modules = list(_DENSE_OFFLOAD)
    if model.is_moe and not s.recompute & (Recompute.MOE | Recompute.FULL):
        modules += _MOE_OFFLOAD
    kept: tuple[str, ...] = ()
    if len(model.moe_layers) < model.n_layers:
        kept = ("activation_offload of a dense MLP: what it keeps stays on the GPU",)
    return values | {
        "fine_grained_activation_offloading": True,
        "offload_modules": modules,
        "activation_offload_fraction": s.activation_offload,
    }, kept


def write_precision(plan: Plan) -> tuple[Values, tuple[str, ...]]:
    """Formats of GEMMs, gradients and moments, and what the optimizer cannot do."""
    s, framework, optimizer = plan.strategy, plan.workload.framework, plan.workload.optimizer
    values: Values = {"fp16" if s.precision == Precision.FP16 else "bf16": True}
    if s.precision == Precision.FP8:
        values |= {"fp8": "hybrid", "fp8_recipe": "tensorwise"}
    elif s.precision == Precision.MXFP8:
        values |= {"fp8": "e4m3", "fp8_recipe": "mxfp8"}
    elif s.precision == Precision.NVFP4:
        values["fp4"] = "e2m1"
    gathered = framework.param_gather_bytes == 1 and s.sharding != Sharding.NONE
    if "fp8" in values and gathered and not s.optimizer_offload:
        values["fp8_param_gather"] = True
        values["reuse_grad_buf_for_mxfp8_param_ag"] = s.precision == Precision.MXFP8
    if s.precision != Precision.FP16 and framework.grad_reduce_bytes == 2:
        values["grad_reduce_in_bf16"] = True
    missing = []
    moments = _MOMENTS.get(optimizer.moments_bytes)
    if moments and (s.sharding != Sharding.NONE or s.dp * s.cp == 1):
        values["exp_avg_dtype"], values["exp_avg_sq_dtype"] = moments
        values["use_precision_aware_optimizer"] = True
    elif optimizer.moments_bytes != 8:
        missing.append(
            f"optimizer moments of {optimizer.moments_bytes:g} bytes: the moments are kept in fp32"
        )
    values["optimizer"] = _OPTIMIZERS.get(optimizer.name.lower(), "adam")
    if optimizer.name.lower() not in _OPTIMIZERS:
        missing.append(f"optimizer {optimizer.name}: unknown there; adam is written")
    return values, tuple(missing)


def write_overlap(plan: Plan) -> Values:
    """Collectives of tensor and expert parallelism under compute."""
    s = plan.strategy
    return {
        "tp_comm_overlap": s.overlap_tp,
        "overlap_moe_expert_parallel_comm": s.overlap_ep,
    }


def read_memory(values: Mapping[str, Any], vpp: int) -> dict[str, Any]:
    """Knobs of the strategy that trade memory for time."""
    recompute, layers = _read_recompute(values, vpp)
    share = 0.0
    if get(values, "fine_grained_activation_offloading"):
        share = float(get(values, "activation_offload_fraction"))
    elif get(values, "cpu_offloading_num_layers"):
        total = get(values, "num_layers")
        if not total:
            raise SpecError("cpu_offloading_num_layers needs num_layers to mean a share")
        share = get(values, "cpu_offloading_num_layers") / total
    offloaded = get(values, "optimizer_cpu_offload")
    return {
        "recompute": recompute,
        "recompute_layers": layers,
        "activation_offload": share,
        "optimizer_offload": float(get(values, "optimizer_offload_fraction")) if offloaded else 0.0,
        "precision": _read_precision(values),
        "overlap_tp": bool(get(values, "tp_comm_overlap")),
        "overlap_ep": bool(get(values, "overlap_moe_expert_parallel_comm")),
    }


def _read_precision(values: Mapping[str, Any]) -> Precision:
    if get(values, "fp4"):
        return Precision.NVFP4
    if get(values, "fp8"):
        return Precision.MXFP8 if get(values, "fp8_recipe") == "mxfp8" else Precision.FP8
    return Precision.FP16 if get(values, "fp16") else Precision.BF16


def _read_recompute(values: Mapping[str, Any], vpp: int) -> tuple[Recompute, int]:
    granularity = get(values, "recompute_granularity")
    if get(values, "recompute_activations"):
        granularity = "selective"
    extra = Recompute.MOE if get(values, "moe_layer_recompute") else Recompute.NONE
    if granularity is None:
        return extra, 0
    if granularity == "full":
        block = get(values, "recompute_method") == "block"
        return Recompute.FULL, (get(values, "recompute_num_layers") or 0) * vpp if block else 0
    if granularity != "selective":
        raise SpecError(f"recompute_granularity must be full or selective, got {granularity!r}")
    recompute = extra
    names = {name: flag for flag, name in _MODULES.items()}
    for module in get(values, "recompute_modules") or ["core_attn"]:
        if module in _UNPRICED:
            continue
        if module not in names:
            raise SpecError(
                f"recompute_modules has unknown {module!r}", hint=f"known: {', '.join(names)}"
            )
        recompute |= names[module]
    return recompute, 0

"""Rules on what is kept of the forward pass, and in which format it is computed."""

import numpy as np

from cost_models.specs.strategy import Precision, Recompute, Strategies
from search.rules.rule import Mask, Problem, Rule, only


def missing_modules(problem: Problem) -> Recompute:
    """Modules that this model does not have."""
    model, missing = problem.model, Recompute.NONE
    if model.attention != "mla":
        missing |= Recompute.MLA_UP_PROJ
    if not model.is_moe:
        missing |= Recompute.MOE
    if not model.shared_expert_ffn_size:
        missing |= Recompute.SHARED_EXPERTS
    if len(model.moe_layers) == model.n_layers:
        missing |= Recompute.MLP
    return missing


def _layers_of_rank(problem: Problem, s: Strategies) -> Mask:
    largest = -(-problem.model.n_layers // s.pp)
    full = (s.recompute & Recompute.FULL) != 0
    within = (s.recompute_layers >= 0) & (s.recompute_layers <= largest)
    return np.asarray((s.recompute_layers == 0) | (full & within))


def supported(problem: Problem) -> list[Precision]:
    """Precisions that the GPU's data sheet names."""
    return [p for p in Precision if p.label in problem.cluster.gpu.peak_flop_per_s]


def _by_layers_alone(problem: Problem, s: Strategies) -> Mask:
    """Offload module by module runs beside both, but leaves on the GPU what a dense MLP keeps."""
    alone = (s.recompute == Recompute.NONE) & (s.pp == 1)
    return np.asarray((s.activation_offload == 0) | alone | problem.model.is_moe)


def _whole_layers(problem: Problem, s: Strategies) -> Mask:
    total = problem.model.n_layers
    layers = np.rint(s.activation_offload * total)
    whole = (layers / total == s.activation_offload) & (layers < total)
    return np.asarray(whole | problem.model.is_moe)


RECOMPUTE_RULES = (
    Rule(
        name="recompute_modules_exist",
        sentence="Only modules that the model has are recomputed.",
        reads=("recompute",),
        holds=lambda p, s: s.recompute & missing_modules(p) == 0,
        why=lambda p, s: (
            f"recompute {s.recompute.label}: the model has no "
            f"{Recompute(s.recompute & missing_modules(p)).label}"
        ),
    ),
    Rule(
        name="activation_recompute_needs_experts",
        sentence="Megatron-LM recomputes the activation function in experts only.",
        reads=("recompute",),
        holds=lambda p, s: (s.recompute & Recompute.ACTIVATION == 0) | p.model.is_moe,
        why=lambda p, s: f"recompute {s.recompute.label} with a model that has no experts",
        launchers=only("megatron"),
    ),
    Rule(
        name="recompute_layers_of_rank",
        sentence="The layers recomputed on a pipeline rank are layers it has, and need full.",
        reads=("pp", "recompute", "recompute_layers"),
        holds=_layers_of_rank,
        why=lambda p, s: (
            f"recompute_layers {s.recompute_layers} with recompute {s.recompute.label} and "
            f"{-(-p.model.n_layers // s.pp)} layers on a pipeline rank"
        ),
    ),
    Rule(
        name="recompute_layers_per_chunk",
        sentence="Layers to recompute are given per chunk, so vpp divides their number.",
        reads=("vpp", "recompute_layers"),
        holds=lambda p, s: s.recompute_layers % s.vpp == 0,
        why=lambda p, s: (
            f"recompute_layers {s.recompute_layers} is not divisible by virtual pipeline {s.vpp}"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="recomputed_or_offloaded",
        sentence="Whole layers that are recomputed keep nothing to offload.",
        reads=("recompute", "activation_offload"),
        holds=lambda p, s: (s.activation_offload == 0) | (s.recompute & Recompute.FULL == 0),
        why=lambda p, s: f"activation_offload {s.activation_offload:g} with recompute full",
        launchers=only("any", "maxtext", "megatron"),
    ),
    Rule(
        name="dense_offload_needs_one_stage",
        sentence="A dense model is offloaded by layers, without recompute and without a pipeline.",
        reads=("pp", "recompute", "activation_offload"),
        holds=_by_layers_alone,
        why=lambda p, s: (
            f"activation_offload {s.activation_offload:g} with recompute {s.recompute.label} "
            f"and pipeline_parallel {s.pp}, in a model without experts"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="dense_offload_is_layers",
        sentence="What is offloaded of a dense model is whole layers, and one of them stays.",
        reads=("activation_offload",),
        holds=_whole_layers,
        why=lambda p, s: (
            f"activation_offload {s.activation_offload:g} is "
            f"{s.activation_offload * p.model.n_layers:g} of {p.model.n_layers} layers: it must be "
            f"a whole number up to {p.model.n_layers - 1}"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="gpu_has_precision",
        sentence="The GPU computes in the precision asked for.",
        reads=("precision",),
        holds=lambda p, s: np.isin(s.precision, supported(p)),
        why=lambda p, s: (
            f"precision {s.precision.label} is not one of {p.cluster.gpu.name}'s: "
            f"{', '.join(x.label for x in supported(p))}"
        ),
    ),
)

"""Rules on what a launcher does by itself: layouts that it would turn into other ones."""

from math import ceil

import numpy as np

from cost_models.specs.strategy import Recompute, Sharding, Strategies
from search.rules.rule import Mask, Problem, Rule, only


def _cut_with_heads(problem: Problem, s: Strategies) -> Mask:
    if not problem.model.is_moe:
        return np.asarray(np.True_)
    alone = problem.launcher.name == "deepspeed"
    return np.asarray(s.etp == np.where(alone & (s.ep > 1), 1, s.tp))


def llama_like(problem: Problem) -> bool:
    """A dense model of the Llama or Qwen 2 architecture."""
    model = problem.model
    extras = (model.qk_norm, model.mlp_bias, model.attention_out_bias, model.head_bias)
    more = (model.embedding_norm, model.attention_sinks, model.sliding_window_layers)
    return bool(
        model.attention == "gqa"
        and not model.is_moe
        and model.norm == "rmsnorm"
        and model.position == "rope"
        and model.gated_mlp
        and model.norms_per_layer == 2
        and model.hidden_size == model.n_heads * model.head_dim
        and not any(extras + more)
    )


def equal_slices(problem: Problem) -> bool:
    """The GPUs are cut into equal parts, each inside one NVLink domain."""
    cluster = problem.cluster
    return cluster.n_gpus % ceil(cluster.n_gpus / cluster.nvlink_domain) == 0


def _whole_weights(_: Problem, s: Strategies) -> Mask:
    return np.asarray(np.isin(s.sharding, (Sharding.FSDP, Sharding.HSDP)) | (s.ep * s.cp == 1))


def _along(problem: Problem, s: Strategies) -> Mask:
    along = int(problem.launcher.recomputed_along)
    alone = (s.recompute == 0) | (s.recompute & Recompute.FULL != 0)
    return np.asarray(alone | (s.recompute & along == along))


HABIT_RULES = (
    Rule(
        name="model_is_llama_like",
        sentence="nanotron trains dense models of the Llama or Qwen 2 architecture.",
        reads=(),
        holds=lambda p, s: llama_like(p),
        why=lambda p, s: f"{p.model.name} is not a dense model of the Llama or Qwen 2 architecture",
        launchers=only("nanotron"),
    ),
    Rule(
        name="slices_are_equal",
        sentence="MaxText's mesh is equal slices, each inside one NVLink domain.",
        reads=(),
        holds=lambda p, s: equal_slices(p),
        why=lambda p, s: (
            f"{p.cluster.n_gpus} GPUs are not equal parts of NVLink domains of "
            f"{p.cluster.nvlink_domain}"
        ),
        launchers=only("maxtext"),
    ),
    Rule(
        name="experts_cut_with_heads",
        sentence="Tensor parallel cuts the experts as it cuts the heads.",
        reads=("tp", "ep", "etp"),
        holds=_cut_with_heads,
        why=lambda p, s: (
            f"expert_tensor_parallel {s.etp} with tensor_parallel {s.tp} and expert_parallel {s.ep}"
        ),
        launchers=only("accelerate", "deepspeed", "maxtext"),
    ),
    Rule(
        name="autoep_with_autotp",
        sentence="Automatic expert and tensor parallel together exclude pipelines and offload.",
        reads=("tp", "pp", "ep", "optimizer_offload"),
        holds=lambda p, s: (s.ep == 1) | (s.tp == 1) | ((s.pp == 1) & (s.optimizer_offload == 0)),
        why=lambda p, s: (
            f"tensor_parallel {s.tp} and expert_parallel {s.ep} with pipeline_parallel {s.pp} and "
            f"optimizer_offload {s.optimizer_offload:g}"
        ),
        launchers=only("deepspeed"),
    ),
    Rule(
        name="part_offload_needs_zero3",
        sentence="Only ZeRO-3 can offload a part of the optimizer state.",
        reads=("sharding", "optimizer_offload"),
        holds=lambda p, s: (
            np.isin(s.optimizer_offload, (0.0, 1.0)) | (s.sharding == Sharding.ZERO3)
        ),
        why=lambda p, s: f"optimizer_offload {s.optimizer_offload:g} with {s.sharding.label}",
        launchers=only("deepspeed"),
    ),
    Rule(
        name="offload_is_of_shards",
        sentence="Only sharded optimizer state has a switch that sends it to the host.",
        reads=("dp", "cp", "sharding", "optimizer_offload"),
        holds=lambda p, s: (
            (s.optimizer_offload == 0) | ((s.sharding != Sharding.NONE) & (s.dp * s.cp > 1))
        ),
        why=lambda p, s: (
            f"optimizer_offload {s.optimizer_offload:g} with sharding {s.sharding.label} over "
            f"{s.dp * s.cp} ranks"
        ),
        launchers=only("accelerate", "deepspeed"),
    ),
    Rule(
        name="weights_gathered_ahead",
        sentence="Weights are gathered under compute only where the launcher does so.",
        reads=("sharding", "overlap_param_gather"),
        holds=lambda p, s: ~s.overlap_param_gather | np.isin(s.sharding, p.launcher.gathers_ahead),
        why=lambda p, s: (
            f"overlap_param_gather is on with sharding {s.sharding.label}, whose weights "
            f"{p.launcher.title} gathers after the step"
        ),
        launchers=only("deepspeed", "nanotron"),
    ),
    Rule(
        name="weights_shard_over_experts",
        sentence="MaxText shards weights over the expert and context ranks too.",
        reads=("cp", "ep", "sharding"),
        holds=_whole_weights,
        why=lambda p, s: (
            f"sharding {s.sharding.label} with expert_parallel {s.ep} and context_parallel {s.cp}"
        ),
        launchers=only("maxtext"),
    ),
    Rule(
        name="ep_divides_weight_shards",
        sentence="MaxText's expert ranks are taken from the ranks that share out the weights.",
        reads=("ep", "sharding", "dp_shard"),
        holds=lambda p, s: s.dp_shard % s.ep == 0,
        why=lambda p, s: f"dp_shard {s.dp_shard} is not divisible by expert_parallel {s.ep}",
        launchers=only("maxtext"),
    ),
    Rule(
        name="norms_recomputed_along",
        sentence="Whatever is recomputed, MaxText recomputes the norms with it.",
        reads=("recompute",),
        holds=_along,
        why=lambda p, s: (
            f"recompute {s.recompute.label} without {p.launcher.recomputed_along.label}"
        ),
        launchers=only("maxtext"),
    ),
    Rule(
        name="offload_is_a_policy",
        sentence="MaxText offloads all projections or nothing, and then recomputes nothing.",
        reads=("recompute", "activation_offload"),
        holds=lambda p, s: (
            (s.activation_offload == 0)
            | ((s.activation_offload == 1) & (s.recompute == Recompute.NONE))
        ),
        why=lambda p, s: (
            f"activation_offload {s.activation_offload:g} with recompute {s.recompute.label}"
        ),
        launchers=only("maxtext"),
    ),
)

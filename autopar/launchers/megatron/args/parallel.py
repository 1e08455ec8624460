"""Degrees, pipeline stages and sharding as Megatron's arguments, and back."""

from collections.abc import Mapping, Sequence
from typing import Any

from autopar.launchers.knobs import checked_stages
from autopar.launchers.megatron.args.flags import Values, get
from autopar.launchers.megatron.args.layout import read_layout, write_layout
from autopar.launchers.plan import Plan
from cost_models.counting.partition import even_stage_layers
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework
from cost_models.specs.strategy import ContextParallel, Order, Schedule, Sharding

_CP_COMM = {
    ContextParallel.P2P: "p2p",
    ContextParallel.ALL_GATHER: "all_gather",
    ContextParallel.A2A: "a2a",
    ContextParallel.A2A_P2P: "a2a+p2p",
}
_FSDP_STRATEGIES = {
    "no_shard": Sharding.NONE,
    "optim": Sharding.ZERO1,
    "optim_grads": Sharding.ZERO2,
    "optim_grads_params": Sharding.FSDP,
}
_EVEN = Framework(name="megatron-lm", family="megatron", partition="even")
_MOST_RANKS = 10_000_000
_MOST_CHUNKS = 1000
_FULLY_SHARDED = (Sharding.ZERO3, Sharding.FSDP, Sharding.HSDP)


def write_degrees(plan: Plan) -> Values:
    """How many ranks each dimension has, and in which order."""
    s = plan.strategy
    values: Values = {
        "tensor_model_parallel_size": s.tp,
        "pipeline_model_parallel_size": s.pp,
        "context_parallel_size": s.cp,
        "sequence_parallel": s.sequence_parallel,
        "use_tp_pp_dp_mapping": s.order == Order.TP_CP_EP_PP_DP,
        "micro_batch_size": s.micro_batch_size,
        "global_batch_size": plan.workload.global_batch_size,
    }
    if plan.model.is_moe or s.ep > 1:
        values["expert_model_parallel_size"] = s.ep
        values["expert_tensor_parallel_size"] = s.etp
    if s.cp > 1:
        values["cp_comm_type"] = [_CP_COMM[s.cp_comm]]
        if s.cp_comm == ContextParallel.A2A_P2P:
            inner = _inner_ranks(plan)
            values["hierarchical_context_parallel_sizes"] = [inner, s.cp // inner]
    return values


def _inner_ranks(plan: Plan) -> int:
    """Ranks of one context-parallel group that exchange heads: those of one NVLink domain."""
    s, model = plan.strategy, plan.model
    heads = max(model.n_kv_heads // s.tp, 1)
    reach = int(plan.cluster.inside(s.tp, s.cp))
    return max(n for n in range(1, reach + 1) if s.cp % n == 0 and (n == 1 or heads % n == 0))


def assigned_stages(plan: Plan) -> tuple[int, ...] | None:
    """Layers of each chunk where Megatron needs a list: given, or no split of its own."""
    s, model = plan.strategy, plan.model
    given = checked_stages(plan)
    chunks = s.pp * s.vpp
    if given is not None or s.pp == 1 or chunks > model.n_layers:
        return given
    layers = even_stage_layers(model, plan.workload.framework, s.pp, s.vpp)
    if -model.n_layers % chunks > 2:
        return layers
    # nothing, the loss, or embedding and loss counted as layers: a split like ours
    own = even_stage_layers(model, _EVEN, s.pp, s.vpp)
    return None if layers == own else layers


def write_pipeline(plan: Plan) -> Values:
    """Stages and virtual stages."""
    s, model = plan.strategy, plan.model
    values: Values = {}
    layers = assigned_stages(plan)
    if layers is not None:
        values["pipeline_model_parallel_layout"] = write_layout(layers, model.mtp_layers)
    else:
        if s.vpp > 1:
            values["num_virtual_stages_per_pipeline_rank"] = s.vpp
        short = -model.n_layers % (s.pp * s.vpp)
        values["account_for_embedding_in_pipeline_split"] = s.pp > 1 and short == 2
        values["account_for_loss_in_pipeline_split"] = s.pp > 1 and short in (1, 2)
    if s.vpp > 1:
        values["overlap_p2p_comm"] = s.overlap_p2p
    return values


def write_sharding(plan: Plan) -> tuple[Values, dict[str, str]]:
    """Who holds which part of the state, which collectives overlap, and reasons where not."""
    s = plan.strategy
    reasons = {}
    values: Values = {"overlap_grad_reduce": s.overlap_grad_reduce}
    if s.sharding == Sharding.NONE:
        special = s.optimizer_offload or plan.workload.optimizer.moments_bytes != 8
        if special and s.dp * s.cp == 1:
            # alone, a rank shards nothing; only this optimizer offloads or keeps short moments
            values["use_distributed_optimizer"] = True
        return values, {}
    values["overlap_param_gather"] = s.overlap_param_gather
    if s.sharding in _FULLY_SHARDED and not s.reshard_after_forward:
        reason = _why_not_torch_fsdp(plan)
        if reason is None:
            return _torch_fsdp(values), {}
        reasons["reshard_after_forward"] = f"only --use-torch-fsdp2 keeps weights, but {reason}"
    if s.sharding == Sharding.ZERO1:
        values["use_distributed_optimizer"] = True
    else:
        fully = s.sharding in _FULLY_SHARDED
        values |= {
            "use_megatron_fsdp": True,
            "data_parallel_sharding_strategy": "optim_grads_params" if fully else "optim_grads",
            "init_model_with_meta_device": True,
            "ckpt_format": "fsdp_dtensor",
        }
    if 0 < s.dp_shard < s.dp:
        values["num_distributed_optimizer_instances"] = s.dp // s.dp_shard
    return values, reasons


def _why_not_torch_fsdp(plan: Plan) -> str | None:
    s = plan.strategy
    if s.pp > 1 or s.ep > 1:
        return "that knows no pipeline and no expert parallelism"
    if plan.model.tied_embeddings:
        return "that wants untied embeddings"
    if s.dp_shard < s.dp:
        return "that shards over all data-parallel ranks"
    if s.precision.label == "fp16":
        return "that does not know fp16"
    if not (s.overlap_grad_reduce and s.overlap_param_gather):
        return "that always overlaps its collectives"
    if s.optimizer_offload or plan.workload.optimizer.moments_bytes != 8:
        return "that keeps the whole optimizer on the GPU, in fp32"
    return None


def _torch_fsdp(values: Values) -> Values:
    values.pop("overlap_grad_reduce")
    values.pop("overlap_param_gather")
    return values | {
        "use_torch_fsdp2": True,
        "torch_fsdp2_reshard_after_forward": False,
        "gradient_accumulation_fusion": False,
    }


def read_degrees(values: Mapping[str, Any], world_size: int | None) -> dict[str, Any]:
    """Knobs of the strategy that count ranks; without a world size dp is 1."""
    tp, pp, cp = (
        int(get(values, f"{n}_parallel_size"))
        for n in ("tensor_model", "pipeline_model", "context")
    )
    if min(tp, pp, cp) < 1 or tp * pp * cp > _MOST_RANKS:
        raise SpecError(f"parallel sizes must be > 0 and real, got tp {tp}, pp {pp}, cp {cp}")
    world = world_size or tp * pp * cp
    if world % (tp * pp * cp):
        raise SpecError(
            f"{world} GPUs are no multiple of tp {tp} x pp {pp} x cp {cp} = {tp * pp * cp}"
        )
    moe = bool(get(values, "num_experts"))
    etp = (get(values, "expert_tensor_parallel_size") or tp) if moe else 1
    ep, batch = int(get(values, "expert_model_parallel_size")), get(values, "micro_batch_size")
    for name, size in (
        ("expert_model_parallel_size", ep),
        ("expert_tensor_parallel_size", etp),
        ("micro_batch_size", 1 if batch is None else batch),
    ):
        if size < 1:
            raise SpecError(f"{name} must be > 0, got {size}")
    comm = get(values, "cp_comm_type")
    if len(set(comm)) > 1:
        raise SpecError(f"cp_comm_type differs by layer: {' '.join(comm)}; one type is understood")
    known = {name: member for member, name in _CP_COMM.items()} | {
        "allgather": ContextParallel.ALL_GATHER
    }
    if comm[0] not in known:
        raise SpecError(f"cp_comm_type must be one of {', '.join(known)}, got {comm[0]!r}")
    return {
        "dp": world // (tp * pp * cp),
        "tp": tp,
        "pp": pp,
        "cp": cp,
        "ep": ep,
        "etp": etp,
        "cp_comm": known[comm[0]] if cp > 1 else ContextParallel.P2P,
        "sequence_parallel": bool(get(values, "sequence_parallel")) and tp > 1,
        "micro_batch_size": batch or 1,
        "order": Order.TP_CP_EP_PP_DP if get(values, "use_tp_pp_dp_mapping") else Order(0),
    }


def read_pipeline(values: Mapping[str, Any]) -> dict[str, Any]:
    """Stages and schedule."""
    pp = int(get(values, "pipeline_model_parallel_size"))
    layers, vpp = _read_stages(values, pp)
    return {
        "vpp": vpp,
        "stage_layers": layers if pp * vpp > 1 else None,
        "schedule": Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B,
        "overlap_p2p": bool(get(values, "overlap_p2p_comm")) if vpp > 1 else pp == 1,
    }


def _read_stages(values: Mapping[str, Any], pp: int) -> tuple[tuple[int, ...] | None, int]:
    layout = get(values, "pipeline_model_parallel_layout")
    total = get(values, "num_layers")
    if layout:
        stages, _ = read_layout(str(layout))
        if len(stages) % pp:
            raise SpecError(
                f"pipeline_model_parallel_layout has {len(stages)} stages, no multiple of pp {pp}"
            )
        if total and sum(stages) != total:
            raise SpecError(
                f"pipeline_model_parallel_layout has {sum(stages)} layers, num_layers is {total}"
            )
        chunks = get(values, "num_virtual_stages_per_pipeline_rank") or len(stages) // pp
        if chunks * pp != len(stages):
            raise SpecError(
                f"num_virtual_stages_per_pipeline_rank is {chunks}, "
                f"pipeline_model_parallel_layout has {len(stages) // pp}"
            )
        return stages, chunks
    first, last = (get(values, f"decoder_{n}_pipeline_num_layers") for n in ("first", "last"))
    ends = [int(get(values, f"account_for_{n}_in_pipeline_split")) for n in ("embedding", "loss")]
    vpp = get(values, "num_virtual_stages_per_pipeline_rank")
    each = get(values, "num_layers_per_virtual_pipeline_stage")
    if each and not vpp and total:
        vpp = max((total + sum(ends)) // pp // each, 1)
    vpp = int(vpp or 1)
    if not 1 <= vpp <= _MOST_CHUNKS:
        raise SpecError(f"virtual stages of a pipeline rank must be 1 to {_MOST_CHUNKS}, got {vpp}")
    if not total or pp * vpp < 2 or (first is None and last is None and not any(ends)):
        return None, vpp
    if ends[1] and (total + sum(ends)) % (pp * vpp) == 0:
        return None, vpp  # the shares are those of an even split that is one or two layers short
    if any(ends):
        per_chunk = (total + sum(ends)) // (pp * vpp)
        chunks = [per_chunk] * (pp * vpp)
        chunks[0] -= ends[0]
        chunks[-1] -= ends[1]
    else:
        chunks = list(_first_and_last(total, pp, vpp, first, last))
    if sum(chunks) != total or min(chunks) < 0:
        raise SpecError(f"{total} layers do not split into {pp} x {vpp} pipeline stages as written")
    return tuple(chunks), vpp


def _first_and_last(
    total: int, pp: int, vpp: int, first: int | None, last: int | None
) -> Sequence[int]:
    given = [n for n in (first, last) if n is not None]
    middle = (total - sum(given)) // max(pp - len(given), 1)
    ranks = [middle] * pp
    if first is not None:
        ranks[0] = first
    if last is not None:
        ranks[-1] = last
    return [n // vpp for n in ranks] * vpp


def read_sharding(values: Mapping[str, Any], dp: int) -> dict[str, Any]:
    """Sharding and the overlap of its collectives."""
    reshard = True
    if get(values, "use_torch_fsdp2"):
        sharding, overlapped = Sharding.FSDP, True
        reshard = bool(get(values, "torch_fsdp2_reshard_after_forward"))
    else:
        overlapped = False
        if get(values, "use_megatron_fsdp") or get(values, "use_custom_fsdp"):
            name = get(values, "data_parallel_sharding_strategy")
            if name not in _FSDP_STRATEGIES:
                raise SpecError(
                    f"data_parallel_sharding_strategy must be one of "
                    f"{', '.join(_FSDP_STRATEGIES)}, got {name!r}"
                )
            sharding = _FSDP_STRATEGIES[name]
        elif get(values, "use_distributed_optimizer"):
            sharding = Sharding.ZERO1
        else:
            sharding = Sharding.NONE
    copies = int(get(values, "num_distributed_optimizer_instances"))
    if sharding != Sharding.NONE and (copies < 1 or dp % copies):
        raise SpecError(
            f"num_distributed_optimizer_instances must divide the {dp} data-parallel ranks, "
            f"got {copies}"
        )
    if sharding == Sharding.FSDP and copies > 1:
        sharding = Sharding.HSDP
    return {
        "sharding": sharding,
        "dp_shard": 1 if sharding == Sharding.NONE else dp // copies,
        "reshard_after_forward": reshard,
        "overlap_grad_reduce": overlapped or bool(get(values, "overlap_grad_reduce")),
        "overlap_param_gather": overlapped
        or sharding == Sharding.NONE
        or bool(get(values, "overlap_param_gather")),
    }

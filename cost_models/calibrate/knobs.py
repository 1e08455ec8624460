"""Knobs of a measured run: those that its row states, and candidates for those it leaves open."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product

from cost_models.calibrate.cells import Cells, UnreadableRunError, blaming
from cost_models.specs.cluster import Cluster
from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from cost_models.specs.workload import Workload

_SCHEDULES = {
    "": None,
    "1F1B": Schedule._1F1B,
    "1F1B-I": Schedule.INTERLEAVED,
    "ZB-1P": Schedule.ZB_1P,
    "ZB-2P": Schedule.ZB_2P,
    "ZB-V": Schedule.ZB_V,
    "GPIPE": Schedule.GPIPE,
    "INTERLEAVED": Schedule.INTERLEAVED,
    "DUALPIPE": Schedule.DUALPIPE,
}


def stated_strategy(
    cells: Cells,
    model: ModelSpec,
    framework: Framework,
    cluster: Cluster,
    layout: Mapping[str, int],
) -> tuple[Strategy, tuple[str, ...]]:
    """The row's strategy, and which of its fields the source does not state.

    ``layout`` has the degrees dp, tp, pp and cp.  Raises UnreadableRunError for a cell that
    its column does not know, SpecError for degrees that do not go together.
    """
    dp, tp, pp, cp = (layout[name] for name in ("dp", "tp", "pp", "cp"))
    vpp, micro = cells.whole("vpp"), cells.whole("micro_batch")
    sharding, recompute = cells.text("sharding").lower(), cells.text("recompute").lower()
    stated = _schedule(cells)
    schedule = stated or (Schedule.INTERLEAVED if (vpp or 1) > 1 else Schedule._1F1B)
    with blaming("sharding"):
        split = Sharding.parse(sharding) if sharding else Sharding.ZERO1
    with blaming("recompute"):
        kind = Recompute.parse(recompute) if recompute else Recompute.NONE
    with blaming("precision"):
        format_ = Precision.parse(cells.text("precision").lower() or "bf16")
    ep = cells.whole("ep") or 1
    etp = cells.whole("etp")
    # PyTorch's SHARD_GRAD_OP keeps the gathered weights between forward and backward, and so
    # do its pipelines
    kept = split == Sharding.ZERO2 or (pp > 1 and split >= Sharding.ZERO3)
    reshard = not (framework.family == "fsdp" and kept)
    split = split if reshard else Sharding.FSDP
    shard = {Sharding.NONE: 1, Sharding.HSDP: min(8, dp)}.get(split, dp)
    open_knobs = [
        name
        for name, missing in (
            ("micro_batch_size", not micro),
            ("vpp", not vpp and pp > 1 and stated is None),
            ("recompute", not recompute),
        )
        if missing
    ]
    if etp is None:
        same = framework.expert_tensor_parallel_default == "tp" and dp * tp * cp % (tp * ep) == 0
        etp = tp if model.is_moe and same else 1
    layers = 0
    if framework.family == "fsdp" and kind == Recompute.CORE_ATTN:
        # PyTorch's selective checkpointing recomputes about every other product
        kind, layers = Recompute.FULL, max(model.n_layers // pp // 2, 1)
    strategy = Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=ep,
        etp=etp,
        vpp=vpp or 1,
        micro_batch_size=micro or 1,
        schedule=schedule,
        sequence_parallel=cells.flag("seq_parallel", tp > 1) and tp > 1,
        sharding=split,
        dp_shard=shard,
        reshard_after_forward=reshard,
        recompute=kind,
        recompute_layers=layers,
        precision=format_,
        overlap_p2p=framework.overlaps_p2p,
        overlap_tp=framework.overlaps_tp and tp > 1,
    )
    if _hides_exchange(strategy, framework, cluster):
        strategy = replace(strategy, overlap_ep=True)
    return strategy, tuple(open_knobs)


def _schedule(cells: Cells) -> Schedule | None:
    name = cells.text("schedule").upper()
    if name not in _SCHEDULES:
        known = ", ".join(name for name in _SCHEDULES if name)
        raise UnreadableRunError(
            "schedule", f"is unknown: {cells.text('schedule')!r}", hint=f"known: {known}"
        )
    return _SCHEDULES[name]


def _hides_exchange(s: Strategy, framework: Framework, cluster: Cluster) -> bool:
    """Whether the framework's own recipe runs another micro-batch while experts exchange.

    One micro-batch's forward pass needs another's backward pass beside it: pipelines that
    interleave, or, where experts are fused, no pipeline.
    """
    if not framework.overlaps_ep or s.ep == 1:
        return False
    fused = s.precision.label in framework.fused_expert_formats
    if s.pp == 1:
        return fused
    both_ways = s.vpp > 1 or s.schedule == Schedule.DUALPIPE
    return both_ways and (fused or s.ep * s.etp > cluster.nvlink_domain)


def candidates(
    s: Strategy, open_knobs: Sequence[str], model: ModelSpec, workload: Workload
) -> list[Strategy]:
    """Settings of the open knobs that a launcher would accept, one strategy each."""
    per_rank = workload.global_batch_size // s.dp
    layers = model.n_layers
    choices: dict[str, Sequence[object]] = {}
    if "micro_batch_size" in open_knobs:
        choices["micro_batch_size"] = [b for b in (1, 2, 4, 8) if per_rank % b == 0]
    if "vpp" in open_knobs:
        # with and without an embedding and a head that count as layers
        even = [
            v
            for v in range(1, -(-layers // s.pp) + 1)
            if layers % (s.pp * v) == 0 or (layers + 2) % (s.pp * v) == 0
        ]
        choices["vpp"] = even or [1]
    found = []
    for values in product(*choices.values()):
        one = replace(s, **dict(zip(choices, values, strict=True)))  # type: ignore[arg-type]
        m = per_rank / one.micro_batch_size
        if "vpp" in open_knobs and one.vpp > 1:
            if m % one.pp:
                continue
            one = replace(one, schedule=Schedule.INTERLEAVED)
        found.append(one)
    if "recompute" not in open_knobs:
        return found
    return [again for one in found for again in _recompute_choices(model, one)]


def _recompute_choices(model: ModelSpec, s: Strategy) -> Iterable[Strategy]:
    modules = [Recompute.NONE, Recompute.CORE_ATTN, Recompute.LAYERNORM | Recompute.ACTIVATION]
    if model.attention == "mla":
        modules.append(Recompute.MLA_UP_PROJ | Recompute.ACTIVATION | Recompute.LAYERNORM)
    if len(model.moe_layers) < model.n_layers:
        modules.append(Recompute.MLP)
    if model.is_moe:
        modules.append(Recompute.MOE)
    yield from (replace(s, recompute=kind) for kind in modules)
    here = -(-model.n_layers // s.pp)
    for eighth in range(1, 9):
        k = max(here * eighth // 8, 1)
        yield replace(s, recompute=Recompute.FULL, recompute_layers=k)

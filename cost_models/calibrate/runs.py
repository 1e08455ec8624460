"""Measured training runs: a CSV row as model, cluster, workload and strategy.

What a run must tell is its model's shape, its GPUs, its batch and its degrees of
parallelism; other knobs may stay open, and :meth:`Run.candidates`
lists the settings that the engineers may have used.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from cost_models.calibrate.cells import (
    SURPLUS,
    Cells,
    UnknowableRunError,
    UnreadableRunError,
    blaming,
)
from cost_models.calibrate.knobs import candidates, stated_strategy
from cost_models.catalog.frameworks import framework_at, load_framework
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import beyond_reason, load_model, model_names
from cost_models.catalog.optimizers import load_optimizer
from cost_models.counting.work import model_flop
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import PARTITIONS, Framework, Partition
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.units import GB, GIB
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One measured run."""

    source: str
    row_id: str
    line: int
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    strategy: Strategy
    open_knobs: tuple[str, ...]
    """Fields of ``strategy`` that the source does not state."""
    step_time_s: float | None
    memory_bytes: float | None
    out_of_memory: bool | None
    slow_regime: bool = False
    """Disturbed, by the judgement of whoever wrote the row: reported apart, never fitted."""

    def candidates(self) -> list[Strategy]:
        """The strategy with every setting of the open knobs that a launcher would accept."""
        return candidates(self.strategy, self.open_knobs, self.model, self.workload)


@cache
def _known_shapes() -> dict[tuple[int, ...], ModelSpec]:
    """Catalog models by the numbers that a run states, the first of each shape."""
    shapes: dict[tuple[int, ...], ModelSpec] = {}
    for name in model_names():
        model = load_model(name)
        shapes.setdefault(_shape(model), model)
    return shapes


def _shape(m: ModelSpec) -> tuple[int, ...]:
    return (m.n_layers, m.hidden_size, m.n_heads, m.n_experts, m.moe_ffn_size, int(m.gated_mlp))


def _named_model(name: str) -> ModelSpec:
    try:
        return load_model(name)
    except SpecError:
        reason = beyond_reason(name)
        if reason is not None:
            raise UnknowableRunError("model", f"{name!r} {reason}") from None
        raise UnreadableRunError(
            "model", f"no model is called {name!r}, and its dimensions are not given"
        ) from None


def _model(cells: Cells, flash_attention: bool) -> ModelSpec:
    name = cells.text("model") or "unnamed"
    mtp = cells.whole("mtp_layers")
    if not cells.text("hidden"):
        model = _named_model(name)
        return model if mtp is None else replace(model, mtp_layers=mtp)
    hidden = cells.positive("hidden")
    layers = cells.positive("n_layers")
    heads = cells.whole("n_heads") or max(hidden // (cells.whole("head_dim") or 128), 1)
    experts = cells.whole("n_experts") or 0
    gated = cells.flag("gated_mlp", False)
    moe_ffn = (cells.whole("moe_ffn_hidden") or cells.whole("ffn_hidden") or 0) if experts else 0
    known = _known_shapes().get((layers, hidden, heads, experts, moe_ffn, int(gated)))
    if known is not None and experts:
        return replace(
            known,
            vocab_size=cells.whole("vocab") or known.vocab_size,
            mtp_layers=known.mtp_layers if mtp is None else mtp,
        )
    ffn = cells.whole("ffn_hidden") or 4 * hidden
    shared = cells.whole("n_shared_experts") or 0
    old = not gated and not flash_attention
    return _spec(
        name=name,
        n_layers=layers,
        hidden_size=hidden,
        n_heads=heads,
        n_kv_heads=cells.whole("n_kv_heads") or heads,
        head_dim=cells.whole("head_dim") or hidden // heads,
        ffn_size=ffn,
        vocab_size=cells.whole("vocab") or 50304,
        gated_mlp=gated,
        tied_embeddings=cells.flag("tied_embeddings", False),
        norm="rmsnorm" if gated else "layernorm",
        position="rope" if gated else "learned",
        max_sequence_length=cells.positive("seq_len"),
        dropout=old,
        qkv_bias=old,
        attention_out_bias=old,
        mlp_bias=old,
        n_experts=experts,
        top_k=cells.whole("topk") or (2 if experts else 0),
        moe_ffn_size=moe_ffn,
        shared_expert_ffn_size=shared * moe_ffn,
        moe_layers=tuple(range(layers)) if experts else (),
        mtp_layers=mtp or 0,
    )


@cache
def _gpu_box(
    gpu: str, per_node: int, nvlink_Bps: float | None, nic_Bps: float | None, n_gpus: int
) -> Cluster:
    base = Cluster.of(load_gpu(gpu), n_gpus)
    domain = base.nvlink_domain if base.nvlink_domain > per_node else per_node
    return replace(
        base,
        gpus_per_node=per_node,
        nic_bandwidth_Bps=base.nic_bandwidth_Bps if nic_Bps is None else nic_Bps,
        nvlink_bandwidth_Bps=base.nvlink_bandwidth_Bps if nvlink_Bps is None else nvlink_Bps,
        nvlink_domain=min(domain, max(n_gpus, 1)),
    )


def parse_run(line: int, raw: dict[str, str]) -> Run:
    """One row as a :class:`Run`.

    Raises
    ------
    UnknowableRunError
        What must be known is not stated.
    UnreadableRunError
        A cell is not what its column holds, or degrees do not multiply to the GPUs.
    """
    cells = Cells(raw)
    if SURPLUS in raw and raw[SURPLUS].strip(" ,"):
        raise UnreadableRunError(
            "row", f"has cells under no column: {raw[SURPLUS][:40]!r}", hint="quote commas"
        )
    gpus = cells.positive("num_gpus")
    layout = {name: cells.positive(name) for name in ("dp", "tp", "pp")}
    layout["cp"] = cells.whole("cp") or 1
    if math.prod(layout.values()) != gpus:
        product = " * ".join(f"{name} {degree}" for name, degree in layout.items())
        raise UnreadableRunError(
            "num_gpus", f"must be {product} = {math.prod(layout.values())}, got {gpus}"
        )
    cluster = _cluster(cells, gpus)
    framework = _framework(cells)
    with blaming("model"):
        model = _model(cells, framework.flash_attention)
    sequences = cells.positive("global_batch_seqs")
    workload = _workload(
        global_batch_size=sequences,
        sequence_length=cells.positive("seq_len"),
        framework=framework,
        optimizer=load_optimizer("adamw"),
        frozen_weights=cells.flag("frozen_weights", False),
        drops_tokens=cells.flag("drops_tokens", False),
        balanced_experts=cells.flag("balanced_experts", False),
    )
    with blaming("model"):
        strategy, open_knobs = stated_strategy(cells, model, framework, cluster, layout)
    _check_batch(sequences, strategy, open_knobs)
    _check_experts(model, strategy)
    memory = cells.number("peak_mem_GiB")
    return Run(
        source=cells.text("source"),
        row_id=cells.text("row_id"),
        line=line,
        model=model,
        cluster=cluster,
        workload=workload,
        strategy=strategy,
        open_knobs=open_knobs,
        step_time_s=_step_time_s(cells, model, workload, gpus),
        memory_bytes=None if memory is None else memory * GIB,
        out_of_memory=cells.flag("oom", False) if cells.text("oom") else None,
        slow_regime=cells.flag("slow_regime", False),
    )


def _cluster(cells: Cells, gpus: int) -> Cluster:
    gpu = cells.text("gpu")
    if not gpu:
        raise UnknowableRunError("gpu", "is not stated")
    nvlink, nic = cells.number("nvlink_gbyte_per_s"), cells.number("nic_gbit_per_s_per_gpu")
    with blaming("gpu"):
        return _gpu_box(
            gpu,
            cells.whole("gpus_per_node") or load_gpu(gpu).gpus_per_node,
            None if nvlink is None else nvlink * GB,
            None if nic is None else nic * GB / 8,
            gpus,
        )


def _framework(cells: Cells) -> Framework:
    with blaming("framework"):
        framework = load_framework(cells.text("framework") or "megatron-lm")
    release = cells.text("framework_release")
    if release:
        if not RELEASE.fullmatch(release):
            raise UnreadableRunError(
                "framework_release", f"must be a year and a month such as 26.04, got {release!r}"
            )
        framework = framework_at(framework, release)
    partition = cells.choice("layer_partition", PARTITIONS) or framework.partition
    flash = cells.flag("flash_attention", framework.flash_attention)
    return _habits(framework, partition, flash)


RELEASE = re.compile(r"\d\d\.\d\d(\.\d\d)?")
"""Releases are compared as text, so each part has two digits."""


def _step_time_s(cells: Cells, model: ModelSpec, workload: Workload, gpus: int) -> float | None:
    """The measured time, or what a stated rate makes of it: seconds, None where neither is."""
    step = cells.number("step_time_s")
    rate = cells.number("tokens_per_s_per_gpu")
    if step is None and rate:
        step = workload.tokens_per_step / (rate * gpus)
    tflops = cells.number("tflops_per_gpu_reported")
    counted = cells.choice("scores_counted", ("whole", "half", "unsaid")) or "whole"
    if step is None and tflops:
        step = _model_flop_counted(counted, model, workload) / (tflops * 1e12 * gpus)
    return step or None


def _model_flop_counted(counted: str, model: ModelSpec, workload: Workload) -> float:
    """FLOPs that a source divides its time into; 0 where it does not say and that matters.

    Megatron-LM counted the whole score matrix, and since 2025 the half that a causal mask
    leaves.  Where it is unsaid which, a rate tells a time only if both come to nearly the same.
    """
    whole = model_flop(model, workload, masked_scores=True)
    half = model_flop(model, workload)
    if counted == "unsaid":
        return 0.0 if whole > CONVENTIONS_AGREE * half else whole
    return half if counted == "half" else whole


CONVENTIONS_AGREE = 1.1
"""Counts within this ratio of each other tell the same time, but for measurement noise."""


def _check_batch(sequences: int, s: Strategy, open_knobs: Sequence[str]) -> None:
    share = s.dp * (1 if "micro_batch_size" in open_knobs else s.micro_batch_size)
    if sequences % share:
        words = f"dp {s.dp}" + (f" * micro_batch {s.micro_batch_size}" if share != s.dp else "")
        raise UnreadableRunError(
            "global_batch_seqs", f"must be a multiple of {words}, got {sequences}"
        )


def _check_experts(model: ModelSpec, s: Strategy) -> None:
    if model.is_moe and model.n_experts % s.ep:
        raise UnreadableRunError("ep", f"must divide {model.n_experts} experts, got {s.ep}")


@cache
def _habits(base: Framework, partition: Partition, flash: bool) -> Framework:
    return replace(base, partition=partition, flash_attention=flash)


_workload = cache(Workload)
_spec = cache(ModelSpec)
"""Rows of one sweep share their objects: equal ones are made and compared once."""

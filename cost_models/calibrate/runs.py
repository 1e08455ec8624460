"""Measured training runs: a CSV row as model, cluster, workload and strategy.

The columns are documented in ``docs`` of the README's section on validation; a blank
cell means that the source does not say.  What a run must tell is its model's shape, its
GPUs, its batch and its degrees of parallelism; other knobs may stay open, and
:func:`candidates` lists the settings that the engineers may have used.
"""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from pathlib import Path

from cost_models.catalog.frameworks import framework_at, load_framework
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import beyond_reason, load_model, model_names
from cost_models.catalog.optimizers import load_optimizer
from cost_models.counting.work import model_flop
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Partition
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from cost_models.specs.units import GIB
from cost_models.specs.workload import Workload

COLUMNS = (
    "source", "source_ref", "row_id", "gpu", "num_gpus", "gpus_per_node", "intra_bw_note",
    "inter_bw_note", "model", "n_layers", "hidden", "ffn_hidden", "n_heads", "n_kv_heads",
    "head_dim", "vocab", "n_experts", "topk", "moe_ffn_hidden", "n_shared_experts", "gated_mlp",
    "tied_embeddings", "seq_len", "global_batch_seqs", "micro_batch", "dp", "tp", "pp", "vpp",
    "schedule", "cp", "ep", "etp", "seq_parallel", "sharding", "recompute", "precision",
    "framework", "flash_attention", "step_time_s", "tokens_per_s_per_gpu",
    "tflops_per_gpu_reported", "tflops_convention", "mfu_reported", "peak_mem_GiB", "oom", "notes",
)  # fmt: skip
"""The public schema; further columns are kept and ignored."""

REQUIRED = ("gpu", "num_gpus", "seq_len", "global_batch_seqs", "dp", "tp", "pp")


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
    family_precision: str = ""
    notes: str = ""
    columns: dict[str, str] = field(default_factory=dict, repr=False, compare=False)


class RunError(SpecError):
    """A row that cannot be priced, and the column to blame."""

    def __init__(self, column: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{column}: {message}", hint=hint)
        self.column = column


class UnknowableRunError(RunError):
    """The row cannot be priced because its source leaves out what must be known."""


class UnreadableRunError(RunError):
    """The row contradicts itself or has a cell that is not what its column holds."""


Rows = list[tuple[int, dict[str, str]]]
"""(line, cells by column) of every row."""

SURPLUS = ""
"""Column of the cells that no column of the header stands above."""


def read_runs(path: Path) -> Rows:
    """(line, cells) of every row of a CSV; raises SpecError as :func:`read_table`."""
    return read_table(path)[1]


def read_table(path: Path) -> tuple[list[str], Rows]:
    """Header and rows of a CSV.

    Raises
    ------
    SpecError
        When the file cannot be read, or required columns are missing or repeated.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            rows = [(reader.line_num, row) for row in reader if row]
    except OSError as error:
        raise SpecError(f"{path}: cannot read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise SpecError(f"{path}: not a CSV file: {error}") from None
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise SpecError(f"{path}:1: column {repeated[0]!r} stands there twice")
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise SpecError(
            f"{path}:1: missing column {missing[0]!r}", hint=f"needed: {', '.join(REQUIRED)}"
        )
    return header, [(line, _by_column(header, row)) for line, row in rows]


def _by_column(header: list[str], row: list[str]) -> dict[str, str]:
    cells = dict(zip(header, row, strict=False))
    if len(row) > len(header):
        cells[SURPLUS] = ",".join(row[len(header) :])
    return cells


class _Cells:
    """Typed access to one row's cells; errors name the column."""

    def __init__(self, cells: dict[str, str]) -> None:
        self._cells = cells

    def text(self, name: str) -> str:
        return (self._cells.get(name) or "").strip()

    def number(self, name: str) -> float | None:
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            raise UnreadableRunError(name, f"{text!r} is not a number") from None
        if not 0 <= value < float("inf"):
            raise UnreadableRunError(name, f"must be a finite number >= 0, got {text}")
        return value

    def whole(self, name: str) -> int | None:
        value = self.number(name)
        if value is not None and value != int(value):
            raise UnreadableRunError(name, f"must be a whole number, got {self.text(name)}")
        return None if value is None else int(value)

    def positive(self, name: str) -> int:
        value = self.whole(name)
        if value is None:
            raise UnknowableRunError(name, "is not stated")
        if value < 1:
            raise UnreadableRunError(name, f"must be >= 1, got {value}")
        return value

    def flag(self, name: str, default: bool) -> bool:
        text = self.text(name).lower()
        if text not in ("", "0", "1", "true", "false"):
            raise UnreadableRunError(name, f"must be 0 or 1, got {text!r}")
        return default if not text else text in ("1", "true")


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


def _layers_by_size(cells: _Cells, name: str, hidden: int) -> int:
    """Layers of a plain GPT whose name tells its size: P = v h + l 12 h^2."""
    size = re.search(r"(\d+(?:\.\d+)?)B\b", name)
    if size is None or cells.whole("n_experts") or cells.flag("gated_mlp", True):
        raise UnknowableRunError("n_layers", f"is not stated for model {name!r}")
    inside = float(size[1]) * 1e9 - (cells.whole("vocab") or 0) * hidden
    return max(round(inside / (12 * hidden**2)), 1)


def _model(cells: _Cells, flash_attention: bool) -> ModelSpec:
    name = cells.text("model") or "unnamed"
    if not cells.text("hidden"):
        try:
            return load_model(name)
        except SpecError:
            reason = beyond_reason(name)
            if reason is not None:
                raise UnknowableRunError("model", f"{name!r} {reason}") from None
            raise UnreadableRunError(
                "model", f"no model is called {name!r}, and its dimensions are not given"
            ) from None
    hidden = cells.positive("hidden")
    layers = cells.whole("n_layers") or _layers_by_size(cells, name, hidden)
    heads = cells.whole("n_heads") or max(hidden // (cells.whole("head_dim") or 128), 1)
    experts = cells.whole("n_experts") or 0
    gated = cells.flag("gated_mlp", False)
    moe_ffn = (cells.whole("moe_ffn_hidden") or cells.whole("ffn_hidden") or 0) if experts else 0
    notes = cells.text("notes")
    known = _known_shapes().get((layers, hidden, heads, experts, moe_ffn, int(gated)))
    if known is not None and experts:
        mtp = 0 if "w/o MTP" in notes or "w/o MTP" in name else known.mtp_layers
        return replace(known, vocab_size=cells.whole("vocab") or known.vocab_size, mtp_layers=mtp)
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
    )


@cache
def _gpu_box(gpu: str, per_node: int, inside: str, network: str, n_gpus: int) -> Cluster:
    base = Cluster.of(load_gpu(gpu), n_gpus)
    nic = _bandwidth_Bps(network, NETWORKS) or base.nic_bandwidth_Bps
    nvlink = _bandwidth_Bps(inside, NVLINKS) or base.nvlink_bandwidth_Bps
    domain = base.nvlink_domain if base.nvlink_domain > per_node else per_node
    return replace(
        base,
        gpus_per_node=per_node,
        nic_bandwidth_Bps=nic,
        nvlink_bandwidth_Bps=nvlink,
        nvlink_domain=min(domain, max(n_gpus, 1)),
    )


NETWORKS: tuple[tuple[str, float], ...] = (
    ("EFA", 400e9 / 8),
    ("4x OPA100", 4 * 100e9 / 8 / 8),
    ("OmniPath", 4 * 100e9 / 8 / 8),
    ("8x HDR200", 200e9 / 8),
    ("800 Gb/s per node", 100e9 / 8),
    ("1600Gb/s per node", 200e9 / 8),
    ("400Gbps per node", 50e9 / 8),
    ("NDR 400Gb/s per GPU", 400e9 / 8),
)
"""Bandwidth per GPU and direction that a source's network note means, B/s."""


NVLINKS: tuple[tuple[str, float], ...] = (("4 links per GPU", 4 * 25e9),)
"""The same of a source's note on NVLink: a third-generation link carries 25 GB/s each way."""


def _bandwidth_Bps(note: str, known: Sequence[tuple[str, float]]) -> float | None:
    return next((bandwidth for words, bandwidth in known if words in note), None)


BALANCED = r"force-balanced|capacity factor 1\b"
"""Where a note says that no expert waits for a fuller one."""

DROPPING = r"\(tokendrop\)|capacity factor 1\b"
"""Where a note says that tokens over an expert's capacity are dropped."""

RELEASE = r"(\d\d\.\d\d(?:\.\d\d)?) NeMo Container"
"""Where a note names the release that ran."""

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


def parse_run(line: int, raw: dict[str, str]) -> Run:
    """One row as a :class:`Run`.

    Raises
    ------
    UnknowableRunError
        What must be known is not stated.
    UnreadableRunError
        A cell is not what its column holds, or degrees do not multiply to the GPUs.
    """
    cells = _Cells(raw)
    if SURPLUS in raw and raw[SURPLUS].strip(" ,"):
        raise UnreadableRunError(
            "row", f"has cells under no column: {raw[SURPLUS][:40]!r}", hint="quote commas"
        )
    gpus = cells.positive("num_gpus")
    dp, tp, pp = (cells.positive(name) for name in ("dp", "tp", "pp"))
    cp = cells.whole("cp") or 1
    if dp * tp * pp * cp != gpus:
        raise UnreadableRunError(
            "num_gpus", f"must be dp {dp} * tp {tp} * pp {pp} * cp {cp} = {dp * tp * pp * cp}, "
            f"got {gpus}",
        )  # fmt: skip
    gpu = cells.text("gpu")
    if not gpu:
        raise UnknowableRunError("gpu", "is not stated")
    with _blaming("gpu"):
        per_node = cells.whole("gpus_per_node") or load_gpu(gpu).gpus_per_node
        cluster = _gpu_box(
            gpu, per_node, cells.text("intra_bw_note"), cells.text("inter_bw_note"), gpus
        )
    with _blaming("framework"):
        framework = load_framework(cells.text("framework") or "megatron-lm")
        release = re.search(RELEASE, cells.text("notes"))
        framework = framework_at(framework, release[1]) if release else framework
    partition = framework.partition
    if "embedding-balanced" in cells.text("notes"):
        partition = "embedding_and_head_as_layers"
    flash = cells.flag("flash_attention", framework.flash_attention)
    framework = _framework(framework, partition, flash)
    with _blaming("model"):
        model = _model(cells, flash)
    sequences = cells.positive("global_batch_seqs")
    workload = _workload(
        global_batch_size=sequences,
        sequence_length=cells.positive("seq_len"),
        framework=framework,
        optimizer=load_optimizer("adamw"),
        frozen_weights="lora" in cells.text("model").lower(),
        drops_tokens=bool(re.search(DROPPING, cells.text("notes"))),
        balanced_experts=bool(re.search(BALANCED, cells.text("notes"))),
    )
    with _blaming("model"):
        strategy, open_knobs = _strategy(cells, model, framework, cluster, dp, tp, pp, cp)
    _check_batch(sequences, strategy, open_knobs)
    _check_experts(model, strategy)
    step = cells.number("step_time_s")
    rate = cells.number("tokens_per_s_per_gpu")
    if step is None and rate:
        step = workload.tokens_per_step / (rate * gpus)
    tflops = cells.number("tflops_per_gpu_reported")
    if step is None and tflops:
        step = _model_flop_counted(cells, model, workload) / (tflops * 1e12 * gpus)
    memory = cells.number("peak_mem_GiB")
    oom = cells.flag("oom", False) if cells.text("oom") else None
    return Run(
        source=cells.text("source"),
        row_id=cells.text("row_id"),
        line=line,
        model=model,
        cluster=cluster,
        workload=workload,
        strategy=strategy,
        open_knobs=open_knobs,
        step_time_s=step or None,
        memory_bytes=None if memory is None else memory * GIB,
        out_of_memory=oom,
        notes=cells.text("notes"),
        columns=raw,
    )


def _model_flop_counted(cells: _Cells, model: ModelSpec, workload: Workload) -> float:
    """FLOPs that a source divides its time into; 0 where it does not say and that matters.

    Megatron-LM counted the whole score matrix, and since 2025 the half that a causal mask
    leaves.  A utilization alone tells a time only where both come to nearly the same.
    """
    whole = model_flop(model, workload, masked_scores=True)
    unsaid = "derived = MFU" in cells.text("tflops_convention")
    return 0.0 if unsaid and whole > CONVENTIONS_AGREE * model_flop(model, workload) else whole


CONVENTIONS_AGREE = 1.1
"""Counts within this ratio of each other tell the same time, but for measurement noise."""


@contextmanager
def _blaming(column: str) -> Iterator[None]:
    """Turn what a catalog or a spec refuses into the row's error, under its column."""
    try:
        yield
    except RunError:
        raise
    except SpecError as error:
        field = re.match(r"(?:model|strategy)\.(\w+)", str(error))
        name = FIELD_COLUMNS.get(field[1], field[1]) if field else column
        raise UnreadableRunError(
            name if name in COLUMNS else column, str(error), hint=error.hint
        ) from None


FIELD_COLUMNS = {
    "hidden_size": "hidden",
    "ffn_size": "ffn_hidden",
    "vocab_size": "vocab",
    "top_k": "topk",
    "moe_ffn_size": "moe_ffn_hidden",
    "moe_layers": "n_experts",
    "shared_expert_ffn_size": "n_shared_experts",
    "micro_batch_size": "micro_batch",
    "sequence_parallel": "seq_parallel",
}
"""Columns of the fields that are called otherwise."""


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
def _framework(base: Framework, partition: Partition, flash: bool) -> Framework:
    return replace(base, partition=partition, flash_attention=flash)


_workload = cache(Workload)
_spec = cache(ModelSpec)
"""Rows of one sweep share their objects: equal ones are made and compared once."""


def _strategy(
    cells: _Cells,
    model: ModelSpec,
    framework: Framework,
    cluster: Cluster,
    dp: int,
    tp: int,
    pp: int,
    cp: int,
) -> tuple[Strategy, tuple[str, ...]]:
    vpp, micro = cells.whole("vpp"), cells.whole("micro_batch")
    sharding, recompute = cells.text("sharding").lower(), cells.text("recompute").lower()
    schedule_name = cells.text("schedule").upper()
    if schedule_name not in _SCHEDULES:
        known = ", ".join(name for name in _SCHEDULES if name)
        raise UnreadableRunError(
            "schedule", f"is unknown: {cells.text('schedule')!r}", hint=f"known: {known}"
        )
    schedule = stated = _SCHEDULES[schedule_name]
    if schedule is None:
        schedule = Schedule.INTERLEAVED if (vpp or 1) > 1 else Schedule._1F1B
    with _blaming("sharding"):
        split = Sharding.parse(sharding) if sharding else Sharding.ZERO1
    with _blaming("recompute"):
        kind = Recompute.parse(recompute) if recompute else Recompute.NONE
    with _blaming("precision"):
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


def candidates(run: Run) -> list[Strategy]:
    """Settings of the run's open knobs that a launcher would accept, one strategy each."""
    s = run.strategy
    per_rank = run.workload.global_batch_size // s.dp
    layers = run.model.n_layers
    choices: dict[str, Sequence[object]] = {}
    if "micro_batch_size" in run.open_knobs:
        choices["micro_batch_size"] = [b for b in (1, 2, 4, 8) if per_rank % b == 0]
    if "vpp" in run.open_knobs:
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
        if "vpp" in run.open_knobs and one.vpp > 1:
            if m % one.pp:
                continue
            one = replace(one, schedule=Schedule.INTERLEAVED)
        found.append(one)
    if "recompute" not in run.open_knobs:
        return found
    return [again for one in found for again in _recompute_choices(run.model, one)]


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


def parse_all(
    rows: Iterable[tuple[int, dict[str, str]]],
    refused: Callable[[int, dict[str, str], SpecError], None],
) -> list[Run]:
    """Every row that can be priced; the others go to ``refused`` with the reason."""
    runs = []
    for line, raw in rows:
        try:
            runs.append(parse_run(line, raw))
        except SpecError as error:
            refused(line, raw, error)
    return runs


def slow_regime(runs: Sequence[Run]) -> list[bool]:
    """Runs that pay an extra cost per micro-batch that the rest of their sweep does not pay.

    One published sweep (nanotron on EFA, ``ultrascale-playbook``) has two regimes: about a
    third of its pipelined runs lose 0.3 to 2 s in every micro-batch, whatever the model's
    size; runs above 70 GiB reserved lose time to the allocator.  Measured times alone decide.
    A healthy pipeline of this sweep takes no longer per layer and micro-batch than the host's
    6 ms + 2.7 ms for each tensor-parallel rank, or the layer's FLOPs at a slow rate; what a
    run takes beyond is near nothing or more than :data:`EXTRA_S`, hardly ever between.
    Without a pipeline, a run is slow where it takes twice its siblings' best and 0.4 s more;
    siblings share model and tensor-parallel, and a larger micro-batch may take proportionally
    longer.
    """
    siblings: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    rates = [_seconds_per_micro_batch(run) for run in runs]
    for run, rate in zip(runs, rates, strict=True):
        if rate is not None:
            siblings.setdefault(_sweep(run), []).append((run.strategy.micro_batch_size, rate))
    return [
        rate is not None and _is_slow(run, rate, siblings[_sweep(run)])
        for run, rate in zip(runs, rates, strict=True)
    ]


SLOW_SOURCES = ("ultrascale-playbook",)
"""Sources whose runs were seen to fall into two regimes."""
EXTRA_S = 0.25
"""Between the two regimes: seconds per micro-batch beyond what the slowest healthy run takes."""
HOST_LAYER_S, HOST_RANK_S = 6e-3, 2.7e-3
"""What a healthy pipeline's host takes for a layer, and for each tensor-parallel rank of it."""
SLOW_FLOP_PER_S = 250e12
"""At least so fast are the layers of the sweep's healthy runs that no host holds up."""


def _sweep(run: Run) -> tuple[object, ...]:
    return (run.source, run.model.name, run.strategy.tp, run.strategy.pp)


def _seconds_per_micro_batch(run: Run) -> float | None:
    if run.source not in SLOW_SOURCES or run.step_time_s is None:
        return None
    s = run.strategy
    return run.step_time_s / (run.workload.global_batch_size / s.dp / s.micro_batch_size + s.pp - 1)


def _is_slow(run: Run, rate: float, siblings: Sequence[tuple[int, float]]) -> bool:
    if (run.memory_bytes or 0.0) > 70 * GIB:
        return True
    s, micro = run.strategy, run.strategy.micro_batch_size
    if s.pp == 1:  # here the rate holds the gradients' exchange, too
        best = min(other * max(1.0, micro / size) for size, other in siblings)
        return rate > 2.0 * best + 0.4
    parameters = run.model.attention_parameters + run.model.dense_mlp_parameters
    flop = 6.0 * parameters * micro * run.workload.sequence_length / s.tp
    layer_s = max(HOST_LAYER_S + HOST_RANK_S * s.tp, flop / SLOW_FLOP_PER_S)
    return rate - run.model.n_layers / s.pp * layer_s > EXTRA_S

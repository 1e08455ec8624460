"""The catalog's models and GPUs as tables and documents."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autopar.report.table import Column, Table
from autopar.report.words import short_count
from cost_models.specs.cluster import Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.units import GB, TERA, gib

MODELS_SCHEMA = "autopar/models/1"
GPUS_SCHEMA = "autopar/gpus/1"


def models_table(models: Sequence[ModelSpec], aliases: Mapping[str, str]) -> Table:
    """One model a line: its names, its parameters, its shape."""
    columns = (
        Column("model", style="bold"),
        Column("alias", keep=6),
        Column("params", right=True),
        Column("active", right=True),
        Column("layers", right=True),
        Column("hidden", right=True),
        Column("heads", right=True, keep=4),
        Column("kv", right=True, keep=4),
        Column("MLP", right=True, keep=3),
        Column("experts", right=True),
        Column("vocab", right=True, keep=2),
        Column("max seq", right=True, keep=2),
    )
    return Table(columns, tuple(_model_cells(model, aliases) for model in models))


def _model_cells(model: ModelSpec, aliases: Mapping[str, str]) -> tuple[str, ...]:
    names = [a for a, name in aliases.items() if name == model.name and "/" not in a]
    names.sort(key=len)
    return (
        model.name,
        names[0] if names else "",
        short_count(model.n_parameters),
        short_count(model.n_active_parameters),
        str(model.n_layers),
        str(model.hidden_size),
        str(model.n_heads),
        "mla" if model.attention == "mla" else str(model.n_kv_heads),
        str(model.moe_ffn_size if model.is_moe else model.ffn_size),
        f"{model.top_k} of {model.n_experts}" if model.is_moe else "",
        str(model.vocab_size),
        str(model.max_sequence_length or ""),
    )


def models_document(models: Sequence[ModelSpec], aliases: Mapping[str, str]) -> dict[str, Any]:
    """The same for programs, with every field of the shape."""
    return {
        "schema": MODELS_SCHEMA,
        "models": [
            {"aliases": sorted(a for a, name in aliases.items() if name == model.name)}
            | model_document(model)
            for model in models
        ],
    }


def model_document(model: ModelSpec) -> dict[str, Any]:
    """A model's shape and its parameter counts."""
    fields = asdict(model)
    return {
        "name": fields.pop("name"),
        "n_parameters": model.n_parameters,
        "n_active_parameters": model.n_active_parameters,
        **fields,
    }


def gpus_table(gpus: Sequence[Gpu]) -> Table:
    """One GPU a line, in the units of data sheets."""
    columns = (
        Column("gpu", style="bold"),
        Column("GiB", right=True),
        Column("HBM TB/s", right=True),
        Column("bf16", right=True),
        Column("fp8", right=True),
        Column("fp4", right=True, keep=3),
        Column("fp16", right=True, keep=1),
        Column("link GB/s", right=True),
        Column("domain", right=True),
        Column("NIC Gb/s", right=True),
        Column("host GB/s", right=True, keep=2),
        Column("$/h", right=True, keep=4),
    )
    return Table(columns, tuple(_gpu_cells(gpu) for gpu in gpus)).without_empty()


def _gpu_cells(gpu: Gpu) -> tuple[str, ...]:
    peaks = {precision: f"{peak / TERA:.0f}" for precision, peak in gpu.peak_flop_per_s.items()}
    return (
        gpu.name,
        f"{gib(gpu.memory_bytes):.1f}",
        f"{gpu.memory_bandwidth_Bps / TERA:.2f}",
        peaks.get("bf16", ""),
        peaks.get("fp8", ""),
        peaks.get("nvfp4", ""),
        peaks.get("fp16", ""),
        f"{gpu.nvlink_bandwidth_Bps / GB:.0f}",
        str(gpu.nvlink_domain),
        f"{gpu.nic_bandwidth_Bps * 8 / GB:.0f}",
        f"{gpu.host_bandwidth_Bps / GB:.0f}",
        "" if gpu.price_usd_per_hour is None else f"{gpu.price_usd_per_hour:.2f}",
    )


GPUS_LEGEND = (
    "bf16, fp8, fp4, fp16: dense peak in TFLOP/s. Links, NICs and host: one direction, per GPU."
)


def source_lines(gpus: Sequence[Gpu]) -> list[str]:
    """Where each number is from, GPU by GPU."""
    lines = []
    for gpu in gpus:
        lines.append(gpu.name)
        lines += [f"  {name}: {source}" for name, source in gpu.sources.items()]
    return lines


def gpu_document(gpu: Gpu) -> dict[str, Any]:
    """A GPU's numbers in SI units, each with its source."""
    return asdict(gpu)


def gpus_document(gpus: Sequence[Gpu]) -> dict[str, Any]:
    """All of them for programs."""
    return {"schema": GPUS_SCHEMA, "gpus": [gpu_document(gpu) for gpu in gpus]}

"""The catalog's models and GPUs as tables and documents."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from autopar.report.table import Column, Table
from autopar.report.words import short_count
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.units import GB, TERA, gib

MODELS_SCHEMA = "autopar/models/1"
GPUS_SCHEMA = "autopar/gpus/1"
CLUSTERS_SCHEMA = "autopar/clusters/1"


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
        f"{gpu.peer_bandwidth_Bps / GB:.0f}",
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
    """A GPU's numbers in SI units, each with its source; what it lacks only where it lacks it."""
    document = asdict(gpu)
    if gpu.peer_to_peer:
        del document["peer_to_peer"]
    return document


def cluster_document(cluster: Cluster) -> dict[str, Any]:
    """The machines, in SI units."""
    return asdict(cluster) | {"gpu": gpu_document(cluster.gpu)}


def gpus_document(gpus: Sequence[Gpu]) -> dict[str, Any]:
    """All of them for programs."""
    return {"schema": GPUS_SCHEMA, "gpus": [gpu_document(gpu) for gpu in gpus]}


def clusters_table(nodes: Mapping[str, Sequence[Cluster]]) -> Table:
    """One pool a line: what a node holds and how its GPUs are joined."""
    columns = (
        Column("cluster", style="bold"),
        Column("gpu"),
        Column("GPUs/node", right=True),
        Column("domain", right=True),
        Column("link GB/s", right=True),
        Column("NIC Gb/s", right=True),
        Column("oversubscribed", right=True, keep=2),
        Column("$/h", right=True, keep=4),
    )
    rows = tuple(
        (
            name,
            node.gpu.name,
            str(node.gpus_per_node),
            str(node.nvlink_domain),
            f"{node.nvlink_bandwidth_Bps / GB:.0f}",
            f"{node.nic_bandwidth_Bps * 8 / GB:.0f}",
            "" if node.oversubscription == 1 else f"{node.oversubscription:g}",
            "" if node.gpu.price_usd_per_hour is None else f"{node.gpu.price_usd_per_hour:.2f}",
        )
        for name, pools in nodes.items()
        for node in pools
    )
    return Table(columns, rows).without_empty()


CLUSTERS_LEGEND = (
    "domain: GPUs joined by NVLink or its like. Links and NICs: one direction, per GPU."
)


def clusters_document(nodes: Mapping[str, Sequence[Cluster]]) -> dict[str, Any]:
    """One node of every pool for programs, by cluster."""
    return {
        "schema": CLUSTERS_SCHEMA,
        "clusters": {
            name: [cluster_document(node) for node in pools] for name, pools in nodes.items()
        },
    }

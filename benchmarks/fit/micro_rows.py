"""The kernel and collective measurements of ``cost_models/catalog/micro`` as arrays."""

import csv
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.catalog.files import CATALOG
from cost_models.specs.units import GB, TERA, Floats

MICRO = CATALOG / "micro"
Table = dict[str, NDArray[np.str_]]


def read(name: str, keep: Callable[[dict[str, str]], bool] = lambda _: True) -> Table:
    """Columns of one file, restricted to the rows to keep."""
    with (MICRO / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if keep(row)]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def numbers(table: Table, *names: str) -> tuple[Floats, ...]:
    """Columns as floats."""
    return tuple(table[name].astype(np.float64) for name in names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gemms:
    """Matrix products C[m, n] = A[m, k] B[k, n], ``groups`` of them in one kernel."""

    m: Floats
    n: Floats
    k: Floats
    groups: Floats
    output_bytes: Floats
    """Per element: an fp32 gradient that is added to is read and written."""
    seconds: Floats
    kind: NDArray[np.str_]


def gemms(device: str) -> Gemms:
    """Plain GEMMs of one device; ``kind`` is the layout (TN forward, NN, NT gradients)."""
    table = read("gemm", lambda row: row["device"] == device)
    m, n, k, rate = numbers(table, "m", "n", "k", "tflop_per_s")
    width = np.where(table["output_dtype"] == "fp32", 4.0, 2.0)
    added = np.where(table["accumulate"] == "true", 2.0, 1.0)
    return Gemms(
        m=m,
        n=n,
        k=k,
        groups=np.ones_like(m),
        output_bytes=width * added,
        seconds=2 * m * n * k / (rate * TERA),
        kind=table["layout"],
    )


def grouped_gemms(device: str) -> Gemms:
    """Grouped GEMMs of one device: forward, gradient of the input, gradient of the weight."""
    table = read("grouped_gemm", lambda row: row["device"] == device)
    groups, tokens, n, k, rate = numbers(table, "groups", "tokens", "n", "k", "tflop_per_s")
    weight, forward = table["stage"] == "bwd_grad_w", table["stage"] == "fwd"
    added = np.where(table["gradient_dtype"] == "fp32", 8.0, 4.0)
    return Gemms(
        m=np.where(weight, n, tokens),
        n=np.where(forward, n, k),
        k=np.where(weight, tokens, np.where(forward, k, n)),
        groups=groups,
        output_bytes=np.where(weight, added, 2.0),
        seconds=2 * groups * tokens * n * k / (rate * TERA),
        kind=table["stage"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attentions:
    """Causal attention kernels in one direction."""

    batch: Floats
    heads: Floats
    sequence: Floats
    qk_width: Floats
    v_width: Floats
    seconds: Floats


def attentions(device: str, direction: str) -> Attentions:
    """Kernels of one device; their rates count the whole score matrix, mask or not."""
    table = read("attention", lambda row: (row["device"], row["direction"]) == (device, direction))
    batch, heads, sequence, qk, v, rate = numbers(
        table, "batch", "heads", "sequence", "qk_width", "v_width", "tflop_per_s_unmasked"
    )
    products = 2 if direction == "forward" else 5
    flops = products * batch * heads * sequence**2 * (qk + v)
    return Attentions(
        batch=batch,
        heads=heads,
        sequence=sequence,
        qk_width=qk,
        v_width=v,
        seconds=flops / (rate * TERA),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanges:
    """Collectives on one kind of wire."""

    operation: NDArray[np.str_]
    algorithm: NDArray[np.str_]
    message: Floats
    inside: Floats
    outside: Floats
    seconds: Floats


def exchanges(device: str, network: str, smallest: float = 2.0**17) -> Exchanges:
    """Collectives of ``smallest`` bytes or more: below that, timers and warm-up show."""
    table = read(
        "collectives",
        lambda row: (
            (row["device"], row["network"]) == (device, network)
            and float(row["message_bytes"]) >= smallest
        ),
    )
    message, inside, outside, bus = numbers(
        table, "message_bytes", "inside", "outside", "bus_gbyte_per_s"
    )
    ranks = inside * outside
    passes = np.where(table["operation"] == "all_reduce", 2.0, 1.0)
    return Exchanges(
        operation=table["operation"],
        algorithm=table["algorithm"],
        message=message,
        inside=inside,
        outside=outside,
        seconds=passes * message * (ranks - 1) / ranks / (bus * GB),
    )


def matmul_ceilings() -> dict[str, dict[str, float]]:
    """Best GEMM over all shapes by device and precision, as a share of the data sheet."""
    table = read("matmul_peak")
    best, sheet = numbers(table, "tflop_per_s", "data_sheet_tflop_per_s")
    ceilings: dict[str, dict[str, float]] = {}
    for device, dtype, share in zip(table["device"], table["dtype"], best / sheet, strict=True):
        ceilings.setdefault(str(device), {})[str(dtype)] = float(share)
    return ceilings


def memory_bandwidths(device: str) -> dict[str, float]:
    """Bytes per second reached by kernels that only move bytes, by what they do."""
    table = read("memory", lambda row: row["device"] == device)
    (reached,) = numbers(table, "gbyte_per_s")
    return dict(zip(map(str, table["operation"]), map(float, reached * GB), strict=True))

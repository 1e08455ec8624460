"""Fit the wires of :mod:`cost_models.equations.collectives` to measured collectives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.fit.micro_rows import Exchanges, exchanges
from benchmarks.fit.robust import Values, errors, fit, rounded
from cost_models.catalog.gpus import load_gpu
from cost_models.equations.collectives import Link, all_gather_s, all_reduce_s, all_to_all_s
from cost_models.specs.units import Floats

STEP_S = 5e-6
"""Latency of one NVLink step; the eight-rank runs cannot tell it from the launch."""
NIC_400G_BPS = 50e9


def link_residual(rows: Exchanges, intra: Link, inter: Link) -> Floats:
    """Log of predicted over measured for every collective of ``rows``."""
    sizes = (rows.message, rows.inside, rows.outside)
    gather = all_gather_s(*sizes, intra=intra, inter=inter)
    reduce = all_reduce_s(*sizes, intra=intra, inter=inter)
    swap = all_to_all_s(*sizes, intra=intra, inter=inter)
    seconds = np.where(rows.operation == "all_reduce", reduce, gather)
    seconds = np.where(rows.operation == "all_to_all", swap, seconds)
    return np.asarray(np.log(seconds / rows.seconds))


def nvlink_residual(rows: Exchanges, x: Values) -> Floats:
    """The same where the rows say which algorithm ran: a ring, or the switch alone."""
    common = {key: x[key] for key in ("half_size_bytes", "launch_s")}
    ring = Link(latency_s=STEP_S, bandwidth_Bps=x["bandwidth_Bps"], **common)
    switch_Bps = x.get("switch_Bps", 0.0)
    switch = Link(latency_s=STEP_S, bandwidth_Bps=1.0, switch_Bps=switch_Bps, **common)
    return np.where(
        rows.algorithm == "nvls",
        link_residual(rows, switch, switch),
        link_residual(rows, ring, ring),
    )


def fit_nvlink(device: str, peak_Bps: float, kin: Values | None = None) -> dict[str, Any]:
    """Ring and switch bandwidth and half size inside one domain; peak is the data sheet's.

    ``kin`` are the constants of another generation over its peak: how wrong they would
    have been here is recorded too.
    """
    rows = exchanges(device, "")
    start = {
        "bandwidth_Bps": (0.8 * peak_Bps, 0.1 * peak_Bps, peak_Bps),
        "half_size_bytes": (1e7, 0.0, 1e9),
        "launch_s": (2e-5, 0.0, 1e-4),
    }
    if "nvls" in rows.algorithm:
        start["switch_Bps"] = (0.7 * peak_Bps, 0.1 * peak_Bps, peak_Bps)
    found = fit(start, lambda x: nvlink_residual(rows, x))
    error: dict[str, Any] = {
        key.replace("Bps", "fraction"): rounded(found[key] / peak_Bps)
        for key in ("bandwidth_Bps", "switch_Bps")
        if key in found
    }
    error |= {"rows": rows.message.size} | errors(nvlink_residual(rows, found))
    if kin is not None:
        scaled = {k: v * (peak_Bps if k != "launch_s" else 1.0) for k, v in kin.items()}
        error |= errors(nvlink_residual(rows, scaled), "cross_device_")
    constants = {"latency_s": STEP_S} | {key: rounded(v) for key, v in found.items()}
    return {**constants, "error": error}


def fit_network(device: str, network: str, intra: Link, peak_Bps: float) -> dict[str, Any]:
    """One rank's share of the NICs, with the NVLink of the domain known."""
    rows = exchanges(device, network)

    def residuals(x: Values) -> Floats:
        return link_residual(rows, intra, Link(**x))

    start = {
        "latency_s": (2e-5, 1e-6, 1e-3),
        "bandwidth_Bps": (0.9 * peak_Bps, 0.05 * peak_Bps, peak_Bps),
        "half_size_bytes": (1e6, 0.0, 1e9),
    }
    found = fit(start, residuals)
    share = {"bandwidth_fraction": rounded(found["bandwidth_Bps"] / peak_Bps)}
    error = share | {"rows": rows.message.size} | errors(residuals(found))
    return {**{key: rounded(value) for key, value in found.items()}, "error": error}


def link_section() -> dict[str, Any]:
    """NVLink generations, then the networks measured through them."""
    peak = {name: load_gpu(name).nvlink_bandwidth_Bps for name in ("a100-80", "h200", "b200")}
    nvlink4 = fit_nvlink("H200-SXM", peak["h200"])
    wires = {key: nvlink4[key] for key in ("bandwidth_Bps", "switch_Bps", "half_size_bytes")}
    kin = {key: value / peak["h200"] for key, value in wires.items()}
    kin["launch_s"] = nvlink4["launch_s"]
    nvlink5 = fit_nvlink("B200-SXM", peak["b200"], kin)

    def link(constants: Mapping[str, Any]) -> Link:
        return Link(**{key: value for key, value in constants.items() if key != "error"})

    return {
        "nvlink3-undocumented": fit_nvlink("A100-undocumented", peak["a100-80"], kin),
        "nvlink4": nvlink4,
        "nvlink5": nvlink5,
        "efa-h100": fit_network("H100-SXM", "EFA", link(nvlink4), NIC_400G_BPS),
        "efa-b200": fit_network("B200-SXM", "EFAv4 8x50GB/s", link(nvlink5), NIC_400G_BPS),
    }

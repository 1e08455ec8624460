"""Fit the wires of :mod:`cost_models.collectives` to measured collectives."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks.micro_rows import Exchanges, exchanges
from benchmarks.robust import Values, errors, fit, rounded
from cost_models.catalog.gpus import load_gpu
from cost_models.collectives import Link, all_gather_s, all_reduce_s
from cost_models.units import Floats

STEP_S = 5e-6
"""Latency of one NVLink step; the eight-rank runs cannot tell it from the launch."""
NIC_400G_BPS = 50e9


def link_residual(rows: Exchanges, intra: Link, inter: Link) -> Floats:
    """Log of predicted over measured for every collective of ``rows``."""
    sizes = (rows.message, rows.inside, rows.outside)
    gather = all_gather_s(*sizes, intra=intra, inter=inter)
    reduce = all_reduce_s(*sizes, intra=intra, inter=inter)
    seconds = np.where(rows.operation == "all_reduce", reduce, gather)
    return np.asarray(np.log(seconds / rows.seconds))


def fit_nvlink(device: str, peak_Bps: float) -> dict[str, Any]:
    """Ring and switch bandwidth and half size inside one domain; peak is the data sheet's."""
    rows = exchanges(device, "")
    switched = rows.algorithm == "nvls"

    def residuals(x: Values) -> Floats:
        ring = Link(
            latency_s=STEP_S,
            bandwidth_Bps=x["bandwidth_Bps"],
            half_size_bytes=x["half_size_bytes"],
            launch_s=x["launch_s"],
        )
        switch = Link(
            latency_s=STEP_S,
            bandwidth_Bps=1.0,
            half_size_bytes=x["half_size_bytes"],
            launch_s=x["launch_s"],
            switch_Bps=x["switch_Bps"],
        )
        return np.where(
            switched, link_residual(rows, switch, switch), link_residual(rows, ring, ring)
        )

    start = {
        "bandwidth_Bps": (0.8 * peak_Bps, 0.1 * peak_Bps, peak_Bps),
        "switch_Bps": (0.7 * peak_Bps, 0.1 * peak_Bps, peak_Bps),
        "half_size_bytes": (1e7, 0.0, 1e9),
        "launch_s": (2e-5, 0.0, 1e-4),
    }
    found = fit(start, residuals)
    constants = {"latency_s": STEP_S} | {key: rounded(v) for key, v in found.items()}
    share = {"bandwidth_fraction": rounded(found["bandwidth_Bps"] / peak_Bps)}
    share["switch_fraction"] = rounded(found["switch_Bps"] / peak_Bps)
    return {**constants, "error": share | {"rows": switched.size} | errors(residuals(found))}


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
    found = {key: rounded(value) for key, value in found.items()}
    return {**found, "error": share | {"rows": rows.message.size} | errors(residuals(found))}


def link_section() -> dict[str, Any]:
    """NVLink generations, then the networks measured through them."""
    nvlink4 = fit_nvlink("H200-SXM", load_gpu("h200").nvlink_bandwidth_Bps)
    nvlink5 = fit_nvlink("B200-SXM", load_gpu("b200").nvlink_bandwidth_Bps)

    def link(constants: Mapping[str, Any]) -> Link:
        return Link(**{key: value for key, value in constants.items() if key != "error"})

    return {
        "nvlink4": nvlink4,
        "nvlink5": nvlink5,
        "efa-h100": fit_network("H100-SXM", "EFA", link(nvlink4), NIC_400G_BPS),
        "efa-b200": fit_network("B200-SXM", "EFAv4 8x50GB/s", link(nvlink5), NIC_400G_BPS),
    }

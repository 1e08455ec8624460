"""Fit the kernels' constants to measured kernels: ``python -m benchmarks.fit.kernels``.

Writes ``cost_models/catalog/calibrations/kernels.toml``, the same bytes each time.  Errors are
those of log time.  ``cross_shape`` leaves out one fifth of the smallest dimensions at a time;
``cross_device`` takes every shape constant from the other GPU and fits only the peak.

Long loops of GEMMs run at the clock that the power limit allows, short ones faster.
That is a property of the measurement: the fit lets it be, as a factor

    1 + loss / (1 + (onset / t)^4)

and ``peak_fraction`` is what is left at the end, since training is a long loop.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from benchmarks.fit.links import link_section
from benchmarks.fit.micro_rows import (
    Attentions,
    Gemms,
    attentions,
    gemms,
    grouped_gemms,
    matmul_ceilings,
    memory_bandwidths,
)
from benchmarks.fit.robust import Values, errors, fit, rounded
from cost_models.catalog.files import CATALOG
from cost_models.catalog.gpus import load_gpu
from cost_models.equations.compute import (
    AttentionEfficiency,
    GemmEfficiency,
    attention_backward_s,
    attention_forward_s,
    gemm_s,
)
from cost_models.specs.cluster import Gpu
from cost_models.specs.units import Floats

KERNELS = CATALOG / "calibrations" / "kernels.toml"
DEVICES = {"a100-80-pcie": "A100-PCIe-80GB", "b200": "B200-SXM"}
CEILING_OF = {
    "a100-80": "NVIDIA A100 SXM",
    "a100-80-pcie": "NVIDIA A100 PCIe",
    "b200": "NVIDIA B200 SXM",
    "b300": "NVIDIA B300 SXM",
    "gb200": "NVIDIA GB200 SXM",
    "gh200": "NVIDIA GH200 SXM",
    "h100-sxm": "NVIDIA H100 SXM",
    "mi300x": "AMD MI300X",
    "mi325x": "AMD MI325X",
    "mi355x": "AMD MI355X",
}
HEADER = """\
# Written by `python -m benchmarks.fit.kernels` from micro/*.csv; do not edit.
# `error` holds what the fit could not explain, in log time; the rest are constants.

"""
FOLDS = 5

Mask = NDArray[np.bool_]
Limits = tuple[float, float, float]
"""Share of the peak in short loops, loss in long ones, and the time where it sets in."""

GEMM_START = {
    "wave_fraction": (0.4, 0.0, 1.0),
    "half_depth": (100.0, 0.0, 2000.0),
    "exposed_fraction": (0.4, 0.0, 1.0),
}
ATTENTION_START = {
    "fraction": (0.5, 0.05, 1.5),
    "tail": (100.0, 0.0, 2000.0),
    "uneven": (0.15, 0.0, 1.0),
}


@cache
def gpu_of(name: str) -> Gpu:
    """The data sheet of a measured device."""
    return load_gpu(name)


@cache
def rows_of(name: str) -> Gemms:
    """All plain GEMMs of a measured device."""
    return gemms(DEVICES[name])


def every(name: str) -> Mask:
    """All of its rows."""
    return np.ones(rows_of(name).m.size, dtype=np.bool_)


def gemm_residual(rows: Gemms, gpu: Gpu, c: Values, limits: Limits) -> Floats:
    """Log of predicted over measured, the power limit's share included."""
    peak, loss, onset = limits
    seconds = gemm_s(
        rows.m,
        rows.n,
        rows.k,
        groups=rows.groups,
        output_bytes_per_element=rows.output_bytes,
        flop_per_s=gpu.peak_flop_per_s["bf16"],
        n_sm=gpu.n_sm,
        bytes_per_element=2,
        memory_bandwidth_Bps=gpu.memory_bandwidth_Bps,
        efficiency=GemmEfficiency(peak_fraction=peak, **c),
    )
    slower = 1 + loss / (1 + (onset / seconds) ** 4)
    return np.asarray(np.log(seconds * slower / rows.seconds))


def fit_gemm(
    chosen: Mapping[str, Mask], shape: Values | None = None
) -> tuple[Values, dict[str, Limits]]:
    """Shape constants common to all devices, then (peak, loss, onset) of each.

    ``chosen`` are the masks of rows to use by device; ``shape`` fixes the common part.
    """
    start: dict[str, tuple[float, ...]] = dict(GEMM_START) if shape is None else {}
    for name in chosen:
        start |= {
            f"peak {name}": (0.7, 0.1, 1.2),
            f"loss {name}": (0.2, 0.0, 1.0),
            f"onset {name}": (4e-4, 1e-4, 4e-3),
        }

    def parts(x: Values) -> tuple[Values, dict[str, Limits]]:
        common = shape if shape is not None else {name: x[name] for name in GEMM_START}
        own = {d: (x[f"peak {d}"], x[f"loss {d}"], x[f"onset {d}"]) for d in chosen}
        return common, own

    def residuals(x: Values) -> Floats:
        common, own = parts(x)
        # every device counts the same, however many rows it has
        parted = [
            gemm_residual(rows_of(d), gpu_of(d), common, own[d])[mask] * 10 / np.sqrt(mask.sum())
            for d, mask in chosen.items()
        ]
        return np.asarray(np.concatenate(parted))

    return parts(fit(start, residuals))


def cross_shape(name: str) -> Floats:
    """Residuals of rows whose smallest dimension the fit has not seen."""
    rows = rows_of(name)
    smallest = np.minimum(np.minimum(rows.m, rows.n), rows.k)
    values = np.unique(smallest)
    out = np.zeros_like(smallest)
    for fold in range(FOLDS):
        held = np.isin(smallest, values[fold::FOLDS])
        masks = {d: (~held if d == name else every(d)) for d in DEVICES}
        common, own = fit_gemm(masks)
        out[held] = gemm_residual(rows, gpu_of(name), common, own[name])[held]
    return out


def fit_groups(name: str, common: Values, peak: float) -> dict[str, Any]:
    """What one more group costs a grouped GEMM, all else as for plain ones."""
    rows = grouped_gemms(DEVICES[name])

    def residuals(x: Values) -> Floats:
        return np.asarray(gemm_residual(rows, gpu_of(name), {**common, **x}, (peak, 0.0, 1.0)))

    found = fit({"group_s": (1e-6, 0.0, 2e-5)}, residuals)
    return {"rows": rows.m.size, **found, **errors(residuals(found))}


def fit_attention(name: str, direction: str) -> tuple[dict[str, float], dict[str, Any]]:
    """Fraction, tail and cost of unequal widths of one direction on one device."""
    rows: Attentions = attentions(DEVICES[name], direction)
    price = attention_forward_s if direction == "forward" else attention_backward_s

    def residuals(x: Values) -> Floats:
        both = {f"{way}_{key}": v for key, v in x.items() for way in ("forward", "backward")}
        seconds = price(
            rows.batch,
            rows.heads,
            rows.sequence,
            rows.sequence,
            qk_width=rows.qk_width,
            v_width=rows.v_width,
            flop_per_s=gpu_of(name).peak_flop_per_s["bf16"],
            n_sm=gpu_of(name).n_sm,
            efficiency=AttentionEfficiency(**both),
        )
        return np.asarray(np.log(seconds / rows.seconds))

    found = fit(ATTENTION_START, residuals)
    constants = {f"{direction}_{key}": rounded(value) for key, value in found.items()}
    return constants, {"rows": rows.heads.size, **errors(residuals(found))}


def gemm_section() -> dict[str, Any]:
    """Constants common to all devices, and peak and errors of each."""
    common, own = fit_gemm({name: every(name) for name in DEVICES})
    section: dict[str, Any] = {key: rounded(value) for key, value in common.items()}
    ratios: dict[str, float] = {}
    ceilings = matmul_ceilings()
    for name in DEVICES:
        rows, gpu = rows_of(name), gpu_of(name)
        short, loss, _ = own[name]
        peak = short / (1 + loss)
        (other,) = (d for d in DEVICES if d != name)
        borrowed, _ = fit_gemm({other: every(other)})
        _, again = fit_gemm({name: every(name)}, borrowed)
        groups = fit_groups(name, common, peak)
        section[name] = {
            "peak_fraction": rounded(peak),
            "group_s": rounded(groups.pop("group_s")),
            "error": {
                "rows": rows.m.size,
                "short_loop_peak_fraction": rounded(short),
                **errors(gemm_residual(rows, gpu, common, own[name])),
                **errors(cross_shape(name), "cross_shape_"),
                **errors(gemm_residual(rows, gpu, borrowed, again[name]), "cross_device_"),
                "grouped": groups,
            },
        }
        ratios[gpu.architecture] = peak / ceilings[CEILING_OF[name]]["bf16"]
    return section | scaled_peaks(ratios, set(DEVICES))


def scaled_peaks(ratios: Mapping[str, float], measured: set[str]) -> dict[str, Any]:
    """Peak fractions of GPUs without rows: their best GEMM times what others keep of theirs.

    The nearest relative is the same architecture; without one, the middle of all, with
    the extremes beside it.
    """
    ceilings = matmul_ceilings()
    low, high = min(ratios.values()), max(ratios.values())
    middle = float(np.sqrt(low * high))
    section: dict[str, Any] = {}
    for name in sorted(set(CEILING_OF) - measured):
        known = ratios.get(load_gpu(name).architecture)
        for precision, ceiling in ceilings[CEILING_OF[name]].items():
            key = "peak_fraction" if precision == "bf16" else f"peak_fraction_{precision}"
            section.setdefault(name, {})[key] = rounded(ceiling * (known or middle))
            between = [rounded(ceiling * (known or end)) for end in (low, high)]
            section[name].setdefault("between", {})[precision] = between
    return section


def attention_section() -> dict[str, Any]:
    """Both directions of each device."""
    section: dict[str, Any] = {}
    for name in DEVICES:
        forward, forward_error = fit_attention(name, "forward")
        backward, backward_error = fit_attention(name, "backward")
        error = {"forward": forward_error, "backward": backward_error}
        section[name] = {**forward, **backward, "error": error}
    return section


def memory_section() -> dict[str, Any]:
    """Share of the memory bandwidth by kind of kernel, as measured."""
    section: dict[str, Any] = {}
    for name, device in DEVICES.items():
        bandwidth = gpu_of(name).memory_bandwidth_Bps
        section[name] = {
            operation: rounded(reached / bandwidth)
            for operation, reached in memory_bandwidths(device).items()
        }
    return section


def main() -> None:
    """Fit everything, write the file and show it."""
    document = {
        "gemm": gemm_section(),
        "attention": attention_section(),
        "memory": memory_section(),
        "links": link_section(),
    }
    text = HEADER + tomli_w.dumps(document)
    KERNELS.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

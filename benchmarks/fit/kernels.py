"""How near the shipped constants come to measured kernels: ``python -m benchmarks.fit.kernels``.

The constants are those that price a step, fitted to whole training runs; no kernel is among
these.  Their priors are from the rows of ``cost_models/catalog/micro``, and this table says how
far training has drawn them away: errors are of log time, predicted over measured.
``kernel_bounds.toml`` holds what is known and must not grow.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.fit.micro_rows import (
    attentions,
    exchanges,
    gemms,
    grouped_gemms,
    matmul_ceilings,
    memory_bandwidths,
)
from cost_models.calibrate.calibration import load_constants
from cost_models.catalog.frameworks import framework_names, load_framework
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.catalog.optimizers import load_optimizer
from cost_models.counting.traffic import Group
from cost_models.counting.work import Work, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.kernels import Kernels
from cost_models.equations.layer.links import links
from cost_models.specs.cluster import Cluster
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload

FRAMEWORK = "megatron-lm"
"""Whose constants are held against the rows: most of them were measured through its kernels."""
DEVICES = {"a100-80-pcie": "A100-PCIe-80GB", "b200": "B200-SXM"}
WIRES = {"h200": ("H200-SXM", ""), "b200": ("B200-SXM", "")}
NETWORKS = {"h100-sxm": ("H100-SXM", "EFA"), "b200": ("B200-SXM", "EFAv4 8x50GB/s")}
EFA_BPS = 50e9
"""One rank's share of the NICs, one direction, in both networks."""
CEILING_OF = {
    "a100-80": "NVIDIA A100 SXM",
    "a100-80-pcie": "NVIDIA A100 PCIe",
    "b200": "NVIDIA B200 SXM",
    "b300": "NVIDIA B300 SXM",
    "gb200": "NVIDIA GB200 SXM",
    "gh200": "NVIDIA GH200 SXM",
    "h100-sxm": "NVIDIA H100 SXM",
    "h200": "NVIDIA H200 SXM",
    "mi300x": "AMD MI300X",
    "mi325x": "AMD MI325X",
    "mi355x": "AMD MI355X",
}
"""Rows of ``matmul_peak.csv`` by GPU of the catalog."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Misses:
    """Log of predicted over measured seconds of some rows."""

    what: str
    log_ratio: Floats

    @property
    def bias(self) -> float:
        """Median: below 0 where kernels are predicted faster than they were measured."""
        return float(np.median(self.log_ratio))

    @property
    def mean_error(self) -> float:
        """Mean of the absolute values."""
        return float(np.mean(np.abs(self.log_ratio)))


def work_of(gpu: str) -> tuple[Work, Constants]:
    """Some work on the GPU, for its machine, and the shipped constants."""
    framework = load_framework(FRAMEWORK)
    workload = Workload(
        global_batch_size=8,
        sequence_length=4096,
        framework=framework,
        optimizer=load_optimizer("adamw"),
    )
    cluster = Cluster.of(load_gpu(gpu), 8, nic_bandwidth_Bps=EFA_BPS)
    work = step_work(load_model("8b"), cluster, workload, Strategies.of(Strategy(dp=8)))
    return work, load_constants(cluster.gpu, framework)


def gemm_misses(gpu: str) -> Iterator[Misses]:
    """Plain GEMMs, and grouped ones as those of so many experts on a rank."""
    work, c = work_of(gpu)
    plain, grouped = gemms(DEVICES[gpu]), grouped_gemms(DEVICES[gpu])
    (first, *others) = work.layer.attention_gemms
    experts = (replace(first, groups=grouped.groups), *others)
    many = replace(work, layer=replace(work.layer, expert_gemms=experts))
    for name, rows, at, is_grouped in (
        ("GEMM", plain, work, False),
        ("grouped GEMM", grouped, many, True),
    ):
        seconds = Kernels(at, c).gemm(rows.m, rows.n, rows.k, rows.groups, grouped=is_grouped)
        yield Misses(what=f"{name}, {gpu}", log_ratio=np.log(seconds / rows.seconds))


def attention_misses(gpu: str) -> Iterator[Misses]:
    """Causal attention, forward and backward."""
    work, c = work_of(gpu)
    for index, direction in enumerate(("forward", "backward")):
        rows = attentions(DEVICES[gpu], direction)
        shape = replace(
            work.layer.attention,
            batch=rows.batch,
            heads=rows.heads,
            queries=rows.sequence,
            keys=rows.sequence,
            qk_width=rows.qk_width,
            v_width=rows.v_width,
        )
        here = replace(work, layer=replace(work.layer, attention=shape))
        seconds = Kernels(here, c).attention(here, np.array(0.5))[index]
        yield Misses(what=f"attention {direction}, {gpu}", log_ratio=np.log(seconds / rows.seconds))


def memory_misses(gpu: str) -> Misses:
    """Elementwise kernels: permutations and losses have passes of their own."""
    work, c = work_of(gpu)
    reached = memory_bandwidths(DEVICES[gpu])["elementwise"]
    large = np.array([1e9])
    seconds = Kernels(work, c).moved(large)
    return Misses(what=f"elementwise, {gpu}", log_ratio=np.log(seconds * reached / large))


def collective_misses(gpu: str, device: str, network: str) -> Misses:
    """Collectives of 128 KiB and more, on NVLink alone or through a network, as NCCL chose."""
    wires = links(*work_of(gpu))
    rows = exchanges(device, network)
    group = Group(inside=rows.inside, outside=rows.outside)
    seconds = np.where(
        rows.operation == "all_reduce",
        wires.all_reduce_s(rows.message, group),
        wires.all_gather_s(rows.message, group),
    )
    chosen = (rows.algorithm != "ring") | (rows.operation != "all_reduce")
    return Misses(
        what=f"collectives, {gpu}, {'EFA' if network else 'NVLink'}",
        log_ratio=np.log(seconds / rows.seconds)[chosen],
    )


def all_misses() -> Iterator[Misses]:
    """Every kind of row on every device that the catalog knows."""
    for gpu in DEVICES:
        yield from gemm_misses(gpu)
        yield from attention_misses(gpu)
        yield memory_misses(gpu)
    for where in (WIRES, NETWORKS):
        for gpu, (device, network) in where.items():
            yield collective_misses(gpu, device, network)


@dataclass(frozen=True, slots=True, kw_only=True)
class AboveBest:
    """GEMMs that training runs faster than the best kernel measured alone."""

    gpu: str
    precision: str
    framework: str
    """Where they are fastest."""
    share: float
    """Of the data sheet's peak, at the clock that the board's power sustains."""
    best: float


def above_best_kernels() -> Iterator[AboveBest]:
    """GPUs and precisions whose shipped share of the peak no measured kernel reaches."""
    for name, device in CEILING_OF.items():
        gpu = load_gpu(name)
        for precision, best in matmul_ceilings()[device].items():
            field = {"bf16": "gemm_fraction", "fp8": "gemm_fraction_8bit"}[precision]
            shares = {
                framework: float(getattr(load_constants(gpu, load_framework(framework)), field))
                for framework in framework_names()
            }
            fastest = max(shares, key=lambda framework: shares[framework])
            share = shares[fastest] * (gpu.sustained or 1.0)
            if share > best:
                yield AboveBest(
                    gpu=name, precision=precision, framework=fastest, share=share, best=best
                )


def main() -> None:
    """Print both tables."""
    print(f"{'rows':36} {'n':>4} {'bias':>7} {'error':>7}")
    for misses in all_misses():
        n = misses.log_ratio.size
        print(f"{misses.what:36} {n:4} {misses.bias:+7.3f} {misses.mean_error:7.3f}")
    for a in above_best_kernels():
        print(
            f"{a.gpu}, {a.precision}: {a.share:.3f} of the peak in training ({a.framework}), "
            f"{a.best:.3f} by the best kernel"
        )


if __name__ == "__main__":
    main()

"""The GPU and its wires as the data sheet gives them, at the strategies' precision."""

from dataclasses import dataclass

import numpy as np

from cost_models.specs.cluster import PRECISIONS, Cluster
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload

SWITCHED = ("hopper", "blackwell")
"""Architectures whose NVLink switch computes (NVLink SHARP, third generation and later)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The GPU and its wires as the data sheet gives them."""

    gemm_flop_per_s: Floats
    """FLOP/s of GEMMs at the strategy's precision; 0 where the GPU does not have it."""
    sixteen_bit_flop_per_s: Floats
    """FLOP/s of what stays in 16 bits whatever the format of the layers' GEMMs: the head."""
    attention_flop_per_s: Floats
    """FLOP/s of the scores, in 16 bits, by a kernel that may be slower than the fastest."""
    sustained: Floats
    """Share of the peaks under load, over that of the GPU that most runs of its architecture
    are from."""
    memory_bandwidth_Bps: Floats
    n_sm: Floats
    nvlink_Bps: Floats
    nic_Bps: Floats
    host_Bps: Floats
    gemm_bytes: Floats
    """Bytes of a scalar that a GEMM reads."""
    eight_bit: Floats
    """1.0 where GEMMs run in 8 bits or fewer."""
    has_switch: Floats
    """1.0 where the NVLink switch adds up all-reduces (NVLS: Hopper and later)."""
    n_nodes: Floats


def machine_of(cluster: Cluster, workload: Workload, s: Strategies) -> Machine:
    """The machine that the strategies run on; arrays broadcast with ``s``."""
    gpu = cluster.gpu
    kernel = dict(workload.framework.attention_speed).get(gpu.architecture, 1.0)
    peaks = np.array([gpu.peak_flop_per_s.get(name, 0.0) for name in PRECISIONS])
    sixteen = gpu.peak_flop_per_s.get("bf16") or gpu.peak_flop_per_s.get("fp16") or peaks.max()
    gemm_bytes = np.array([2.0, 2.0, 1.0, 1.0, 0.5])
    scalar = np.asarray
    return Machine(
        gemm_flop_per_s=peaks[s.precision],
        sixteen_bit_flop_per_s=scalar(float(sixteen)),
        attention_flop_per_s=scalar(float(sixteen) * kernel),
        sustained=scalar(gpu.sustained or 1.0),
        memory_bandwidth_Bps=scalar(gpu.memory_bandwidth_Bps),
        n_sm=scalar(float(gpu.n_sm)),
        nvlink_Bps=scalar(cluster.nvlink_bandwidth_Bps),
        nic_Bps=scalar(cluster.fabric_bandwidth_Bps),
        host_Bps=scalar(gpu.host_bandwidth_Bps),
        gemm_bytes=gemm_bytes[s.precision],
        eight_bit=scalar(s.precision >= 2, dtype=np.float64),
        has_switch=scalar(float(gpu.architecture in SWITCHED)),
        n_nodes=np.ceil(s.world_size / cluster.gpus_per_node),
    )

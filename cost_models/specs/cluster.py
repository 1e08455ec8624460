"""The machines: a GPU, how many, and which wire a group of ranks crosses.

Ranks are laid out on the network one parallel dimension after the other, innermost
first (``tp-cp-ep-dp-pp`` in Megatron-LM).  A group of ``size`` ranks whose members
are ``stride`` apart has

    inside = clip(domain / stride, 1, size)                                    (1)

members in one NVLink domain of ``domain`` GPUs, and size / inside domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cost_models.specs.errors import SpecError, require_not_negative, require_positive
from cost_models.specs.units import Floats

PRECISIONS = ("bf16", "fp16", "fp8", "mxfp8", "nvfp4")
"""Formats of the GEMMs in training; fp32 and tf32 are never the question here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One accelerator as the scheduler sees it, from its data sheet and driver.

    Raises
    ------
    SpecError
        For a number that is not positive and for a precision that is not known.
    """

    name: str
    vendor: str = ""
    architecture: str
    """The maker's generation: ``ampere``, ``hopper``, ``blackwell``, ``cdna3``."""
    peak_flop_per_s: Mapping[str, float]
    """Dense peak by precision, never the sparsity figure; a missing key is not supported."""
    memory_bytes: float
    """Device memory that the driver reports (``nvidia-smi``), its own share included."""
    memory_bandwidth_Bps: float
    n_sm: int
    """Streaming multiprocessors or compute units."""
    nvlink_domain: int
    """GPUs that reach each other over NVLink, its like or PCIe in the usual box."""
    gpus_per_node: int
    nvlink_bandwidth_Bps: float
    """Per GPU, one direction."""
    nic_bandwidth_Bps: float
    """Per GPU, one direction, in the usual box."""
    host_bandwidth_Bps: float
    """GPU to host memory, one direction."""
    peer_to_peer: bool = True
    """Whether one GPU reads and writes another's memory; GeForce cards since the RTX 40 do not."""
    host: str = "x86"
    """The processor that issues its kernels, ``x86`` or ``grace``: some issue slower."""
    sustained: float | None = None
    """What board power leaves of the peak under load, over what it leaves the GPU of this
    architecture that most runs were measured on, where it differs: clocks go with power to
    about 0.4, for dynamic power goes with clock and voltage squared."""
    price_usd_per_hour: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)
    """Where each number is from, by field; ``unverified`` where it could not be checked."""

    def __post_init__(self) -> None:
        require_positive(
            f"gpu {self.name}",
            memory_bytes=self.memory_bytes,
            memory_bandwidth_Bps=self.memory_bandwidth_Bps,
            n_sm=self.n_sm,
            nvlink_domain=self.nvlink_domain,
            gpus_per_node=self.gpus_per_node,
            nvlink_bandwidth_Bps=self.nvlink_bandwidth_Bps,
            nic_bandwidth_Bps=self.nic_bandwidth_Bps,
            host_bandwidth_Bps=self.host_bandwidth_Bps,
            sustained=self.sustained or 1.0,
        )
        if not self.peak_flop_per_s:
            raise SpecError(f"gpu {self.name}.peak_flop_per_s names no precision")
        for precision, peak in self.peak_flop_per_s.items():
            if precision not in PRECISIONS:
                raise SpecError(
                    f"gpu {self.name}.peak_flop_per_s has unknown precision {precision!r}",
                    hint=f"known: {', '.join(PRECISIONS)}",
                )
            require_positive(f"gpu {self.name}.peak_flop_per_s", **{precision: peak})

    @property
    def peer_bandwidth_Bps(self) -> float:
        """Between two GPUs of a box, one direction.

        Without peer-to-peer every byte is written to host memory and then read from it: two
        crossings, one after the other, at half the rate of one.
        """
        staged = self.host_bandwidth_Bps / 2
        return self.nvlink_bandwidth_Bps if self.peer_to_peer else staged


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Equal GPUs in NVLink domains, joined by NICs and a fabric.

    Raises
    ------
    SpecError
        For a count or bandwidth that is not positive, an ``oversubscription`` below 1 and
        ``reserved_bytes`` that leave no memory.
    """

    gpu: Gpu
    n_gpus: int
    gpus_per_node: int
    nvlink_domain: int
    nvlink_bandwidth_Bps: float
    nic_bandwidth_Bps: float
    """Per GPU, one direction: a node's NICs divided by its GPUs."""
    oversubscription: float = 1.0
    """Bandwidth into a leaf switch over bandwidth out of it; 1 is non-blocking."""
    reserved_bytes: float = 0.0
    """Device memory that the user keeps back."""
    name: str = ""

    def __post_init__(self) -> None:
        require_positive(
            "cluster",
            n_gpus=self.n_gpus,
            gpus_per_node=self.gpus_per_node,
            nvlink_domain=self.nvlink_domain,
            nvlink_bandwidth_Bps=self.nvlink_bandwidth_Bps,
            nic_bandwidth_Bps=self.nic_bandwidth_Bps,
        )
        require_not_negative("cluster", reserved_bytes=self.reserved_bytes)
        if not 1 <= self.oversubscription < float("inf"):
            raise SpecError(f"cluster.oversubscription must be >= 1, got {self.oversubscription}")
        if self.reserved_bytes >= self.gpu.memory_bytes:
            raise SpecError(
                f"cluster.reserved_bytes must be below the GPU's {self.gpu.memory_bytes:.0f}, "
                f"got {self.reserved_bytes:.0f}"
            )

    @classmethod
    def of(cls, gpu: Gpu, n_gpus: int, **overrides: Any) -> "Cluster":
        """The usual box of ``gpu``, repeated up to ``n_gpus``; ``overrides`` replace its fields."""
        values: dict[str, Any] = {
            "gpus_per_node": gpu.gpus_per_node,
            "nvlink_domain": gpu.nvlink_domain,
            "nvlink_bandwidth_Bps": gpu.peer_bandwidth_Bps,
            "nic_bandwidth_Bps": gpu.nic_bandwidth_Bps,
            "name": gpu.name,
        }
        return cls(gpu=gpu, n_gpus=n_gpus, **(values | overrides))

    @property
    def usable_memory_bytes(self) -> float:
        """What a job may ask of one GPU."""
        return self.gpu.memory_bytes - self.reserved_bytes

    @property
    def fabric_bandwidth_Bps(self) -> float:
        """Per GPU through the spine, one direction, when everybody talks."""
        return self.nic_bandwidth_Bps / self.oversubscription

    def inside(self, stride: ArrayLike, size: ArrayLike) -> Floats:
        """Members of one group that share an NVLink domain, equation (1); arrays broadcast."""
        reach = np.floor(self.nvlink_domain / np.asarray(stride, dtype=np.float64))
        return np.clip(reach, 1.0, np.asarray(size, dtype=np.float64))


def alike(pools: Sequence[Cluster]) -> bool:
    """All pools are the same machines, however many of them."""
    first = pools[0]
    return all(replace(pool, n_gpus=first.n_gpus, name=first.name) == first for pool in pools)


def joined(pools: Sequence[Cluster]) -> Cluster:
    """Pools that are alike as one cluster."""
    return replace(pools[0], n_gpus=sum(pool.n_gpus for pool in pools))

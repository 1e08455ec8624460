"""Cluster files: the keys that people write, and the line where one of them is wrong.

A file describes either one set of equal GPUs or several, each a ``[[pool]]`` whose keys
override those at the top::

    gpu = "h100"                # a name from the catalog, or another .toml file
    n_gpus = 64                 # may come from the command line instead
    gpus_per_node = 8
    nvlink_domain = 8
    nvlink_gbyte_per_s = 450    # per GPU, one direction
    nics_per_node = 8
    nic_gbit_per_s = 400        # per NIC, one direction
    oversubscription = 1
    reserved_gib = 2            # per GPU
    price_usd_per_gpu_hour = 2.5

``nic_gbit_per_s_per_gpu`` replaces the pair of NIC keys.  What a file does not say is
taken from the GPU's usual box.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cost_models.catalog.files import build, line_of, read_text, read_toml
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.errors import SpecError, require_not_negative, require_positive
from cost_models.specs.units import GB, GIB

BITS_PER_BYTE = 8
POOL = "pool"
_POOL_HEADER = re.compile(rf"^\s*\[\[\s*{POOL}\s*\]\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterKeys:
    """What a file says of one pool, in the units in which people buy clusters."""

    gpu: str
    n_gpus: int | None = None
    name: str = ""
    gpus_per_node: int | None = None
    nvlink_domain: int | None = None
    nvlink_gbyte_per_s: float | None = None
    """Per GPU, one direction, in 1e9 bytes."""
    nics_per_node: int | None = None
    nic_gbit_per_s: float | None = None
    """Per NIC, one direction, in 1e9 bits."""
    nic_gbit_per_s_per_gpu: float | None = None
    oversubscription: float = 1.0
    reserved_gib: float = 0.0
    """Per GPU, in 2**30 bytes."""
    price_usd_per_gpu_hour: float | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = {
            "n_gpus": self.n_gpus,
            "gpus_per_node": self.gpus_per_node,
            "nvlink_domain": self.nvlink_domain,
            "nvlink_gbyte_per_s": self.nvlink_gbyte_per_s,
            "nics_per_node": self.nics_per_node,
            "nic_gbit_per_s": self.nic_gbit_per_s,
            "nic_gbit_per_s_per_gpu": self.nic_gbit_per_s_per_gpu,
            "price_usd_per_gpu_hour": self.price_usd_per_gpu_hour,
        }
        require_positive("cluster", **{k: v for k, v in given.items() if v is not None})
        require_not_negative("cluster", reserved_gib=self.reserved_gib)
        if not 1 <= self.oversubscription < float("inf"):
            raise SpecError(f"cluster.oversubscription must be >= 1, got {self.oversubscription}")
        if (self.nics_per_node is None) != (self.nic_gbit_per_s is None):
            raise SpecError(
                "cluster.nics_per_node and nic_gbit_per_s go together",
                hint="or give nic_gbit_per_s_per_gpu alone",
            )
        if self.nic_gbit_per_s is not None and self.nic_gbit_per_s_per_gpu is not None:
            raise SpecError(
                "cluster.nic_gbit_per_s_per_gpu says again what nic_gbit_per_s says",
                hint="keep one of them",
            )

    def without_price(self) -> "ClusterKeys":
        """The same for another GPU, whose price the file does not know."""
        return replace(self, price_usd_per_gpu_hour=None)

    def cluster(self, gpu: Gpu, n_gpus: int) -> Cluster:
        """These keys in SI units, the rest from the usual box of ``gpu``."""
        gpus_per_node = self.gpus_per_node or gpu.gpus_per_node
        nic_gbit_per_s = self.nic_gbit_per_s_per_gpu
        if self.nics_per_node is not None and self.nic_gbit_per_s is not None:
            nic_gbit_per_s = self.nics_per_node * self.nic_gbit_per_s / gpus_per_node
        overrides: dict[str, Any] = {"gpus_per_node": gpus_per_node}
        if self.name:
            overrides["name"] = self.name
        if self.nvlink_domain is not None:
            overrides["nvlink_domain"] = self.nvlink_domain
        if self.nvlink_gbyte_per_s is not None:
            overrides["nvlink_bandwidth_Bps"] = self.nvlink_gbyte_per_s * GB
        if nic_gbit_per_s is not None:
            overrides["nic_bandwidth_Bps"] = nic_gbit_per_s * GB / BITS_PER_BYTE
        if self.price_usd_per_gpu_hour is not None:
            gpu = replace(gpu, price_usd_per_hour=self.price_usd_per_gpu_hour)
        return Cluster.of(
            gpu,
            n_gpus,
            oversubscription=self.oversubscription,
            reserved_bytes=self.reserved_gib * GIB,
            **overrides,
        )


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool of a file: where it starts, its own keys, and the values with the top's."""

    path: Path
    start: int
    """Line of its ``[[pool]]``; 0 for a file without pools."""
    own: tuple[str, ...]
    table: Mapping[str, Any]

    def where(self, key: str = "") -> str:
        """``file:line`` of ``key`` in this pool, else at the top, else of the pool itself."""
        if key in self.own:
            pattern = re.compile(rf'^\s*"?{re.escape(key)}"?\s*=')
            lines = read_text(self.path).splitlines()
            for number, line in enumerate(lines[self.start :], start=self.start + 1):
                if pattern.match(line):
                    return f"{self.path}:{number}"
        if key in self.table:
            return line_of(self.path, key)
        return f"{self.path}:{self.start}" if self.start else str(self.path)

    def keys(self) -> ClusterKeys:
        """The keys, checked; raises SpecError with file, line and key."""
        try:
            return build(ClusterKeys, self.table, self.path)
        except SpecError as error:
            raise self._moved_here(error) from None

    def _moved_here(self, error: SpecError) -> SpecError:
        """``error`` with the line in this pool, not that of the file's first such key."""
        message = str(error)
        for key in self.own:
            prefix = f"{line_of(self.path, key)}: "
            if message.startswith(prefix) and re.search(rf"\b{key}\b", message):
                return SpecError(f"{self.where(key)}: {message[len(prefix) :]}", hint=error.hint)
        prefix = f"{self.path}: "
        if message.startswith(prefix):
            return SpecError(f"{self.where()}: {message[len(prefix) :]}", hint=error.hint)
        return error


def read_pools(path: Path) -> tuple[Pool, ...]:
    """Pools of the file in its order; a file without ``[[pool]]`` is one pool.

    Raises
    ------
    SpecError
        Where the file cannot be read, is not TOML or writes ``pool`` otherwise.
    """
    top = read_toml(path)
    if POOL not in top:
        return (Pool(path, 0, tuple(top), top),)
    tables = top.pop(POOL)
    lines = read_text(path).splitlines()
    starts = [number for number, line in enumerate(lines, start=1) if _POOL_HEADER.match(line)]
    if not isinstance(tables, list) or len(tables) != len(starts):
        raise SpecError(f"{line_of(path, POOL)}: write each pool under its own [[{POOL}]]")
    return tuple(
        Pool(path, start, tuple(table), top | table)
        for start, table in zip(starts, tables, strict=True)
    )

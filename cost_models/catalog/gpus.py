"""GPUs and clusters, found by name or read from a file.

A GPU is one file of ``gpus/``: the fields of :class:`~cost_models.specs.cluster.Gpu` in SI
units, a list of ``aliases`` and a ``sources`` table with one entry per number.  Keys of
a cluster file are in :mod:`cost_models.catalog.cluster_files`.
"""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path

from cost_models.catalog.cluster_files import POOL, ClusterKeys, Pool, read_pools
from cost_models.catalog.files import (
    CATALOG,
    build,
    did_you_mean,
    line_of,
    names_in,
    read_text,
    read_toml,
)
from cost_models.specs.cluster import Cluster, Gpu, alike, joined
from cost_models.specs.errors import SpecError
from cost_models.specs.units import GIB

_MAKERS = ("nvidia", "tesla", "amd", "instinct")
_SAY_N_GPUS = "put n_gpus in the file, or say how many on the command line"
_ALIASES = re.compile(r"^aliases = \[[^\]]*\]\n", re.MULTILINE)
_TEMPLATE = (
    "# For --gpu FILE: bytes, bytes/s in one direction, dense FLOP/s; a source for each number."
)
_A_WHOLE_FILE = "`autopar gpus h100 --toml` prints a whole file"
_OF_A_GPU = {f.name for f in fields(Gpu)} - {f.name for f in fields(ClusterKeys)}


def gpu_names() -> tuple[str, ...]:
    """Names of the catalog's GPUs, sorted, without their aliases."""
    return names_in("gpus")


def cluster_names() -> tuple[str, ...]:
    """Names of the catalog's clusters, sorted."""
    return names_in("clusters")


def load_gpu(name: str) -> Gpu:
    """The GPU of that name or alias, or the one that a ``.toml`` file describes.

    Case does not matter, nor whether words are joined by ``-``, ``_`` or a space, nor a
    maker's name in front: drivers say ``NVIDIA H100 80GB HBM3``.

    Raises
    ------
    SpecError
        For an unknown name (with a near miss) or a file that is not a GPU.

    >>> load_gpu("A100 SXM 80GB").name
    'a100-80'
    """
    return _read_gpu(gpu_path(name))[0]


def gpu_path(name: str) -> Path:
    """The file of a GPU's name, alias or own path; raises SpecError for an unknown name."""
    if name.endswith(".toml"):
        return Path(name)
    files = _gpu_files()
    word = _normalised(name)
    if word not in files:
        hint = did_you_mean(word, files)
        if hint.startswith("known"):
            hint = did_you_mean(word, gpu_names())
        raise SpecError(f"no GPU is called {name!r}", hint=hint)
    return files[word]


def gpu_template(name: str) -> str:
    """The file of a GPU without its aliases, a line on top that says how to use it.

    >>> print(gpu_template("h100").splitlines()[1])
    name = "h100-sxm"
    """
    text = _ALIASES.sub("", read_text(gpu_path(name)))
    return f"{_TEMPLATE}\n{text}"


def load_cluster(
    path_or_name: str | Path, n_gpus: int | None = None, gpu: str | None = None
) -> Cluster:
    """One set of equal GPUs: from a ``.toml`` file, a catalog cluster or a GPU's usual box.

    A file with a GPU's keys is that GPU in its usual box.  Pools of a file that are alike
    are one set.  ``n_gpus`` and ``gpu`` replace what the file says.  What it says of the
    network stays; its price goes with its own GPU.

    Raises
    ------
    SpecError
        With file, line and key for a file that cannot be used, for one that lists
        several pools, for an unknown name, and where the number of GPUs is missing.

    >>> load_cluster("h100", n_gpus=64).nic_bandwidth_Bps
    50000000000.0
    """
    path = cluster_path(path_or_name)
    if path is None or _describes_a_gpu(path):
        usual = _usual_box(str(path_or_name)) if gpu is None else load_gpu(gpu)
        if n_gpus is None:
            raise SpecError(f"the number of {usual.name} GPUs is missing", hint=_SAY_N_GPUS)
        return Cluster.of(usual, n_gpus)
    pools = read_pools(path)
    several = [_cluster(pool) for pool in pools] if len(pools) > 1 and n_gpus is None else []
    if several and gpu is None and alike(several):
        return joined(several)
    if len(pools) != 1:
        raise SpecError(
            f"{line_of(path, POOL)}: lists {len(pools)} pools where one cluster is wanted"
        )
    return _cluster(pools[0], n_gpus=n_gpus, gpu=gpu)


def load_pools(path_or_name: str | Path) -> tuple[Cluster, ...]:
    """Every pool of a cluster file in its order; a file without ``[[pool]]`` is one pool.

    Raises
    ------
    SpecError
        As :func:`load_cluster`, with the line inside the pool that is at fault.
    """
    return tuple(_cluster(pool) for pool in _pools(path_or_name))


def load_nodes(path_or_name: str | Path) -> tuple[Cluster, ...]:
    """One node of every pool, however many the file has; raises as :func:`load_pools`."""
    ones = (_cluster(pool, n_gpus=1) for pool in _pools(path_or_name))
    return tuple(replace(one, n_gpus=one.gpus_per_node) for one in ones)


def _pools(path_or_name: str | Path) -> tuple[Pool, ...]:
    path = cluster_path(path_or_name)
    if path is None:
        raise SpecError(
            f"no cluster is called {str(path_or_name)!r}",
            hint=did_you_mean(str(path_or_name), cluster_names()),
        )
    return read_pools(path)


def _normalised(name: str) -> str:
    words = name.lower().replace("_", " ").replace("-", " ").split()
    while len(words) > 1 and words[0] in _MAKERS:
        words = words[1:]
    return "-".join(words)


@cache
def _gpu_files() -> Mapping[str, Path]:
    """Catalog file of every GPU name and alias."""
    files: dict[str, Path] = {}
    for name in gpu_names():
        path = CATALOG / "gpus" / f"{name}.toml"
        for known in (name, *_read_gpu(path)[1]):
            other = files.setdefault(_normalised(known), path)
            if other != path:
                raise SpecError(f"{path}: {known!r} already names {other.stem}")
    return files


def _read_gpu(path: Path) -> tuple[Gpu, tuple[str, ...]]:
    """The GPU that ``path`` describes, and its aliases."""
    table = read_toml(path)
    aliases = table.pop("aliases", [])
    if not isinstance(aliases, list) or not all(isinstance(alias, str) for alias in aliases):
        raise SpecError(f"{line_of(path, 'aliases')}: aliases must be a list of names")
    for key, kinds, expected in (
        ("peak_flop_per_s", (int, float), "numbers"),
        ("sources", (str,), "texts"),
    ):
        inner = table.get(key, {})
        if not isinstance(inner, dict) or not all(isinstance(v, kinds) for v in inner.values()):
            raise SpecError(f"{line_of(path, key)}: {key} must be a table of {expected}")
    try:
        return build(Gpu, table, path), tuple(aliases)
    except SpecError as error:
        raise SpecError(str(error), hint=error.hint or _A_WHOLE_FILE) from None


def _describes_a_gpu(path: Path) -> bool:
    """The file names no GPU and has keys that only a GPU's file has."""
    keys = set(read_toml(path))
    return not keys & {"gpu", POOL} and bool(keys & _OF_A_GPU)


def cluster_path(path_or_name: str | Path) -> Path | None:
    """The file that is meant, or None where the word names no cluster; it may name a GPU."""
    text = str(path_or_name)
    if isinstance(path_or_name, Path) or text.endswith(".toml"):
        return Path(path_or_name)
    name = _normalised(text)
    return CATALOG / "clusters" / f"{name}.toml" if name in cluster_names() else None


def _usual_box(name: str) -> Gpu:
    if name.endswith(".toml"):
        return load_gpu(name)
    files = _gpu_files()
    word = _normalised(name)
    if word not in files:
        hint = did_you_mean(word, {*cluster_names(), *files})
        if hint.startswith("known"):
            hint = did_you_mean(word, {*cluster_names(), *gpu_names()})
        raise SpecError(f"no cluster and no GPU is called {name!r}", hint=hint)
    return load_gpu(word)


def _cluster(pool: Pool, n_gpus: int | None = None, gpu: str | None = None) -> Cluster:
    """The cluster that ``pool`` describes, with ``n_gpus`` and ``gpu`` in place of its own."""
    keys = pool.keys()
    try:
        device = load_gpu(_beside(pool.path, keys.gpu))
    except SpecError as error:
        raise SpecError(f"{pool.where('gpu')}: {error}", hint=error.hint) from None
    count = keys.n_gpus if n_gpus is None else n_gpus
    if count is None:
        raise SpecError(f"{pool.where()}: missing key 'n_gpus'", hint=_SAY_N_GPUS)
    if gpu is not None:
        other = load_gpu(gpu)
        keys = keys if other == device else keys.without_price()
        device = other
    if keys.reserved_gib * GIB >= device.memory_bytes:
        raise SpecError(
            f"{pool.where('reserved_gib')}: reserved_gib must be below the "
            f"{device.memory_bytes / GIB:.1f} GiB of {device.name}, got {keys.reserved_gib:g}"
        )
    try:
        return keys.cluster(device, count)
    except SpecError as error:
        raise SpecError(f"{pool.where()}: {error}") from None


def _beside(path: Path, gpu: str) -> str:
    """A GPU's own ``.toml`` is looked for beside the cluster file that names it."""
    return str(path.parent / gpu) if gpu.endswith(".toml") else gpu

"""Cluster files in people's units become clusters in SI, or say file, line and key."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.catalog.cluster_files import read_pools
from cost_models.catalog.files import CATALOG
from cost_models.catalog.gpus import cluster_names, load_cluster, load_gpu, load_pools
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError

FULL = """\
name = "lab"
gpu = "h100"
n_gpus = 64
gpus_per_node = 8
nvlink_domain = 8
nvlink_gbyte_per_s = 450
nics_per_node = 4
nic_gbit_per_s = 200
oversubscription = 2
reserved_gib = 3
price_usd_per_gpu_hour = 2.5
"""

POOLS = """\
reserved_gib = 2
gpus_per_node = 8

[[pool]]
gpu = "h100"
n_gpus = 64
price_usd_per_gpu_hour = 2.5

[[pool]]
name = "old"
gpu = "a100"
n_gpus = 32
nic_gbit_per_s_per_gpu = 100
"""

EIGHT = Cluster.of(load_gpu("h100"), 64)


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", cluster_names())
def test_every_number_of_the_catalog_has_a_source(name: str) -> None:
    """Each cluster loads under its own name, and no number stands without its source."""
    pools = read_pools(CATALOG / "clusters" / f"{name}.toml")
    if len(pools) == 1:
        assert load_cluster(name, n_gpus=16).name == name
    for pool in pools:
        assert pool.table["name"] == name
        # how many of each GPU an example has is no number from anywhere
        numbers = set(pool.table) - {"name", "gpu", "sources", "n_gpus"}
        assert set(pool.table.get("sources", {})) == numbers


@pytest.mark.parametrize("name", cluster_names())
def test_a_gpu_of_the_same_name_has_the_same_box(name: str) -> None:
    """Where a word names a cluster and a GPU, both mean the same wires."""
    try:
        gpu = load_gpu(name)
    except SpecError:
        return
    cluster = load_cluster(name, n_gpus=16)

    assert cluster == replace(Cluster.of(gpu, 16), name=name)


def test_units_are_converted_once(tmp_path: Path) -> None:
    """Four 200 Gb/s NICs for eight GPUs are 12.5 GB/s each; GiB are 2**30 bytes."""
    cluster = load_cluster(write(tmp_path, FULL))

    assert cluster.nic_bandwidth_Bps == 12.5e9
    assert cluster.fabric_bandwidth_Bps == 6.25e9
    assert cluster.nvlink_bandwidth_Bps == 450e9
    assert cluster.reserved_bytes == 3 * 2**30
    assert cluster.usable_memory_bytes == load_gpu("h100").memory_bytes - 3 * 2**30
    assert cluster.gpu.price_usd_per_hour == 2.5
    assert (cluster.name, cluster.n_gpus) == ("lab", 64)


def test_what_a_file_does_not_say_is_the_usual_box(tmp_path: Path) -> None:
    """Two keys are enough for a cluster."""
    path = write(tmp_path, 'gpu = "gb200"\nn_gpus = 144\n')

    assert load_cluster(path) == Cluster.of(load_gpu("gb200"), 144)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    """Another count or GPU replaces the file's; the network stays, the price goes."""
    cluster = load_cluster(str(write(tmp_path, FULL)), n_gpus=512, gpu="h200")

    assert (cluster.n_gpus, cluster.gpu.name) == (512, "h200")
    assert cluster.nic_bandwidth_Bps == 12.5e9
    assert cluster.gpu.price_usd_per_hour is None


def test_the_same_gpu_under_another_name_keeps_its_price(tmp_path: Path) -> None:
    """Saying what the file says changes nothing."""
    path = write(tmp_path, FULL)

    assert load_cluster(path, gpu="H100-SXM-80GB") == load_cluster(path)


def test_a_gpu_name_is_a_cluster_of_usual_boxes() -> None:
    """No file is needed for the common case."""
    assert load_cluster("A100", n_gpus=16) == Cluster.of(load_gpu("a100"), 16)


def test_pools_share_the_keys_at_the_top(tmp_path: Path) -> None:
    """Each pool is a cluster; its own keys win over the file's."""
    new, old = load_pools(write(tmp_path, POOLS))

    assert (new.gpu.name, new.n_gpus, new.gpu.price_usd_per_hour) == ("h100-sxm", 64, 2.5)
    assert (old.name, old.n_gpus, old.gpu.price_usd_per_hour) == ("old", 32, None)
    assert (new.nic_bandwidth_Bps, old.nic_bandwidth_Bps) == (50e9, 12.5e9)
    assert new.reserved_bytes == old.reserved_bytes == 2 * 2**30


def test_a_file_without_pools_is_one_pool(tmp_path: Path) -> None:
    """Both loaders agree on a plain file."""
    path = write(tmp_path, FULL)

    assert load_pools(path) == (load_cluster(path),)


def test_a_gpu_file_is_looked_for_beside_the_cluster_file(tmp_path: Path) -> None:
    """A cluster of home-made GPUs names them by a path relative to itself."""
    gpu_text = (CATALOG / "gpus" / "a100-40.toml").read_text()
    (tmp_path / "mine.toml").write_text(gpu_text.replace('"a100-40"', '"mine"', 1))
    path = write(tmp_path, 'gpu = "mine.toml"\nn_gpus = 8\n')

    assert load_cluster(path).gpu.name == "mine"


@pytest.mark.parametrize(
    ("old", "new", "message", "hint"),
    [
        ("n_gpus", "n_gpu", ":3: unknown key 'n_gpu'", "'n_gpus'"),
        ("nic_gbit_per_s", "nic_gbps", ":8: unknown key 'nic_gbps'", "nic_gbit_per_s"),
        ("64", '"many"', ":3: n_gpus must be int", ""),
        ("64", "0", ":3: cluster.n_gpus must be > 0, got 0", ""),
        ("64", "6.5", ":3: n_gpus must be int", ""),
        ("n_gpus = 64\n", "", ": missing key 'n_gpus'", "command line"),
        ('gpu = "h100"\n', "", ": missing key 'gpu'", ""),
        ('"h100"', '"h1000"', ":2: no GPU is called 'h1000'", "'h100'"),
        ('"h100"', '"lost.toml"', ":2: .*lost.toml: cannot read", ""),
        ("nvlink_domain = 8", "nvlink_domain = -8", ":5: cluster.nvlink_domain must be > 0", ""),
        ("450", "inf", ":6: cluster.nvlink_gbyte_per_s must be > 0, got inf", ""),
        ("450", "1" + 400 * "0", "an integer has more digits", ""),
        ("450", "1e308", "nvlink_bandwidth_Bps must be > 0, got inf", ""),
        ("nics_per_node = 4\n", "", ":7: cluster.nics_per_node and nic_gbit_per_s", "alone"),
        ("name =", "nic_gbit_per_s_per_gpu = 9\nname =", ": cluster.nic_gbit_per_s_per_gpu", "one"),
        ("oversubscription = 2", "oversubscription = 0.5", ":9: .* must be >= 1, got 0.5", ""),
        ("oversubscription = 2", "oversubscription = nan", ":9: .* must be >= 1, got nan", ""),
        ("reserved_gib = 3", "reserved_gib = -1", ":10: .*reserved_gib must be >= 0", ""),
        ("reserved_gib = 3", "reserved_gib = 80", ":10: reserved_gib must be below the 79.6", ""),
        ("2.5", "'cheap'", ":11: price_usd_per_gpu_hour must be float", ""),
        ('"lab"', '"lab', ": not valid TOML", ""),
        ("name =", "pool = 3\nname =", ":1: write each pool under its own", ""),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str, hint: str
) -> None:
    """The message starts with file and line, names the key and stays on one line."""
    path = write(tmp_path, FULL.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as error:
        load_cluster(path)

    assert str(error.value).startswith(str(path))
    assert "\n" not in str(error.value)
    assert hint in (error.value.hint or "")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_gpus = 32", "n_gpu = 32", ":12: unknown key 'n_gpu'"),
        ("n_gpus = 32", "n_gpus = 'some'", ":12: n_gpus must be int"),
        ("n_gpus = 32", "n_gpus = 0", ":12: cluster.n_gpus must be > 0"),
        ("n_gpus = 32\n", "", ":9: missing key 'n_gpus'"),
        ('gpu = "a100"\n', "", ":9: missing key 'gpu'"),
        ('"a100"', '"a200"', ":11: no GPU is called 'a200'"),
        ("reserved_gib = 2", "reserved_gib = 99", ":1: reserved_gib must be below"),
        ("reserved_gib = 2", "reserve_gib = 2", ":1: unknown key 'reserve_gib'"),
    ],
)
def test_a_wrong_pool_is_refused_with_its_own_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """The line is that of the pool at fault, not of the first pool with such a key."""
    path = write(tmp_path, POOLS.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as error:
        load_pools(path)

    assert str(error.value).startswith(str(path))


def test_several_pools_are_not_one_cluster(tmp_path: Path) -> None:
    """Who asks for one cluster is told that the file has two."""
    with pytest.raises(SpecError, match=r":4: lists 2 pools where one cluster is wanted"):
        load_cluster(write(tmp_path, POOLS))


@pytest.mark.parametrize(
    ("word", "message", "hint"),
    [
        ("dgx-h10", "no cluster and no GPU is called 'dgx-h10'", "'dgx-h100'"),
        ("nowhere.toml", "nowhere.toml: cannot read", ""),
        ("h100", "the number of h100-sxm GPUs is missing", "command line"),
    ],
)
def test_an_unknown_cluster_is_refused(word: str, message: str, hint: str) -> None:
    """Names that lead nowhere are answered in one line, with a near miss where there is one."""
    with pytest.raises(SpecError, match=message) as error:
        load_cluster(word)

    assert hint in (error.value.hint or "")


def test_pools_need_a_file() -> None:
    """A GPU's name is no file of pools."""
    with pytest.raises(SpecError, match="no cluster is called 'dgx-h10'") as error:
        load_pools("dgx-h10")

    assert "dgx-h100" in str(error.value.hint)


@given(st.integers(1, 4096), st.integers(1, 4096), st.integers(1, 576))
def test_inside_is_at_least_one_and_at_most_the_group(stride: int, size: int, domain: int) -> None:
    """A rank shares a domain with itself, and with no more than its group or the domain."""
    inside = float(replace(EIGHT, nvlink_domain=domain).inside(stride, size))

    assert 1 <= inside <= size
    assert inside <= domain
    assert inside == int(inside)


@given(st.integers(1, 512), st.integers(1, 512), st.integers(1, 576), st.integers(0, 576))
def test_inside_grows_with_the_domain(stride: int, size: int, domain: int, more: int) -> None:
    """A larger domain never holds fewer members of a group."""
    small = replace(EIGHT, nvlink_domain=domain).inside(stride, size)
    large = replace(EIGHT, nvlink_domain=domain + more).inside(stride, size)

    assert small <= large


@given(st.integers(1, 512), st.integers(1, 512))
def test_inside_shrinks_with_the_stride(stride: int, size: int) -> None:
    """Members farther apart share a domain less."""
    assert EIGHT.inside(2 * stride, size) <= EIGHT.inside(stride, size)


def test_inside_matches_arithmetic_by_hand() -> None:
    """Domain 8: tp 8 fits, stride 2 holds 4, stride 16 none but oneself; arrays broadcast."""
    inside = EIGHT.inside(np.array([1, 1, 2, 3, 16]), np.array([4, 16, 16, 16, 16]))

    assert inside.tolist() == [4, 8, 4, 2, 1]


@pytest.mark.parametrize(
    ("field", "value"),
    [("n_gpus", 0), ("nvlink_domain", 0), ("oversubscription", 0.9), ("reserved_bytes", 1e12)],
)
def test_a_cluster_that_cannot_be_is_refused(field: str, value: float) -> None:
    """The message names the field and the bound."""
    changes: dict[str, Any] = {field: value}
    with pytest.raises(SpecError, match=rf"cluster\.{field} must be"):
        replace(EIGHT, **changes)

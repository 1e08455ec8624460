"""The GPU catalog says what makers publish, names its sources and forgives spelling."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from cost_models.catalog.gpus import gpu_names, load_gpu
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.errors import SpecError

NOT_NUMBERS = {"name", "vendor", "architecture", "host", "sources"}
NOT_DOUBLED = {"gaudi3": 1.0, "trainium1": 1.0, "trainium2": 1299 / 667, "l40s": 733 / 362.05}
"""Peak of fp8 over that of bf16 where the maker prints another ratio than two."""

GB = 1e9
TERA = 1e12
MIB = 2**20

A_GPU = """\
name = "toy"
vendor = "nobody"
architecture = "toy"
memory_bytes = 1e9
memory_bandwidth_Bps = 1e12
n_sm = 10
nvlink_domain = 2
gpus_per_node = 2
nvlink_bandwidth_Bps = 1e9
nic_bandwidth_Bps = 1e9
host_bandwidth_Bps = 1e9

[peak_flop_per_s]
bf16 = 1e12
"""


@pytest.mark.parametrize("name", gpu_names())
def test_every_number_has_a_source(name: str) -> None:
    """Each file loads under its own name, and nothing unusual stands without its source."""
    gpu = load_gpu(name)
    numbers = {f.name for f in fields(Gpu)} - NOT_NUMBERS
    given = {
        field
        for field in numbers
        if getattr(gpu, field) is not None and getattr(gpu, field) is not True
    }

    assert gpu.name == name
    assert set(gpu.sources) - NOT_NUMBERS == given
    assert all(len(source) > 10 for source in gpu.sources.values())


@pytest.mark.parametrize("name", gpu_names())
def test_peaks_are_dense_and_ordered(name: str) -> None:
    """Both 16-bit formats are alike, fp8 doubles them, and nvfp4 at least doubles fp8."""
    peak = load_gpu(name).peak_flop_per_s
    in_16_bits = {peak[precision] for precision in ("bf16", "fp16") if precision in peak}

    assert len(in_16_bits) == 1
    if "fp8" in peak:
        ratio = NOT_DOUBLED.get(name, 2.0)
        assert peak["fp8"] == pytest.approx(ratio * peak["bf16"], rel=3e-3)
        assert peak.get("mxfp8", peak["fp8"]) == peak["fp8"]
    if "nvfp4" in peak:
        assert 2 <= peak["nvfp4"] / peak["fp8"] <= 4


@pytest.mark.parametrize("name", gpu_names())
def test_the_box_is_one_that_can_be_built(name: str) -> None:
    """Links in a box are faster than the wire that leaves it, and slower than memory."""
    gpu = load_gpu(name)

    assert gpu.nic_bandwidth_Bps < gpu.nvlink_bandwidth_Bps < gpu.memory_bandwidth_Bps
    assert gpu.nvlink_domain % gpu.gpus_per_node == 0 or gpu.gpus_per_node % gpu.nvlink_domain == 0


@pytest.mark.parametrize(
    ("name", "precision", "tera_flop_per_s"),
    [
        ("v100", "fp16", 125),
        ("a100", "bf16", 312),
        ("a100-pcie", "bf16", 312),
        ("h100", "bf16", 989.4),
        ("h100", "fp8", 1978.9),
        ("h100-pcie", "bf16", 1513 / 2),  # the data sheet's figure is with sparsity
        ("h200", "bf16", 1979 / 2),
        ("h20", "bf16", 148),
        ("gh200", "bf16", 1979 / 2),
        ("b200", "bf16", 36_000 / 2 / 8),  # HGX, with sparsity, eight GPUs
        ("gb200", "mxfp8", 720_000 / 2 / 72),  # NVL72, with sparsity
        ("gb200", "nvfp4", 1_440_000 / 2 / 72),
        ("gb300", "nvfp4", 1_080_000 / 72),  # NVL72, dense
        ("mi250x", "bf16", 383 / 2),  # a package is two GPUs
        ("mi300x", "bf16", 304 * 4 * 2 * 256 * 2.1e9 / TERA),  # CUs, cores, FMA, clock
        ("mi355x", "fp8", 256 * 8192 * 2.4e9 / TERA),
        ("mi350x", "fp8", 256 * 8192 * 2.2e9 / TERA),
        ("mi300a", "bf16", 228 * 4 * 2 * 256 * 2.1e9 / TERA),
        ("mi250", "bf16", 362.1 / 2),  # a package is two GPUs
        ("mi210", "bf16", 181),
        ("a800", "bf16", 312),
        ("a30", "bf16", 330 / 2),  # with sparsity, as those halved below
        ("a10", "bf16", 250 / 2),
        ("a10g", "bf16", 140 / 2),
        ("a40", "bf16", 299.4 / 2),
        ("rtx-a6000", "bf16", 84 * 1024 * 1.8e9 / TERA),  # SMs, FLOP a clock, clock
        ("rtx3090", "bf16", 142 / 2),
        ("l4", "bf16", 242 / 2),
        ("l4", "fp8", 485 / 2),
        ("l40", "fp8", 724 / 2),
        ("l40s", "fp8", 1466 / 2),
        ("rtx6000-ada", "bf16", 142 * 1024 * 2.505e9 / TERA),
        ("rtx4090", "bf16", 330.3 / 2),
        ("rtx4090", "fp8", 660.6 / 2),  # with fp32 accumulate, half of fp16
        ("rtx5090", "bf16", 838 / 4),  # both: sparsity and accumulate
        ("rtx5090", "nvfp4", 3352 / 2),
        ("rtx-pro-6000", "nvfp4", 4000 / 2),
        ("t4", "fp16", 40 * 1024 * 1.59e9 / TERA),
        ("v100-16", "fp16", 125),
        ("gaudi2", "fp8", 865),
        ("gaudi3", "bf16", 1835),
        ("tpu-v4", "bf16", 275),
        ("tpu-v5e", "bf16", 197),
        ("tpu-v5p", "bf16", 459),
        ("tpu-v6e", "bf16", 918),
        ("tpu-v7", "fp8", 4614 / 2),  # a chip is two devices
        ("trainium1", "bf16", 3040 / 16),  # trn1.32xlarge
        ("trainium2", "fp8", 1299),
        ("trainium3", "mxfp8", 2517),
        ("ascend-910c", "bf16", 752 / 2),  # a package is two dies
    ],
)
def test_peak_matches_the_published_figure(
    name: str, precision: str, tera_flop_per_s: float
) -> None:
    """Dense peaks agree with data sheets, halved where those count sparsity."""
    assert load_gpu(name).peak_flop_per_s[precision] / TERA == pytest.approx(
        tera_flop_per_s, rel=3e-3
    )


@pytest.mark.parametrize(
    ("name", "memory_mib"),
    [
        ("a100-40", 40960),
        ("a100-80", 81920),
        ("h100", 81559),
        ("h100-nvl", 95830),
        ("h200", 143771),
        ("b200", 183359),
        ("b300", 275040),
        ("gb200", 189471),
        ("gb300", 284208),
        ("a10", 23028),
        ("l4", 23034),
        ("l40s", 46068),
        ("t4", 15360),
    ],
)
def test_memory_is_what_the_driver_reports(name: str, memory_mib: int) -> None:
    """Memory is the total that nvidia-smi prints, not the number on the box."""
    assert load_gpu(name).memory_bytes == memory_mib * MIB


@pytest.mark.parametrize(
    ("name", "both_directions_gb_per_s", "nic_gbit_per_s"),
    [
        ("a100", 600, 200),
        ("h100", 900, 400),
        ("h800", 400, 400),
        ("b200", 1800, 400),
        ("gb300", 1800, 800),
        ("mi300x", 896, 400),
        ("a800", 400, 200),
        ("rtx-a6000-nvlink", 112.5, 100),
        ("gaudi2", 525, 300),  # 21 ports of 100 Gb/s inside, three outside
        ("gaudi3", 1050, 600),
        ("tpu-v5p", 400, 50),  # one axis of the torus, 100 GB/s each way and direction
        ("trainium2", 1280, 200),
    ],
)
def test_links_are_counted_in_one_direction(
    name: str, both_directions_gb_per_s: float, nic_gbit_per_s: float
) -> None:
    """Makers add both directions of a link; the catalog does not."""
    gpu = load_gpu(name)

    assert gpu.nvlink_bandwidth_Bps == pytest.approx(both_directions_gb_per_s * GB / 2)
    assert gpu.nic_bandwidth_Bps == pytest.approx(nic_gbit_per_s * GB / 8)


@pytest.mark.parametrize(
    ("precision", "names"),
    [
        ("bf16", ["v100", "v100-16", "t4"]),
        ("fp8", ["v100", "a100", "mi250x", "a40", "rtx3090", "tpu-v5e", "ascend-910c"]),
        ("mxfp8", ["a100", "h100", "h200", "h800", "h20", "gh200", "mi300x"]),
        ("nvfp4", ["h100", "mi355x"]),
    ],
)
def test_unsupported_precisions_are_absent(precision: str, names: list[str]) -> None:
    """A format that a GPU cannot multiply has no peak there."""
    for name in names:
        assert precision not in load_gpu(name).peak_flop_per_s


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("H100-SXM-80GB", "h100-sxm"),  # measured runs
        ("A100-SXM-80GB", "a100-80"),
        ("A100-80GB-SXM", "a100-80"),
        ("GB200-NVL72", "gb200"),
        ("MI300X", "mi300x"),
        ("b200", "b200"),  # published recipes
        ("b300", "b300"),
        ("gb300", "gb300"),
        ("h100", "h100-sxm"),
        ("B200-SXM", "b200"),  # micro-benchmarks
        ("A100-PCIe-80GB", "a100-80-pcie"),
        ("A100-SXM-40GB", "a100-40"),
        ("H200-SXM", "h200"),
        ("NVIDIA H100 SXM", "h100-sxm"),
        ("NVIDIA GH200 SXM", "gh200"),
        ("NVIDIA GB200 SXM", "gb200"),
        ("AMD MI355X", "mi355x"),
        ("V100-32GB", "v100-32"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),  # drivers
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80-pcie"),
        ("NVIDIA B300 SXM6 AC", "b300"),
        ("Tesla V100-SXM2-32GB", "v100-32"),
        ("AMD Instinct MI300X", "mi300x"),
        ("h100_sxm", "h100-sxm"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA RTX A6000", "rtx-a6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx6000-ada"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx-pro-6000"),
        ("NVIDIA A10G", "a10g"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100-16"),
        ("NVIDIA A100-PCIE-40GB", "a100-40-pcie"),
        ("TPU v5p", "tpu-v5p"),
    ],
)
def test_spellings_in_the_wild_are_found(spelling: str, name: str) -> None:
    """What runs, recipes and drivers call a GPU leads to it."""
    assert load_gpu(spelling).name == name


@pytest.mark.parametrize(
    ("word", "meant"), [("h10", "'h100'"), ("mi300xx", "'mi300x'"), ("gb-200", "'gb200'")]
)
def test_a_near_miss_is_suggested(word: str, meant: str) -> None:
    """A typing slip is answered with the nearest name."""
    with pytest.raises(SpecError, match=f"no GPU is called '{word}'") as error:
        load_gpu(word)

    assert meant in str(error.value.hint)


def test_a_far_miss_lists_the_names() -> None:
    """Where nothing is near, the names are listed, without their aliases."""
    with pytest.raises(SpecError) as error:
        load_gpu("abacus")

    assert error.value.hint == "known: " + ", ".join(gpu_names())


def test_a_gpu_of_ones_own_is_read_from_a_file(tmp_path: Path) -> None:
    """A path to a file works where a name does; prices and sources may be left out."""
    path = tmp_path / "toy.toml"
    path.write_text(A_GPU)

    assert load_gpu(str(path)).peak_flop_per_s == {"bf16": 1e12}


@pytest.mark.parametrize("name", ["rtx3090", "rtx4090", "rtx5090"])
def test_geforce_cards_reach_each_other_through_the_host(name: str) -> None:
    """No peer-to-peer over PCIe; an NVLink bridge of the one that has it gives it back."""
    card = load_gpu(name)
    assert Cluster.of(card, 8).nvlink_bandwidth_Bps == card.host_bandwidth_Bps / 2
    assert load_gpu("rtx3090-nvlink").peer_bandwidth_Bps == 56.25e9


def test_without_peer_to_peer_bytes_cross_the_host_twice() -> None:
    """A cluster of such cards has half the bandwidth to the host between two of them."""
    card = replace(load_gpu("h100"), peer_to_peer=False)

    assert Cluster.of(card, 8).nvlink_bandwidth_Bps == card.host_bandwidth_Bps / 2
    assert Cluster.of(load_gpu("h100"), 8).nvlink_bandwidth_Bps == 450e9


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n_sm = 10", "n_sn = 10", r"toy\.toml:6: unknown key 'n_sn'"),
        ("n_sm = 10", "n_sm = 'ten'", r"toy\.toml:6: n_sm must be int, got 'ten'"),
        ("n_sm = 10", "", r"toy\.toml: missing key 'n_sm'"),
        ("n_sm = 10", "n_sm = 0", r"toy\.toml:6: .*n_sm must be > 0, got 0"),
        ("n_sm = 10", "n_sm = 1" + 400 * "0", r"toy\.toml:6: .*an integer has more digits"),
        ("bf16 = 1e12", "bf61 = 1e12", r"toy\.toml:\d+: .*unknown precision 'bf61'"),
        ("bf16 = 1e12", "bf16 = 'fast'", r"toy\.toml:13: peak_flop_per_s must be a table of"),
        ("name =", "aliases = 'box'\nname =", r"toy\.toml:1: aliases must be a list"),
        ("[peak_flop_per_s]", "[peak_flop_per_s", r"toy\.toml: not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    """The message starts with file and line and says what is wrong in one line."""
    path = tmp_path / "toy.toml"
    path.write_text(A_GPU.replace(old, new, 1))
    with pytest.raises(SpecError, match=message) as error:
        load_gpu(str(path))

    assert "\n" not in str(error.value)

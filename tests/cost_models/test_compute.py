"""Kernel times agree with arithmetic by hand, with limits, and with measured kernels."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from cost_models.equations.compute import (
    AttentionEfficiency,
    GemmEfficiency,
    MemoryEfficiency,
    attention_backward_s,
    attention_forward_s,
    gemm_s,
    memory_bound_s,
)
from cost_models.specs.errors import SpecError
from cost_models.specs.units import Floats

IDEAL = GemmEfficiency(
    peak_fraction=1, memory_fraction=1, exposed_fraction=0, half_depth=0, launch_s=0
)
USUAL = GemmEfficiency(peak_fraction=0.7)
FUSED = AttentionEfficiency(forward_fraction=0.5, backward_fraction=0.4, launch_s=0)
SIZES = st.integers(1, 65536)


def gemm(
    m: ArrayLike,
    n: ArrayLike,
    k: ArrayLike,
    efficiency: GemmEfficiency = USUAL,
    flop_per_s: float = 1e15,
    bandwidth: float = 2e12,
    **more: Any,
) -> Floats:
    """A GEMM in 16 bits on a GPU of 128 SMs."""
    return gemm_s(
        m,
        n,
        k,
        flop_per_s=flop_per_s,
        n_sm=128,
        bytes_per_element=2,
        memory_bandwidth_Bps=bandwidth,
        efficiency=efficiency,
        **more,
    )


def attention(price: Any, heads: float = 64, keys: float = 8192, v_width: float = 128) -> Floats:
    """Causal attention of 8192 queries on a GPU of 100 SMs and 1 PFLOP/s."""
    return np.asarray(
        price(
            1,
            heads,
            8192,
            keys,
            qk_width=128,
            v_width=v_width,
            flop_per_s=1e15,
            n_sm=100,
            efficiency=FUSED,
        )
    )


def test_a_gemm_of_whole_waves_takes_its_flops() -> None:
    """4096 x 8192 is 1024 tiles, eight full waves of 128 SMs, at 2 m n k / peak."""
    assert gemm(4096, 8192, 4096, IDEAL) == pytest.approx(2 * 4096 * 8192 * 4096 / 1e15)


def test_a_ragged_wave_loses_its_share() -> None:
    """One tile more than a wave: the wave fraction lies between the tiles and two waves."""
    one_tile = 2 * 128 * 256 * 4096 / (1e15 / 128)
    lossy = GemmEfficiency(
        peak_fraction=1, exposed_fraction=0, half_depth=0, launch_s=0, wave_fraction=0.25
    )

    expected = (0.75 * 129 / 128 + 0.25 * 2) * one_tile

    assert gemm(129 * 128, 256, 4096, lossy, bandwidth=1e15) == pytest.approx(expected)


def test_a_thin_gemm_waits_for_memory() -> None:
    """One row against a large matrix takes the bytes of that matrix."""
    moved = 2 * (8192 + 8192 * 8192 + 8192)

    assert gemm(1, 8192, 8192, IDEAL) == pytest.approx(moved / 2e12)


def test_part_of_the_memory_time_sticks_out() -> None:
    """With half of the shorter time exposed, both times show."""
    half = GemmEfficiency(
        peak_fraction=1, memory_fraction=1, exposed_fraction=0.5, half_depth=0, launch_s=0
    )
    compute = 2 * 4096 * 8192 * 4096 / 1e15
    memory = 2 * (4096 * 4096 + 4096 * 8192 + 4096 * 8192) / 2e12

    assert gemm(4096, 8192, 4096, half) == pytest.approx(compute + 0.5 * memory)


def test_the_launch_is_paid_once_and_each_group_after_the_first() -> None:
    """Eight groups pay one launch and seven group starts."""
    starts = GemmEfficiency(peak_fraction=1, launch_s=1e-3, group_s=1e-4)
    none = GemmEfficiency(peak_fraction=1, launch_s=0)

    difference = gemm(128, 256, 64, starts, groups=8) - gemm(128, 256, 64, none, groups=8)

    assert difference == pytest.approx(1e-3 + 7e-4)


def test_the_tile_may_lie_across() -> None:
    """A matrix and its transpose take the same time."""
    assert gemm(256, 8192, 1024) == pytest.approx(gemm(8192, 256, 1024))


def test_an_fp32_gradient_costs_memory() -> None:
    """A weight gradient that is added up in fp32 moves more than a 16-bit one."""
    thin = gemm(8192, 8192, 128)

    assert gemm(8192, 8192, 128, output_bytes_per_element=8) > thin


@pytest.mark.parametrize("shape", [(0, 256, 256), (256, 0, 256), (256, 256, 0)])
def test_a_gemm_without_elements_is_free(shape: tuple[int, int, int]) -> None:
    """No rows, no columns or no depth: no kernel."""
    assert gemm(*shape) == 0


@given(SIZES, SIZES, SIZES)
def test_a_gemm_never_beats_its_flops_or_its_bytes(m: int, n: int, k: int) -> None:
    """Peak and bandwidth are bounds whatever the shape."""
    seconds = float(gemm(m, n, k))

    assert seconds >= 2 * m * n * k / 1e15
    assert seconds >= 2 * (m * k + k * n + m * n) / 2e12


@given(SIZES, SIZES, SIZES)
def test_a_faster_gpu_is_never_slower(m: int, n: int, k: int) -> None:
    """Seconds fall, or stay, with the peak and with the bandwidth."""
    assert gemm(m, n, k, flop_per_s=2e15) <= gemm(m, n, k)
    assert gemm(m, n, k, bandwidth=4e12) <= gemm(m, n, k)


@given(SIZES, SIZES, SIZES, st.integers(2, 64))
def test_one_grouped_gemm_is_no_slower_than_its_groups_one_by_one(
    m: int, n: int, k: int, groups: int
) -> None:
    """Groups share waves and one launch."""
    assert gemm(m, n, k, groups=groups) <= groups * gemm(m, n, k) * (1 + 1e-12)


def test_gemms_broadcast_over_strategies() -> None:
    """Shapes (3, 1) and (2,) give (3, 2), constants by strategy included."""
    m = np.array([[1024], [2048], [4096]])
    n = np.array([512, 1024])
    by_strategy = GemmEfficiency(peak_fraction=np.array([0.5, 0.7]))

    assert gemm(m, n, 4096, by_strategy).shape == (3, 2)


def test_attention_forward_by_hand() -> None:
    """Half of the scores, two products of 128, and a tail of 128 rows on each of 100 SMs."""
    rows = 0.5 * 64 * 8192 + 128 * 100

    assert attention(attention_forward_s) == pytest.approx(rows * 8192 * 2 * 256 / 0.5e15)


def test_attention_backward_by_hand() -> None:
    """Five products for the forward pass's two, with its own tail and fraction."""
    rows = 0.5 * 64 * 8192 + 45 * 100

    assert attention(attention_backward_s) == pytest.approx(rows * 8192 * 2 * 640 / 0.4e15)


@pytest.mark.parametrize("price", [attention_forward_s, attention_backward_s])
def test_few_heads_leave_sms_waiting(price: Any) -> None:
    """A quarter of the heads takes more than a quarter of the time."""
    assert attention(price, heads=16) > 0.25 * attention(price, heads=64)


def test_unequal_widths_cost_extra() -> None:
    """With narrower values the time falls by less than the work."""
    narrow = attention(attention_backward_s, v_width=64)

    assert narrow > attention(attention_backward_s) * (3 * 128 + 2 * 64) / (5 * 128)


def test_attention_to_no_keys_is_free() -> None:
    """No keys, no kernel."""
    assert attention(attention_forward_s, keys=0) == 0


def test_memory_bound_kernels_pay_each_launch() -> None:
    """Four kernels of 3 us and 1.5 GB at 75 % of 2 TB/s."""
    efficiency = MemoryEfficiency(memory_fraction=0.75, launch_s=3e-6)

    assert memory_bound_s(1.5e9, 2e12, efficiency, kernels=4) == pytest.approx(1e-3 + 12e-6)
    assert memory_bound_s(0, 2e12, efficiency, kernels=4) == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GemmEfficiency(peak_fraction=0), r"gemm\.peak_fraction must be > 0, got 0"),
        (
            lambda: GemmEfficiency(peak_fraction=1, group_s=-1),
            r"gemm\.group_s must be >= 0, got -1",
        ),
        (
            lambda: AttentionEfficiency(forward_fraction=1, backward_fraction=-2),
            r"attention\.backward_fraction must be > 0, got -2",
        ),
        (lambda: MemoryEfficiency(memory_fraction=0), r"memory\.memory_fraction must be > 0"),
    ],
)
def test_impossible_constants_are_refused_by_name(build: Any, message: str) -> None:
    """The message names the field, the bound and the value."""
    with pytest.raises(SpecError, match=message):
        build()

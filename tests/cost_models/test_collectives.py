"""Collectives agree with arithmetic by hand, with their limits, and with measured ones."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.equations.collectives import (
    Link,
    all_gather_s,
    all_reduce_s,
    all_to_all_s,
    reduce_scatter_s,
    send_s,
)
from cost_models.specs.errors import SpecError
from cost_models.specs.units import Floats

Collective = Callable[..., Floats]

NVLINK = Link(latency_s=2e-6, bandwidth_Bps=400e9)
NIC = Link(latency_s=10e-6, bandwidth_Bps=40e9)
WIRES: dict[str, Any] = {"intra": NVLINK, "inter": NIC}
COLLECTIVES: tuple[Collective, ...] = (all_gather_s, reduce_scatter_s, all_reduce_s, all_to_all_s)
BYTES = st.floats(1, 1e12)
INSIDE = st.integers(1, 72)
OUTSIDE = st.integers(1, 512)


def test_ring_all_gather_by_hand() -> None:
    """400 MB over 8 ranks: 7 steps of 2 us, and 7/8 of 400 MB at 400 GB/s."""
    assert all_gather_s(400e6, 8, **WIRES) == pytest.approx(7 * 2e-6 + 0.875e-3)


def test_ring_all_reduce_by_hand() -> None:
    """Twice the all-gather: 14 steps and 7/4 of the message."""
    assert all_reduce_s(400e6, 8, **WIRES) == pytest.approx(14 * 2e-6 + 1.75e-3)


def test_the_nics_of_a_domain_work_side_by_side() -> None:
    """A ring over 4 domains of 8 moves 31/32 of 32 GB through 8 NICs of 40 GB/s."""
    latency = 28 * 2e-6 + 3 * 10e-6

    assert all_gather_s(32e9, 8, 4, **WIRES) == pytest.approx(latency + 31e9 / 320e9)


def test_one_rank_per_domain_has_one_nic() -> None:
    """The same message between single ranks passes 3/4 of itself through one NIC."""
    assert all_gather_s(32e9, 1, 4, **WIRES) == pytest.approx(3 * 10e-6 + 24e9 / 40e9)


def test_two_levels_save_steps_for_short_messages() -> None:
    """8 bytes to 64 domains of 8 take 7 + 63 steps instead of 511."""
    steps = 7 * 2e-6 + 63 * 10e-6

    assert all_gather_s(8, 8, 64, **WIRES) == pytest.approx(steps, rel=1e-3)


def test_a_tree_saves_more_of_them() -> None:
    """The all-reduce of 8 bytes climbs 7 ranks and 6 levels, and comes down again."""
    steps = 2 * (7 * 2e-6 + 6 * 10e-6)

    assert all_reduce_s(8, 8, 64, **WIRES) == pytest.approx(steps, rel=1e-3)


def test_two_domains_exchange_the_vector_once() -> None:
    """Between two domains a tree sends one vector each way where a ring sends nearly two."""
    wide = Link(latency_s=0, bandwidth_Bps=1e15)
    nic = Link(latency_s=0, bandwidth_Bps=40e9)

    assert all_reduce_s(8e9, 8, 2, intra=wide, inter=nic) == pytest.approx(8e9 / 8 / 40e9, rel=1e-3)


def test_the_switch_adds_for_the_ranks() -> None:
    """8 ranks send 9/8 of the message instead of 14/8, at the switch's bandwidth."""
    nvls = Link(latency_s=2e-6, bandwidth_Bps=400e9, switch_Bps=320e9)

    seconds = all_reduce_s(320e6, 8, intra=nvls, inter=NIC)

    assert seconds == pytest.approx(2 * 2e-6 + 9 / 8 * 1e-3)


def test_two_ranks_gain_nothing_from_the_switch() -> None:
    """3/2 of the message through a slower switch loses against the ring."""
    nvls = Link(latency_s=2e-6, bandwidth_Bps=400e9, switch_Bps=320e9)

    assert all_reduce_s(1e9, 2, intra=nvls, inter=NIC) == all_reduce_s(1e9, 2, **WIRES)


def test_all_to_all_uses_both_wires_at_once() -> None:
    """Of 32 slices 7 stay in the domain and 24 pass one NIC, which is the slower."""
    latency = 2e-6 + 3 * 10e-6

    assert all_to_all_s(32e6, 8, 4, **WIRES) == pytest.approx(latency + 24e6 / 40e9)


def test_half_of_the_bandwidth_at_the_half_size() -> None:
    """A message of the half size takes twice the time of its bytes."""
    wire = Link(latency_s=0, bandwidth_Bps=100e9, half_size_bytes=1e6)

    assert send_s(1e6, wire) == pytest.approx(2 * 1e6 / 100e9)
    assert send_s(0, wire) == 0


def test_the_launch_is_paid_once() -> None:
    """A collective starts one kernel, whatever its steps."""
    slow = Link(latency_s=2e-6, bandwidth_Bps=400e9, launch_s=1e-3)

    for collective in COLLECTIVES:
        difference = collective(1e6, 8, intra=slow, inter=NIC) - collective(1e6, 8, **WIRES)

        assert difference == pytest.approx(1e-3)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_a_group_of_one_is_free(collective: Collective) -> None:
    """Nothing moves when there is nobody to talk to."""
    assert collective(1e9, 1, 1, **WIRES) == 0


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_an_empty_message_is_free(collective: Collective) -> None:
    """A strategy without the traffic pays no latency for it."""
    assert collective(0, 8, 4, **WIRES) == 0


@pytest.mark.parametrize("collective", COLLECTIVES)
@given(message=BYTES, inside=INSIDE, outside=OUTSIDE)
def test_faster_wires_never_slow_a_collective(
    collective: Collective, message: float, inside: int, outside: int
) -> None:
    """Seconds fall, or stay, with either bandwidth."""
    base = collective(message, inside, outside, **WIRES)
    wider = Link(latency_s=2e-6, bandwidth_Bps=800e9)
    faster = Link(latency_s=10e-6, bandwidth_Bps=80e9)

    assert collective(message, inside, outside, intra=wider, inter=NIC) <= base
    assert collective(message, inside, outside, intra=NVLINK, inter=faster) <= base


@pytest.mark.parametrize("collective", COLLECTIVES)
@given(message=BYTES, inside=INSIDE, outside=OUTSIDE)
def test_more_bytes_never_take_less_time(
    collective: Collective, message: float, inside: int, outside: int
) -> None:
    """Seconds rise, or stay, with the message."""
    sizes: dict[str, Any] = {"inside": inside, "outside": outside, **WIRES}

    assert collective(message, **sizes) <= collective(2 * message, **sizes)


@given(message=BYTES, inside=INSIDE, outside=OUTSIDE)
def test_an_all_reduce_moves_more_than_a_reduce_scatter(
    message: float, inside: int, outside: int
) -> None:
    """Without latency the all-reduce costs at least as much, and at most twice."""
    wires: dict[str, Any] = {
        "intra": Link(latency_s=0, bandwidth_Bps=400e9, half_size_bytes=8e6),
        "inter": Link(latency_s=0, bandwidth_Bps=40e9, half_size_bytes=2e6),
    }
    reduce = all_reduce_s(message, inside, outside, **wires)
    scatter = reduce_scatter_s(message, inside, outside, **wires)

    assert scatter * (1 - 1e-9) <= reduce <= 2 * scatter * (1 + 1e-9)


@pytest.mark.parametrize("collective", COLLECTIVES)
def test_arguments_broadcast_over_strategies(collective: Collective) -> None:
    """Messages (3, 1), groups (2,) and constants by strategy give (3, 2)."""
    message = np.array([[1e6], [1e7], [1e8]])
    by_strategy = Link(
        latency_s=2e-6, bandwidth_Bps=np.array([200e9, 400e9]), switch_Bps=np.array([0.0, 300e9])
    )

    seconds = collective(message, np.array([4, 8]), 2, intra=by_strategy, inter=NIC)

    assert seconds.shape == (3, 2)
    for column, bandwidth, switch in ((0, 200e9, 0.0), (1, 400e9, 300e9)):
        alone = Link(latency_s=2e-6, bandwidth_Bps=bandwidth, switch_Bps=switch)
        one = collective(message[:, 0], (4, 8)[column], 2, intra=alone, inter=NIC)

        np.testing.assert_allclose(seconds[:, column], one)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latency_s": 0, "bandwidth_Bps": 0}, r"link\.bandwidth_Bps must be > 0, got 0"),
        ({"latency_s": -1, "bandwidth_Bps": 1}, r"link\.latency_s must be >= 0, got -1"),
        (
            {"latency_s": 0, "bandwidth_Bps": 1, "half_size_bytes": -2},
            r"link\.half_size_bytes must be >= 0, got -2",
        ),
    ],
)
def test_impossible_links_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    """The message names the field, the bound and the value."""
    with pytest.raises(SpecError, match=message):
        Link(**values)

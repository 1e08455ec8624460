"""Optimizers keep the bytes that their papers and programs say they keep."""

import pytest

from cost_models.catalog.optimizers import load_optimizer, optimizer_names
from cost_models.specs.errors import SpecError


@pytest.mark.parametrize("name", optimizer_names())
def test_every_optimizer_has_a_source(name: str) -> None:
    """Each entry loads under its own name and cites."""
    optimizer = load_optimizer(name)

    assert optimizer.name == name
    assert len(optimizer.source) > 20


@pytest.mark.parametrize(
    ("name", "moments_bytes", "master_bytes"),
    [
        ("adamw", 8, 4),  # with bf16 weights and fp32 gradients: the 18 bytes of Megatron-LM
        ("Adam", 8, 4),
        ("adamw_8bit", 2, 4),
        ("adamw-bf16-moments", 4, 4),
        ("adamw-precision-aware-bf16", 4, 2),
        ("adamw-no-master", 8, 0),
        ("sgd", 0, 4),
        ("sgd-momentum", 4, 4),
        ("lion", 4, 4),
        ("muon", 4, 4),
    ],
)
def test_state_matches_arithmetic_by_hand(
    name: str, moments_bytes: float, master_bytes: float
) -> None:
    """Bytes are moments times their width, and the width of the master weight."""
    optimizer = load_optimizer(name)

    assert (optimizer.moments_bytes, optimizer.master_bytes) == (moments_bytes, master_bytes)


def test_factored_moments_are_nearly_free() -> None:
    """Adafactor keeps a row and a column, far below a byte per parameter."""
    assert 0 < load_optimizer("adafactor").moments_bytes < 0.1


def test_a_near_miss_is_suggested() -> None:
    """A typing slip is answered with the nearest name."""
    with pytest.raises(SpecError, match="no optimizer is called 'adanw'") as error:
        load_optimizer("adanw")

    assert "'adamw'" in str(error.value.hint)


def test_a_far_miss_lists_the_names() -> None:
    """Where nothing is near, the names are listed, without their aliases."""
    with pytest.raises(SpecError) as error:
        load_optimizer("gut feeling")

    assert error.value.hint == "known: " + ", ".join(optimizer_names())

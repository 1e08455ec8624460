"""Intervals widen with what is not known, and hold what they promise."""

import numpy as np
import pytest

from cost_models.calibrate.calibration import load_calibration, load_priors
from cost_models.calibrate.uncertainty import Z80, fit_probability, interval, log_sd
from cost_models.equations.constants import Constants
from cost_models.specs.units import Floats

CALIBRATION = load_calibration()
KNOWN = {"architecture": "hopper", "host": "x86", "family": "megatron", "framework": "megatron-lm"}
UNSEEN = {
    "architecture": "martian",
    "host": "x86",
    "family": "megatron",
    "framework": "megatron-lm",
}


def log_of(c: Constants) -> Floats:
    """A step that is one GEMM: its time falls as the fraction of the peak grows."""
    return np.broadcast_to(-np.log(c.gemm_fraction), (2,))


def test_an_unseen_gpu_has_a_wider_interval() -> None:
    """Deviations that no run has informed keep their prior's spread."""
    constants = CALIBRATION.values_for([KNOWN, UNSEEN])
    sd = log_sd(
        log_of,
        Constants(**constants),
        CALIBRATION,
        [KNOWN, UNSEEN],
        np.array([0, 1]),
        CALIBRATION.time_spread,
    )
    assert sd[1] > sd[0] > 0


def test_the_spread_between_runs_is_the_least() -> None:
    """A prediction that no constant moves is still as uncertain as a repeated run."""
    spread = CALIBRATION.time_spread
    sd = log_sd(
        lambda c: np.zeros(2),
        Constants(**CALIBRATION.values_for([KNOWN, KNOWN])),
        CALIBRATION,
        [KNOWN],
        np.array([0, 0]),
        spread,
    )
    least = spread.scale * np.hypot(spread.residual_sd, spread.source_sd)
    assert sd == pytest.approx(np.full(2, least))


def test_leaving_out_constants_that_do_not_matter_changes_nothing() -> None:
    """Names only save work."""
    constants = Constants(**CALIBRATION.values_for([KNOWN, KNOWN]))
    both = [
        log_sd(log_of, constants, CALIBRATION, [KNOWN], np.array([0, 0]),
               CALIBRATION.time_spread, names)
        for names in (None, ("gemm_fraction",))
    ]  # fmt: skip
    assert both[0] == pytest.approx(both[1])
    assert len(load_priors()) > 1


def test_the_interval_is_central_on_the_log_scale() -> None:
    """Low times high is the square of the median."""
    found = interval(np.array([2.0]), np.array([0.1]))
    assert found.low * found.high == pytest.approx(4.0)
    assert np.log(found.high / 2.0) == pytest.approx(0.1 * Z80)


def test_the_probability_to_fit_is_one_half_at_the_brim() -> None:
    """Below it is more, above it less, and without spread it is certain."""
    sizes = np.array([70.0, 80.0, 90.0])
    found = fit_probability(sizes, np.full(3, 80.0), np.full(3, 0.05))
    assert found[1] == pytest.approx(0.5)
    assert found[0] > 0.99
    assert found[2] < 0.02
    certain = fit_probability(sizes, np.full(3, 80.0), np.zeros(3))
    assert certain == pytest.approx([1.0, 0.5, 0.0])

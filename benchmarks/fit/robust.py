"""A small robust fit: named constants with bounds, soft-L1 on log time."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.optimize import least_squares

from cost_models.specs.units import Floats

Values = Mapping[str, float]
Start = Mapping[str, tuple[float, ...]]
TINY = 1e-9
"""Below every constant that means something in SI units."""


def fit(start: Start, residuals: Callable[[Values], Floats]) -> Values:
    """Constants with the least robust error from ``start``: (guess, lowest, highest) each."""
    guess, low, high = (np.array([bounds[i] for bounds in start.values()]) for i in range(3))

    def named(x: Floats) -> dict[str, float]:
        return {name: float(v) for name, v in zip(start, x * guess, strict=True)}

    def of_guess(x: Floats) -> Floats:
        return residuals(named(x))

    solution = least_squares(
        of_guess,
        np.ones_like(guess),
        bounds=(low / guess, high / guess),
        loss="soft_l1",
        f_scale=0.1,
        diff_step=np.full(guess.shape, 1e-3),
    )
    return named(solution.x)


def rounded(value: float) -> float:
    """Three digits: what the rows can tell, and what every machine agrees on."""
    return float(f"{value:.3g}") if abs(value) > TINY else 0.0


def errors(residual: Floats, prefix: str = "") -> dict[str, float]:
    """Median, mean and ninth decile of the absolute error of log time."""
    size = np.abs(residual)
    return {
        f"{prefix}median": round(float(np.median(size)), 3),
        f"{prefix}mean": round(float(np.mean(size)), 3),
        f"{prefix}p90": round(float(np.quantile(size, 0.9)), 3),
    }

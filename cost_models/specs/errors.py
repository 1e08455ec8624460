"""What goes wrong with an input, said in one line."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


class SpecError(ValueError):
    """An input that cannot be: the message names the field, the bound and the value.

    ``hint`` is an optional second line that says what would be right.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def _array(owner: str, name: str, value: ArrayLike) -> NDArray[np.float64]:
    try:
        return np.asarray(value, dtype=np.float64)
    except OverflowError:
        raise SpecError(
            f"{owner}.{name}: an integer has more digits than a float can hold"
        ) from None
    except (TypeError, ValueError):
        raise SpecError(f"{owner}.{name} must be a number, got {str(value)[:40]}") from None


def require_positive(owner: str, **values: ArrayLike) -> None:
    """Raise :class:`SpecError` for the first value that is not finite and above 0."""
    for name, value in values.items():
        array = _array(owner, name, value)
        if not np.all((array > 0) & np.isfinite(array)):
            raise SpecError(f"{owner}.{name} must be > 0, got {value!s}")


def require_not_negative(owner: str, **values: ArrayLike) -> None:
    """Raise :class:`SpecError` for the first value that is not finite and at least 0."""
    for name, value in values.items():
        array = _array(owner, name, value)
        if not np.all((array >= 0) & np.isfinite(array)):
            raise SpecError(f"{owner}.{name} must be >= 0, got {value!s}")

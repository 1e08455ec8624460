"""What goes wrong with an input, said in one line."""


class SpecError(ValueError):
    """An input that cannot be: the message names the field, the bound and the value.

    ``hint`` is an optional second line that says what would be right.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def require_positive(owner: str, **values: float) -> None:
    """Raise :class:`SpecError` for the first value that is not a finite number above 0."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SpecError(f"{owner}.{name} must be > 0, got {value}")


def require_not_negative(owner: str, **values: float) -> None:
    """Raise :class:`SpecError` for the first value that is not a finite number of at least 0."""
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise SpecError(f"{owner}.{name} must be >= 0, got {value}")

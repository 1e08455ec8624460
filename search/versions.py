"""Versions of what an answer depends on."""

from importlib.metadata import PackageNotFoundError, version

_DISTRIBUTIONS = ("autopar", "numpy", "scipy", "ortools", "optuna")


def versions() -> dict[str, str]:
    """Versions of what an answer depends on, read without importing any of it."""
    found = {}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # a checkout that is not installed
            found[name] = "unknown"
    return found

"""A user's own ``search.py`` beside autopar would be imported in place of our package."""

import sys
from importlib.util import find_spec
from pathlib import Path

_PACKAGES = ("search", "cost_models")


def refuse_shadowed_packages() -> None:
    """Raise ImportError with the way out where another module hides one of our packages."""
    ours = Path(__file__).resolve().parent.parent
    for name in _PACKAGES:
        found = _origin(name)
        if found is not None and found.parent.parent != ours:
            other = found.parent if found.name == "__init__.py" else found
            raise ImportError(
                f"autopar needs its own package `{name}` in {ours}, but Python finds {other}\n"
                f"hint: rename that file, or run the `autopar` command (or `python -P`)"
            )


def _origin(name: str) -> Path | None:
    """The file that ``import name`` runs, or None where it is a folder without one."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None) if loaded is not None else find_spec(name)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).resolve()

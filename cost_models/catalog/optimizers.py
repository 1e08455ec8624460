"""Optimizers by name: bytes of state per parameter, each with its source."""

from collections.abc import Mapping
from functools import cache

from cost_models.catalog.files import CATALOG, build, did_you_mean, read_toml
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Optimizer


def optimizer_names() -> tuple[str, ...]:
    """Names of the catalog's optimizers, sorted, without their aliases."""
    return tuple(sorted({optimizer.name for optimizer in _optimizers().values()}))


def load_optimizer(name: str) -> Optimizer:
    """The optimizer of that name or alias; case does not matter, nor ``_`` for ``-``.

    Raises
    ------
    SpecError
        For an unknown name, with a near miss.

    >>> load_optimizer("AdamW").moments_bytes
    8.0
    """
    known = _optimizers()
    word = name.lower().replace("_", "-")
    if word not in known:
        hint = did_you_mean(word, known)
        if hint.startswith("known"):
            hint = did_you_mean(word, optimizer_names())
        raise SpecError(f"no optimizer is called {name!r}", hint=hint)
    return known[word]


@cache
def _optimizers() -> Mapping[str, Optimizer]:
    """Every optimizer under its name and its aliases."""
    path = CATALOG / "tables" / "optimizers.toml"
    known: dict[str, Optimizer] = {}
    for name, table in read_toml(path).items():
        aliases = table.pop("aliases", [])
        optimizer = build(Optimizer, {"name": name, **table}, path)
        for word in (name, *aliases):
            if known.setdefault(word, optimizer) is not optimizer:
                raise SpecError(f"{path}: {word!r} names two optimizers")
    return known

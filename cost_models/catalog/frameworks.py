"""Training frameworks, found by name or alias."""

from functools import cache
from types import MappingProxyType
from typing import Any

from cost_models.catalog.files import CATALOG, build, did_you_mean, names_in, read_toml
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework


def framework_names() -> tuple[str, ...]:
    """Names of the catalog's frameworks, sorted, without their aliases."""
    return names_in("frameworks")


@cache
def _index() -> MappingProxyType[str, str]:
    index: dict[str, str] = {}
    for name in framework_names():
        table = read_toml(CATALOG / "frameworks" / f"{name}.toml")
        for word in (name, *table.get("aliases", ())):
            index[word.lower()] = name
    return MappingProxyType(index)


@cache
def load_framework(name: str) -> Framework:
    """The framework of that name or alias, whatever the case.

    What follows a semicolon is left out: logs append details there.

    Raises
    ------
    SpecError
        For an unknown name, with a near miss.

    >>> load_framework("NeMo 25.04").name
    'megatron-bridge'
    """
    word = name.split(";")[0].strip().lower()
    index = _index()
    if word not in index:
        raise SpecError(f"no framework is called {name!r}", hint=did_you_mean(word, index))
    path = CATALOG / "frameworks" / f"{index[word]}.toml"
    table: dict[str, Any] = read_toml(path)
    for key in ("aliases", "of", "before"):
        table.pop(key, None)
    return build(Framework, table, path)


@cache
def framework_at(framework: Framework, release: str) -> Framework:
    """``framework`` as it was at ``release``, a year and a month such as 26.04.

    An entry of the catalog with ``of`` and ``before`` describes the releases of another
    one that came before the first with a habit that mattered.

    >>> framework_at(load_framework("megatron-bridge"), "25.11").name
    'megatron-bridge-26.04'
    """
    for name in framework_names():
        table = read_toml(CATALOG / "frameworks" / f"{name}.toml")
        if table.get("of") == framework.name and release < table["before"]:
            return load_framework(name)
    return framework

"""Strategies as files that training launchers accept, and such files as strategies.

Everything that is known of a launcher is in a folder of its own: to add one, copy the smallest
(``nanotron``) and say in each of its files what is different.  ``emit
--launcher PATH`` takes such a folder from anywhere; what it can express and which rules hold is
still in :mod:`search.rules`.  What several launchers share is in ``formats`` (shells, JSON, YAML),
``knobs`` and ``plan``; what starts files on many nodes in ``wrappers``, each with a
``wrap(emission, plan) -> Emission``.  Imports any room of ``search`` and ``cost_models``.
"""

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from autopar.launchers.dossier import FACTS, SHIPPED, Dossier, read_dossier
from autopar.launchers.plan import Emission, Plan
from cost_models.specs.errors import SpecError

WRAPPERS = ("torchrun", "slurm", "trainjob", "jobset", "skypilot")
"""Ways to start a launcher's files on many nodes."""

_OWN: dict[str, Dossier] = {}
"""Those loaded from folders of the user's, by name."""


@cache
def names() -> tuple[str, ...]:
    """The launchers that are shipped, sorted."""
    folders = sorted(path.parent.name for path in SHIPPED.glob(f"*/{FACTS}"))
    return tuple(folder.replace("_", "-") for folder in folders)


def dossier(name: str) -> Dossier:
    """The launcher of that name, or the one in the folder of that path.

    Raises
    ------
    SpecError
        For an unknown name, with the nearest one.

    >>> dossier("deepspeed").targets
    'DeepSpeed 0.19.8'
    """
    if name in names():
        return _shipped(name)
    if name in _OWN:
        return _OWN[name]
    if "/" in name or "\\" in name:
        return load(Path(name))
    raise _unknown("launcher", name, names())


def load(folder: Path) -> Dossier:
    """The launcher that a folder describes; from here on its name is known too.

    Raises
    ------
    SpecError
        With the file, and the line where there is one, for what is missing or wrong in it.
    """
    found = read_dossier(folder.expanduser().resolve())
    if found.name in names():
        raise SpecError(f"{folder / FACTS}: name is {found.name!r}, which is shipped already")
    _OWN[found.name] = found
    return found


@cache
def _shipped(name: str) -> Dossier:
    return read_dossier(SHIPPED / name.replace("-", "_"))


def wrapper(name: str) -> ModuleType:
    """The wrapper's module; raises SpecError with the nearest name for an unknown one."""
    if name not in WRAPPERS:
        raise _unknown("wrapper", name, WRAPPERS)
    return import_module(f"autopar.launchers.wrappers.{name}")


def wrap(emission: Emission, plan: Plan, kind: str) -> Emission:
    """The same files with those added that start them under ``kind``."""
    wrapped: Emission = wrapper(kind).wrap(emission, plan)
    return wrapped


def _unknown(what: str, name: str, known: tuple[str, ...]) -> SpecError:
    close = get_close_matches(name.lower(), known, n=1)
    return SpecError(
        f"unknown {what} {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}",
    )

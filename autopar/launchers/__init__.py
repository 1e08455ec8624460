"""Strategies as files that training launchers accept, and such files as strategies.

Every launcher is a module with ``emit(plan) -> Emission`` and ``read(...) -> Reading``;
every wrapper one with ``wrap(emission, plan) -> Emission``.  They are imported when asked
for, so that one launcher costs nothing to those who use another.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from types import ModuleType

from autopar.launchers.plan import Emission, Plan
from cost_models.specs.errors import SpecError

LAUNCHERS: Mapping[str, str] = {
    "megatron": "autopar.launchers.megatron",
    "megatron-bridge": "autopar.launchers.megatron_bridge",
    "torchtitan": "autopar.launchers.torchtitan",
    "deepspeed": "autopar.launchers.deepspeed",
    "accelerate": "autopar.launchers.accelerate",
    "nanotron": "autopar.launchers.nanotron",
    "maxtext": "autopar.launchers.maxtext",
}
"""Module of each launcher."""

WRAPPERS: Mapping[str, str] = {
    "torchrun": "autopar.launchers.wrappers.torchrun",
    "slurm": "autopar.launchers.wrappers.slurm",
    "trainjob": "autopar.launchers.wrappers.trainjob",
    "jobset": "autopar.launchers.wrappers.jobset",
    "skypilot": "autopar.launchers.wrappers.skypilot",
}
"""Module of each way to start a launcher's files on many nodes."""


def launcher(name: str) -> ModuleType:
    """The launcher's module; raises SpecError with the nearest name for an unknown one."""
    return _module("launcher", name, LAUNCHERS)


def wrapper(name: str) -> ModuleType:
    """The wrapper's module; raises SpecError with the nearest name for an unknown one."""
    return _module("wrapper", name, WRAPPERS)


def wrap(emission: Emission, plan: Plan, kind: str) -> Emission:
    """The same files with those added that start them under ``kind``."""
    wrapped: Emission = wrapper(kind).wrap(emission, plan)
    return wrapped


def _module(what: str, name: str, table: Mapping[str, str]) -> ModuleType:
    if name in table:
        return import_module(table[name])
    close = get_close_matches(name.lower(), table, n=1)
    raise SpecError(
        f"unknown {what} {name!r}",
        hint=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(table)}",
    )

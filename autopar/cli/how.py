"""Options of how to search: every strategy, or a guided sample of them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from autopar.cli.examples import HeadedOption
from autopar.cli.parsing import Amount, Whole

F = TypeVar("F", bound=Callable[..., Any])

_HEAD = "How to search"
_EXPLORING = ("trials", "timeout", "sampler", "storage", "study")

_HOW: Mapping[str, dict[str, Any]] = {
    "--method": {
        "type": click.Choice(["auto", "sweep", "explore"]),
        "metavar": "auto|sweep|explore",
        "help": "Every strategy, with proof, or a guided sample; auto sweeps what it can.  "
        "[default: auto, or explore with one of the options below]",
    },
    "--trials": {
        "type": Whole(10**9),
        "metavar": "N",
        "help": "Strategies that an exploration prices.  [default: 500]",
    },
    "--timeout": {"type": Amount(), "metavar": "SECONDS", "help": "When it stops at the latest."},
    "--sampler": {
        "metavar": "NAME",
        "help": "nsga2, nsga3, tpe, gp, random, or the import path of an Optuna sampler.  "
        "[default: nsga2]",
    },
    "--storage": {
        "metavar": "URL|PATH",
        "help": "Keep the trials, to resume: an Optuna storage, or a journal file.",
    },
    "--study": {"metavar": "NAME", "help": "Name of the study in the storage."},
    "--seed": {
        "type": Whole(2**32 - 1, least=0),
        "metavar": "N",
        "default": 0,
        "show_default": True,
        "help": "Same seed, same answer, byte for byte.",
    },
    "--verify-cut": {
        "type": Whole(10**9),
        "metavar": "N",
        "help": "Price about N strategies of each block that bounds cut, as a check.",
    },
}


def how_options(command: F) -> F:
    """How to search, where the default does not do."""
    command = click.option(
        "--refine/--no-refine",
        cls=HeadedOption,
        head=_HEAD,
        default=True,
        show_default=True,
        help="Choose the layers of each pipeline stage by their cost.",
    )(command)
    for name in reversed(list(_HOW)):
        command = click.option(name, cls=HeadedOption, head=_HEAD, **_HOW[name])(command)
    return command


def how_words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of :func:`autopar.api.search`; what only an exploration knows asks for one."""
    said = {
        name: options[name] for name in (*_EXPLORING, "verify_cut") if options[name] is not None
    }
    exploring = any(name in said for name in _EXPLORING)
    said["method"] = options["method"] or ("explore" if exploring else "auto")
    if "timeout" in said:
        said["timeout_s"] = said.pop("timeout")
    return {"refine": options["refine"], **said}

"""How Optuna is to explore and where it keeps its trials, without importing Optuna.

A storage is shown without the password that its URL may hold.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import unquote

from cost_models.specs.errors import SpecError

Seeds = Literal["bounds", "solver", "none"]
HIDDEN = "***"

_LOGIN = re.compile(r"(?<=://)([^:/?#@]*):(.*)@(?=[^@]*$)")
_WORD = re.compile(r"(?i)(?<=[?&])((?:ssl)?(?:password|passwd|pwd|token)=)([^&#]*)")


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, after which something is kept; ``hint`` says what, and how to go on."""

    def __init__(self, hint: str | None = None) -> None:
        super().__init__("interrupted")
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Explore:
    """Budget, sampler and memory of an exploration."""

    trials: int = 500
    """Strategies to price, seeds among them."""
    timeout_s: float | None = None
    sampler: str = "nsga2"
    """``nsga2``, ``nsga3``, ``tpe``, ``random``, ``gp``, or the import path of any sampler."""
    storage: str | None = None
    """Where trials are kept: a URL of a database or of Optuna's proxy (``grpc://host:port``),
    or the path of a journal file."""
    study: str | None = None
    """Name of the study in there; an existing one of the same problem is continued."""
    seeds: Seeds = "bounds"
    """``bounds`` starts from the strategies whose lower bounds no other's beat, ``solver`` from
    the constraint solver's layouts of least memory, ``none`` from nothing."""
    said: Mapping[str, Any] = field(default_factory=dict)
    """The question as it was typed, for whoever continues the study; no part of what it is."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise SpecError(f"trials must be >= 1, got {self.trials}")
        if self.seeds not in get_args(Seeds):
            raise SpecError(
                f"unknown seeds {self.seeds!r}", hint=f"known: {', '.join(get_args(Seeds))}"
            )


def shown(where: str) -> str:
    """A storage's URL or path without its password.

    >>> shown("postgresql://me:p@ss:word@db/autopar?sslpassword=x&a=b")
    'postgresql://me:***@db/autopar?sslpassword=***&a=b'
    >>> shown("sqlite:///trials.db")
    'sqlite:///trials.db'
    """
    return _WORD.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1:{HIDDEN}@", where))


def scrubbed(text: str, where: str) -> str:
    """A library's words about a storage without its password, in any of its spellings."""
    text = text.replace(where, shown(where))
    secrets = [found[1] for pattern in (_LOGIN, _WORD) for found in pattern.findall(where)]
    for secret in sorted({*secrets, *map(unquote, secrets)} - {""}, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text

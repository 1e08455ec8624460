"""Processes of ``autopar`` that start at once: forked from one that has read the libraries.

What they do with signals, storages and each other is a process's own; only the second that
every interpreter spends on imports is spent once.
"""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBRARIES = (
    "autopar.cli.group",
    "autopar.cli.commands.search",
    "autopar.cli.commands.worker",
    "search.explore.explore",
    "search.explore.run",
    "search.explore.start",
    "search.explore.workers",
    "tests.autopar.cli.gated_samplers",
    "sqlalchemy.dialects.sqlite",
    "psycopg",
    "grpc",
)
"""What the parent of all of them imports; one that is not installed is left out."""


class Process:
    """One ``autopar``, with its number, its end, and what it said."""

    def __init__(self, run: Callable[..., None], *words: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(LIBRARIES))
        self._said = Path(tempfile.mkdtemp(prefix="autopar-said-"))
        self._process = context.Process(
            target=_alone, args=(self._said, dict(os.environ), run, words), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def poll(self) -> int | None:
        """Its code, where it has ended."""
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """What Ctrl-C or another process may send."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        self._process.kill()
        self._process.join()

    def ended(self, patience_s: float = 120.0) -> tuple[int, str, str]:
        """Code, standard output and standard error of a process that comes to its end."""
        self._process.join(patience_s)
        code = self._process.exitcode
        assert code is not None, f"still running after {patience_s} s"
        return code, *self.said()

    def said(self) -> tuple[str, str]:
        """Standard output and standard error up to now."""
        out, err = ((self._said / name).read_text() for name in ("out", "err"))
        return out, err


def autopar(*words: str) -> Process:
    """The command with these words."""
    return Process(command, *words)


def _alone(said: Path, environment: dict[str, str], run: Callable[..., None], words: Any) -> None:
    """In the new process: its own standard output, then ``run``."""
    for number, name in ((1, "out"), (2, "err")):
        with (said / name).open("wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.clear()
    os.environ.update(environment)
    run(*words)


def command(*words: str) -> None:
    """The command with these words, in this process, which ends with it."""
    from autopar.cli import main

    sys.argv[1:] = words
    main()

"""The command line: parse, call, print; no arithmetic.

Imports every other room.  ``question.py`` makes a job of the options; a new command goes
into ``commands``.
"""

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autopar.cli.group import CommandGroup, cli

__all__ = ["CommandGroup", "cli", "main"]

_INTERRUPTED = 130


def __getattr__(name: str) -> Any:
    """The group of commands, imported when it is asked for: Ctrl-C may come before."""
    if name not in ("CommandGroup", "cli"):
        raise AttributeError(f"module 'autopar.cli' has no attribute {name!r}")
    from autopar.cli import group

    return getattr(group, name)


def main() -> None:
    """Run the command that the user typed, and exit."""
    try:
        from autopar.cli.group import cli

        cli()
    except KeyboardInterrupt:  # while libraries were loaded, or while leaving
        sys.stderr.write("error: interrupted\n")
        _leave()
    except SystemExit as left:
        if left.code == _INTERRUPTED:
            _leave()
        raise


def _leave() -> None:
    """Exit at once after Ctrl-C.

    Python would first wait for threads that nobody waits for any more, and end with
    another code where the signal met code that is made at run time, as dataclasses are.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(_INTERRUPTED)

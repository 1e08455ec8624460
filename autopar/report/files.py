"""Whole files or none: a path is tried before the work, and replaced after it."""

import os
import sys
import tempfile
from pathlib import Path

from cost_models.specs.errors import SpecError

STDOUT = "-"
_NEW_FILE_MODE = 0o666


def check_writable(option: str, path: str | None) -> None:
    """Raise SpecError where ``path`` cannot be written later; ``-`` and None always can.

    A file beside the target is made and taken away again, because permission bits say
    little about read-only and full disks.
    """
    if path is None or path == STDOUT:
        return
    target = Path(path)
    if not path or "\0" in path:
        raise SpecError(f"{option} must name a file, got {path!r}")
    try:
        if target.is_dir():
            raise SpecError(f"{option} {path}: is a directory", hint="name a file in it")
        if target.exists() and not os.access(target, os.W_OK):
            raise SpecError(f"{option} {path}: cannot write: Permission denied")
        if target.exists() and not target.is_file():  # a pipe or a device
            return
        handle, trial = tempfile.mkstemp(dir=target.resolve().parent, prefix=".autopar-")
        os.close(handle)
        Path(trial).unlink()
    except OSError as error:
        raise SpecError(f"{option} {path}: cannot write: {error.strerror}") from None


def write_text(option: str, path: str, text: str) -> None:
    """Put ``text`` into ``path`` at once, or on standard output for ``-``.

    Raises
    ------
    SpecError
        Where the file cannot be written; what was there before is untouched.
    """
    if path == STDOUT:
        sys.stdout.write(text)
        return
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        target.write_text(text, encoding="utf-8")
        return
    trial = None
    try:
        handle, trial = tempfile.mkstemp(dir=target.parent, prefix=".autopar-")
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(trial).chmod(_mode(target))
        Path(trial).replace(target)
        trial = None
    except OSError as error:
        raise SpecError(f"{option} {path}: cannot write: {error.strerror}") from None
    finally:
        if trial is not None:
            Path(trial).unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """The mode of the file that is replaced, or what a new file would get."""
    if target.exists():
        return target.stat().st_mode & 0o7777
    mask = os.umask(0)
    os.umask(mask)
    return _NEW_FILE_MODE & ~mask

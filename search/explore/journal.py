"""A journal file that ends with a whole line, whoever died while writing to it.

A disk that fills up, or a machine that stops, leaves half of a line behind; the next
line would be glued to it and the file unreadable from there on.  Whoever holds the lock
is the only writer, so that half a line seen then is nobody's any more and is cut off.
"""

import json
import os
from pathlib import Path

from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from cost_models.specs.errors import SpecError

LOCK_GRACE_S = 10
"""After which the lock of a writer that was killed is broken; a write takes milliseconds."""

_TAIL_BYTES = 1 << 16


class WholeLines(JournalFileOpenLock):
    """The lock of a journal, which is mended before a write and after one that failed."""

    def __init__(self, path: str) -> None:
        super().__init__(path, grace_period=LOCK_GRACE_S)
        self._journal = Path(path)

    def acquire(self) -> bool:
        """Wait for the lock, then cut off what a writer that died left of a line."""
        held = super().acquire()
        try:
            mend(self._journal)
        except BaseException:
            super().release()
            raise
        return held

    def release(self) -> None:
        """Cut off what the write that just failed left of a line, then let go."""
        try:
            mend(self._journal)
        finally:
            super().release()


def mend(path: Path) -> None:
    """Cut off the end of a file behind its last line break."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        end = file.seek(0, os.SEEK_END)
        whole = end
        while whole:
            start = max(0, whole - _TAIL_BYTES)
            file.seek(start)
            block = file.read(whole - start)
            if b"\n" in block:
                whole = start + block.rindex(b"\n") + 1
                break
            whole = start
        if whole != end:
            file.truncate(whole)


def open_journal(path: str) -> JournalStorage:
    """Optuna's storage on a journal file, new or of Optuna's making.

    Raises
    ------
    SpecError
        For a file with a line that is no journal's, before anything is written to it.
    """
    _require_journal(Path(path))
    return JournalStorage(JournalFileBackend(path, lock_obj=WholeLines(path)))


def _require_journal(path: Path) -> None:
    if not path.exists():
        return
    number = 0
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.endswith(b"\n") and number > 1:
                    return  # the half line of a writer that died
                if not _is_entry(line):
                    break
            else:
                return
    except OSError as error:
        raise SpecError(f"storage {str(path)!r} cannot be used: {error.strerror}") from None
    if number == 1:
        raise SpecError(
            f"storage {str(path)!r} cannot be used: it is no journal of Optuna's",
            hint="name a new file, or one that --storage made",
        )
    raise SpecError(
        f"storage {str(path)!r} cannot be used: line {number} is no entry of a journal",
        hint=f"what stands before it is whole: head -n {number - 1} {path} > mended.log, "
        "then --storage mended.log",
    )


def _is_entry(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError):
        return False

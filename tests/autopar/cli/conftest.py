"""The command line inside this process: what it prints, where, and its exit code."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from autopar.cli import cli


@dataclass(frozen=True)
class Ran:
    """One run of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``autopar`` with these words; each may hold several, parted by spaces."""

    def command(*words: str) -> Ran:
        with pytest.raises(SystemExit) as left:
            cli.main([part for word in words for part in word.split()])
        printed = capsys.readouterr()
        code = left.value.code
        return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)

    return command

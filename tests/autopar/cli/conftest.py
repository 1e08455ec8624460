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


def _ran(capsys: pytest.CaptureFixture[str], words: list[str]) -> Ran:
    with pytest.raises(SystemExit) as left:
        cli.main(words)
    printed = capsys.readouterr()
    code = left.value.code
    return Ran(code if isinstance(code, int) else 0, printed.out, printed.err)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``autopar`` with these words; each may hold several, parted by spaces."""
    return lambda *words: _ran(capsys, [part for word in words for part in word.split()])


@pytest.fixture
def run_words(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``autopar`` with exactly these words, blanks and all."""
    return lambda *words: _ran(capsys, list(words))

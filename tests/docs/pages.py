"""README, CONTRIBUTING and the pages of the site as their blocks, and as what these print.

A block with a title is a file, shell blocks run ``autopar`` in order, and the block behind
``<!-- output of: COMMAND -->`` is what that command prints.  ``python -m tests.docs.pages
--write`` makes these outputs again.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from autopar.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
_BLOCK = re.compile(
    r"(?P<comment><!-- [^\n]* -->\n)?^ *```(?P<kind>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n"
    r"(?P<text>.*?)^ *```$",
    re.DOTALL | re.MULTILINE,
)
_OUTPUT = "output of: "


@dataclass(frozen=True)
class Block:
    """One fenced block of a page."""

    kind: str
    title: str | None
    comment: str
    """What the HTML comment on the line above says."""
    text: str

    @property
    def runs(self) -> bool:
        """No comment says that it is not run, and why."""
        return not self.comment.startswith("not run: ")

    @property
    def output_of(self) -> str | None:
        """The command whose output it is."""
        return self.comment.removeprefix(_OUTPUT) if self.comment.startswith(_OUTPUT) else None


@dataclass(frozen=True)
class Command:
    """One ``autopar`` command of a shell block."""

    line: str
    words: tuple[str, ...]
    exit_code: int


def text_of(page: str) -> str:
    """The page as it is written."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str) -> list[Block]:
    """Every fenced block, in order."""
    return [
        Block(
            found["kind"],
            found["title"],
            (found["comment"] or "").strip()[5:-4],
            textwrap.dedent(found["text"]),
        )
        for found in _BLOCK.finditer(text_of(page))
    ]


def commands(block: Block) -> Iterator[Command]:
    """The ``autopar`` commands of a shell block; ``# exit code 2`` behind one is expected."""
    for line in block.text.splitlines():
        code = re.search(r"# exit code (\d)$", line)
        for part in line.partition(" #")[0].split("&&"):
            words = shlex.split(part)
            if words and Path(words[0]).name == "autopar":
                line_of = shlex.join(["autopar", *words[1:]])
                yield Command(line_of, tuple(words[1:]), int(code[1]) if code else 0)


def ran(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main(list(words))
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 0
    return code, out.getvalue(), err.getvalue()


def written() -> None:
    """Make the printed outputs of every page again."""
    home = Path.cwd()
    for page in PAGES:
        text = text_of(page)
        for block in blocks(page):
            if block.output_of is None:
                continue
            with tempfile.TemporaryDirectory() as folder:
                os.chdir(folder)
                out = ran(tuple(shlex.split(block.output_of)[1:]))[1]
                os.chdir(home)
            head = f"<!-- {_OUTPUT}{block.output_of} -->\n```text\n"
            before, _, behind = text.partition(head)
            text = f"{before}{head}{out}{behind[behind.index('```') :]}"
        (ROOT / page).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.docs.pages --write")
    written()

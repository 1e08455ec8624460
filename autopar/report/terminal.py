"""The two channels: the answer on standard output, the narration on standard error."""

import shutil
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from autopar.report.table import Table

if TYPE_CHECKING:
    from rich.console import Console

_UNLIMITED = 10_000
"""Columns of a pipe: whoever reads it decides."""


class Printer:
    """Prints lines and tables, dressed for what reads them."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.is_terminal = self._stream.isatty()
        self._console: Console | None = None

    @property
    def width(self) -> int:
        """Characters in a line."""
        return shutil.get_terminal_size((80, 24)).columns if self.is_terminal else _UNLIMITED

    def line(self, text: str = "", style: str = "", *, whole: bool = False) -> None:
        """One line, wrapped between words on a terminal; ``whole`` leaves it to be copied."""
        if self.is_terminal:
            from rich.text import Text

            self._rich().print(Text(text, style=style), soft_wrap=whole)
        else:
            self._stream.write(text + "\n")

    def lines(self, texts: Iterable[str], style: str = "", *, whole: bool = False) -> None:
        """Several lines."""
        for text in texts:
            self.line(text, style, whole=whole)

    def table(self, table: Table) -> None:
        """A table with as many of its columns as the width has room for."""
        if self.is_terminal:
            self._rich().print(table.fitted(self.width).rich())
        else:
            self._stream.write(table.plain() + "\n")

    def rows(self, table: Table) -> None:
        """The rows of a table without its head."""
        if self.is_terminal:
            self._rich().print(table.fitted(self.width).rich(head=False))
        else:
            self._stream.write(table.plain(head=False) + "\n")

    def _rich(self) -> "Console":
        if self._console is None:
            from rich.console import Console

            self._console = Console(file=self._stream, width=self.width, highlight=False)
        return self._console


def narrate(text: str) -> None:
    """One line on standard error, beside the answer."""
    Printer(sys.stderr).line(text, style="dim")

"""One table, two dresses: ruled and coloured on a terminal, bare text in a pipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_GAP = 2
_SENTENCE = 24
"""Least width of a column that wraps."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its head, its side, and how dear it is where space is short."""

    head: str
    right: bool = False
    keep: int = 9
    """Columns with the lowest number leave first where the table is too wide."""
    style: str = ""
    wraps: bool = False
    """A sentence: on a terminal it takes the lines it needs."""


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as they are printed; every row is as long as ``columns``."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def widths(self) -> list[int]:
        """Characters that each column takes."""
        return [
            max(len(column.head), *(len(row[i]) for row in self.rows), 0)
            for i, column in enumerate(self.columns)
        ]

    @property
    def width(self) -> int:
        """Characters that one line takes, sentences as narrow as they may get."""
        least = (
            min(width, _SENTENCE) if column.wraps else width
            for column, width in zip(self.columns, self.widths, strict=True)
        )
        return sum(least) + _GAP * (len(self.columns) - 1)

    def without_empty(self) -> "Table":
        """The same without columns that say nothing in any row."""
        filled = [i for i in range(len(self.columns)) if any(row[i] for row in self.rows)]
        return self._only(filled)

    def fitted(self, width: int) -> "Table":
        """The same with as many columns as ``width`` has room for, the dearest ones."""
        table = self
        while table.width > width:
            dearness = [column.keep for column in table.columns]
            cheapest = min(dearness)
            if cheapest == 9:
                break
            last = len(dearness) - 1 - dearness[::-1].index(cheapest)
            table = table._only([i for i in range(len(dearness)) if i != last])
        return table

    def _only(self, kept: Sequence[int]) -> "Table":
        return Table(
            tuple(self.columns[i] for i in kept),
            tuple(tuple(row[i] for i in kept) for row in self.rows),
        )

    def plain(self, *, head: bool = True) -> str:
        """Lines of text with no ornament, for pipes and logs."""
        widths = self.widths
        lines = []
        heads = [tuple(column.head for column in self.columns)] if head else []
        for cells in (*heads, *self.rows):
            padded = [
                cell.rjust(width) if column.right else cell.ljust(width)
                for cell, width, column in zip(cells, widths, self.columns, strict=True)
            ]
            lines.append((" " * _GAP).join(padded).rstrip())
        return "\n".join(lines)

    def rich(self, *, head: bool = True) -> "RichTable":
        """The same for a terminal, ruled below the head."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        drawn = RichTable(
            box=box.SIMPLE_HEAD if head else None,
            show_header=head,
            show_edge=False,
            pad_edge=False,
            padding=(0, _GAP - 1 if head else _GAP, 0, 0),  # a ruled box parts columns by itself
        )
        for column, width in zip(self.columns, self.widths, strict=True):
            drawn.add_column(
                Text(column.head),
                justify="right" if column.right else "left",
                style=column.style,
                min_width=min(width, _SENTENCE) if column.wraps else width,
                no_wrap=not column.wraps,
            )
        for row in self.rows:
            drawn.add_row(*(Text(cell) for cell in row))
        return drawn

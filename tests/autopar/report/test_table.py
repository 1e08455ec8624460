"""Tables keep to their width, and say the same on a terminal and in a pipe."""

import io

from rich.console import Console

from autopar.report.table import Column, Table

TABLE = Table(
    (Column("name"), Column("size", right=True), Column("note", keep=1), Column("more", keep=2)),
    (("one", "1", "first of all", "x"), ("eleven", "11", "", "y")),
)


def drawn(table: Table, width: int) -> list[str]:
    """Lines of the table on a terminal without colours."""
    console = Console(file=io.StringIO(), width=width)
    console.print(table.rich())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in str(text).splitlines()]


def test_plain_text_is_aligned_and_bare() -> None:
    """Numbers stand right, words left, two spaces between them."""
    assert TABLE.plain().splitlines() == [
        "name    size  note          more",
        "one        1  first of all  x",
        "eleven    11                y",
    ]


def test_the_cheapest_columns_leave_first() -> None:
    """``note`` goes where there is no room, then ``more``; the others never."""
    assert [c.head for c in TABLE.fitted(31).columns] == ["name", "size", "more"]
    assert [c.head for c in TABLE.fitted(15).columns] == ["name", "size"]
    assert [c.head for c in TABLE.fitted(3).columns] == ["name", "size"]


def test_a_terminal_shows_the_same_cells_under_a_rule() -> None:
    """Only the rule is added, and no line is wider than the plain one by more than one."""
    lines = drawn(TABLE, 40)
    plain = TABLE.plain().splitlines()
    assert lines[0].split() == plain[0].split()
    assert set(lines[1]) == {"\u2500"}
    assert [line.split() for line in lines[2:]] == [line.split() for line in plain[1:]]
    assert max(map(len, lines)) <= TABLE.width + 1


def test_columns_without_a_word_can_be_left_out() -> None:
    """A column that is empty in every row says nothing."""
    table = Table((Column("a"), Column("b")), (("1", ""), ("2", "")))
    assert [column.head for column in table.without_empty().columns] == ["a"]

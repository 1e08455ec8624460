"""On a terminal the answer fits its width; in a pipe it is bare text."""

import io
import re
from dataclasses import replace

import pytest

from autopar import search
from autopar.report.progress import Bar
from autopar.report.terminal import Printer
from autopar.report.views.search import print_search
from search.result import SearchResult


class Terminal(io.StringIO):
    """A stream that claims to be one."""

    def isatty(self) -> bool:
        """Yes."""
        return True


@pytest.fixture(scope="module")
def result() -> SearchResult:
    """A frontier whose rows have long words."""
    return search("deepseek-v3", 2048, gpu="h800", fixed={"tp": "8", "pp": "8", "ep": "32-64"})


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_line_is_wider_than_the_terminal(
    result: SearchResult, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns and more, nothing wraps but the commands that one may copy."""
    monkeypatch.setenv("COLUMNS", str(width))
    stream = Terminal()
    print_search(Printer(stream), result, top=10, again=())
    text = re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue())
    lines = [line for line in text.splitlines() if not line.startswith("  autopar ")]
    assert max(len(line.rstrip()) for line in lines) <= width
    rows = [line for line in lines if re.match(r" *\d+  dp", line)]
    assert rows
    assert all(line.rstrip().endswith("%") for line in rows)


def test_knobs_without_room_stand_below_the_table(
    result: SearchResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 80 columns the column of other knobs becomes lines by rank."""
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    print_search(Printer(stream), result, top=10, again=())
    assert "\n#1" in stream.getvalue()


def test_an_interval_is_shown_where_there_is_one(result: SearchResult) -> None:
    """Half its width beside the step time, and what it means below the table."""
    sure = [
        replace(row, step_time_low_s=0.9 * row.step_time_s, step_time_high_s=1.1 * row.step_time_s)
        for row in result.frontier
    ]
    stream = io.StringIO()
    print_search(Printer(stream), replace(result, frontier=sure), top=3, again=())
    assert stream.getvalue().count("\u00b110%") == 3
    assert "80% interval of the step time" in stream.getvalue()


def test_a_quick_answer_draws_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """What is over within a second needs none, nor does what no terminal sees."""
    with Bar("searching") as bar:
        bar(0.5)
        bar(1.0)
    assert capsys.readouterr() == ("", "")


def test_a_slow_answer_draws_a_bar_on_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Title, share and time left, taken away at the end."""
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("autopar.report.progress.PATIENCE_S", 0.0)
    with Bar("searching") as bar:
        bar(0.25)
        bar(0.5)
    assert "searching" in stream.getvalue()
    assert "50%" in stream.getvalue()

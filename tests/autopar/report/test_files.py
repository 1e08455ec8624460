"""Files are written whole or not at all, and what cannot be written is known beforehand."""

import os
from pathlib import Path

import pytest

from autopar.report.files import check_writable, write_text
from cost_models.specs.errors import SpecError


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    """The new text takes the old one's place and nothing is left beside it."""
    target = tmp_path / "answer.json"
    target.write_text("old")
    target.chmod(0o640)
    write_text("--json", str(target), "new")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]
    assert os.name == "nt" or target.stat().st_mode & 0o777 == 0o640


def test_a_disk_that_fills_up_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that fails half-way is one line, and the old text stays."""

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    target = tmp_path / "answer.json"
    target.write_text("old")
    monkeypatch.setattr("autopar.report.files.os.fsync", full)
    with pytest.raises(SpecError, match=r"cannot write: No space left on device"):
        write_text("--json", str(target), "new")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_checking_leaves_nothing_behind(tmp_path: Path) -> None:
    """The file that is made to see whether one could is taken away again."""
    check_writable("--json", str(tmp_path / "answer.json"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", [None, "-", os.devnull])
def test_standard_output_and_devices_need_no_check(path: str | None) -> None:
    """There is nothing to replace."""
    check_writable("--json", path)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("", "must name a file"),
        ("missing/answer.json", "No such file or directory"),
        (".", "is a directory"),
        ("a\0b", "must name a file"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, why: str
) -> None:
    """The option, the path and the reason stand in one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=why):
        check_writable("--csv", path)


def test_text_goes_into_a_device_that_has_no_other_self() -> None:
    """A pipe or a device is written to, never replaced."""
    write_text("--json", os.devnull, "text")
    assert not Path(os.devnull).is_file()

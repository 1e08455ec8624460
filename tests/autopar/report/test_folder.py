"""A folder is written whole or not at all."""

from pathlib import Path

import pytest

from autopar.report.folder import check_folder, write_folder
from cost_models.specs.errors import SpecError

FILES = {"a.sh": "echo a\n", "sub/b.py": "b = 1\n"}


def texts(folder: Path) -> dict[str, str]:
    """Everything in a folder."""
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_new_folder_holds_the_files(tmp_path: Path) -> None:
    """Scripts can be run, other files cannot, and nothing else is left behind."""
    assert write_folder("--out", str(tmp_path / "run"), FILES, force=False)
    assert texts(tmp_path) == {f"run/{name}": text for name, text in FILES.items()}
    assert (tmp_path / "run" / "a.sh").stat().st_mode & 0o100
    assert not (tmp_path / "run" / "sub" / "b.py").stat().st_mode & 0o100


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    """A folder without content is nobody's."""
    assert write_folder("--out", str(tmp_path), FILES, force=False)
    assert texts(tmp_path) == FILES


def test_a_failure_half_way_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk says no at the second file: the first is as it was."""
    (tmp_path / "a.sh").write_text("echo old\n")
    moves = Path.replace

    def failing(self: Path, target: Path) -> Path:
        if self.name == "b.py":
            raise OSError(28, "No space left on device")
        return moves(self, target)

    monkeypatch.setattr(Path, "replace", failing)
    with pytest.raises(SpecError, match="cannot write: No space left on device"):
        write_folder("--out", str(tmp_path), FILES, force=True)
    assert texts(tmp_path) == {"a.sh": "echo old\n"}


def test_a_folder_in_the_place_of_a_file_is_kept(tmp_path: Path) -> None:
    """``--force`` replaces files, not directories."""
    (tmp_path / "a.sh").mkdir()
    (tmp_path / "a.sh" / "mine").write_text("x")
    with pytest.raises(SpecError, match=r"a\.sh is a directory"):
        write_folder("--out", str(tmp_path), FILES, force=True)
    assert texts(tmp_path) == {"a.sh/mine": "x"}


@pytest.mark.parametrize("path", ["", " ", "a\0b", "x" * 5000])
def test_a_path_that_cannot_be_is_named(path: str) -> None:
    """One line with the option, whatever was typed."""
    with pytest.raises(SpecError, match=r"^--out"):
        check_folder("--out", path)

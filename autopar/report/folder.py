"""Several files in one directory: all of them or none, and never over something else."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cost_models.specs.errors import SpecError

_SCRIPTS = (".sh", ".sbatch")


def check_folder(option: str, path: str) -> None:
    """Raise SpecError where no directory ``path`` can be written to later."""
    if not path.strip() or "\0" in path:
        raise SpecError(f"{option} must name a directory, got {path!r}")
    target = Path(path)
    try:
        if target.exists() and not target.is_dir():
            raise SpecError(f"{option} {path}: is a file", hint="name a directory")
        trial = tempfile.mkdtemp(dir=_stage(target), prefix=".autopar-")
        Path(trial).rmdir()
    except OSError as error:
        raise SpecError(f"{option} {path}: cannot write: {error.strerror}") from None


def write_folder(option: str, path: str, files: Mapping[str, str], *, force: bool) -> bool:
    """Put ``files`` (text by relative name) into ``path``; False where they are there already.

    They are written beside it and then moved.  ``force`` replaces files of the same name
    and leaves others alone.

    Raises
    ------
    SpecError
        Where ``path`` holds other content and ``force`` is off, and where it cannot be
        written; what was there before is untouched.
    """
    check_folder(option, path)
    target = Path(path)
    if target.is_dir() and _holds(target, files):
        return False
    if target.is_dir() and any(target.iterdir()) and not force:
        raise SpecError(
            f"{option} {path}: has other content", hint="--force replaces files of the same name"
        )
    try:
        stage = Path(tempfile.mkdtemp(dir=_stage(target), prefix=".autopar-"))
    except OSError as error:
        raise SpecError(f"{option} {path}: cannot write: {error.strerror}") from None
    try:
        _write(stage / "new", files)
        if target.is_dir():
            _replace(stage, target, files)
        else:
            (stage / "new").replace(target)
    except OSError as error:
        raise SpecError(f"{option} {path}: cannot write: {error.strerror}") from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return True


def _stage(target: Path) -> Path:
    """A directory on the same disk, to write in first: the target itself if there is one."""
    return target if target.is_dir() else target.resolve().parent


def _holds(target: Path, files: Mapping[str, str]) -> bool:
    """All files are there, with the same text."""
    try:
        return all((target / name).read_bytes() == text.encode() for name, text in files.items())
    except OSError:
        return False


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, text in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8", newline="")
        if place.suffix in _SCRIPTS:
            place.chmod(place.stat().st_mode | (place.stat().st_mode & 0o444) >> 2)


def _replace(stage: Path, target: Path, files: Mapping[str, str]) -> None:
    """Move the new files in; put the old ones back where one of them cannot be moved."""
    moved: list[str] = []
    try:
        for name in files:
            place, old = target / name, stage / "old" / name
            place.parent.mkdir(parents=True, exist_ok=True)
            old.parent.mkdir(parents=True, exist_ok=True)
            if place.is_dir():
                raise IsADirectoryError(0, f"{name} is a directory")
            moved.append(name)
            if place.exists():
                place.replace(old)
            (stage / "new" / name).replace(place)
    except OSError:
        for name in moved:
            place, old = target / name, stage / "old" / name
            if old.exists():
                old.replace(place)
            elif not (stage / "new" / name).exists():
                place.unlink(missing_ok=True)
        raise

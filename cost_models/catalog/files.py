"""Read a TOML file into a frozen dataclass, and say file, line and key when it cannot be."""

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from cost_models.specs.errors import SpecError

T = TypeVar("T")
CATALOG = Path(__file__).parent


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint with the nearest known names, or with all of them where none is near."""
    names = sorted(known)
    lowered = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), lowered, n=3, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(repr(lowered[c]) for c in close) + "?"
    return "known: " + ", ".join(names)


def read_text(path: Path) -> str:
    """The file's text; raises SpecError where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise SpecError(f"{path}: cannot read: {reason}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The file as nested tables; raises SpecError with the line of a syntax error."""
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"{path}: not valid TOML: {error}") from None


def line_of(path: Path, key: str) -> str:
    """``file:line`` of the first assignment to ``key``, or just the file."""
    pattern = re.compile(rf'^\s*"?{re.escape(key)}"?\s*[=:]|^\s*\[+\s*{re.escape(key)}\s*\]+')
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if pattern.match(line):
            return f"{path}:{number}"
    return str(path)


def _is_a(value: Any, hint: Any) -> bool:
    text = str(hint)
    if hint is float or text.startswith("float |"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int or text.startswith("int |"):
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is bool:
        return isinstance(value, bool)
    if hint is str:
        return isinstance(value, str)
    return True


def _frozen(value: Any) -> Any:
    """Lists as tuples, inner ones too."""
    return tuple(_frozen(v) for v in value) if isinstance(value, list) else value


def build(cls: type[T], table: Mapping[str, Any], path: Path) -> T:
    """A ``cls`` from the keys of ``table``.

    Raises
    ------
    SpecError
        For an unknown key (with a near miss), a missing key, a value of the wrong type
        or one that ``cls`` itself refuses; the message starts with file and line.
    """
    hints = get_type_hints(cls)
    known = {f.name: f for f in fields(cls) if f.init}  # type: ignore[arg-type]
    for key, value in table.items():
        if key not in known:
            raise SpecError(
                f"{line_of(path, key)}: unknown key {key!r}", hint=did_you_mean(key, known)
            )
        if not _is_a(value, hints[key]):
            expected = getattr(hints[key], "__name__", str(hints[key]))
            raise SpecError(f"{line_of(path, key)}: {key} must be {expected}, got {value!r}")
    missing = [
        name
        for name, f in known.items()
        if f.default is MISSING and f.default_factory is MISSING and name not in table
    ]
    if missing:
        raise SpecError(f"{path}: missing key {missing[0]!r}")
    values = {key: _frozen(value) for key, value in table.items()}
    try:
        return cls(**values)
    except SpecError as error:
        culprit = next((k for k in table if re.search(rf"\b{re.escape(k)}\b", str(error))), "")
        where = line_of(path, culprit) if culprit else str(path)
        raise SpecError(f"{where}: {error}", hint=error.hint) from None


def names_in(folder: str) -> tuple[str, ...]:
    """Names of the catalog's entries in ``folder``, sorted."""
    return tuple(sorted(path.stem for path in (CATALOG / folder).glob("*.toml")))

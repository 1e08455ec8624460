"""What was said, as it can be typed again: options by name, in the order of the command."""

from collections.abc import Collection, Mapping
from enum import Enum
from pathlib import Path
from shlex import quote
from typing import Any

from search.space.axes import AXES

_OPTIONS = {"sources": "from"}
"""Names of options that are called otherwise in Python."""
_SWITCH_OFF = "no-"


def texts_of(words: Mapping[str, Any]) -> dict[str, Any]:
    """Words of Python as options; specs by their names, axes side by side with the rest.

    >>> texts_of({"model": "8b", "gpus": 8, "fixed": {"tp": (1, 2)}, "seed": None})
    {'model': '8b', 'gpus': 8, 'tp': '1,2'}
    """
    said: dict[str, Any] = {}
    for name, value in words.items():
        if name == "fixed":
            said |= {axis.replace("-", "_"): _text(v) for axis, v in (value or {}).items()}
        elif value is not None and name != "constants":
            said[name] = _text(value)
    return said


def words_in(said: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """Words of a job again, ``names`` and axes of the space; the inverse of :func:`texts_of`.

    >>> words_in({"model": "8b", "gpus": "8", "tp": "1,2", "top": 5}, ("model", "gpus"))
    {'model': '8b', 'gpus': 8, 'fixed': {'tp': '1,2'}}
    """
    words = {name: value for name, value in said.items() if name in names}
    if "gpus" in words:
        words["gpus"] = int(words["gpus"])
    axes = {n: value for n, value in said.items() if n in AXES and n not in names}
    return {**words, "fixed": axes} if axes else words


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, str | int | float) and not isinstance(value, Enum):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple | range):
        return ",".join(str(_text(part)) for part in value)
    return str(getattr(value, "label", None) or getattr(value, "name", value))


def command_line(verb: str, said: Mapping[str, Any]) -> str:
    """The command that says it all again.

    >>> command_line("search", {"model": "8b", "tp": "4,8", "refine": False})
    'autopar search --model 8b --tp 4,8 --no-refine'
    """
    words = ["autopar", verb]
    for name, value in said.items():
        option = _OPTIONS.get(name, name).replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--{_SWITCH_OFF}{option}")
        elif isinstance(value, tuple | list):
            words += [part for one in value for part in (f"--{option}", quote(str(one)))]
        else:
            words += [f"--{option}", quote(str(value))]
    return " ".join(words)

"""What was said, as it can be typed again: options by name, in the order of the command."""

from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from shlex import quote
from typing import Any

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

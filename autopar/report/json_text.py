"""JSON with the same bytes for the same answer."""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any


def json_text(document: Mapping[str, Any]) -> str:
    """The document, indented, keys in their own order, ended by a line break.

    Raises
    ------
    ValueError
        For a number that JSON has no word for: infinite, or none at all.

    >>> print(json_text({"schema": "autopar/search/1"}), end="")
    {
      "schema": "autopar/search/1"
    }
    """
    text = json.dumps(document, indent=2, allow_nan=False, ensure_ascii=False, default=_plain)
    return text + "\n"


def json_line(document: Mapping[str, Any]) -> str:
    """The same on one line, for documents that nobody reads."""
    text = json.dumps(document, separators=(",", ":"), allow_nan=False, default=_plain)
    return text + "\n"


def _plain(value: Any) -> Any:
    """What a number of numpy's is in Python, and what a set of values is as a list."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"no JSON for {type(value).__name__}")

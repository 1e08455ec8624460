"""A JSON object read key by key, each with its type checked and its place named."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cost_models.catalog.files import line_of, read_text
from cost_models.specs.errors import SpecError

_UNSET = -1


@dataclass(frozen=True, slots=True)
class JsonFile:
    """The object in ``path``, or one nested in it.

    Every reader takes ``null`` for an absent key, and raises SpecError with file, line and
    key for a value of the wrong type or size.
    """

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> "JsonFile":
        """Raise SpecError, with line and column where the text is not JSON, or no object."""
        text = read_text(path)
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise SpecError(
                f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise SpecError(f"{path}: not valid JSON: {error}") from None
        if not isinstance(values, dict):
            raise SpecError(f"{path}: must hold a JSON object, got {_brief(values)}")
        return cls(path, values)

    def error(self, key: str, complaint: str) -> SpecError:
        """An error to raise about ``key``."""
        return SpecError(f"{line_of(self.path, key)}: {key} {complaint}")

    def nested(self, key: str) -> "JsonFile":
        """The object under ``key``, or this one where there is none."""
        value = self.values.get(key)
        if value is None:
            return self
        if not isinstance(value, dict):
            raise self.error(key, f"must be an object, got {_brief(value)}")
        return JsonFile(self.path, value)

    def integer(self, key: str, *, minimum: int = 0, maximum: int | None = None) -> int | None:
        """The whole number under ``key``, None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(key, f"must be an integer, got {_brief(value)}")
        if value < minimum:
            raise self.error(key, f"must be >= {minimum}, got {_brief(value)}")
        if maximum is not None and value > maximum:
            raise self.error(key, f"must be <= {maximum}, got {_brief(value)}")
        return value

    def size(self, *keys: str, default: int = _UNSET, maximum: int | None = None) -> int:
        """The number of at least 1 under the first of ``keys`` that is there."""
        for key in keys:
            value = self.integer(key, minimum=1, maximum=maximum)
            if value is not None:
                return value
        if default == _UNSET:
            raise SpecError(f"{self.path}: missing key {keys[0]!r}")
        return default

    def count(self, key: str, *, default: int, null: int | None = None) -> int:
        """The number of at least 0 under ``key``; ``null`` for one written as such."""
        value = self.integer(key)
        if value is not None:
            return value
        return default if null is None or key not in self.values else null

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false, got {_brief(value)}")
        return value

    def text(self, key: str) -> str:
        """A string; raises SpecError where there is none."""
        value = self.values.get(key)
        if value is None:
            raise SpecError(f"{self.path}: missing key {key!r}")
        if not isinstance(value, str):
            raise self.error(key, f"must be a string, got {_brief(value)}")
        return value

    def strings(self, key: str) -> tuple[str, ...] | None:
        """A list of strings, None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise self.error(key, f"must be a list of strings, got {_brief(value)}")
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of whole numbers, empty where there is none."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(type(v) is int for v in value):
            raise self.error(key, f"must be a list of integers, got {_brief(value)}")
        return tuple(value)


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."

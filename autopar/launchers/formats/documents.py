"""JSON and YAML files of launchers: parsed safely, read field by field, written with notes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import yaml

from autopar.launchers.formats.lines import given_twice, line_of
from autopar.launchers.knobs import LARGEST, comments, printable
from cost_models.catalog.files import did_you_mean
from cost_models.catalog.hf_config import load_hf_config
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

T = TypeVar("T")
AUTO = "auto"
"""What Hugging Face's trainer fills in by itself; here it counts as not said."""


@dataclass(frozen=True, slots=True)
class Document:
    """Nested tables whose fields are asked for by dotted path."""

    name: str
    values: Mapping[str, Any]
    text: str = ""
    """What the tables were read from."""
    asked: set[str] = field(default_factory=set)
    places: Mapping[str, str] = field(default_factory=dict)
    """``file:line`` of top-level fields that were read from several texts."""

    def has(self, path: str) -> bool:
        """The field is there and says something."""
        return self._find(path) not in (None, AUTO)

    def size(self, path: str, default: int, *, least: int = 1) -> int:
        """A whole number, ``default`` where the file does not say."""
        value = self._find(path)
        if value is None or value == AUTO:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(path, f"must be a whole number >= {least}, got {value!r:.80}")
        if not least <= value <= LARGEST:
            raise self.error(path, f"must be a whole number >= {least}, got {value!r:.80}")
        return value

    def number(self, path: str, default: float) -> float:
        """A finite number that is not negative."""
        value = self._find(path)
        if value is None or value == AUTO:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.error(path, f"must be a number, got {value!r:.80}")
        if not 0 <= value <= LARGEST:
            raise self.error(path, f"must be a finite number >= 0, got {value}")
        return float(value)

    def flag(self, path: str, *, default: bool) -> bool:
        """A switch; the words ``true`` and ``false`` count too."""
        value = self._find(path)
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if value is None or value == AUTO:
            return default
        if not isinstance(value, bool):
            raise self.error(path, f"must be true or false, got {value!r:.80}")
        return value

    def choice(self, path: str, known: Mapping[str, T], default: str) -> T:
        """What one of the ``known`` words stands for, in any case."""
        value = self._find(path)
        word = default if value is None or value == AUTO else value
        if not isinstance(word, str) or word.lower() not in known:
            hint = did_you_mean(str(word)[:80], known)
            raise self.error(path, f"is not understood: {word!r:.80}", hint=hint)
        return known[word.lower()]

    def unread(self) -> tuple[str, ...]:
        """Paths of the fields that nobody asked for, sorted."""
        return tuple(
            sorted(
                path
                for path in _leaves(self.values)
                if not any(path == a or path.startswith(f"{a}.") for a in self.asked)
            )
        )

    def error(self, path: str, complaint: str, *, hint: str | None = None) -> SpecError:
        """An error to raise about one field, with its line."""
        line = line_of(self.text, path)
        place = self.places.get(path) or (self.name if line is None else f"{self.name}:{line}")
        return SpecError(f"{place}: {path} {complaint}", hint=hint)

    def _find(self, path: str) -> Any:
        self.asked.add(path)
        value: Any = self.values
        for key in path.split("."):
            if value is None:
                return None
            if not isinstance(value, Mapping):
                raise self.error(path, f"lies in something that is no table: {value!r:.80}")
            value = value.get(key)
        return value


def _leaves(table: Mapping[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    for key, value in table.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and depth < 8:
            yield from _leaves(value, f"{path}.", depth + 1)
        else:
            yield path


def parse_json(text: str, *, name: str) -> Document:
    """A JSON object; raises SpecError with file, line and column."""
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append(next(key for key in table if keys.count(key) > 1))
        return table

    try:
        values = json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise SpecError(
            f"{name}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}"
        ) from None
    except (ValueError, RecursionError):
        raise SpecError(f"{name}: not valid JSON") from None
    _refuse_repetition(text, name)
    if repeated:
        raise SpecError(f"{name}: {printable(repeated[0])} is given twice")
    return _document(values, text, name)


def parse_yaml(text: str, *, name: str) -> Document:
    """A YAML mapping; raises SpecError with file and line."""
    try:
        values = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SpecError(f"{name}:{line}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpecError(f"{name}: not valid YAML: {type(error).__name__}") from None
    _refuse_repetition(text, name)
    return _document(values, text, name)


def _refuse_repetition(text: str, name: str) -> None:
    """Raise SpecError for a field with two values: which one counts is for its author to say."""
    twice = given_twice(text)
    if twice is not None:
        raise SpecError(
            f"{name}:{twice.line}: {twice.path} is given twice, first in line {twice.first}"
        )


def _document(values: Any, text: str, name: str) -> Document:
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise SpecError(f"{name}: must hold a table of named fields")
    return Document(name, values, text)


def write_json(values: Mapping[str, Any]) -> str:
    """Text of a JSON file."""
    return json.dumps(values, indent=2) + "\n"


def write_yaml(values: Mapping[str, Any], head: Sequence[str]) -> str:
    """Text of a YAML file under its heading; every string is quoted where it needs to be."""
    body = yaml.safe_dump(dict(values), sort_keys=False, width=96, allow_unicode=False)
    return "\n".join(comments(head)) + "\n" + body


def split_documents(
    files: Mapping[str, str], *, launcher: str
) -> tuple[dict[str, Document], ModelSpec | None]:
    """The launcher's own files by name, and the model that a ``config.json`` describes.

    A model's config is known by its ``model_type``.  Texts beside them are left alone.
    """
    own: dict[str, Document] = {}
    model: ModelSpec | None = None
    for name, text in files.items():
        suffix = PurePath(name).suffix
        if suffix == ".json":
            document = parse_json(text, name=name)
            if isinstance(document.values.get("model_type"), str):
                model = hf_model(text, name=name)
                continue
        elif suffix in (".yaml", ".yml"):
            document = parse_yaml(text, name=name)
        else:
            continue
        own[name] = document
    if not own:
        raise SpecError(f"{next(iter(files), launcher)}: no configuration of {launcher} in there")
    return own, model


def hf_model(text: str, *, name: str) -> ModelSpec:
    """The model of a ``config.json`` that is at hand as text."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(text, encoding="utf-8")
        try:
            model = load_hf_config(path)
        except SpecError as error:
            message = str(error).replace(str(path), name)
            raise SpecError(message, hint=error.hint) from None
    named = PurePath(name).parent.name or "model"
    return replace(model, name=named, source=name)

"""The catalog's models, and models from files of one's own."""

import re
from functools import cache
from pathlib import Path

from cost_models.catalog.files import CATALOG, build, did_you_mean, line_of, names_in, read_toml
from cost_models.catalog.hf_config import load_hf_config
from cost_models.catalog.layers import parse_layers
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

_ALIASES = CATALOG / "tables" / "model_aliases.toml"
_BEYOND = CATALOG / "tables" / "models_beyond.toml"
_LAYER_KEYS = ("moe_layers", "sliding_window_layers")


@cache
def model_names() -> tuple[str, ...]:
    """Names of the catalog's models, sorted, without their aliases."""
    return names_in("models")


@cache
def model_aliases() -> dict[str, str]:
    """Other names of the catalog's models, in lower case, each with the name it stands for."""
    table = read_toml(_ALIASES)
    return {alias.lower(): name for name, aliases in table.items() for alias in aliases}


@cache
def _beyond() -> dict[str, str]:
    return {
        name: family["reason"] for family in read_toml(_BEYOND).values() for name in family["names"]
    }


def beyond_reason(name: str) -> str | None:
    """Why the equations do not have a known model's layers; None for any other name.

    Spaces, hyphens and underscores are one.

    >>> beyond_reason("Nemotron_3_Nano")
    'has Mamba-2 layers, which the equations do not have'
    """
    return _beyond().get(re.sub(r"[\s_-]+", "-", name.strip().lower()))


def load_model(name_or_path: str) -> ModelSpec:
    """The model of that name, or the one that a file describes.

    ``name_or_path`` is a catalog name or alias in any case, a path to a TOML file of
    :class:`ModelSpec` fields, or a path to a Hugging Face ``config.json`` or to the
    folder that holds one.  A catalog name goes before a file of the same name.

    Raises
    ------
    SpecError
        For an unknown name (with the nearest known ones), a file that cannot be read,
        or one that describes no model; the message starts with the file.

    >>> load_model("8B").n_parameters
    8030261248
    """
    wanted = name_or_path.strip().lower()
    name = model_aliases().get(wanted, wanted)
    if name in model_names():
        return _load_toml(CATALOG / "models" / f"{name}.toml")
    hint = _nearest(wanted)
    try:
        path = Path(name_or_path).expanduser()
        if wanted and path.is_dir():
            path = path / "config.json"
            hint = "the folder must hold a config.json"
        found = path.is_file()
    except (OSError, RuntimeError):  # too long for a path, or the home of nobody
        found = False
        path = Path()
    if found:
        return load_hf_config(path) if path.suffix == ".json" else _load_toml(path)
    if path.suffix in (".toml", ".json"):
        raise SpecError(f"{path}: no such file", hint=hint)
    raise SpecError(f"no model named {name_or_path!r}, nor a file of that name", hint=hint)


def _nearest(wanted: str) -> str:
    """Near names and aliases, or where nothing is near, the names alone."""
    hint = did_you_mean(wanted, {*model_names(), *model_aliases()})
    return "known: " + ", ".join(model_names()) if hint.startswith("known:") else hint


def _load_toml(path: Path) -> ModelSpec:
    """A model from ``path``; its name is the file's, unless the file gives one."""
    table = {"name": path.stem, **read_toml(path)}
    n_layers = table.get("n_layers")
    for key in _LAYER_KEYS:
        if key in table and isinstance(n_layers, int):
            try:
                table[key] = list(parse_layers(table[key], n_layers))
            except SpecError as error:
                raise SpecError(f"{line_of(path, key)}: {key}: {error}", hint=error.hint) from None
    return build(ModelSpec, table, path)

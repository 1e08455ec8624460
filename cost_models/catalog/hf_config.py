"""A Hugging Face ``config.json`` as a :class:`ModelSpec`."""

from pathlib import Path

from cost_models.catalog.files import did_you_mean
from cost_models.catalog.hf_families import FAMILIES
from cost_models.catalog.json_file import JsonFile
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec


def load_hf_config(path: Path) -> ModelSpec:
    """The model that ``path`` describes, named after the file's folder.

    Raises
    ------
    SpecError
        With file, line and key: for text that is no JSON object, a ``model_type`` that is
        not supported, a key that is missing, or a value that cannot be.
    """
    config = JsonFile.read(path)
    family = config.text("model_type")
    if family not in FAMILIES:
        raise SpecError(
            str(config.error("model_type", f"{family!r} is not supported")),
            hint=_supported(family),
        )
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    fields = FAMILIES[family](config)
    try:
        return ModelSpec(name=name or family, source=str(path), **fields)
    except SpecError as error:
        raise SpecError(f"{path}: {error}", hint=error.hint) from None


def _supported(family: str) -> str:
    everything = "known: " + ", ".join(sorted(FAMILIES))
    near = did_you_mean(family, FAMILIES)
    return everything if near == everything else f"{near} {everything}"

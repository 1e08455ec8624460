"""The ``arguments`` block that Megatron-LM prints when a run starts."""

import ast
import re
from collections.abc import Mapping
from typing import Any

from autopar.launchers.megatron.args.flags import ARGUMENTS, Argument, Values, within
from cost_models.specs.errors import SpecError

_START = re.compile(r"-{8,} arguments -{8,}")
_END = re.compile(r"-{8,} end of arguments -{8,}")
_LINE = re.compile(r"  (\w+) \.* (.*)$")
_EXTRA: Mapping[str, str] = {
    "world_size": "int",
    "data_parallel_size": "int",
    "virtual_pipeline_model_parallel_size": "int",
}


def is_dump(text: str) -> bool:
    """Whether the text holds such a block."""
    return _START.search(text) is not None


def parse_dump(text: str, *, name: str) -> tuple[Values, dict[str, int], list[str]]:
    """Values and their lines from the first block, and the names that are not ours."""
    values: Values = {}
    where: dict[str, int] = {}
    ignored: list[str] = []
    inside = False
    for number, line in enumerate(text.splitlines(), start=1):
        if not inside:
            inside = _START.search(line) is not None
            continue
        if _END.search(line):
            break
        match = _LINE.search(line)
        if not match:
            continue
        key, written = match.group(1), match.group(2).strip()
        argument = ARGUMENTS.get(key)
        if argument is None and key not in _EXTRA:
            ignored.append(key)
            continue
        if written == "None":
            continue
        value = _value(argument, written, f"{name}:{number}: {key}")
        if value is not None:
            values[key] = value
            where[key] = number
    # the dump is written after Megatron-LM has derived --swiglu's and others' consequences
    if values.get("virtual_pipeline_model_parallel_size") and not values.get(
        "pipeline_model_parallel_layout"
    ):
        values["num_virtual_stages_per_pipeline_rank"] = values[
            "virtual_pipeline_model_parallel_size"
        ]
        values.pop("num_layers_per_virtual_pipeline_stage", None)
    return values, where, ignored


def _value(argument: Argument | None, written: str, place: str) -> Any:
    kind = argument.kind if argument else "int"
    if kind == "str":
        return written.strip("'\"")
    if kind in ("on", "off"):
        if written not in ("True", "False"):
            raise SpecError(f"{place} must be True or False, got {written!r}")
        return written == "True"
    try:
        value = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        raise SpecError(f"{place} must be a number or a list, got {written!r}") from None
    if kind in ("strs", "ints"):
        return list(value) if isinstance(value, (list, tuple)) else [value]
    if not isinstance(value, (int, float)) or (kind == "int" and value % 1):
        raise SpecError(f"{place} must be a number, got {written!r}")
    return within(int(value) if kind == "int" else float(value), place)

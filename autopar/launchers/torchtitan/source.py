"""A torchtitan config function as settings by dotted path, read without running any of it.

Understood are the two ways in which such functions are written: one call of
``Trainer.Config(...)`` with nested calls, and a call of another config function whose
result is then edited by assignments.  Everything else is skipped.
"""

import ast
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cost_models.specs.errors import SpecError

_DEEPEST = 20
"""Config functions that start from each other; deeper is a circle."""


@dataclass(frozen=True, slots=True)
class Built:
    """A call that stays as it is: ``FullAC.Config()``, ``model_registry("8B")``."""

    name: str
    arguments: tuple[Any, ...] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression whose value only running it would tell."""

    text: str


def config_functions(source: str, *, name: str) -> dict[str, ast.FunctionDef]:
    """Functions at the top of the module; raises SpecError with file and line if not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise SpecError(f"{name}:{line}: not valid Python: {type(error).__name__}") from None
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def constants(source: str) -> dict[str, Any]:
    """Literal values of names assigned at the top of a module."""
    found: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, {})
            if not isinstance(value, Unknown | Built):
                found[node.targets[0].id] = value
    return found


def settings(
    function: str,
    functions: Mapping[str, ast.FunctionDef],
    known: Mapping[str, Mapping[str, Any]],
    *,
    depth: int = 0,
) -> dict[str, Any]:
    """What ``function`` sets, by dotted path, over what the function it starts from sets.

    ``known`` are the settings of config functions that other modules define.
    """
    if function not in functions:
        return dict(known.get(function, {}))
    if depth > _DEEPEST:
        raise SpecError(f"config function {function!r} starts from itself")
    values: dict[str, Any] = {}
    local: dict[str, Any] = {}
    config = "config"
    for node in ast.walk(functions[function]):
        match node:
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Call() as call):
                start = _name(call.func)
                if start in functions or start in known:
                    config = target
                    values = settings(start, functions, known, depth=depth + 1) | values
                elif start.endswith("Trainer.Config"):
                    config = target
                    _flatten("", call, local, values)
                else:
                    local[target] = _value(call, local)
            case ast.Assign(targets=[ast.Name(id=target)], value=value):
                local[target] = _value(value, local)
            case ast.Assign(targets=[ast.Attribute() as target_path], value=value):
                _assign(_name(target_path), value, config, local, values)
            case ast.Return(value=ast.Call() as call):
                start = _name(call.func)
                if start.endswith("Trainer.Config"):
                    _flatten("", call, local, values)
                elif start in functions or start in known:
                    values = settings(start, functions, known, depth=depth + 1) | values
            case _:
                pass
    return values


def _assign(
    path: str, value: ast.expr, config: str, local: Mapping[str, Any], values: dict[str, Any]
) -> None:
    if not path.startswith(f"{config}."):
        return
    path = path.removeprefix(f"{config}.")
    if isinstance(value, ast.Call) and _is_section(path):
        values |= {key: None for key in values if key.startswith(f"{path}.")}
        _flatten(path, value, local, values)
    else:
        values[path] = _value(value, local)


def _is_section(path: str) -> bool:
    return path in ("training", "parallelism", "compile", "comm", "debug", "checkpoint")


def _flatten(path: str, call: ast.Call, local: Mapping[str, Any], values: dict[str, Any]) -> None:
    for keyword in call.keywords:
        if keyword.arg is None:
            continue
        key = f"{path}.{keyword.arg}" if path else keyword.arg
        node = keyword.value
        if isinstance(node, ast.Name) and isinstance(local.get(node.id), Built):
            built = local[node.id]
            if _is_section(key):
                values |= {f"{key}.{name}": value for name, value in built.keywords.items()}
            values[key] = built
        elif isinstance(node, ast.Call) and _is_section(key):
            _flatten(key, node, local, values)
        else:
            values[key] = _value(node, local)


def _name(node: ast.expr) -> str:
    """``a.b.c`` as text, empty for anything that is not a dotted name."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=value, attr=attribute):
            owner = _name(value)
            return f"{owner}.{attribute}" if owner else ""
    return ""


def _value(node: ast.expr, local: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(id=name) if name in local:
            return local[name]
        case ast.Call():
            return Built(
                _name(node.func),
                tuple(_value(a, local) for a in node.args),
                {k.arg: _value(k.value, local) for k in node.keywords if k.arg is not None},
            )
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item, local) for item in items]
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return Unknown(ast.dump(node)[:200])

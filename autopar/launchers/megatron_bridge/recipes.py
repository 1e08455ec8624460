"""Megatron-Bridge's recipes: their names for our models, and their Python read, not run."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from autopar.launchers.formats.shell import Word
from cost_models.specs.errors import SpecError

FALLBACK = "vanilla_gpt_pretrain_config"
RECIPES: Mapping[str, str] = {
    "llama2-7b": "llama2_7b_pretrain_config",
    "llama3-8b": "llama3_8b_pretrain_config",
    "llama3-70b": "llama3_70b_pretrain_config",
    "llama3.1-405b": "llama31_405b_pretrain_config",
    "deepseek-v2": "deepseek_v2_pretrain_config",
    "deepseek-v2-lite": "deepseek_v2_lite_pretrain_config",
    "deepseek-v3": "deepseek_v3_pretrain_config",
    "kimi-k2": "kimi_k2_pretrain_config",
    "gpt-oss-20b": "gpt_oss_20b_pretrain_config",
    "gpt-oss-120b": "gpt_oss_120b_pretrain_config",
    "gpt3-175b": "gpt3_175b_pretrain_config",
    "gemma-2-9b": "gemma2_9b_pretrain_config",
    "gemma-2-27b": "gemma2_27b_pretrain_config",
    "qwen2.5-7b": "qwen25_7b_pretrain_config",
    "qwen2.5-72b": "qwen25_72b_pretrain_config",
    "qwen3-8b": "qwen3_8b_pretrain_config",
    "qwen3-32b": "qwen3_32b_pretrain_config",
    "qwen3-30b-a3b": "qwen3_30b_a3b_pretrain_config",
    "qwen3-235b-a22b": "qwen3_235b_a22b_pretrain_config",
}
"""Recipe to begin with, by the catalog's name."""
COMMON: Mapping[str, Any] = {
    "train.micro_batch_size": 2,
    "train.global_batch_size": 32,
    "dataset.seq_length": 4096,
    "ddp.use_distributed_optimizer": True,
    "ddp.overlap_grad_reduce": True,
    "ddp.overlap_param_gather": True,
    "mixed_precision": "bf16_mixed",
}
"""What recipes/common.py sets before a recipe has its say."""
_DEEPEST = 10
"""Functions that call each other; deeper is a circle."""
_GPUS = re.compile(r"_(\d+)gpu_")
_STARTS = (
    *(("llama31_405b", "llama3.1-405b"), ("deepseek_v2_lite", "deepseek-v2-lite")),
    *((r.removesuffix("_pretrain_config"), m) for m, r in RECIPES.items()),
)


def catalog_name(recipe: str) -> str | None:
    """The catalog's model that a recipe is for, by its name."""
    return next((model for start, model in _STARTS if recipe.startswith(f"{start}_")), None)


def gpus_of(recipe: str) -> int | None:
    """GPUs in the name of a recipe: ``..._pretrain_32gpu_h100_...``."""
    match = _GPUS.search(recipe)
    return int(match.group(1)) if match else None


@dataclass(frozen=True, slots=True)
class Module:
    """A module of recipes, parsed."""

    functions: Mapping[str, ast.FunctionDef]
    constants: Mapping[str, Any]


class _PlainCall(ast.Call):
    """A call of a plain name."""

    func: ast.Name


def recipes_in(source: str, *, name: str) -> Module:
    """Functions and constants of a recipe module; raises SpecError if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None) or 1
        raise SpecError(f"{name}:{line}: not Python: {error}") from None
    constants = {}
    for node in tree.body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant):
            constants[target.id] = node.value.value
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    return Module(functions, constants)


def settings(
    source: Module, recipe: str, *, bound: Mapping[str, Any] | None = None, depth: int = 0
) -> Iterator[tuple[str, Any, Word]]:
    """Path, value and place of every ``cfg.a.b = value`` in the order of the code.

    A call of another function of the module is followed; what all recipes start from
    stands in :data:`COMMON`.  A model from Hugging Face is the path ``model`` with the
    repository's name.
    """
    if depth > _DEEPEST:
        return
    function = source.functions[recipe]
    known = {**source.constants, **(bound or {})}
    for node in _in_order(function.body):
        target, value = node.targets[0], node.value
        called = value.func.id if _is_plain_call(value) else None
        if isinstance(target, ast.Name):
            if called is not None and called in source.functions:
                arguments = _arguments(source.functions[called], value, known)
                yield from settings(source, called, bound=arguments, depth=depth + 1)
            elif called == "_pretrain_common":
                yield from ((p, v, Word(p, node.lineno)) for p, v in COMMON.items())
            else:
                known[target.id] = _resolved(value, known)
            continue
        path = _path(target)
        if path is not None:
            yield from _said(path, value, known, Word(path, node.lineno))


def _said(
    path: str, value: ast.expr, known: Mapping[str, Any], place: Word
) -> Iterator[tuple[str, Any, Word]]:
    resolved = _resolved(value, known)
    if path == "model":
        repository = _repository(value)
        if repository:
            yield path, repository, place
        elif isinstance(value, ast.Call):
            for keyword in value.keywords:
                item = _resolved(keyword.value, known)
                if keyword.arg and item is not None:
                    yield f"model.{keyword.arg}", item, place
    elif resolved is not None or (isinstance(value, ast.Constant) and value.value is None):
        yield path, resolved, place
    elif isinstance(value, ast.Call):
        for keyword in value.keywords:
            if keyword.arg and isinstance(keyword.value, ast.Constant):
                yield f"{path}.{keyword.arg}", keyword.value.value, place


def _in_order(body: Sequence[ast.stmt]) -> Iterator[ast.Assign]:
    """Assignments to one target, those under an ``if`` included."""
    for node in body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            yield node
        elif isinstance(node, ast.If):
            yield from _in_order(node.body)


def _is_plain_call(value: ast.expr) -> TypeGuard[_PlainCall]:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name)


def _arguments(
    function: ast.FunctionDef, call: ast.expr, known: Mapping[str, Any]
) -> dict[str, Any]:
    """Values of a call's arguments by the names that the function gives them."""
    if not isinstance(call, ast.Call):
        return {}
    names = [a.arg for a in function.args.args]
    found = {n: _resolved(v, known) for n, v in zip(names, call.args, strict=False)}
    return found | {k.arg: _resolved(k.value, known) for k in call.keywords if k.arg}


def _resolved(value: ast.expr, known: Mapping[str, Any]) -> Any:
    """A literal, a known name, or the name of a precision; None where only running would tell."""
    if isinstance(value, ast.Name):
        return known.get(value.id)
    if _is_plain_call(value):
        if value.func.id == "get_mixed_precision_config" and value.args:
            return _resolved(value.args[0], known)
        return value.func.id if value.func.id.endswith("_mixed") else None
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError):
        return None


def _path(target: ast.expr) -> str | None:
    parts = []
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    if not isinstance(target, ast.Name) or target.id not in ("cfg", "config") or not parts:
        return None
    return ".".join(reversed(parts))


def _repository(value: ast.expr) -> str | None:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "/" in node.value:
            return node.value
    return None

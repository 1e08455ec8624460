"""Megatron-Bridge: a recipe's name and overrides of its fields, written and read back.

Recipes themselves, as Megatron-Bridge ships them in Python, are read too.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autopar.launchers.formats.shell import Word, array, checkout, read_script, torchrun_head
from autopar.launchers.knobs import comments, heading, not_expressed
from autopar.launchers.megatron.args.flags import Values
from autopar.launchers.megatron.args.model import read_model
from autopar.launchers.megatron.args.values import environment, located, read_strategy, write
from autopar.launchers.megatron.args.vocabulary import vocabulary
from autopar.launchers.megatron.args.world import world_size_of
from autopar.launchers.megatron_bridge.paths import (
    PRECISIONS,
    from_paths,
    overrides,
    parse_override,
)
from autopar.launchers.megatron_bridge.recipes import (
    COMMON,
    FALLBACK,
    RECIPES,
    catalog_name,
    gpus_of,
    recipes_in,
    settings,
)
from autopar.launchers.plan import Emission, Plan, Reading
from cost_models.catalog.models import load_model
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

FILE = "megatron_bridge.sh"
_PROGRAM = "scripts/training/run_recipe.py"
_REASONS = {
    "reshard_after_forward": "its FSDP frees weights after every use",
}


def emit(plan: Plan, targets: str) -> Emission:
    """``megatron_bridge.sh``: run it on every node with NODE_RANK and MASTER_ADDR set."""
    written = write(plan)
    body = _body(plan, written.values)
    said = read(body, name=FILE).strategy
    reasons = {**written.reasons, **_REASONS}
    unsaid = (*not_expressed(written.wanted, said, reasons, plan.model), *written.left_out)
    head = "\n".join(comments(heading(plan, targets, unsaid)))
    return Emission(
        files={FILE: f"#!/usr/bin/env bash\n{head}\n{body}"},
        not_expressed=unsaid,
    )


def _body(plan: Plan, values: Values) -> str:
    head = torchrun_head(
        checkout("MEGATRON_BRIDGE", _PROGRAM, "Megatron-Bridge"),
        environment(plan, values),
        world_size=plan.strategy.world_size,
        gpus_per_node=plan.cluster.gpus_per_node,
    )
    overlapped = values.get("overlap_p2p_comm", True)
    if values.get("use_megatron_fsdp"):
        values = {**values, "use_distributed_optimizer": True}
    rows = [
        *overrides(values),
        f"dataset.seq_length={plan.workload.sequence_length}",
        f"dist.use_megatron_fsdp={str(bool(values.get('use_megatron_fsdp'))).lower()}",
        "optimizer.use_distributed_optimizer="
        f"{str(bool(values.get('use_distributed_optimizer'))).lower()}",
        f"model.batch_p2p_comm={str(not overlapped).lower()}",
        f"model.cpu_offloading={str(bool(values.get('cpu_offloading_num_layers'))).lower()}",
        "comm_overlap=null",
        f"mixed_precision={PRECISIONS[plan.strategy.precision]}",
    ]
    recipe = RECIPES.get(plan.model.name, FALLBACK)
    return f"""{head}

{array("OVERRIDES", [[row] for row in rows])}
exec torchrun "${{LAUNCH_ARGS[@]}}" "$MEGATRON_BRIDGE/{_PROGRAM}" \\
    --recipe {recipe} \\
    "${{OVERRIDES[@]}}" \\
    "$@"
"""


def read(
    source: str | Mapping[str, str],
    *,
    name: str = FILE,
    world_size: int | None = None,
    choice: str | None = None,
) -> Reading:
    """What a launch script, a command line, or a module of recipes says.

    In a module ``choice`` names the function; without it the only one that is no helper
    is read.  GPUs are those of the script, of the recipe's name, or ``world_size``.
    Raises SpecError as ``file:line: field: what is wrong``.
    """
    unread: Sequence[str] = ()
    if isinstance(source, Mapping):
        if not source:
            raise SpecError("no files to read")
        files = source
        name, source = max(
            files.items(), key=lambda file: len(re.findall(r"\bmodel\.\w+=", file[1]))
        )
        unread = [file for file in files if file != name]
    found: list[tuple[str, Any, Word]]
    notes: dict[str, str] = {}
    if re.search(r"^def \w+\(", source, re.MULTILINE):
        module = recipes_in(source, name=name)
        recipe = _chosen(list(module.functions), choice, name)
        found = list(settings(module, recipe))
        world = None
    else:
        script = read_script(source, name=name)
        recipe, found = _command(script.commands, name)
        if recipe and not any(path == "ddp.use_distributed_optimizer" for path, _, _ in found):
            notes["defaults"] = "what the recipe itself sets is not in the file"
            found = [*((p, v, Word(p, 0)) for p, v in COMMON.items()), *found]
        world = world_size_of(script, source)
    values, where, ignored = from_paths(((p, v, w) for p, v, w in found if p != "model"), name=name)
    world = world_size or world or gpus_of(recipe)
    notes["recipe"] = recipe
    if world is None:
        notes["dp"] = "the file does not say how many GPUs there are, so dp is 1"
    base = next((v for p, v, _ in reversed(found) if p == "model"), None)
    model = _model(values, where, base or catalog_name(recipe), name, notes)
    if model is not None:
        values.setdefault("num_layers", model.n_layers)
        if model.is_moe:
            values.setdefault("num_experts", model.n_experts)
    return Reading(
        strategy=read_strategy(values, where, world, name=name),
        world_size=world,
        model=model,
        global_batch_size=values.get("global_batch_size"),
        sequence_length=values.get("seq_length"),
        ignored=tuple(dict.fromkeys([*unread, *ignored])),
        notes=notes,
    )


def _chosen(functions: Sequence[str], recipe: str | None, name: str) -> str:
    recipes = [f for f in functions if f.endswith("config") and not f.startswith("_")]
    if recipe is not None and recipe in functions:
        return recipe
    if recipe is None and len(recipes) == 1:
        return recipes[0]
    what = "has no recipe" if not recipes else f"recipe must be one of {len(recipes)}"
    raise SpecError(f"{name}: {what}, got {recipe!r}", hint=f"known: {', '.join(recipes)}")


def _command(
    commands: Sequence[Sequence[Word]], name: str
) -> tuple[str, list[tuple[str, Any, Word]]]:
    """The recipe and the overrides of the command that has the most of them."""
    best: list[tuple[str, Any, Word]] = []
    recipe = ""
    for words in commands:
        found = []
        called = ""
        for index, word in enumerate(words):
            flag, equals, value = word.text.partition("=")
            if flag in ("--recipe", "--recipe_name", "--recipe-name"):
                called = value if equals else "".join(w.text for w in words[index + 1 : index + 2])
            parsed = parse_override(word.text)
            if parsed and ("." in parsed[0] or parsed[0] == "mixed_precision"):
                found.append((*parsed, word))
        if len(found) + bool(called) > len(best) + bool(recipe):
            best, recipe = found, called
    if not best and not recipe:
        raise SpecError(
            f"{name}: neither --recipe nor an override such as model.hidden_size=4096",
            hint="expected a launch script, a command line, or a module of recipes",
        )
    return recipe, best


def _model(
    values: Values,
    where: Mapping[str, int],
    base: str | None,
    name: str,
    notes: dict[str, str],
) -> ModelSpec | None:
    """The model spelled out, else the catalog's for the recipe."""
    known: ModelSpec | None = None
    if base:
        try:
            known = load_model(base)
        except SpecError:
            notes["model"] = f"{base} is not in the catalog"
    if values.get("num_layers") is None or values.get("hidden_size") is None:
        return known
    try:
        title = known.name if known else "megatron-bridge"
        return read_model(values, name=title, vocab_size=vocabulary(values, notes))
    except SpecError as error:
        raise located(error, where, name=name) from None

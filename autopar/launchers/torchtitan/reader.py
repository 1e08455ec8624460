"""Config modules and commands of torchtitan 0.3.0 as a strategy; nothing of them is run."""

import ast
import re
from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from autopar.launchers.formats.shell import Word, read_script
from autopar.launchers.knobs import LARGEST, effective
from autopar.launchers.plan import Reading
from autopar.launchers.torchtitan.fields import (
    AC,
    CONVERTERS,
    FIELDS,
    SCHEDULES,
    V_SHAPED,
    assigned_stages,
)
from autopar.launchers.torchtitan.models import SHIPPED, flavor_model, shape_model
from autopar.launchers.torchtitan.source import (
    Built,
    config_functions,
    constants,
    settings,
)
from cost_models.catalog.files import did_you_mean
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import (
    ContextParallel,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)

_FAMILY = re.compile(r"torchtitan\.models\.(\w+)|(?:^|/)models/(\w+)/config_registry\.py$")
_SUBCOMMAND = re.compile(r"activation[-_]checkpoint:(\w[\w-]*)")
_SUBCOMMANDS: Mapping[str, str | None] = {
    "none": None,
    "full": "FullAC",
    "selective": "SelectiveAC",
    "full-ac": "FullAC",
    "selective-ac": "SelectiveAC",
}
_OURS = {
    *(path for _, path in FIELDS),
    "training.seq_len",
    "training.global_batch_size",
    "training.local_batch_size",
    "training.enable_cpu_offload",
    "training.disable_cuda_graphs",
    "parallelism.data_parallel_replicate_degree",
    "parallelism.data_parallel_shard_degree",
    "parallelism.fsdp_reshard_after_forward",
    "parallelism.pipeline_parallel_schedule",
    "parallelism.pipeline_parallel_microbatch_size",
    "parallelism.pipeline_parallel_first_stage_less_layers",
    "parallelism.pipeline_parallel_last_stage_less_layers",
    "parallelism.pipeline_parallel_layers_per_stage",
    "parallelism.module_fqns_per_model_part",
    "compile.enable",
    "compile.components",
    "compile.enable_async_tensor_parallel",
    "activation_checkpoint",
    "converters",
    "model_spec",
    "nnodes",
    "nproc_per_node",
    "module",
    "config",
}

_UNPLACED = "torchtitan: "
"""What errors begin with until their place is found."""


def read(files: Mapping[str, str]) -> Reading:
    """See :func:`autopar.launchers.torchtitan.files.read`."""
    try:
        return _read(files)
    except RecursionError:
        raise SpecError(f"{next(iter(files))}: nested too deeply to read") from None
    except SpecError as error:
        raise _located(error, files) from None


def _located(error: SpecError, files: Mapping[str, str]) -> SpecError:
    """The same error with the last place of the field that it names first, where it names one."""
    text = str(error)
    own = text.removeprefix(_UNPLACED)
    field = re.search(r"(?:\w+\.)*(\w+_\w+)", own)
    if own == text or field is None:
        return error
    for name, source in reversed(list(files.items())):
        lines = source.splitlines()
        found = [n for n, line in enumerate(lines, 1) if re.search(rf"\b{field[1]}\b", line)]
        if found:
            return SpecError(f"{name}:{found[-1]}: {own}", hint=error.hint)
    return SpecError(f"{next(iter(files))}: {own}", hint=error.hint)


def _read(files: Mapping[str, str]) -> Reading:
    given: dict[str, Any] = {}
    for name, text in files.items():
        if not name.endswith(".py"):
            given |= _command(text, name)
    sources = {name: text for name, text in files.items() if name.endswith(".py")}
    functions: dict[str, ast.FunctionDef] = {}
    for name, text in sources.items():
        functions |= config_functions(text, name=name)
    function = _which(given.get("config"), functions, files)
    family = next(_families(given, sources, function), None)
    values = settings(function, functions, _shipped()) | given
    model = _model(values, sources, family)
    nnodes, per_node = (_size(values, key, 0) for key in ("nnodes", "nproc_per_node"))
    world = nnodes * per_node or None
    strategy = strategy_of(values, model, world)
    local = _size(values, "training.local_batch_size", 8)
    total = _size(values, "training.global_batch_size", -1)
    notes = {"config": function}
    if total == -1:
        total = local * strategy.dp
    elif strategy.pp > 1 and total > local * strategy.dp:
        notes["micro_batch_size"] = "gradients are accumulated over several runs of the pipeline"
    if strategy.recompute == Recompute.CORE_ATTN:
        notes["recompute"] = "SelectiveAC keeps attention and every other matrix product"
    if world is None and _size(values, _DP_SHARD, -1, least=-1) == -1:
        notes["dp"] = "data_parallel_shard_degree takes the GPUs that are left: say how many"
    elif world is None:
        world = strategy.world_size
    if world is not None:
        strategy = effective(strategy, model)
    return Reading(
        strategy=strategy,
        world_size=world,
        model=model,
        global_batch_size=total,
        sequence_length=_size(values, "training.seq_len", 2048),
        ignored=tuple(sorted(key for key in values if key not in _OURS)),
        notes=notes,
    )


_DP_SHARD = "parallelism.data_parallel_shard_degree"


def strategy_of(
    values: Mapping[str, Any], model: ModelSpec | None, world: int | None = None
) -> Strategy:
    """The strategy behind fields by their path; ``world`` fills a shard degree of -1."""
    knobs: dict[str, Any] = {}
    for knob, path in FIELDS:
        if knob == "sequence_parallel":
            knobs[knob] = bool(values.get(path, True))
        else:
            knobs[knob] = _size(values, path, 1)
    replicas = _size(values, "parallelism.data_parallel_replicate_degree", 1)
    shard = _size(values, _DP_SHARD, -1, least=-1)
    if shard == -1:
        others = replicas * knobs["tp"] * knobs["pp"] * knobs["cp"]
        if world is not None and world % others:
            raise SpecError(
                f"torchtitan: {world} GPUs cannot be shared out among dp_replicate * tp * pp * cp "
                f"= {others}"
            )
        shard = max(world // others, 1) if world is not None else 1
    knobs["dp"], knobs["dp_shard"] = replicas * shard, shard
    knobs["sharding"] = Sharding.FSDP if replicas == 1 else Sharding.HSDP
    if replicas > 1 and shard * knobs["cp"] == 1:
        knobs["sharding"] = Sharding.NONE
    reshard = values.get("parallelism.fsdp_reshard_after_forward", "default")
    knobs["reshard_after_forward"] = reshard == "always" or (
        reshard == "default" and knobs["pp"] == 1
    )
    moe = model is not None and model.is_moe
    knobs["etp"] = knobs["tp"] if moe and knobs["ep"] == 1 else 1
    knobs["cp_comm"] = ContextParallel.ALL_GATHER
    knobs["optimizer_offload"] = 1.0 if values.get("training.enable_cpu_offload") else 0.0
    knobs["overlap_tp"] = bool(values.get("compile.enable_async_tensor_parallel", False))
    knobs["recompute"] = _recompute(values.get("activation_checkpoint", "SelectiveAC"))
    knobs["precision"] = _precision(values)
    pipelined = knobs["pp"] > 1
    local = _size(values, "training.local_batch_size", 8)
    cut = _size(values, "parallelism.pipeline_parallel_microbatch_size", 1)
    knobs["micro_batch_size"] = cut if pipelined else local
    if pipelined:
        knobs |= _pipeline(values, knobs["pp"], model)
    return Strategy(**knobs)


def _pipeline(values: Mapping[str, Any], pp: int, model: ModelSpec | None) -> dict[str, Any]:
    text = str(values.get("parallelism.pipeline_parallel_schedule", "1F1B"))
    names = {name.lower(): schedule for schedule, name in SCHEDULES.items()}
    names["loopedbfs"] = Schedule.GPIPE
    if text.lower() not in names:
        raise SpecError(
            f"torchtitan: no strategy has pipeline_parallel_schedule {text!r}",
            hint=did_you_mean(text, SCHEDULES.values()),
        )
    schedule = names[text.lower()]
    looped = schedule not in (Schedule._1F1B, Schedule.GPIPE) or text.lower() == "loopedbfs"
    first = _size(values, "parallelism.pipeline_parallel_first_stage_less_layers", 1, least=0)
    last = _size(values, "parallelism.pipeline_parallel_last_stage_less_layers", 1, least=0)
    per_stage = values.get("parallelism.pipeline_parallel_layers_per_stage")
    parts = values.get("parallelism.module_fqns_per_model_part")
    stages: tuple[int, ...] | None = None
    vpp = 2 if looped else 1
    if isinstance(parts, list) and parts:
        stages = tuple(sum(str(n).startswith("layers.") for n in part) for part in parts)
        vpp = _divided(len(parts), pp)
    elif isinstance(per_stage, int) and per_stage > 0 and model is not None:
        vpp = _divided(ceil((model.n_layers + first + last) / per_stage), pp)
    if schedule in V_SHAPED and vpp != 2:
        raise SpecError(f"torchtitan: {text} has two stages on each rank, got {vpp}")
    if stages is None and (first, last) not in ((1, 1), (0, 0)) and model is not None:
        stages = assigned_stages(model.n_layers, pp * vpp, first, last)
    return {"schedule": schedule, "vpp": vpp, "stage_layers": stages}


def _divided(stages: int, pp: int) -> int:
    if stages % pp:
        raise SpecError(f"torchtitan: {stages} stages must be a multiple of pp {pp}")
    return stages // pp


def _recompute(value: Any) -> Recompute:
    name = value.name.removesuffix(".Config") if isinstance(value, Built) else value
    name = name.rsplit(".", 1)[-1] if isinstance(name, str) else name
    if name not in AC:
        raise SpecError(
            f"torchtitan: no strategy has activation checkpointing {name}",
            hint="known: FullAC, SelectiveAC, None",
        )
    return AC[name][0]


def _precision(values: Mapping[str, Any]) -> Precision:
    found = values.get("converters")
    spec = values.get("model_spec")
    if isinstance(spec, Built):
        found = found or spec.keywords.get("converters")
    text = repr(found)
    for precision, converter in CONVERTERS.items():
        if converter in text:
            return precision
    return Precision.BF16


def _model(
    values: Mapping[str, Any], sources: Mapping[str, str], family: str | None
) -> ModelSpec | None:
    spec = values.get("model_spec")
    if not isinstance(spec, Built):
        return None
    if spec.name == "_model_spec":
        for text in sources.values():
            shape = constants(text).get("MODEL")
            if isinstance(shape, dict):
                try:
                    return shape_model(shape)
                except (KeyError, TypeError) as error:
                    raise SpecError(f"torchtitan: MODEL lacks or misstates {error}") from None
        return None
    flavor = spec.arguments[0] if spec.arguments else spec.keywords.get("flavor")
    owner = next(iter(spec.keywords.get("family", ())), None) or family
    return flavor_model(str(owner), str(flavor)) if owner else None


def _families(given: Mapping[str, Any], sources: Mapping[str, str], function: str) -> Iterator[str]:
    if function in SHIPPED:
        yield SHIPPED[function][0]
    for text in (str(given.get("module", "")), *sources, *sources.values()):
        for match in _FAMILY.finditer(text):
            family = match.group(1) or match.group(2)
            if family != "common":
                yield family
    if given.get("module"):
        yield str(given["module"]).rsplit(".", 1)[-1]


def _shipped() -> dict[str, dict[str, Any]]:
    return {
        name: {
            "model_spec": Built("model_registry", (flavor,), {"family": [family]}),
            "training.local_batch_size": local,
            "training.seq_len": sequence,
            "parallelism.tensor_parallel_degree": tp,
            "parallelism.expert_parallel_degree": ep,
            "parallelism.pipeline_parallel_schedule": schedule,
            "activation_checkpoint": ac,
        }
        for name, (family, flavor, local, sequence, tp, ep, schedule, ac) in SHIPPED.items()
    }


def _which(wanted: Any, functions: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """The config function that is meant; the only one where nobody says."""
    known = {*functions, *SHIPPED}
    if wanted is not None:
        if wanted not in known:
            raise SpecError(
                f"torchtitan: no config function {wanted!r}", hint=did_you_mean(str(wanted), known)
            )
        return str(wanted)
    public = [name for name in functions if not name.startswith("_")]
    if len(public) != 1:
        raise SpecError(
            f"{next(iter(files), 'torchtitan')}: {len(public)} config functions, say which",
            hint=f"give the command with --config; known: {', '.join(sorted(public)) or 'none'}",
        )
    return public[0]


def _command(text: str, name: str) -> dict[str, Any]:
    """Fields set by the options of the command that runs torchtitan."""
    script = read_script(text, name=name)
    values: dict[str, Any] = {}
    for key, variable in (("module", "MODULE"), ("config", "CONFIG"), ("nproc_per_node", "NGPU")):
        words = script.variables.get(variable)
        if words:
            values[key] = _parsed(words[0].text) if key == "nproc_per_node" else words[0].text
            values.setdefault("nnodes", 1)
    for words in script.commands:
        texts = [word.text for word in words]
        if (
            "torchtitan.train" in texts
            or "--config" in texts
            or any(
                t.startswith(("--config=", "--parallelism.", "--training.")) or "run_train.sh" in t
                for t in texts
            )
        ):
            values |= _options(words, name)
    return values


def _options(words: tuple[Word, ...], name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    i = 0
    while i < len(words):
        text = words[i].text
        i += 1
        if match := _SUBCOMMAND.fullmatch(text):
            kind = match.group(1)
            if kind not in _SUBCOMMANDS:
                raise SpecError(
                    f"{name}:{words[i - 1].line}: activation-checkpoint:{kind} is not understood",
                    hint=did_you_mean(kind, _SUBCOMMANDS),
                )
            values["activation_checkpoint"] = _SUBCOMMANDS[kind]
            continue
        if not text.startswith("--") or len(text) == len("--"):
            continue
        key, equals, value = text[2:].partition("=")
        key = key.replace("-", "_")
        if words[i - 1].unknown is not None:
            continue
        if equals:
            values[key] = _parsed(value)
        elif i < len(words) and not words[i].text.startswith("--"):
            if _SUBCOMMAND.fullmatch(words[i].text):
                values[key] = True
                continue
            if words[i].unknown is None:
                values[key] = _parsed(words[i].text)
            i += 1
        elif ".no_" in key:
            values[key.replace(".no_", ".", 1)] = False
        else:
            values[key] = True
    return values


def _parsed(text: str) -> Any:
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    return {"True": True, "False": False, "None": None}.get(text, text)


def _size(values: Mapping[str, Any], path: str, default: int, *, least: int = 1) -> int:
    value: Any = values.get(path, default)
    if value is None or value == default:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise SpecError(f"torchtitan: {path} must be a whole number >= {least}, got {value!r:.80}")
    return value

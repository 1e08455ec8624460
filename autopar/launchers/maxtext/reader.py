"""MaxText's YAML files and commands as a strategy."""

import re
from collections.abc import Mapping
from dataclasses import replace
from math import gcd, prod
from pathlib import PurePath
from typing import Any

from autopar.launchers.formats.documents import Document, parse_yaml
from autopar.launchers.formats.lines import top_lines
from autopar.launchers.formats.shell import read_script
from autopar.launchers.knobs import effective
from autopar.launchers.maxtext.fields import (
    AXES,
    CP_STRATEGIES,
    OTHER_QUANTIZATIONS,
    POLICIES,
    QUANTIZATIONS,
    REMAT_TENSORS,
)
from autopar.launchers.maxtext.models import SHAPE, named_model
from autopar.launchers.plan import Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy

_OVERRIDE = re.compile(r"([a-z]\w*)=(.*)", re.DOTALL)
_WHAT_IS_LEFT = -1
_USUAL = {"ici_fsdp_parallelism": _WHAT_IS_LEFT, "dcn_data_parallelism": _WHAT_IS_LEFT}
"""What ``base.yml`` leaves open."""
_SLICE = 8
"""GPUs in a slice, where only the number of all GPUs is known."""


def document(name: str, values: Mapping[str, Any]) -> Document:
    """Fields under the name that errors call them by."""
    return Document(name, values)


def read(files: Mapping[str, str], *, world_size: int | None = None) -> Reading:
    """See :func:`autopar.launchers.maxtext.files.read`; ``world_size`` fills axes of -1."""
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for name, text in files.items():
        if PurePath(name).suffix in (".yml", ".yaml"):
            values |= parse_yaml(text, name=name).values
            places |= {field: f"{name}:{line}" for field, line in top_lines(text).items()}
    for name, text in files.items():
        if PurePath(name).suffix not in (".yml", ".yaml"):
            for field, (value, line) in _overrides(text, name).items():
                values[field], places[field] = value, f"{name}:{line}"
    if not values:
        raise SpecError(f"{next(iter(files), 'maxtext')}: no configuration of maxtext in there")
    fields = Document(next(iter(files)), values, places=places)
    if world_size is not None:
        values |= _filled(fields, world_size)
    model = _model(fields)
    strategy = strategy_of(fields, model)
    unknown = [a for a in _axes() if fields.values.get(a, _USUAL.get(a)) == _WHAT_IS_LEFT]
    world = None if unknown else strategy.world_size
    if world is not None:
        strategy = effective(strategy, model)
    notes: dict[str, str] = {}
    if unknown:
        notes["dp"] = f"{' and '.join(unknown)} takes the GPUs that are left: say how many"
    per_gpu = fields.number("per_device_batch_size", 12.0)
    steps = fields.size("gradient_accumulation_steps", 1)
    for idle in ("base_config", "run_name", "hardware", "dataset_type", "steps"):
        fields.has(idle)
    return Reading(
        strategy=strategy,
        world_size=world,
        model=model,
        global_batch_size=int(per_gpu * strategy.world_size) * steps if world else None,
        sequence_length=fields.size("max_target_length", 2048),
        ignored=fields.unread(),
        notes=notes,
    )


def _filled(fields: Document, world: int) -> dict[str, int]:
    """The axes that take what is left: first the one inside slices, then the one across."""
    sizes = {a: fields.size(a, _USUAL.get(a, 1), least=_WHAT_IS_LEFT) for a in _axes()}
    left, over = divmod(world, prod(size for size in sizes.values() if size > 0))
    if over:
        raise SpecError(f"{fields.name}: {world} GPUs are no multiple of the axes that are given")
    inside = prod(s for axis, s in sizes.items() if axis.startswith("ici_") and s > 0)
    filled = {}
    for axis in (axis for axis, size in sizes.items() if size == _WHAT_IS_LEFT):
        across = any(a.startswith("dcn_") and s == _WHAT_IS_LEFT for a, s in sizes.items())
        room = gcd(left, max(_SLICE // inside, 1)) if axis.startswith("ici_") and across else left
        filled[axis] = room
        left //= room
    return filled


def strategy_of(fields: Document, model: ModelSpec | None) -> Strategy:
    """The strategy behind the fields; raises SpecError for one that cannot be."""
    sizes = {axis: _axis(fields, axis) for axis in AXES}
    transpose = _axis(fields, "fsdp_transpose")
    data, sharded = sizes["data"], sizes["fsdp"] * transpose * sizes["expert"]
    if sizes["tensor"] > 1 and sizes["tensor_sequence"] > 1:
        raise fields.error("ici_tensor_parallelism", "and tensor_sequence are both above 1")
    knobs: dict[str, Any] = {
        "tp": sizes["tensor"] * sizes["tensor_sequence"],
        "cp": sizes["context"],
        "ep": sizes["expert"],
        "pp": sizes["pipeline"],
        "dp": data * sharded,
        "dp_shard": sharded,
        "sequence_parallel": sizes["tensor_sequence"] > 1,
    }
    zero1 = fields.flag("shard_optimizer_over_data", default=False)
    left = fields.values.get("ici_fsdp_parallelism", _WHAT_IS_LEFT) == _WHAT_IS_LEFT
    if sharded * knobs["cp"] > 1 or left:
        knobs["sharding"] = Sharding.FSDP if data == 1 else Sharding.HSDP
    else:
        knobs["sharding"] = Sharding.ZERO1 if zero1 else Sharding.NONE
    knobs["etp"] = knobs["tp"] if model is not None and model.is_moe else 1
    steps = fields.size("num_pipeline_microbatches", knobs["pp"], least=-1)
    sequences = int(fields.number("per_device_batch_size", 12.0) * prod(_world(knobs)))
    if knobs["pp"] > 1:
        knobs |= _pipeline(fields, knobs["pp"], model)
        sequences //= knobs["pp"] if steps < 1 else steps
    knobs["micro_batch_size"] = max(sequences // knobs["dp"], 1)
    comms = {name: comm for comm, name in CP_STRATEGIES.items()}
    knobs["cp_comm"] = fields.choice("context_parallel_strategy", comms, "all_gather")
    knobs["precision"] = _precision(fields)
    knobs |= _kept(fields, model)
    offload = fields.flag("optimizer_memory_host_offload", default=False)
    knobs["optimizer_offload"] = 1.0 if offload else 0.0
    return Strategy(**knobs)


def _world(knobs: Mapping[str, Any]) -> tuple[int, ...]:
    return knobs["dp"], knobs["tp"], knobs["cp"], knobs["pp"]


def _axes() -> tuple[str, ...]:
    return tuple(f"{net}_{axis}_parallelism" for net in ("ici", "dcn") for axis in AXES)


def _axis(fields: Document, axis: str) -> int:
    """Ranks of an axis inside slices times those across; what is left counts as 1."""
    total = 1
    for net in ("ici", "dcn"):
        path = f"{net}_{axis}_parallelism"
        size = fields.size(path, 1, least=_WHAT_IS_LEFT)
        if size == 0:
            raise fields.error(path, "must be >= 1, or -1 for what is left, got 0")
        total *= max(size, 1)
    return total


def _pipeline(fields: Document, pp: int, model: ModelSpec | None) -> dict[str, Any]:
    repeats = fields.size("num_pipeline_repeats", _WHAT_IS_LEFT, least=_WHAT_IS_LEFT)
    layers = fields.size("num_layers_per_pipeline_stage", 1)
    if repeats < 1:
        repeats = model.n_layers // (pp * layers) if model is not None else 1
    vpp = max(repeats, 1)
    return {"vpp": vpp, "schedule": Schedule.INTERLEAVED if vpp > 1 else Schedule.GPIPE}


def _precision(fields: Document) -> Precision:
    known = dict(OTHER_QUANTIZATIONS) | {name: p for p, name in QUANTIZATIONS.items()}
    precision = fields.choice("quantization", known, "")
    half = fields.choice(
        "dtype", {"bfloat16": False, "float32": False, "float16": True}, "bfloat16"
    )
    return Precision.FP16 if half and precision == Precision.BF16 else precision


def _kept(fields: Document, model: ModelSpec | None) -> dict[str, Any]:
    policies: dict[str, str] = {name: name for name in (*POLICIES, "custom")}
    policy = fields.choice("remat_policy", policies, "full")
    if policy != "custom":
        offloaded = 1.0 if policy == "minimal_offloaded" else 0.0
        return {"recompute": POLICIES[policy], "activation_offload": offloaded}
    recompute = Recompute.LAYERNORM
    for module, names in REMAT_TENSORS.items():
        again = [fields.choice(n, {"remat": 1, "device": 0, "offload": 0}, "remat") for n in names]
        recompute |= module if all(again) else Recompute.NONE
    if model is None or not model.is_moe:
        recompute &= ~Recompute.MOE
    return {"recompute": recompute}


def _model(fields: Document) -> ModelSpec | None:
    name = fields.values.get("model_name", "default")
    fields.has("model_name")
    if isinstance(name, str) and name != "default":
        return _overridden(fields, named_model(name))
    decoder = fields.values.get("decoder_block")
    if decoder not in ("llama2", "qwen2", "qwen3", "qwen3_moe", "mixtral", "mistral"):
        return None
    sizes: dict[str, Any] = {ours: fields.size(theirs, 0, least=0) for ours, theirs in SHAPE}
    experts = fields.size("num_experts", 1)
    width = fields.size("base_mlp_dim", 0, least=0)
    if not all(sizes.values()) or not width:
        return None
    for idle in ("decoder_block", "mlp_activations", "enable_dropout"):
        fields.has(idle)
    if experts > 1:
        sizes |= {
            "n_experts": experts,
            "top_k": fields.size("num_experts_per_tok", 1),
            "moe_ffn_size": fields.size("base_moe_mlp_dim", width),
            "moe_layers": tuple(range(min(sizes["n_layers"], 10_000))),
        }
        width = 0
    return ModelSpec(
        name=str(fields.values.get("run_name", "model")),
        ffn_size=width,
        tied_embeddings=fields.flag("logits_via_embedding", default=False),
        qk_norm=fields.flag("use_qk_norm", default=False),
        qkv_bias=fields.flag("attention_bias", default=False),
        **sizes,
    )


def _overridden(fields: Document, model: ModelSpec | None) -> ModelSpec | None:
    """A named model with the sizes that the file gives in its place."""
    if model is None:
        return None
    sizes: dict[str, Any] = {
        ours: fields.size(theirs, getattr(model, ours)) for ours, theirs in SHAPE
    }
    if all(getattr(model, name) == size for name, size in sizes.items()):
        return model
    layers = sizes["n_layers"]
    for name in ("moe_layers", "sliding_window_layers"):
        sizes[name] = tuple(layer for layer in getattr(model, name) if layer < layers)
    return replace(model, name=f"{model.name} with {layers} layers", **sizes)


def _overrides(text: str, name: str) -> dict[str, tuple[Any, int]]:
    """``key=value`` words of the commands that run MaxText's trainer, each with its line."""
    values: dict[str, tuple[Any, int]] = {}
    for words in read_script(text, name=name).commands:
        if not any("maxtext" in w.text.lower() or w.text.endswith(".yml") for w in words):
            continue
        for word in words:
            match = _OVERRIDE.fullmatch(word.text)
            if match and word.unknown is None:
                values[match.group(1)] = _parsed(match.group(2)), word.line
    return values


def _parsed(text: str) -> Any:
    if re.fullmatch(r"-?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"-?\d{0,18}\.\d{1,18}", text):
        return float(text)
    return {"true": True, "false": False}.get(text.lower(), text)

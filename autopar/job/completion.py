"""From what files say to a whole problem: what they leave open is filled in, and said so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, lcm
from typing import Any

from autopar.job.foreign import Sources, detect, read_foreign
from autopar.job.inputs import as_framework, as_optimizer, default_batch, default_sequence_length
from autopar.launchers.knobs import effective
from autopar.launchers.plan import Reading
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Sharding, Strategy
from cost_models.specs.workload import Workload
from search.rules import Problem, launcher_called
from search.rules.recompute import supported

FRAMEWORKS: Mapping[str, str] = {
    "megatron": "megatron-lm",
    "megatron-bridge": "megatron-bridge",
    "torchtitan": "torchtitan",
    "deepspeed": "deepspeed",
    "accelerate": "accelerate",
    "nanotron": "nanotron",
    "maxtext": "maxtext",
}
"""Whose memory and overlap habits each launcher's jobs have."""
_NO_TRANSFORMER = re.compile(r"mamba|hybrid[_-](layer|override)[_-]pattern|is[_-]hybrid[_-]model")
_SAYS_ITS_BATCH = ("megatron", "megatron-bridge", "torchtitan", "maxtext")
"""Launchers whose readers know the batch of any number of GPUs."""
_CUT_WITH_HEADS = ("deepspeed", "accelerate", "maxtext")
"""Launchers whose readers need the model to know that tensor parallel cuts the experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the user says beside the files; None leaves it to them."""

    launcher: str | None = None
    model: ModelSpec | None = None
    gpus: int | None = None
    seq_len: int | None = None
    global_batch: int | None = None
    tokens_per_batch: float | None = None
    framework: str | Framework | None = None
    optimizer: str | Optimizer | None = None
    knobs: Mapping[str, Any] | None = None
    """Knobs that replace the files'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What files describe, complete enough to be priced."""

    launcher: str
    title: str
    problem: Problem
    strategy: Strategy
    notes: Mapping[str, str]
    """What the files leave open or unclear, by the field it is about."""
    ignored: tuple[str, ...]


def launcher_of(sources: Sources, wanted: Wanted) -> str:
    """The launcher that the user names, or the one that the files look like."""
    return wanted.launcher if wanted.launcher is not None else detect(sources)


def complete(sources: Sources, wanted: Wanted, cluster: Cluster) -> Job:
    """The job that the files describe, on as many of ``cluster``'s GPUs as they ask for.

    Raises
    ------
    SpecError
        In one line for files that cannot be read, contradict what is wanted, or do not
        name the model.
    """
    name = launcher_of(sources, wanted)
    reading = read_foreign(sources, name, wanted.gpus)
    gpus = wanted.gpus
    if gpus is None and reading.world_size is None:
        gpus = _usual_gpus(reading.strategy, cluster.gpus_per_node)
        reading = read_foreign(sources, name, gpus)
    model = _model(reading, sources, wanted)
    notes = dict(reading.notes)
    strategy, batch = _on_all_gpus(reading, name, sources, gpus)
    if name in _CUT_WITH_HEADS and model.is_moe and strategy.ep == 1:
        strategy = strategy.with_(etp=strategy.tp)
    if wanted.knobs:
        strategy = _changed(strategy, wanted.knobs, strategy.world_size)
    strategy = effective(strategy, model)
    world = strategy.world_size
    if gpus != wanted.gpus:
        notes["dp"] = f"the number of GPUs is not said: {world} assumed, --gpus says it"
    else:
        notes.pop("dp", None)
    length = wanted.seq_len or reading.sequence_length
    if length is None:
        length = default_sequence_length(model)
        notes["sequence_length"] = f"is not said: {length} assumed, --seq-len says it"
    if wanted.tokens_per_batch is not None:
        batch = max(round(wanted.tokens_per_batch / length), 1)
    batch = wanted.global_batch or batch
    if batch is None:
        batch = _usual_batch(strategy, length)
        notes["global_batch_size"] = f"is not said: {batch} assumed, --global-batch says it"
    workload = Workload(
        global_batch_size=batch,
        sequence_length=length,
        framework=as_framework(wanted.framework or FRAMEWORKS[name]),
        optimizer=as_optimizer(wanted.optimizer or "adamw"),
    )
    machine = replace(cluster, n_gpus=world)
    problem = Problem(model, machine, workload, launcher_called(name))
    if strategy.precision not in supported(problem):
        offered = ", ".join(precision.label for precision in supported(problem))
        raise SpecError(
            f"{sources.title}: precision is {strategy.precision.label}, {cluster.gpu.name} has "
            f"{offered}",
            hint="--gpu names another GPU, --precision another format",
        )
    return Job(
        launcher=name,
        title=sources.title,
        problem=problem,
        strategy=strategy,
        notes=notes,
        ignored=reading.ignored,
    )


def _model(reading: Reading, sources: Sources, wanted: Wanted) -> ModelSpec:
    """The model that is named, or the one that is described."""
    model = wanted.model or sources.model
    if model is not None:
        return model
    foreign = next((field for field in reading.ignored if _NO_TRANSFORMER.search(field)), None)
    if foreign is not None:
        raise SpecError(f"{sources.title}: {foreign} is set, and only transformers can be priced")
    if reading.model is None:
        raise SpecError(f"{sources.title}: which model it is for is not said", hint="give --model")
    return reading.model


def _usual_gpus(strategy: Strategy, per_node: int) -> int:
    """The least number of whole nodes that the degrees divide, or what they multiply to."""
    inner = strategy.tp * strategy.pp * strategy.cp
    experts = strategy.ep * strategy.etp * strategy.pp
    return lcm(per_node, inner, experts)


def _on_all_gpus(
    reading: Reading, name: str, sources: Sources, gpus: int | None
) -> tuple[Strategy, int | None]:
    """The strategy with as many data-parallel ranks as there are GPUs for, and its batch."""
    strategy, batch = reading.strategy, reading.global_batch_size
    if gpus is None or strategy.world_size == gpus:
        return strategy, batch
    inner = strategy.tp * strategy.pp * strategy.cp
    dp, over = divmod(gpus, inner)
    if over or not dp:
        raise SpecError(
            f"{sources.title}: {gpus} GPUs is no multiple of tp {strategy.tp} x pp {strategy.pp} "
            f"x cp {strategy.cp} = {inner}"
        )
    said = '"train_batch_size"' in "".join(sources.files.values())
    if batch is not None and name not in _SAYS_ITS_BATCH and not said:
        batch = batch * dp // strategy.dp
    return _with_dp(strategy, dp), batch


def _with_dp(strategy: Strategy, dp: int) -> Strategy:
    """The same with other data-parallel ranks, the shard group as far as it still divides them."""
    if strategy.sharding == Sharding.HSDP and dp % strategy.dp_shard == 0:
        return strategy.with_(dp=dp)
    if strategy.sharding == Sharding.HSDP:
        raise SpecError(f"strategy.dp_shard {strategy.dp_shard} does not divide dp {dp}")
    return strategy.with_(dp=dp, dp_shard=1 if strategy.sharding == Sharding.NONE else dp)


def _changed(strategy: Strategy, knobs: Mapping[str, Any], world: int) -> Strategy:
    """The strategy with knobs of the user's own; data parallel takes the GPUs that are left."""
    changed = strategy.with_(**knobs)
    if changed.pp * changed.vpp != strategy.pp * strategy.vpp and "stage_layers" not in knobs:
        changed = changed.with_(stage_layers=None)
    if "dp" in knobs and "dp_shard" in knobs:
        return changed
    inner = changed.tp * changed.pp * changed.cp
    dp = changed.dp if "dp" in knobs else world // inner
    if not dp or ("dp" not in knobs and world % inner):
        raise SpecError(
            f"{world} GPUs is no multiple of tp {changed.tp} x pp {changed.pp} x cp {changed.cp} "
            f"= {inner}"
        )
    return _with_dp(changed, dp)


def _usual_batch(strategy: Strategy, length: int) -> int:
    """About four million tokens, in whole micro-batches of every rank."""
    share = strategy.dp * strategy.micro_batch_size * strategy.pp
    return ceil(default_batch(length, strategy.world_size) / share) * share

"""From what files say to a whole problem: what they leave open is filled in, and said so."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, lcm
from typing import Any, Unpack

from autopar.job.foreign import Sources, detect, read_foreign
from autopar.job.inputs import as_model, default_batch, default_sequence_length
from autopar.job.job import Job, Words, cluster_of
from autopar.job.said import texts_of
from autopar.job.strategy import layers_of_chunks, single_values
from autopar.launchers import dossier
from autopar.launchers.knobs import effective
from autopar.launchers.plan import Reading
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Sharding, Strategy
from search.rules import Problem
from search.rules.recompute import supported

_NO_TRANSFORMER = re.compile(r"mamba|hybrid[_-](layer|override)[_-]pattern|is[_-]hybrid[_-]model")


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """The job that files describe, complete enough to be priced, and the strategy in them."""

    job: Job
    strategy: Strategy
    title: str
    notes: Mapping[str, str]
    """What the files leave open or unclear, by the field it is about."""
    ignored: tuple[str, ...]

    @property
    def problem(self) -> Problem:
        """Model, cluster and workload, and the rules of the files' launcher."""
        return self.job.problem

    @property
    def launcher(self) -> str:
        """Whose files they are."""
        return self.job.name


def complete(
    sources: Sources,
    model: ModelSpec | str | None = None,
    gpus: int | None = None,
    *,
    said: Mapping[str, Any] | None = None,
    **words: Unpack[Words],
) -> Described:
    """The job that the files describe, on as many GPUs as they ask for.

    The words go before what the files say; ``fixed`` holds knobs that replace theirs.

    Raises
    ------
    SpecError
        In one line for files that cannot be read, contradict what is wanted, or do not
        name the model.
    """
    given: dict[str, Any] = {name: value for name, value in words.items() if value is not None}
    name = given.setdefault("launcher", None) or detect(sources)
    cluster = cluster_of(gpus or 1, given)
    reading, world = _read(sources, name, gpus, cluster.gpus_per_node)
    spec = _model(reading, sources, None if model is None else as_model(model))
    notes = dict(reading.notes)
    strategy, batch = _on_all_gpus(reading, name, sources, world)
    if dossier(name).experts_cut_with_heads and spec.is_moe and strategy.ep == 1:
        strategy = strategy.with_(etp=strategy.tp)
    knobs = single_values({**given.pop("fixed", {}), "precision": given.pop("precision", None)})
    if knobs:
        strategy = _changed(strategy, knobs, strategy.world_size)
    strategy = effective(strategy, spec)
    if world != gpus:
        notes["dp"] = (
            f"the number of GPUs is not said: {strategy.world_size} assumed, --gpus says it"
        )
    else:
        notes.pop("dp", None)
    _fill_workload(given, notes, reading, spec, strategy, batch)
    typed = said if said is not None else texts_of({"model": model, "gpus": gpus, **words})
    given |= {"launcher": name, "cluster": replace(cluster, n_gpus=strategy.world_size)}
    job = Job.of(spec, said=typed, **given)
    job = replace(job, precision=strategy.precision)
    _require_precision(job.problem, strategy, sources)
    return Described(
        job=job, strategy=strategy, title=sources.title, notes=notes, ignored=reading.ignored
    )


def _read(
    sources: Sources, name: str, gpus: int | None, per_node: int
) -> tuple[Reading, int | None]:
    """What the files say, on the usual number of GPUs where nobody says how many."""
    reading = read_foreign(sources, name, gpus)
    if gpus is None and reading.world_size is None:
        gpus = _usual_gpus(reading.strategy, per_node)
        reading = read_foreign(sources, name, gpus)
    return reading, gpus


def _fill_workload(
    given: dict[str, Any],
    notes: dict[str, str],
    reading: Reading,
    model: ModelSpec,
    strategy: Strategy,
    batch: int | None,
) -> None:
    """Put sequence length and batch among the words: said, read, or assumed with a note."""
    length = given.get("seq_len") or reading.sequence_length
    if length is None:
        length = default_sequence_length(model)
        notes["sequence_length"] = f"is not said: {length} assumed, --seq-len says it"
    given["seq_len"] = length
    if "global_batch" in given or "tokens_per_batch" in given:
        return
    if batch is None:
        batch = _usual_batch(strategy, length)
        notes["global_batch_size"] = f"is not said: {batch} assumed, --global-batch says it"
    given["global_batch"] = batch


def _require_precision(problem: Problem, strategy: Strategy, sources: Sources) -> None:
    """Raise SpecError for a number format that the GPU does not have."""
    offered = supported(problem)
    if strategy.precision not in offered:
        raise SpecError(
            f"{sources.title}: precision is {strategy.precision.label}, "
            f"{problem.cluster.gpu.name} has {', '.join(p.label for p in offered)}",
            hint="--gpu names another GPU, --precision another format",
        )


def _model(reading: Reading, sources: Sources, named: ModelSpec | None) -> ModelSpec:
    """The model that is named, or the one that is described."""
    model = named or sources.model
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
    if batch is not None and not dossier(name).batch_is_said and not said:
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
    stages = knobs.get("stage_layers")
    changed = strategy.with_(**{n: v for n, v in knobs.items() if n != "stage_layers"})
    chunks = changed.pp * changed.vpp
    if stages is not None:
        changed = changed.with_(stage_layers=layers_of_chunks(stages, chunks))
    elif chunks != strategy.pp * strategy.vpp:
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

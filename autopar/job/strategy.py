"""From some knobs to a whole strategy: what is not said follows from what is."""

from collections.abc import Mapping, Sequence
from typing import Any

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Schedule, Sharding, Strategy
from search.rules import Launcher
from search.space.axes import axis_called, parse_axis
from search.space.canonical import canonical_strategy


def complete_strategy(
    knobs: Mapping[str, Any],
    gpus: int | None,
    *,
    launcher: Launcher,
    moe: bool,
    precision: Precision,
) -> Strategy:
    """The strategy that these knobs describe, each as text or as its value.

    Where they are not said, data parallel takes the GPUs that are left, sharding spans all
    of its ranks, sequence parallel goes with tensor parallel, several chunks are
    interleaved, and switches that have nothing to act on are off.

    Raises
    ------
    SpecError
        For a knob that there is not, several values of one, degrees that do not make up
        the GPUs, and hsdp without ``dp_shard``.

    >>> from search.rules import launcher_called
    >>> complete_strategy({"tp": 8, "sharding": "fsdp"}, 512, launcher=launcher_called("any"),
    ...                   moe=False, precision=Precision.BF16).dp_shard
    64
    """
    typed = single_values(knobs)
    stages = typed.pop("stage_layers", None)
    given = {"precision": precision, **typed}
    inner = Strategy(**{name: given[name] for name in ("tp", "pp", "cp") if name in given})
    given["dp"] = dp = _data_parallel(inner, gpus) if "dp" not in given else given["dp"]
    if gpus is not None and dp * inner.world_size != gpus:
        raise SpecError(
            f"dp {dp} x {_product(inner)} = {dp * inner.world_size} GPUs, but --gpus is {gpus}",
            hint="leave --dp out: it takes what is left",
        )
    sharding = given.get("sharding", Sharding.NONE)
    if sharding != Sharding.HSDP:
        given["dp_shard"] = 1 if sharding == Sharding.NONE else dp
    elif "dp_shard" not in given:
        raise SpecError("--sharding hsdp needs --dp-shard, the ranks in one shard group")
    given.setdefault("sequence_parallel", inner.tp > 1 and launcher.sequence_parallel)
    if given.get("vpp", 1) > 1:
        given.setdefault("schedule", Schedule.INTERLEAVED)
    plain = canonical_strategy(Strategy(**given), moe=moe)
    if stages is not None:
        typed["stage_layers"] = layers_of_chunks(stages, inner.pp * given.get("vpp", 1))
    return plain.with_(**typed)


def single_values(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """One value of each knob that is said, texts read; ``stage_layers`` in model order."""
    values: dict[str, Any] = {}
    for name, value in knobs.items():
        if value is None:
            continue
        if name == "stage_layers":
            values[name] = value
            continue
        axis = axis_called(name)
        if isinstance(value, str):
            values[axis] = one_value(axis, value)
        else:
            values[axis] = getattr(Strategy.from_json({axis: value}), axis)
    return values


def one_value(name: str, text: str) -> Any:
    """The single value that ``text`` names; raises SpecError where it names several."""
    values = parse_axis(name, text, ())
    if len(values) != 1:
        option = f"--{name.replace('_', '-')}"
        raise SpecError(f"{option} must be one value here, got {text}")
    return values[0]


def _product(inner: Strategy) -> str:
    return f"tp {inner.tp} x pp {inner.pp} x cp {inner.cp}"


def _data_parallel(inner: Strategy, gpus: int | None) -> int:
    if gpus is None:
        return 1
    dp, left = divmod(gpus, inner.world_size)
    if left:
        near = " or ".join(str(n) for n in (gpus - left, gpus - left + inner.world_size) if n)
        raise SpecError(
            f"--gpus {gpus} is not divisible by {_product(inner)} = {inner.world_size}",
            hint=f"the nearest that is: {near}",
        )
    return dp


def layers_of_chunks(said: str | Sequence[int], chunks: int) -> tuple[int, ...]:
    """Layers of every chunk in model order; raises SpecError unless there are so many."""
    try:
        layers = tuple(int(part) for part in (said.split(",") if isinstance(said, str) else said))
    except (TypeError, ValueError):
        raise SpecError(f"--stage-layers must be counts like 10,12,10, got {said}") from None
    if len(layers) != chunks or min(layers) < 0:
        raise SpecError(
            f"--stage-layers must name the layers of all {chunks} chunks, got {len(layers)}: {said}"
        )
    return layers

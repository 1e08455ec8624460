"""A strategy in few characters: its layout, and the knobs that are not as one expects."""

from collections.abc import Mapping
from typing import Any

from cost_models.specs.strategy import Recompute, Schedule, Sharding, Strategy
from search.space.canonical import canonical_strategy

DEGREES = ("dp", "tp", "pp", "cp", "ep", "etp")

_SHORT_MODULES = {
    "core_attn": "attn",
    "layernorm": "norm",
    "activation": "act",
    "mla_up_proj": "mla",
    "shared_experts": "shared",
}


def layout_words(strategy: Strategy) -> str:
    """Degrees above one, the usual three always.

    >>> layout_words(Strategy(dp=8, tp=8, pp=8))
    'dp8 tp8 pp8'
    """
    always = ("dp", "tp", "pp")
    degrees = ((name, getattr(strategy, name)) for name in DEGREES)
    return " ".join(f"{name}{n}" for name, n in degrees if n > 1 or name in always)


def schedule_words(strategy: Strategy) -> str:
    """The schedule, and the chunks on each rank where there is more than one.

    >>> schedule_words(Strategy(pp=8, vpp=5, schedule=Schedule.INTERLEAVED))
    'interl. x5'
    """
    if strategy.pp == 1:
        return "-"
    label = strategy.schedule.label
    short = "interl." if strategy.schedule == Schedule.INTERLEAVED else label
    return f"{short} x{strategy.vpp}" if strategy.vpp > 1 else short


def sharding_words(strategy: Strategy) -> str:
    """What is sharded, and over how many ranks where that is a choice.

    >>> sharding_words(Strategy(dp=64, sharding=Sharding.HSDP, dp_shard=8))
    'hsdp 8'
    """
    label = strategy.sharding.label
    return f"{label} {strategy.dp_shard}" if strategy.sharding == Sharding.HSDP else label


def recompute_words(strategy: Strategy) -> str:
    """What is recomputed, modules by their first letters.

    >>> recompute_words(Strategy(recompute=Recompute.LAYERNORM | Recompute.MLP))
    'norm+mlp'
    """
    modules = strategy.recompute
    if modules & Recompute.FULL:
        return f"full x{strategy.recompute_layers}" if strategy.recompute_layers else "full"
    parts = modules.label.split("+")
    return "+".join(_SHORT_MODULES.get(part, part) for part in parts)


def other_words(strategy: Strategy) -> str:
    """The remaining knobs, where they are not as in a plain strategy."""
    words = []
    if strategy.tp > 1 and not strategy.sequence_parallel:
        words.append("no-sp")
    if strategy.cp > 1:
        words.append(f"cp:{strategy.cp_comm.label}")
    if not strategy.reshard_after_forward and strategy.sharding >= Sharding.ZERO3:
        words.append("keep-gathered")
    if strategy.optimizer_offload:
        words.append(f"opt-offload:{strategy.optimizer_offload:.0%}")
    if strategy.activation_offload:
        words.append(f"act-offload:{strategy.activation_offload:.0%}")
    words += [f"{n}-overlap" for n in ("tp", "ep") if getattr(strategy, f"overlap_{n}")]
    words += _switched_off(strategy)
    if strategy.order != Strategy().order:
        words.append(f"order:{strategy.order.label}")
    if strategy.stage_layers is not None:
        words.append("uneven")
    return " ".join(words)


def _switched_off(strategy: Strategy) -> list[str]:
    replicated = strategy.dp * strategy.cp > 1
    off = []
    if replicated and not strategy.overlap_grad_reduce:
        off.append("no-grad-overlap")
    if replicated and strategy.sharding != Sharding.NONE and not strategy.overlap_param_gather:
        off.append("no-gather-overlap")
    sequential = strategy.schedule in (Schedule._1F1B, Schedule.GPIPE)
    if strategy.pp > 1 and not sequential and not strategy.overlap_p2p:
        off.append("no-p2p-overlap")
    return off


def typed(strategy: Strategy, *, moe: bool = False) -> dict[str, str]:
    """The options that describe it, without what the others imply.

    Data parallel takes the GPUs that are left; the precision belongs to the problem.
    """
    plain = Strategy(
        **{name: getattr(strategy, name) for name in DEGREES},
        vpp=strategy.vpp,
        schedule=strategy.schedule,
        sequence_parallel=strategy.tp > 1,
        sharding=strategy.sharding,
        dp_shard=strategy.dp_shard,
    )
    implied = canonical_strategy(plain, moe=moe).to_json()
    chunked = strategy.vpp > 1 and strategy.pp > 1
    implied |= dict.fromkeys((*DEGREES, "vpp"), 1) | {
        "schedule": (Schedule.INTERLEAVED if chunked else Schedule._1F1B).label,
        "sharding": Sharding.NONE.label,
    }
    values = strategy.to_json()
    found = {name: _text(value) for name, value in values.items() if value != implied[name]}
    if strategy.sharding == Sharding.HSDP:
        found["dp_shard"] = _text(strategy.dp_shard)
    return {name: text for name, text in found.items() if name not in ("dp", "precision")}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def flags(strategy: Strategy, *, moe: bool = False) -> str:
    """The strategy as options of `autopar estimate`.

    >>> flags(Strategy(dp=2, tp=4, sequence_parallel=True, sharding=Sharding.ZERO1, dp_shard=2,
    ...                overlap_p2p=False))
    '--tp 4 --sharding zero1'
    """
    return _options(typed(strategy, moe=moe))


def all_flags(strategy: Strategy) -> str:
    """The same with every knob, whatever follows from the others."""
    values = strategy.to_json()
    said = {n: v for n, v in values.items() if n != "precision" and v is not None}
    return _options({name: _text(value) for name, value in said.items()})


def changes(before: Strategy, after: Strategy, *, moe: bool = False) -> str:
    """The options to change, to get from one strategy to another.

    >>> one = Strategy(dp=8, tp=2, recompute=Recompute.FULL)
    >>> changes(one, one.with_(dp=4, tp=4, recompute=Recompute.NONE))
    '--tp 4 --recompute none'
    """
    old, new = typed(before, moe=moe), typed(after, moe=moe)
    values = after.to_json()
    taken_back = {name: _text(values[name]) for name in old if name not in new}
    changed = {name: text for name, text in new.items() if old.get(name) != text}
    return _options(changed | taken_back)


def _options(texts: Mapping[str, str]) -> str:
    return " ".join(f"--{name.replace('_', '-')} {text}" for name, text in texts.items())

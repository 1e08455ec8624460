"""Which knobs of a strategy matter, and which of them a launcher's files leave unsaid."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

from autopar.launchers.plan import Plan
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Label, Recompute, Sharding, Strategy
from cost_models.specs.units import GIB
from search.space.canonical import canonical_strategy

LARGEST = 10**9
"""Above any degree or batch that there is; a file with more is broken."""
_DEGREES = ("dp", "tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch_size", "dp_shard")

UNSAID: Mapping[str, str] = {
    "activation_offload": "it has no switch for it",
    "optimizer_offload": "it has no switch for it",
    "overlap_grad_reduce": "it has no switch for it",
    "overlap_param_gather": "it has no switch for it",
    "overlap_tp": "it has no switch for it",
    "overlap_ep": "it has no switch for it",
    "overlap_p2p": "it has no switch for it",
    "order": "its placement of the dimensions is fixed",
    "recompute_layers": "it recomputes all layers or none",
    "stage_layers": "it deals the layers to the stages by itself",
}
"""Reasons that hold for every launcher without a better one."""


def effective(strategy: Strategy, model: ModelSpec | None = None) -> Strategy:
    """The same layout in its canonical spelling, knobs without effect at their defaults.

    Beyond :mod:`search.space.canonical`, which serves arrays of every layout at once: a sharding
    of one rank is none, one group of hsdp is fsdp, and a model without experts has no etp.

    >>> effective(Strategy(dp=8, vpp=4, overlap_tp=True)) == effective(Strategy(dp=8))
    True
    """
    s = strategy
    for name in _DEGREES:
        if not 1 <= getattr(s, name) <= LARGEST:
            raise SpecError(f"strategy.{name} must be 1 to {LARGEST}, got {getattr(s, name)}")
    moe = model.is_moe if model is not None else s.ep * s.etp > 1
    changes: dict[str, object] = {}
    if s.pp == 1:
        changes |= {"vpp": 1, "stage_layers": None}
    if not moe:
        changes["etp"] = 1
    if s.dp * s.cp == 1 or (s.sharding == Sharding.HSDP and s.dp_shard * s.cp == 1):
        changes |= {"sharding": Sharding.NONE, "dp_shard": 1}
    elif s.sharding == Sharding.HSDP and s.dp_shard == s.dp:
        changes["sharding"] = Sharding.FSDP
    return canonical_strategy(s.with_(**changes), moe=moe)


def not_expressed(
    wanted: Strategy,
    said: Strategy,
    reasons: Mapping[str, str],
    model: ModelSpec | None = None,
) -> tuple[str, ...]:
    """What the plan asks for and the files do not say, each as ``knob value: reason``.

    ``said`` is what the launcher's own reader makes of the files: a knob is expressed
    exactly where it comes back.
    """
    return tuple(_differences(effective(wanted, model), effective(said, model), reasons))


def _differences(wanted: Strategy, said: Strategy, reasons: Mapping[str, str]) -> Iterator[str]:
    for name in (f.name for f in fields(Strategy)):
        asked, got = getattr(wanted, name), getattr(said, name)
        if asked != got:
            reason = reasons.get(name) or UNSAID.get(name, "it has no field for it")
            yield f"{name} {shown(asked)}, runs as {shown(got)}: {reason}"


def shown(value: object) -> str:
    """A knob's value as people write it.

    >>> shown(Sharding.ZERO1), shown((20, 20, 22, 18)), shown(None), shown(True)
    ('zero1', '20,20,22,18', 'even', 'on')
    """
    if isinstance(value, Label | Recompute):
        return value.label
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "even" if value is None else f"{value}"


def refuse(launcher: str, knob: str, value: object, closest: str) -> SpecError:
    """The error for a layout that ``launcher`` cannot run at all."""
    return SpecError(
        f"strategy.{knob} {shown(value)} cannot be expressed for {launcher}",
        hint=f"the closest that can: {closest}",
    )


def microbatches(plan: Plan) -> int:
    """Micro-batches of one step on each data-parallel rank; raises SpecError where uneven."""
    strategy, batch = plan.strategy, plan.workload.global_batch_size
    share = strategy.dp * strategy.micro_batch_size
    if batch % share:
        raise SpecError(
            f"strategy.micro_batch_size {strategy.micro_batch_size} times dp {strategy.dp} "
            f"must divide the global batch of {batch}"
        )
    return batch // share


def checked_stages(plan: Plan) -> tuple[int, ...] | None:
    """``stage_layers`` where they count; raises SpecError unless they make up the model."""
    strategy = plan.strategy
    if strategy.stage_layers is None or strategy.pp == 1:
        return None
    chunks, layers = strategy.pp * strategy.vpp, plan.model.n_layers
    if len(strategy.stage_layers) != chunks or sum(strategy.stage_layers) != layers:
        raise SpecError(
            f"strategy.stage_layers must be {chunks} numbers that add up to {layers} layers, "
            f"got {shown(strategy.stage_layers)}"
        )
    return strategy.stage_layers


def heading(plan: Plan, targets: str, unsaid: tuple[str, ...]) -> list[str]:
    """Lines for the top of a file: what it is for, what is predicted, what is left out.

    Names come from files, so every character that could end a line is escaped.
    """
    strategy, workload = plan.strategy, plan.workload
    lines = [
        f"Written by autopar for {targets}.",
        f"{printable(plan.model.name)} on {strategy.world_size} x "
        f"{printable(plan.cluster.gpu.name)}: global batch {workload.global_batch_size}, "
        f"sequence {workload.sequence_length}.",
    ]
    p = plan.prediction
    if p is None:
        lines.append("Predicted: nothing.")
    else:
        step = f"step {p.step_time_s:.4g} s"
        if p.step_time_low_s is not None and p.step_time_high_s is not None:
            step += f" ({p.step_time_low_s:.4g} to {p.step_time_high_s:.4g})"
        memory = f"memory {p.memory_bytes / GIB:.4g} GiB"
        if p.memory_low_bytes is not None and p.memory_high_bytes is not None:
            memory += f" ({p.memory_low_bytes / GIB:.4g} to {p.memory_high_bytes / GIB:.4g})"
        bounds = "; in brackets 80 % intervals" if "(" in step + memory else ""
        lines.append(f"Predicted: {step}, {memory} per GPU{bounds}.")
    if plan.command is not None:
        lines.append(f"Again: {printable(plan.command)}")
    lines += [f"Warning: {printable(item)}." for item in plan.warnings]
    lines += [f"Not expressed: {printable(item)}." for item in unsaid]
    return lines


def comments(lines: Iterable[str]) -> list[str]:
    """``lines`` as comments of Python, YAML or a shell."""
    return [f"# {printable(line)}" for line in lines]


def printable(text: str) -> str:
    r"""``text`` on one line, whatever is in it.

    >>> printable("70b\nrm -rf")
    '70b\\nrm -rf'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

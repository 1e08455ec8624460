"""Why a search comes back empty, and the smallest change that would help.

Either no layout is legal: then a smallest set of rules in conflict is the reason, and
the nearest world sizes and batches that have a legal layout are the remedy.  Or layouts
are legal and none fits: then memory binds, the leanest strategy says by how much, and
each remedy opens one thing that was closed.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategy
from search.rules.rule import Problem, Rule
from search.space.space import Space, divisors
from search.sweep.layouts import grow_layouts
from search.sweep.least_memory import MemoryModel, leanest

SpaceFor = Callable[[Problem], Space]
"""The space a person asked for, for another world size or batch."""

OPENINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("micro_batch_size", ("micro_batch_size",)),
    ("recompute", ("recompute", "recompute_layers")),
    ("sharding", ("sharding", "dp_shard")),
    ("degrees", ("tp", "pp", "cp", "ep", "dp")),
    ("optimizer_offload", ("optimizer_offload",)),
    ("activation_offload", ("activation_offload",)),
)
"""Axes that a remedy opens together, cheapest first."""

NEAREST = 24
"""World sizes or batches tried on the way to a legal one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change after which something is legal and fits."""

    change: str
    """What is opened: one of :data:`OPENINGS`, ``gpus`` or ``global_batch_size``."""
    value: str
    """What it becomes."""
    strategy: Strategy | None = None
    """A strategy that fits then."""
    memory_bytes: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Illegal:
    """No layout obeys all rules."""

    rules: tuple[Rule, ...]
    """A smallest set in conflict: without any one of them a layout would be legal."""
    remedies: tuple[Remedy, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """Layouts are legal, but none fits."""

    closest: Strategy
    memory_bytes: float
    capacity_bytes: float
    remedies: tuple[Remedy, ...]

    @property
    def short_bytes(self) -> float:
        """How far the closest strategy is from fitting."""
        return self.memory_bytes - self.capacity_bytes


def explain_empty(
    space_for: SpaceFor, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> Illegal | Misfit | None:
    """The reason why nothing is legal, or nothing fits; None if something does."""
    space = space_for(problem)
    found = _leanest_strategy(space, problem, rules, memory)
    if found is None:
        return explain_illegal(space_for, problem, rules)
    closest, used = found
    capacity = problem.cluster.usable_memory_bytes
    if used <= capacity:
        return None
    return Misfit(
        closest=closest,
        memory_bytes=used,
        capacity_bytes=capacity,
        remedies=tuple(_memory_remedies(space_for, problem, rules, memory)),
    )


def explain_illegal(space_for: SpaceFor, problem: Problem, rules: Sequence[Rule]) -> Illegal:
    """The rules in conflict, and the nearest world sizes and batches without one."""
    from search.feasible.feasible import conflict  # a second's import that only this case needs

    space = space_for(problem)
    binding = conflict(space, problem, rules)
    if not binding:
        removed = grow_layouts(space, problem, rules)[1]
        binding = tuple(rule for rule in rules if removed[rule.name])[-1:]
    remedies = []
    for change, candidates in (
        ("gpus", _worlds(problem)),
        ("global_batch_size", _batches(problem)),
    ):
        for value in candidates:
            other = _changed(problem, change, value)
            if _has_layout(space_for, other, rules):
                remedies.append(Remedy(change=change, value=str(value)))
                break
    return Illegal(rules=binding, remedies=tuple(remedies))


def _leanest_strategy(
    space: Space, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> tuple[Strategy, float] | None:
    layouts, _ = grow_layouts(space, problem, rules)
    if not len(layouts):
        return None
    lean = leanest(space, problem, rules, layouts, memory)
    best = lean.best()
    return None if best is None else (best, float(lean.memory_bytes.min()))


def _memory_remedies(
    space_for: SpaceFor, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> Iterable[Remedy]:
    """Openings that suffice alone; all together if none does; then more GPUs."""
    space = space_for(problem)
    alone = [_remedy(change, axes, space, problem, rules, memory) for change, axes in OPENINGS]
    if not any(alone):
        everything = tuple(axis for _, axes in OPENINGS for axis in axes)
        alone = [_remedy("everything", everything, space, problem, rules, memory)]
    yield from (remedy for remedy in alone if remedy is not None)
    yield from _more_gpus(space_for, problem, rules, memory)


def _opened(space: Space, axes: tuple[str, ...]) -> Space:
    """The space with these axes as wide as the full space has them, or wider."""
    wider = {
        axis: tuple(dict.fromkeys((*space.axes[axis], *space.candidates.get(axis, ()))))
        for axis in axes
    }
    return space.with_(**wider)


def _remedy(
    change: str,
    axes: tuple[str, ...],
    space: Space,
    problem: Problem,
    rules: Sequence[Rule],
    memory: MemoryModel,
) -> Remedy | None:
    """The leanest strategy with ``axes`` opened; None if it does not fit either."""
    opened = _opened(space, axes)
    if opened.size == space.size:
        return None
    found = _leanest_strategy(opened, problem, rules, memory)
    if found is None or found[1] > problem.cluster.usable_memory_bytes:
        return None
    strategy, used = found
    return Remedy(
        change=change, value=_settings(change, strategy), strategy=strategy, memory_bytes=used
    )


def _settings(change: str, s: Strategy) -> str:
    """What the strategy that fits does with the knobs that were opened."""
    recompute = s.recompute.label + (f" of {s.recompute_layers}" if s.recompute_layers else "")
    texts = {
        "micro_batch_size": f"{s.micro_batch_size}",
        "recompute": recompute,
        "sharding": f"{s.sharding.label} over {s.dp_shard}",
        "degrees": f"tp {s.tp}, pp {s.pp}, cp {s.cp}, ep {s.ep}, dp {s.dp}",
        "optimizer_offload": f"{s.optimizer_offload:.0%}",
        "activation_offload": f"{s.activation_offload:.0%}",
    }
    return texts.get(change, "; ".join(f"{name} {text}" for name, text in texts.items()))


def _more_gpus(
    space_for: SpaceFor, problem: Problem, rules: Sequence[Rule], memory: MemoryModel
) -> Iterable[Remedy]:
    """The first of 2, 3, 4, 6, 8, 12 ... times the GPUs on which something fits."""
    world = problem.cluster.n_gpus
    for doubling in range(8):
        for number in (2 * world << doubling, 3 * world << doubling):
            other = _changed(problem, "gpus", number)
            space = _space_or_none(space_for, other)
            found = _leanest_strategy(space, other, rules, memory) if space else None
            if found and found[1] <= problem.cluster.usable_memory_bytes:
                yield Remedy(
                    change="gpus", value=str(number), strategy=found[0], memory_bytes=found[1]
                )
                return


def _changed(problem: Problem, change: str, value: int) -> Problem:
    if change == "gpus":
        return replace(problem, cluster=replace(problem.cluster, n_gpus=value))
    return replace(problem, workload=replace(problem.workload, global_batch_size=value))


def _space_or_none(space_for: SpaceFor, problem: Problem) -> Space | None:
    """None where the axes that a person fixed contradict the world size."""
    try:
        return space_for(problem)
    except SpecError:
        return None


def _has_layout(space_for: SpaceFor, problem: Problem, rules: Sequence[Rule]) -> bool:
    space = _space_or_none(space_for, problem)
    return space is not None and len(grow_layouts(space, problem, rules)[0]) > 0


def _worlds(problem: Problem) -> list[int]:
    """Other world sizes, nearest first: neighbours, whole nodes, powers of two."""
    world, node = problem.cluster.n_gpus, problem.cluster.gpus_per_node
    near = {world + step for step in range(-4, 5)}
    near |= {(world // node + step) * node for step in range(-3, 4)}
    near |= {1 << (world.bit_length() - 1), 1 << world.bit_length()}
    others = sorted(near - {world}, key=lambda n: (abs(n - world), -n))
    return [n for n in others if n >= 1][:NEAREST]


def _batches(problem: Problem) -> list[int]:
    """Other global batches, nearest first: multiples of the world's divisors."""
    batch = problem.workload.global_batch_size
    near = set()
    for divisor in divisors(problem.cluster.n_gpus):
        near |= {(batch // divisor + step) * divisor for step in (0, 1)}
    others = sorted(near - {batch}, key=lambda n: (abs(n - batch), -n))
    return [n for n in others if n >= 1][:NEAREST]

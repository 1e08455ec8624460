"""A better plan for a job that exists, and what each of its changes is worth.

Knobs are changed one at a time, each time the one that saves most; where no single change
is legal, as few together as are.  Every plan on the way is priced, so that the gains add
up to the whole.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations, islice
from typing import Any

from autopar.api import search
from autopar.job.completion import Described
from cost_models.equations.constants import Constants
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Sharding, Strategy
from search.plan import price_strategies
from search.result import Priced, SearchResult
from search.rules import LAYOUT_AXES, Problem, Rule, broken_rules
from search.space.axes import AXES, axis_called
from search.space.canonical import canonical_strategy
from search.space.space import Space

_DERIVED = ("dp", "stage_layers")
"""Follow from the other degrees."""
_MOST_TRIED = 400
"""Combinations of changes that are priced for one step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Knobs that change together, and the plan that this leads to."""

    changes: Mapping[str, tuple[Any, Any]]
    """Before and after, by knob."""
    row: Priced
    gain_s: float
    """Seconds that a training step gets shorter by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Improvement:
    """The job as it is, the better one, and the way there."""

    job: Described
    yours: Priced
    broken: list[tuple[Rule, str]]
    kept: tuple[str, ...]
    searched: SearchResult
    better: Priced | None
    """None where the search found nothing better."""
    steps: tuple[Step, ...]

    @property
    def fits(self) -> bool:
        """The job as it is finds room in memory."""
        return self.yours.memory_bytes <= self.job.problem.cluster.usable_memory_bytes


def improve(
    job: Described,
    *,
    keep: Sequence[str] = (),
    progress: Callable[[float], None] | None = None,
) -> Improvement:
    """Search around a job that exists: same model, GPUs, batch, sequence and precision.

    ``keep`` names the knobs that stay as they are.

    Raises
    ------
    SpecError
        For a knob that there is not.
    """
    kept = tuple(dict.fromkeys(_knob(name) for name in keep))
    problem, strategy, constants = job.problem, job.strategy, job.job.constants
    broken = broken_rules(problem, strategy)
    yours = price_strategies(problem, [strategy], constants)[0]
    around = replace(job.job, space=_around(job, kept), fixed={}, precision=strategy.precision)
    searched = search(around, progress=progress)
    better = searched.frontier[0] if searched.frontier else None
    usable = problem.cluster.usable_memory_bytes
    runs = not broken and yours.memory_bytes <= usable
    if better is not None and runs and better.step_time_s >= yours.step_time_s * (1 - 1e-6):
        better = None
    steps = () if better is None else tuple(_way(problem, yours, better, constants))
    return Improvement(
        job=job,
        yours=yours,
        broken=broken,
        kept=kept,
        searched=searched,
        better=better,
        steps=steps,
    )


def _knob(name: str) -> str:
    try:
        return axis_called(name.strip())
    except SpecError as error:
        raise SpecError(f"--keep: {error}", hint=error.hint) from None


def _around(job: Described, kept: Sequence[str]) -> Space:
    """The space that also holds the strategy's own values, and of kept knobs nothing else."""
    strategy = job.strategy
    space = job.job.space_for(job.problem)
    axes: dict[str, tuple[Any, ...]] = {}
    for axis in AXES:
        own = getattr(strategy, axis)
        if axis == "dp_shard" and strategy.sharding != Sharding.HSDP:
            own = 0  # the whole group, whatever its size
        known = space.axes[axis]
        if axis in kept:
            axes[axis] = (own,)
        elif own not in known and axis != "precision":
            axes[axis] = (*known, own) if axis not in LAYOUT_AXES else _sorted(known, own)
    return space.with_(**axes)


def _sorted(known: Sequence[Any], own: Any) -> tuple[Any, ...]:
    return tuple(sorted((*known, own)))


def _way(problem: Problem, yours: Priced, better: Priced, constants: Constants) -> Iterator[Step]:
    """Steps from one plan to the other, the best first."""
    goal, here = better.strategy, yours
    left = _differing(yours.strategy, goal)
    done: tuple[str, ...] = ()
    start = {rule.name for rule, _ in broken_rules(problem, yours.strategy)}
    while left:
        found = _best_next(problem, yours.strategy, goal, done, left, here, start, constants)
        if found is None:
            break
        taken, row = found
        yield _step(here, row)
        done, here = (*done, *taken), row
        left = [name for name in left if name not in taken]
    if here.strategy != goal:
        yield _step(here, better)


def _best_next(
    problem: Problem,
    origin: Strategy,
    goal: Strategy,
    done: tuple[str, ...],
    left: Sequence[str],
    here: Priced,
    allowed: set[str],
    constants: Constants,
) -> tuple[tuple[str, ...], Priced] | None:
    """The fewest changes that lead to a legal plan, of those the ones that save most."""
    moe = problem.model.is_moe
    for size in range(1, len(left) + 1):
        candidates: list[tuple[tuple[str, ...], Strategy]] = []
        for taken in islice(combinations(left, size), _MOST_TRIED):
            strategy = _mixed(origin, goal, (*done, *taken), problem, moe=moe)
            if strategy is None or strategy == here.strategy:
                continue
            if {rule.name for rule, _ in broken_rules(problem, strategy)} <= allowed:
                candidates.append((taken, strategy))
        if candidates:
            rows = price_strategies(problem, [s for _, s in candidates], constants)
            best = min(range(len(rows)), key=lambda i: rows[i].step_time_s)
            return candidates[best][0], rows[best]
    return None


def _differing(one: Strategy, other: Strategy) -> list[str]:
    names = [f.name for f in fields(Strategy) if f.name not in _DERIVED]
    found = [name for name in names if getattr(one, name) != getattr(other, name)]
    if other.sharding != Sharding.HSDP and "dp_shard" in found:
        found.remove("dp_shard")
    same = (one.pp, one.vpp) == (other.pp, other.vpp)
    return [*found, "stage_layers"] if same and one.stage_layers != other.stage_layers else found


def _mixed(
    origin: Strategy, goal: Strategy, taken: Sequence[str], problem: Problem, *, moe: bool
) -> Strategy | None:
    """The origin with some knobs of the goal; None where the ranks do not add up."""
    mixed = origin.with_(**{name: getattr(goal, name) for name in taken})
    inner = mixed.tp * mixed.pp * mixed.cp
    dp, over = divmod(problem.cluster.n_gpus, inner)
    if over or not dp:
        return None
    whole = 1 if mixed.sharding == Sharding.NONE else dp
    shard = mixed.dp_shard if mixed.sharding == Sharding.HSDP else whole
    stages = mixed.stage_layers
    if "stage_layers" not in taken:
        ours, theirs = ((s.pp, s.vpp) for s in (origin, goal))
        shape = (mixed.pp, mixed.vpp)
        stages = origin.stage_layers if shape == ours else None
        if shape == theirs != ours:
            stages = goal.stage_layers
    return canonical_strategy(mixed.with_(dp=dp, dp_shard=shard, stage_layers=stages), moe=moe)


def _step(before: Priced, after: Priced) -> Step:
    one, other = before.strategy, after.strategy
    names = [f.name for f in fields(Strategy)]
    return Step(
        changes={
            name: (getattr(one, name), getattr(other, name))
            for name in names
            if getattr(one, name) != getattr(other, name)
        },
        row=after,
        gain_s=before.step_time_s - after.step_time_s,
    )

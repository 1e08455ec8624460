"""The axes of a search: which values each knob may take.

*Layout* axes divide ranks, layers and batch; *knob* axes are chosen within one layout.
The raw size of a space is the product of all its axes, most of it illegal: ``dp`` is an
axis like the others although the world size leaves it no freedom.

A few axes mean more than their values.  ``dp_shard`` lists the shard groups of hsdp (0
is the whole group, which all other shardings have); ``recompute_layers`` holds counts
of layers, 0 for all of them, and shares of a pipeline rank's layers strictly between 0
and 1.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import ContextParallel, Precision, Recompute, Schedule, Sharding
from search.rules.launchers import Launcher
from search.rules.recompute import missing_modules, supported
from search.rules.rule import LAYOUT_AXES, Problem
from search.space.axes import AXES, KNOB_AXES, axis_called, parse_axis

LONG_SEQUENCE = 16384
"""From here on context parallel is tried without being asked for."""

NEARLY = 3
"""Layers that a nearly even pipeline is short of an even one."""
TENTHS = tuple(i / 10 for i in range(11))
"""Shares of the optimizer state that are offloaded where any share can be."""
EIGHTHS = tuple(i / 8 for i in range(9))
"""Shares of a model's layers that are offloaded."""


def divisors(number: int) -> list[int]:
    """All divisors in ascending order.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [d for d in range(1, int(number**0.5) + 1) if number % d == 0]
    return small + [number // d for d in reversed(small) if d * d != number]


@dataclass(frozen=True, slots=True)
class Space:
    """Allowed values of every axis, for one world size."""

    world_size: int
    axes: Mapping[str, tuple[Any, ...]]
    moe: bool = False
    """The model has experts, whose state may be shared where the dense state is not."""
    candidates: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """What a range such as ``1-16`` picks from."""

    def __post_init__(self) -> None:
        for axis in AXES:
            if not self.axes.get(axis):
                raise SpecError(f"space.{axis} has no values")

    @classmethod
    def core(cls, problem: Problem, precision: Precision | None = None) -> "Space":
        """What an engineer would try first."""
        return _preset(problem, _core_axes(problem), precision)

    @classmethod
    def full(cls, problem: Problem, precision: Precision | None = None) -> "Space":
        """Everything that the launcher could be asked for."""
        return _preset(problem, _full_axes(problem), precision)

    def narrowed(self, texts: Mapping[str, str]) -> "Space":
        """The same space with some axes as a person wrote them; see ``axes.py``."""
        axes = dict(self.axes)
        for name, text in texts.items():
            axis = axis_called(name)
            axes[axis] = parse_axis(axis, text, self.candidates.get(axis, ()))
            self._require_divisor(axis, axes[axis])
        return Space(self.world_size, axes, self.moe, self.candidates)

    def with_(self, **axes: tuple[Any, ...]) -> "Space":
        """The same space with some axes replaced by values."""
        changed = {axis_called(name): tuple(values) for name, values in axes.items()}
        return Space(self.world_size, {**self.axes, **changed}, self.moe, self.candidates)

    def _require_divisor(self, axis: str, values: tuple[Any, ...]) -> None:
        if axis not in ("tp", "pp", "cp", "dp", "ep", "etp"):
            return
        if not any(self.world_size % value == 0 for value in values):
            listed = ", ".join(map(str, divisors(self.world_size)))
            given = ",".join(map(str, values))
            raise SpecError(
                f"{axis} {given} does not divide {self.world_size} GPUs",
                hint=f"divisors of {self.world_size}: {listed}",
            )

    @property
    def layout_size(self) -> int:
        """Raw product of the layout axes."""
        return prod(len(self.axes[axis]) for axis in LAYOUT_AXES)

    @property
    def knob_size(self) -> int:
        """Raw product of the knob axes."""
        return prod(len(self.axes[axis]) for axis in KNOB_AXES)

    @property
    def size(self) -> int:
        """Raw product of all axes, legal or not."""
        return self.layout_size * self.knob_size


def _preset(
    problem: Problem, axes: dict[str, tuple[Any, ...]], precision: Precision | None
) -> Space:
    full = _full_axes(problem)
    if precision is not None:
        axes["precision"] = (precision,)
    return Space(
        problem.cluster.n_gpus,
        MappingProxyType(axes),
        problem.model.is_moe,
        MappingProxyType(full),
    )


def _up_to(values: list[int], limit: int) -> tuple[int, ...]:
    return tuple(value for value in values if value <= max(limit, 1))


def _micro_batches(batch: int) -> tuple[int, ...]:
    """Divisors of the batch up to 16, and 32: large ones are for short parts of a sequence."""
    return tuple(size for size in divisors(batch) if size <= 16 or size == 32)


def _chunk_counts(
    problem: Problem, stages: tuple[int, ...], limit: int, short: int
) -> tuple[int, ...]:
    """Chunks for each rank that leave some pipeline at most ``short`` layers short of even."""
    layers = problem.model.n_layers
    found = {
        vpp
        for pp in stages
        if pp > 1
        for vpp in range(1, min(limit, layers // pp) + 1)
        if -layers % (pp * vpp) <= short
    }
    return tuple(sorted(found | {1}))


def _module_sets(problem: Problem, *, every: bool) -> tuple[Recompute, ...]:
    """Sets of modules to recompute, none of them inside another of the same set."""
    launcher, absent = problem.launcher, missing_modules(problem)
    if not every:
        return _usual_sets(problem)
    usable = [
        flag
        for flag in Recompute
        if flag != Recompute.FULL and launcher.has_recompute(flag) and not flag & absent
    ]
    if not _activation_alone(problem):
        usable = [flag for flag in usable if flag != Recompute.ACTIVATION]
    sets = [Recompute.NONE]
    for flag in usable:
        sets += [found | flag for found in sets if not _nested(problem, found | flag)]
    along = launcher.recomputed_along & ~absent
    sets = [modules for modules in sets if not modules or modules & along == along]
    full = [Recompute.FULL] if launcher.has_recompute(Recompute.FULL) else []
    return (*sorted(sets), *full)


def _usual_sets(problem: Problem) -> tuple[Recompute, ...]:
    """Nothing, the attention, what is cheap to compute again, the dense MLP, and whole layers."""
    launcher, absent = problem.launcher, missing_modules(problem)
    if not _activation_alone(problem):
        absent |= Recompute.ACTIVATION
    some = launcher.recompute & ~absent
    cheap = (Recompute.LAYERNORM | Recompute.ACTIVATION | Recompute.MLA_UP_PROJ) & some
    along = launcher.recomputed_along & ~absent
    sets = [Recompute.CORE_ATTN & some, cheap, Recompute.MLP & some]
    sets = [modules | along for modules in sets if modules]
    return tuple(dict.fromkeys([Recompute.NONE, *sets, Recompute.FULL & some]))


def _activation_alone(problem: Problem) -> bool:
    """The non-linearity can be recomputed by itself; Megatron-LM's is the experts'."""
    return problem.launcher.name != "megatron" or problem.model.is_moe


def _nested(problem: Problem, modules: Recompute) -> bool:
    """Some module of the set lies inside another of it, so that naming it changes nothing."""
    inner = Recompute.ACTIVATION | Recompute.SHARED_EXPERTS
    if modules & Recompute.MOE and modules & inner:
        return True
    dense = not problem.model.is_moe
    return bool(dense and modules & Recompute.MLP and modules & Recompute.ACTIVATION)


def _known(choices: tuple[Any, ...], offered: tuple[Any, ...]) -> tuple[Any, ...]:
    """The choices that the launcher offers, or what it offers where it has none of them."""
    return tuple(choice for choice in choices if choice in offered) or offered[:1]


def _core_axes(problem: Problem) -> dict[str, tuple[Any, ...]]:
    model, cluster, launcher = problem.model, problem.cluster, problem.launcher
    world, sequence = divisors(cluster.n_gpus), problem.workload.sequence_length
    stages = _up_to(world, model.n_layers) if launcher.pipeline else (1,)
    tensor = _up_to(world, min(cluster.nvlink_domain, model.n_heads))
    long = sequence >= LONG_SEQUENCE
    experts = model.is_moe and launcher.experts
    comms = (ContextParallel.P2P, ContextParallel.ALL_GATHER, ContextParallel.A2A)
    shardings = _known((Sharding.ZERO1, Sharding.FSDP), launcher.shardings)
    return {
        "tp": tensor,
        "pp": stages,
        "cp": _up_to(world, min(32, sequence // 4096) if long else 1),
        "dp": tuple(world),
        "ep": _up_to(world, model.n_experts) if experts else (1,),
        "etp": tensor if _experts_cut(problem) else (1,),
        "vpp": _chunk_counts(problem, stages, 10, NEARLY),
        "schedule": _schedules(launcher, every=False),
        "micro_batch_size": _up_to(divisors(problem.workload.global_batch_size), 8),
        "sequence_parallel": (launcher.sequence_parallel,),
        "sharding": shardings,
        "dp_shard": (0,),
        "reshard_after_forward": (True,),
        "recompute": _module_sets(problem, every=False),
        "recompute_layers": (0, 0.25, 0.5, 0.75) if launcher.some_layers else (0,),
        "cp_comm": _known(comms if long else comms[:1], launcher.cp_comms),
        "optimizer_offload": (0.0,),
        "activation_offload": (0.0,),
        "precision": tuple(supported(problem)[:1]),
        "overlap_grad_reduce": (True,),
        "overlap_param_gather": (True,),
        "overlap_tp": (False, True) if _can_overlap_tp(problem) else (False,),
        "overlap_ep": (False, True) if experts and launcher.overlap_ep else (False,),
        "overlap_p2p": (True,),
        "order": launcher.orders[:1],
        **launcher.decides,
    }


def _schedules(launcher: Launcher, *, every: bool) -> tuple[Schedule, ...]:
    """The launcher's schedules behind 1F1B, which stands for none where there is no pipeline."""
    loops = (Schedule._1F1B, Schedule.INTERLEAVED)
    some = launcher.schedules if every else _known(loops, launcher.schedules)
    if not every and Schedule._1F1B not in some:
        some = launcher.schedules
    return some if Schedule._1F1B in some else (Schedule._1F1B, *some)


def _offloads(problem: Problem) -> tuple[float, ...]:
    """Shares of the activations; Megatron-LM takes whole layers of a dense model, not the last."""
    if not problem.launcher.activation_offload:
        return (0.0,)
    layers = problem.model.n_layers
    if problem.launcher.name == "megatron" and not problem.model.is_moe:
        some = (min(int(share * layers), layers - 1) for share in EIGHTHS)
        return tuple(dict.fromkeys(count / layers for count in some))
    return (0.0, 0.5, 1.0)


def _experts_cut(problem: Problem) -> bool:
    return problem.model.is_moe and problem.launcher.experts_cut_with_heads


def _can_overlap_tp(problem: Problem) -> bool:
    return problem.launcher.overlap_tp and problem.launcher.sequence_parallel


def _full_axes(problem: Problem) -> dict[str, tuple[Any, ...]]:
    model, cluster, launcher = problem.model, problem.cluster, problem.launcher
    world = divisors(cluster.n_gpus)
    stages = _up_to(world, model.n_layers) if launcher.pipeline else (1,)
    experts = model.is_moe and launcher.experts
    cut = _up_to(world, model.n_heads if _experts_cut(problem) else cluster.nvlink_domain)
    shares = TENTHS if launcher.partial_offload else (0.0, 1.0)
    groups = tuple(d for d in world if 1 < d < cluster.n_gpus)
    either = (False, True)
    return _core_axes(problem) | {
        "tp": _up_to(world, model.n_heads),
        "cp": _up_to(world, min(64, problem.workload.sequence_length // 1024)),
        "etp": cut if _experts_cut(problem) or (experts and launcher.expert_tensor) else (1,),
        "vpp": _chunk_counts(problem, stages, model.n_layers, max(NEARLY, model.n_layers // 8)),
        "schedule": _schedules(launcher, every=True),
        "micro_batch_size": _micro_batches(problem.workload.global_batch_size),
        "sequence_parallel": either if launcher.sequence_parallel else (False,),
        "sharding": launcher.shardings,
        "dp_shard": groups if groups and Sharding.HSDP in launcher.shardings else (0,),
        "reshard_after_forward": (True, False),
        "recompute": _module_sets(problem, every=True),
        "recompute_layers": tuple(range(model.n_layers)) if launcher.some_layers else (0,),
        "cp_comm": launcher.cp_comms,
        "optimizer_offload": shares if launcher.optimizer_offload else (0.0,),
        "activation_offload": _offloads(problem),
        "overlap_grad_reduce": (True, False),
        "overlap_param_gather": (True, False),
        "overlap_p2p": (True, False),
        "order": launcher.orders,
        **launcher.decides,
    }

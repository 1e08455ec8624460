"""Rules on what a launcher's configuration has a word for; see ``launchers.py``."""

from collections.abc import Callable
from typing import Any

import numpy as np

from cost_models.specs.strategy import Strategies, Strategy
from search.rules.launchers import LAUNCHERS, Launcher
from search.rules.rule import Problem, Rule

_LIMITED = frozenset(LAUNCHERS) - {"any"}


def _choice(column: str, allowed: Callable[[Launcher], tuple[Any, ...]], *also: str) -> Rule:
    """The launcher offers some values of one choice, unless ``also`` columns are all 1."""

    def holds(p: Problem, s: Strategies) -> Any:
        known = np.isin(s.columns[column], allowed(p.launcher))
        for name in also:
            known = known | (s.columns[name] == 1)
        return known

    def why(p: Problem, s: Strategy) -> str:
        known = ", ".join(choice.label for choice in allowed(p.launcher))
        return f"{p.launcher.title} has no {column} {getattr(s, column).label}, only {known}"

    return Rule(
        name=f"launcher_has_{column}",
        sentence=f"The launcher can be asked for this {column}.",
        reads=(*also, column),
        holds=holds,
        why=why,
        launchers=_LIMITED,
    )


def _feature(name: str, column: str, off: int, has: Callable[[Launcher], bool], title: str) -> Rule:
    """The launcher has a feature, or ``column`` keeps the value that means off."""
    return Rule(
        name=f"launcher_has_{name}",
        sentence=f"The launcher can be asked for {title}.",
        reads=(column,),
        holds=lambda p, s: has(p.launcher) | (s.columns[column] == off),
        why=lambda p, s: f"{p.launcher.title} has no {title}, and {column} is {getattr(s, column)}",
        launchers=_LIMITED,
    )


VOCABULARY_RULES = (
    _feature("pipeline", "pp", 1, lambda x: x.pipeline, "pipeline parallel"),
    _feature("experts", "ep", 1, lambda x: x.experts, "expert parallel"),
    _feature("expert_tensor", "etp", 1, lambda x: x.expert_tensor, "expert tensor parallel"),
    _choice("schedule", lambda x: x.schedules, "pp"),
    _choice("sharding", lambda x: x.shardings),
    _choice("cp_comm", lambda x: x.cp_comms, "cp"),
    _choice("precision", lambda x: x.precisions),
    _choice("order", lambda x: x.orders, "pp"),
    _feature(
        "sequence_parallel",
        "sequence_parallel",
        0,
        lambda x: x.sequence_parallel,
        "sequence parallel",
    ),
    _feature("overlap_tp", "overlap_tp", 0, lambda x: x.overlap_tp, "tensor-parallel overlap"),
    _feature("overlap_ep", "overlap_ep", 0, lambda x: x.overlap_ep, "expert overlap"),
    _feature(
        "optimizer_offload",
        "optimizer_offload",
        0,
        lambda x: x.optimizer_offload,
        "optimizer offload",
    ),
    _feature(
        "activation_offload",
        "activation_offload",
        0,
        lambda x: x.activation_offload,
        "activation offload",
    ),
    _feature(
        "some_layers", "recompute_layers", 0, lambda x: x.some_layers, "recompute of some layers"
    ),
    Rule(
        name="launcher_has_recompute",
        sentence="The launcher can be asked to recompute these modules.",
        reads=("recompute",),
        holds=lambda p, s: s.recompute & ~int(p.launcher.recompute) == 0,
        why=lambda p, s: f"{p.launcher.title} has no recompute {s.recompute.label}",
        launchers=_LIMITED,
    ),
    Rule(
        name="launcher_splits_offload",
        sentence="The launcher can offload a part of the optimizer state.",
        reads=("optimizer_offload",),
        holds=lambda p, s: p.launcher.partial_offload | np.isin(s.optimizer_offload, (0.0, 1.0)),
        why=lambda p, s: (
            f"{p.launcher.title} offloads all of the optimizer state or none, "
            f"not {s.optimizer_offload:g}"
        ),
        launchers=_LIMITED,
    ),
)

"""An empty frontier in words: the binding rule, how far off, and what would help."""

from collections.abc import Sequence

from cost_models.equations.constants import Constants
from cost_models.specs.units import GIB
from search.feasible.explain import Illegal, Misfit, Remedy, SpaceFor, explain_empty
from search.rules import Problem, Rule
from search.sweep.least_memory import memory_model

_CHANGES = {
    "micro_batch_size": "another micro-batch size",
    "recompute": "recompute",
    "sharding": "sharding",
    "degrees": "other degrees",
    "optimizer_offload": "offloading the optimizer state",
    "activation_offload": "offloading activations",
    "everything": "all of it together",
}


def why_empty(
    problem: Problem, space_for: SpaceFor, rules: Sequence[Rule], constants: Constants
) -> str:
    """One line for the reason, one for every remedy."""
    found = explain_empty(space_for, problem, rules, memory_model(constants))
    if isinstance(found, Illegal):
        return "\n".join([_illegal(problem, found), *map(_hint, found.remedies)])
    if isinstance(found, Misfit):
        return "\n".join([_misfit(problem, found), *map(_hint, found.remedies)])
    return "no strategy that fits was found; more trials or more time may find one"


def _illegal(problem: Problem, found: Illegal) -> str:
    names = ", ".join(rule.name for rule in found.rules)
    sentences = " ".join(rule.sentence for rule in found.rules)
    return (
        f"no layout of {problem.model.name} on {problem.cluster.n_gpus} GPUs obeys all rules; "
        f"in conflict: {names} ({sentences})"
    )


def _misfit(problem: Problem, found: Misfit) -> str:
    s = found.closest
    return (
        f"no strategy fits {problem.model.name} on {problem.cluster.n_gpus} x "
        f"{problem.cluster.gpu.name}: the leanest needs {found.memory_bytes / GIB:.1f} GiB of "
        f"{found.capacity_bytes / GIB:.1f} GiB per GPU, {found.short_bytes / GIB:.1f} GiB too much "
        f"(tp {s.tp}, pp {s.pp}, cp {s.cp}, ep {s.ep}, dp {s.dp}, {s.sharding.label}, "
        f"recompute {s.recompute.label})"
    )


def _hint(remedy: Remedy) -> str:
    needs = "" if remedy.memory_bytes is None else f": {remedy.memory_bytes / GIB:.1f} GiB"
    if remedy.change == "gpus":
        return f"hint: {remedy.value} GPUs would do{needs}"
    if remedy.change == "global_batch_size":
        return f"hint: a global batch of {remedy.value} would do"
    change = _CHANGES.get(remedy.change, remedy.change)
    return f"hint: {change} would do ({remedy.value}){needs}"

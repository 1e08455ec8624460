"""Lines to type next: the whole question again, and questions about one of its answers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from autopar.job.job import WORDS
from autopar.job.said import command_line
from autopar.launchers.plan import Plan
from autopar.report.strategy_words import all_flags, flags
from cost_models.counting.partition import even_stage_layers
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload
from search.result import SearchResult
from search.space.axes import AXES

_OF_ONE = (
    *("sources", "model", "force"),
    *(name for name in WORDS if name not in ("space", "seed", "fixed")),
)
"""Words that a question about one strategy repeats."""


def strategy_line(
    verb: str, said: Mapping[str, Any], strategy: Strategy, model: ModelSpec, workload: Workload
) -> str:
    """``autopar estimate``, or another verb, for one strategy of the job that was said."""
    words = {name: value for name, value in said.items() if name in _OF_ONE}
    world = strategy.world_size
    if "gpus" in words and str(words["gpus"]) != str(world):  # several numbers of GPUs
        words["gpus"] = world
        if "tokens_per_batch" not in words:
            words["global_batch"] = workload.global_batch_size
    if verb == "explain" and "space" in said:
        words["space"] = said["space"]
    if "sources" in said:  # which hold wherever nothing else is said
        return f"{command_line(verb, words)} {all_flags(strategy)}"
    layers = even_stage_layers(model, workload.framework, strategy.pp, strategy.vpp)
    if strategy.stage_layers == layers:  # what the framework does by default
        strategy = strategy.with_(stage_layers=None)
    knobs = flags(strategy, moe=model.is_moe)
    return f"{command_line(verb, words)} {knobs}".rstrip()


def next_lines(
    result: SearchResult, said: Mapping[str, Any], problem: Mapping[str, Any] | None = None
) -> list[str]:
    """Commands that make sense after a search; ``problem`` where ``said`` names a study only.

    Where axes were narrowed, the best row is explained against the whole space; else what
    the rules took out of it is.
    """
    asked = said if problem is None else problem
    lines = ["next:"]
    if "model" in asked:
        best = result.frontier[0].strategy
        about = (asked, best, result.model, result.workload)
        narrowed = any(name in AXES for name in asked if name != "precision")
        lines.append(f"  {strategy_line('estimate', *about)}")
        if narrowed or "," in str(asked.get("gpus")) or "-" in str(asked.get("gpus")):
            lines.append(f"  {strategy_line('explain', *about)}")
        else:
            open_space = {n: v for n, v in asked.items() if n in _OF_ONE or n == "space"}
            lines.append(f"  {command_line('explain', open_space)}")
    lines.append(f"  {command_line('search', {**said, 'json': 'result.json'})}")
    return lines


def with_command(plan: Plan, said: Mapping[str, Any]) -> Plan:
    """The plan with the line that says its numbers again, where it can be typed."""
    if "sources" not in said and "model" not in said:
        return plan
    line = strategy_line("estimate", said, plan.strategy, plan.model, plan.workload)
    return replace(plan, command=line)

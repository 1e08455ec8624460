"""What a legal layout is: one named rule for each thing that a launcher refuses.

Imports no other room of search.  A new rule is a :class:`Rule` in the module of what it reads, with
the sentence that a user will see and its numbers.
"""

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategies, Strategy
from search.rules.degrees import DEGREE_RULES
from search.rules.habits import HABIT_RULES
from search.rules.launchers import LAUNCHERS, Launcher, launcher_called
from search.rules.pipeline import PIPELINE_RULES
from search.rules.recompute import RECOMPUTE_RULES
from search.rules.rule import (
    LAYOUT_AXES,
    Mask,
    Problem,
    Pruned,
    Rule,
    count_pruned,
    legal_mask,
)
from search.rules.sharding import SHARDING_RULES
from search.rules.vocabulary import VOCABULARY_RULES

RULES: tuple[Rule, ...] = (
    *DEGREE_RULES,
    *PIPELINE_RULES,
    *SHARDING_RULES,
    *RECOMPUTE_RULES,
    *VOCABULARY_RULES,
    *HABIT_RULES,
)
"""All rules in the fixed order in which strategies are charged to them."""


def rules_for(launcher: str) -> tuple[Rule, ...]:
    """The rules of one launcher, in the fixed order."""
    name = launcher_called(launcher).name
    return tuple(rule for rule in RULES if name in rule.launchers)


def broken_rules(problem: Problem, strategy: Strategy) -> list[tuple[Rule, str]]:
    """Every rule of the problem's launcher that a strategy breaks, with its numbers."""
    for name in ("dp", "tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch_size", "dp_shard"):
        if getattr(strategy, name) < 1:
            raise SpecError(f"strategy.{name} must be >= 1, got {getattr(strategy, name)}")
    one = Strategies.of(strategy)
    return [
        (rule, rule.why(problem, strategy))
        for rule in rules_for(problem.launcher.name)
        if not rule.mask(problem, one).all()
    ]


__all__ = [
    "LAUNCHERS",
    "LAYOUT_AXES",
    "RULES",
    "Launcher",
    "Mask",
    "Problem",
    "Pruned",
    "Rule",
    "broken_rules",
    "count_pruned",
    "launcher_called",
    "legal_mask",
    "rules_for",
]

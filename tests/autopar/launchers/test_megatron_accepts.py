"""Megatron-LM's own parser, checks and process groups agree with our scripts and our rules."""

from random import Random
from typing import Any, NamedTuple

import pytest

from autopar.launchers import dossier
from autopar.launchers.megatron import files as megatron
from autopar.launchers.megatron.args.flags import ARGUMENTS, LEGACY
from autopar.launchers.plan import Emission, Plan
from cost_models.counting.partition import even_stage_layers
from search.rules import Problem, broken_rules
from tests.launchers.ask import ask, megatron_case
from tests.launchers.known_plans import known_plans
from tests.launchers.random_plans import random_plan

pytestmark = pytest.mark.launchers

N_LEGAL, N_ILLEGAL = 500, 250

OURS_ALONE = {
    "a2a_splits_heads": "Transformer Engine checks it at the first step",
    "ep_overlap_needs_16_bit": "it sees --bf16, which accompanies every fp8 recipe",
    "etp_divides_experts": "the layers check it when they are built",
    "fsdp_keeps_default_order": "only Megatron-Bridge refuses it",
    "gpu_has_precision": "Transformer Engine checks it at the first step",
    "hierarchy_splits_heads": "Transformer Engine checks it at the first step",
    "hsdp_splits_group": "one group, or groups of one, are written as fsdp or as copies",
    "layers_divide_stages": "an uneven deal is written as a layout",
    "recomputed_or_offloaded": "it looks for nothing to offload, and there is nothing",
    "recompute_layers_of_rank": "a number beyond the layers means all of them",
    "recompute_modules_exist": "modules that the model has not are passed over",
    "tp_divides_mlp": "the layers check it when they are built",
}
"""Rules that Megatron-LM does not enforce before a GPU is at work, each with the reason."""


class Answer(NamedTuple):
    """One plan, what we say of it, and what Megatron-LM says."""

    plan: Plan
    emission: Emission
    broken: tuple[str, ...]
    verdict: dict[str, Any]


@pytest.fixture(scope="module")
def answers() -> list[Answer]:
    """Random plans that are legal by our rules, and others that break exactly one."""
    rng = Random(20260)  # noqa: S311 (chance for tests, not for secrets)
    plans: list[tuple[Plan, tuple[str, ...]]] = []
    legal = illegal = 0
    while legal < N_LEGAL or illegal < N_ILLEGAL:
        plan = random_plan(rng)
        problem = Problem.of(plan.model, plan.cluster, plan.workload, "megatron")
        broken = tuple(rule.name for rule, _ in broken_rules(problem, plan.strategy))
        if not broken and legal < N_LEGAL:
            legal += 1
        elif len(broken) == 1 and illegal < N_ILLEGAL:
            illegal += 1
        else:
            continue
        plans.append((plan, broken))
    emissions = [dossier("megatron").emit(plan) for plan, _ in plans]
    cases = [
        megatron_case(emission, plan.strategy.world_size)
        for (plan, _), emission in zip(plans, emissions, strict=True)
    ]
    return [
        Answer(plan, emission, broken, verdict)
        for (plan, broken), emission, verdict in zip(
            plans, emissions, ask("megatron", cases), strict=True
        )
    ]


def test_what_our_rules_allow_is_accepted(answers: list[Answer]) -> None:
    """None of the legal plans is refused by parser, checks, configs, groups or schedule."""
    refused = [
        f"{a.plan.model.name} {a.plan.strategy}: {a.verdict['stage']}: {a.verdict['error']}"
        for a in answers
        if not a.broken and not a.verdict["accepted"]
    ]
    assert not refused, "\n".join(refused)


def test_what_our_rules_forbid_is_refused(answers: list[Answer]) -> None:
    """A plan that breaks one rule is refused, unless the rule is known to be ours alone."""
    accepted = [
        f"{a.broken[0]}: {a.plan.model.name} {a.plan.strategy}"
        for a in answers
        if a.broken
        and a.verdict["accepted"]
        and not a.emission.not_expressed
        and a.broken[0] not in OURS_ALONE
    ]
    assert not accepted, "\n".join(accepted)


def test_accepted_layouts_are_ours(answers: list[Answer]) -> None:
    """Group sizes, micro-batches and layers of each chunk come out as the strategy says."""
    checked = 0
    for plan, _, broken, verdict in answers:
        if broken or not verdict["accepted"]:
            continue
        s = plan.strategy
        checked += 1
        assert (verdict["dp"], verdict["tp"]) == (s.dp, s.tp), s
        assert verdict["micro_batches"] * s.micro_batch_size * s.dp == (
            plan.workload.global_batch_size
        ), s
        assert tuple(verdict["stage_layers"]) == (
            s.stage_layers or even_stage_layers(plan.model, plan.workload.framework, s.pp, s.vpp)
        ), s
        if plan.model.is_moe:
            assert verdict["edp"] == s.edp, s
    assert checked == N_LEGAL


def test_known_plans_are_accepted_and_their_dump_is_read() -> None:
    """The jobs of the golden files pass at full size; their own printout reads back as they are."""
    plans = known_plans()
    cases = [
        megatron_case(dossier("megatron").emit(plan), plan.strategy.world_size, dump=True)
        for plan in plans.values()
    ]
    for (name, plan), verdict in zip(plans.items(), ask("megatron", cases), strict=True):
        assert verdict["accepted"], f"{name}: {verdict}"
        reading = megatron.read(verdict["dump"], name=f"{name}.log")
        assert reading.strategy == plan.strategy, name
        assert reading.world_size == plan.strategy.world_size, name
        assert reading.global_batch_size == plan.workload.global_batch_size, name


def test_flags_and_defaults_are_the_parsers() -> None:
    """Every argument of our table is there under our name, flag and default."""
    rows = [(a.name, a.flag, a.kind, a.default) for a in ARGUMENTS.values() if a not in LEGACY]
    (answer,) = ask("megatron", [{"table": rows}])
    assert answer == {"wrong": []}

"""What torchtitan, DeepSpeed, Accelerate and MaxText say of our files, both ways.

Files of plans that the rules call legal must be taken, and hold the sizes of the plan;
files that are refused must come from plans that the rules call illegal.  Where they and
we disagree, the tables below say why; a disagreement that is not in them fails.
"""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import pytest

from autopar.launchers import dossier
from autopar.launchers.knobs import effective
from autopar.launchers.plan import Plan
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from search.rules import Problem, broken_rules
from tests.launchers.ask import ask, require
from tests.launchers.random_layouts import random_plan, workload

pytestmark = pytest.mark.launchers

RANDOM = ("accelerate", "deepspeed", "torchtitan")
"""Launchers asked of many plans here; MaxText takes as long and is in a file of its own."""
NAMES = (*RANDOM, "maxtext")
PLANS = 500
"""Plans whose files each launcher sees."""

UNCHECKED: dict[str, dict[str, str]] = {
    "torchtitan": {
        "hsdp_splits_group": "hsdp over one rank, or over all, is just another name for it",
        "optimizer_offload_needs_sharding": "checked by no parser; offload rides on fully_shard",
        "interleaving_rounds_micro_batches": "the schedule object checks it, on ranks only",
        "micro_batches_fill_stages": "a warning there: the pipeline runs, mostly idle",
        "gpu_has_precision": "a converter asks the GPU, which the check pretends to be able",
    },
    "deepspeed": {
        "sequence_fits_positions": "DeepSpeed does not see the model",
        "zero_gradients_need_one_stage": "the pipeline engine refuses it when it starts",
        "optimizer_offload_needs_sharding": "we leave offload out of the JSON under stage 0",
        "tp_divides_heads": "AutoTP gives the ranks unequal shares",
        "ep_divides_experts": "checked when the experts are found in the model",
        "experts_cut_with_heads": "no field for it: the JSON runs as what the rule asks for",
        "weights_gathered_ahead": "no field for it: the JSON runs as what the rule asks for",
        "offload_is_of_shards": "we leave offload out of the JSON under stage 0",
        "part_offload_needs_zero3": "we leave the ratio out of the JSON under other stages",
    },
    "accelerate": {
        "hsdp_splits_group": "hsdp over one rank, or over all, is just another name for it",
        "experts_cut_with_heads": "no field for it: the plan runs as what the rule asks for",
        "optimizer_offload_needs_sharding": "without sharding there is no fsdp_config to say it",
        "offload_is_of_shards": "without sharding there is no fsdp_config to say it",
        "tp_divides_kv_heads": "Accelerate does not see the model",
        "tp_divides_heads": "Accelerate does not see the model",
        "cp_splits_sequence": "Accelerate does not see the sequence",
    },
    "maxtext": {
        "hsdp_splits_group": "hsdp over one rank, or over all, is just another name for it",
        "gpu_has_precision": "the parser does not ask the GPU",
        "recompute_modules_exist": "tensors that do not exist are never computed again",
        "optimizer_offload_needs_sharding": "its optimizer can go to the host without sharding",
        "tp_divides_kv_heads": "shows when weights are laid out",
        "tp_divides_heads": "shows when weights are laid out",
        "cp_splits_sequence": "shows when the batch is laid out",
        "sp_splits_sequence": "shows when the batch is laid out",
        "replicas_need_sharding": "not asked of it",
        "experts_cut_with_heads": "no field for it: the plan runs as what the rule asks for",
        "norms_recomputed_along": "no field for it: the plan runs as what the rule asks for",
        "weights_shard_over_experts": "no field for it: such an axis always shards the weights",
        "ep_divides_weight_shards": "whole weights have no shards to divide: the rule above",
    },
}
"""Rules of ours that the launcher's parsers do not check, and why."""

STRICTER: dict[str, dict[str, str]] = {
    "torchtitan": {},
    "deepspeed": {},
    "accelerate": {},
    "maxtext": {},
}
"""Knobs for which emitting refuses plans that the rules call legal."""


@dataclass(frozen=True, slots=True)
class Case:
    """One plan, the rules it breaks, and the launcher's answer."""

    plan: Plan
    broken: tuple[str, ...]
    answer: dict[str, Any]


def problem(plan: Plan, name: str) -> Problem:
    """The plan without its strategy."""
    return Problem.of(plan.model, plan.cluster, plan.workload, name)


@pytest.fixture(scope="module", params=RANDOM)
def cases(request: pytest.FixtureRequest) -> tuple[str, list[Case]]:
    """Random plans with the launcher's verdicts on them."""
    return request.param, answered(request.param)


def answered(name: str) -> list[Case]:
    """Random plans that launcher ``name`` has said yes or no to."""
    require(name)
    questions: list[dict[str, Any]] = []
    plans: list[tuple[Plan, tuple[str, ...]]] = []
    seed = 0
    while len(plans) < PLANS:
        plan = random_plan(Random(seed), name)  # noqa: S311
        seed += 1
        broken = tuple(rule.name for rule, _ in broken_rules(problem(plan, name), plan.strategy))
        try:
            files = dossier(name).emit(plan).files
        except SpecError as error:
            knob = str(error).removeprefix("strategy.").split()[0]
            if not broken and knob not in STRICTER[name]:
                pytest.fail(f"plan {seed - 1} of {name} is legal, yet: {error}")
            continue
        plans.append((plan, broken))
        world = plan.strategy.world_size
        questions.append({"launcher": name, "files": files, "world": world})
    answers = ask(name, questions)
    return [Case(p, b, a) for (p, b), a in zip(plans, answers, strict=True)]


def test_legal_plans_are_accepted(cases: tuple[str, list[Case]]) -> None:
    """What the rules call legal, the launcher's own code takes."""
    _, found = cases

    refused = [
        (c.answer["why"], c.plan.strategy)
        for c in found
        if not c.answer["accepted"] and not c.broken
    ]

    assert not refused
    assert sum(not c.broken for c in found) >= PLANS // 3


def test_accepted_illegal_plans_are_explained(cases: tuple[str, list[Case]]) -> None:
    """Where the launcher takes what a rule forbids, the table says why the rule stays."""
    name, found = cases

    rules = {rule for c in found if c.answer["accepted"] for rule in c.broken}

    assert rules <= set(UNCHECKED[name])


def test_sizes_are_those_of_the_plan(cases: tuple[str, list[Case]]) -> None:
    """The launcher reads the degrees, stages and batches that the plan asks for."""
    name, found = cases

    for case in found:
        if case.answer["accepted"]:
            facts = case.answer["facts"]
            expected = EXPECTED[name](case.plan)
            assert {key: facts[key] for key in expected} == expected, case.plan.strategy


def _titan_facts(plan: Plan) -> dict[str, Any]:
    s = effective(plan.strategy, plan.model)
    none = s.sharding == Sharding.NONE
    sizes = {"dp": s.dp, "tp": s.tp, "cp": s.cp, "pp": s.pp, "ep": s.ep}
    stages = {"stages": list(s.stage_layers)} if s.stage_layers else {}
    return {
        **sizes,
        **stages,
        "dp_shard": 1 if none else s.dp_shard,
        "layers": plan.model.n_layers,
        "hidden_size": plan.model.hidden_size,
    }


def _deepspeed_facts(plan: Plan) -> dict[str, Any]:
    s = effective(plan.strategy, plan.model)
    return {
        "dp": s.dp,
        "tp": s.tp,
        "ep": s.ep,
        "micro_batch_size": s.micro_batch_size,
        "global_batch_size": plan.workload.global_batch_size,
        "stage": {"none": 0, "zero1": 1, "zero2": 2, "zero3": 3}[s.sharding.label],
    }


def _accelerate_facts(plan: Plan) -> dict[str, Any]:
    s = effective(plan.strategy, plan.model)
    return {
        "dp": s.dp,
        "tp": s.tp,
        "cp": s.cp,
        "dp_shard": s.dp_shard,
        "fsdp": s.sharding != Sharding.NONE,
    }


def _maxtext_facts(plan: Plan) -> dict[str, Any]:
    s = effective(plan.strategy, plan.model)
    return {
        "global_batch_size": plan.workload.global_batch_size,
        "layers": plan.model.n_layers,
        "repeats": s.vpp,
    }


EXPECTED = {
    "torchtitan": _titan_facts,
    "deepspeed": _deepspeed_facts,
    "accelerate": _accelerate_facts,
    "maxtext": _maxtext_facts,
}

WIDE = Strategy(recompute=Recompute.FULL, sharding=Sharding.FSDP)
KNOWN: tuple[tuple[str, str, int, Strategy], ...] = (
    (
        "torchtitan",
        "llama3.1-405b",
        2048,
        WIDE.with_(dp=128, tp=8, pp=16, sequence_parallel=True, stage_layers=(7, *[8] * 14, 7)),
    ),
    (
        "torchtitan",
        "deepseek-v3",
        4096,
        WIDE.with_(dp=256, pp=8, vpp=2, ep=64, schedule=Schedule.INTERLEAVED),
    ),
    ("torchtitan", "deepseek-v3", 2048, WIDE.with_(dp=2048, ep=64)),
    ("torchtitan", "mixtral-8x22b", 512, WIDE.with_(dp=32, tp=4, ep=8, sequence_parallel=True)),
    ("torchtitan", "gpt-oss-120b", 512, WIDE.with_(dp=64, ep=8)),
    (
        "torchtitan",
        "llama3-70b",
        1024,
        WIDE.with_(dp=64, tp=8, precision=Precision.FP8, sequence_parallel=True, overlap_tp=True),
    ),
    ("deepspeed", "llama3.1-405b", 2048, WIDE.with_(dp=2048, cp=8, sharding=Sharding.ZERO3)),
    ("deepspeed", "deepseek-v3", 4096, WIDE.with_(dp=2048, ep=64, sharding=Sharding.ZERO3)),
    ("accelerate", "llama3.1-405b", 2048, WIDE.with_(dp=2048, tp=8)),
    ("accelerate", "llama3-70b", 512, WIDE.with_(dp=64, dp_shard=8, cp=8, sharding=Sharding.HSDP)),
    ("maxtext", "llama3.1-405b", 2048, WIDE.with_(dp=2048, tp=8, sequence_parallel=True)),
    ("maxtext", "deepseek-v3", 4096, WIDE.with_(dp=2048, ep=64)),
    ("maxtext", "mixtral-8x22b", 512, WIDE.with_(dp=32, tp=4, ep=8)),
)
"""Jobs at full size: launcher, model, global batch, strategy."""


@pytest.mark.parametrize("name", NAMES)
def test_known_jobs_pass(name: str) -> None:
    """Large models on many GPUs are taken as written, and have the sizes of the plan."""
    plans = []
    for _, model, batch, strategy in (job for job in KNOWN if job[0] == name):
        group = strategy.dp_shard if strategy.sharding == Sharding.HSDP else strategy.dp
        cluster = Cluster.of(load_gpu("h100"), strategy.world_size)
        plan = Plan(
            model=load_model(model),
            cluster=cluster,
            workload=workload(batch, 4096),
            strategy=strategy.with_(dp_shard=group),
        )
        plans.append(plan)
    questions = [
        {"launcher": name, "files": dossier(name).emit(p).files, "world": p.strategy.world_size}
        for p in plans
    ]

    for plan, answer in zip(plans, ask(name, questions), strict=True):
        assert answer["accepted"], answer
        expected = EXPECTED[name](plan)
        assert {key: answer["facts"][key] for key in expected} == expected


REFUSED: tuple[tuple[str, str, dict[str, Any], int, str], ...] = (
    ("torchtitan", "llama3-8b", {"dp": 1, "tp": 16, "sequence_parallel": True}, 64, "n_kv_heads"),
    ("torchtitan", "llama3-8b", {"dp": 2, "cp": 4, "sharding": Sharding.FSDP}, 66, "seq_len"),
    ("torchtitan", "qwen3-30b-a3b", {"dp": 8, "ep": 3, "sharding": Sharding.FSDP}, 64, "ep"),
    ("deepspeed", "mixtral-8x7b", {"dp": 2, "ep": 16, "sharding": Sharding.ZERO1}, 64, "autoep"),
    ("maxtext", "llama3-8b", {"dp": 1, "pp": 3}, 66, "pp"),
)
"""Layouts that must not run: launcher, model, strategy, global batch, a word of the refusal."""


@pytest.mark.parametrize(("name", "model", "knobs", "batch", "word"), REFUSED)
def test_illegal_plans_are_refused(
    name: str, model: str, knobs: dict[str, Any], batch: int, word: str
) -> None:
    """Someone says no, with the reason: our emitter, or else the launcher; and the rules agree."""
    require(name)
    strategy = Strategy(**knobs)
    if strategy.sharding != Sharding.NONE:
        strategy = replace(strategy, dp_shard=strategy.dp)
    cluster = Cluster.of(load_gpu("h100"), strategy.world_size)
    sequence = 4100 if word == "seq_len" else 4096
    plan = Plan(
        model=load_model(model),
        cluster=cluster,
        workload=workload(batch, sequence),
        strategy=strategy,
    )

    assert broken_rules(problem(plan, name), strategy)
    try:
        files = dossier(name).emit(plan).files
    except SpecError as error:
        refusal = str(error)
    else:
        world = strategy.world_size
        (answer,) = ask(name, [{"launcher": name, "files": files, "world": world}])
        refusal = answer["why"] if not answer["accepted"] else ""

    assert word in refusal

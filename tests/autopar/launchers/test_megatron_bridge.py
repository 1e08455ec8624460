"""Megatron-Bridge: overrides say what the plan says, recipes are read without being run."""

import subprocess
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.launchers import dossier
from autopar.launchers.formats.shell import read_script
from autopar.launchers.knobs import effective
from autopar.launchers.megatron.args.parallel import assigned_stages
from autopar.launchers.megatron_bridge import files as megatron_bridge
from autopar.launchers.megatron_bridge.recipes import recipes_in
from autopar.launchers.plan import Emission, Plan
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Sharding
from search.rules import Problem, broken_rules
from tests.launchers.ask import ask, package
from tests.launchers.golden import compare
from tests.launchers.known_plans import known_plans
from tests.launchers.random_plans import random_plan

PLANS = known_plans()
RECIPE = '''
SEQUENCE: int = 16384


def _common_part(precision: str) -> ConfigContainer:
    chosen = get_mixed_precision_config(precision)
    cfg = _pretrain_common()
    cfg.model = AutoBridge.from_hf_pretrained("meta-llama/Meta-Llama-3-8B").provider()
    cfg.mixed_precision = chosen
    cfg.train.global_batch_size = 512
    return cfg


def my_8b_pretrain_16gpu_h100_config() -> ConfigContainer:
    """A recipe."""
    cfg = _common_part("bf16_with_mxfp8_mixed")
    cfg.model.tensor_model_parallel_size = 2
    cfg.model.sequence_parallel = True
    cfg.model.pipeline_model_parallel_size = 2
    cfg.model.virtual_pipeline_model_parallel_size = None
    cfg.model.recompute_granularity = "full"
    cfg.model.recompute_method = "uniform"
    cfg.model.recompute_num_layers = 1
    cfg.dataset.seq_length = SEQUENCE
    cfg.train.micro_batch_size = 1
    cfg.comm_overlap = CommOverlapConfig(tp_comm_overlap=True, overlap_param_gather=False)
    cfg.logger.log_interval = os.environ.get("INTERVAL")
    return cfg
'''


def legal_plan(rng: Random) -> Plan:
    """The next plan that our rules allow."""
    while True:
        plan = random_plan(rng)
        problem = Problem.of(plan.model, plan.cluster, plan.workload, "megatron")
        if not broken_rules(problem, plan.strategy):
            return plan


@pytest.mark.parametrize("name", PLANS)
def test_known_plans_come_back(name: str) -> None:
    """The script is the kept one, to the letter, and says the whole strategy."""
    plan = PLANS[name]
    emission = dossier("megatron-bridge").emit(plan)
    compare(f"megatron-bridge/{name}", emission)
    reading = megatron_bridge.read(emission.files)
    assert emission.not_expressed == ()
    assert reading.strategy == plan.strategy
    assert reading.world_size == plan.strategy.world_size
    assert reading.global_batch_size == plan.workload.global_batch_size
    assert reading.model is not None
    assert reading.model.n_parameters == plan.model.n_parameters


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_every_legal_strategy_comes_back(seed: int) -> None:
    """What a legal plan asks for is read again, or named as not expressed."""
    plan = legal_plan(Random(seed))  # noqa: S311 (chance for tests, not for secrets)
    emission = dossier("megatron-bridge").emit(plan)
    said = effective(megatron_bridge.read(emission.files).strategy, plan.model).to_json()
    assigned = plan.strategy.with_(stage_layers=assigned_stages(plan))
    wanted = effective(assigned, plan.model).to_json()
    differing = {name for name, value in said.items() if value != wanted[name]}
    assert differing <= {line.split()[0] for line in emission.not_expressed}


def test_a_recipe_is_read_without_being_run() -> None:
    """Helpers, constants, arguments and calls are followed; what only running tells is not."""
    reading = megatron_bridge.read(RECIPE, name="my.py")
    s = reading.strategy
    assert (s.dp, s.tp, s.pp, s.vpp, s.micro_batch_size) == (4, 2, 2, 1, 1)
    assert (s.sharding, s.recompute, s.precision) == (
        Sharding.ZERO1,
        Recompute.FULL,
        Precision.MXFP8,
    )
    assert (s.overlap_tp, s.overlap_grad_reduce, s.overlap_param_gather) == (True, True, False)
    assert reading.model is not None
    assert reading.model.name == "llama3-8b"
    assert (reading.world_size, reading.global_batch_size, reading.sequence_length) == (
        16,
        512,
        16384,
    )


def test_a_command_line_is_read() -> None:
    """A recipe's name gives the model, its overrides the strategy."""
    command = (
        "torchrun --nnodes 2 --nproc-per-node 8 run_recipe.py --recipe llama3_8b_pretrain_config "
        "model.tensor_model_parallel_size=2 train.global_batch_size=256 'model.cp_comm_type=a2a' "
        "model.context_parallel_size=2 other.field=3"
    )
    reading = megatron_bridge.read(command)
    assert (reading.strategy.dp, reading.strategy.tp, reading.strategy.cp) == (4, 2, 2)
    assert reading.model is not None
    assert reading.model.name == "llama3-8b"
    assert reading.ignored == ("other.field",)
    assert "defaults" in reading.notes


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("echo hello", {}, r"x: neither --recipe nor an override"),
        ("run \\\n model.tensor_model_parallel_size=two", {}, r"x:2: model\.tensor.*'two'"),
        ("run model.tensor_model_parallel_size=$TP", {}, r"x:1: model\.tensor.*\$TP is not set"),
        ("run a.b=1 mixed_precision=fast", {}, r"x:1: mixed_precision is unknown: 'fast'"),
        ("run model.sequence_parallel=4", {}, r"x:1: model\.sequence_parallel must be true"),
        ("def f(:\n", {}, r"x:1: not Python"),
        (RECIPE, {"choice": "nope"}, r"x: recipe must be one of 1, got 'nope'"),
    ],
)
def test_wrong_files_are_refused_by_line(text: str, options: dict[str, Any], message: str) -> None:
    """What cannot be read is one error with file, line and field."""
    with pytest.raises(SpecError, match=message):
        megatron_bridge.read(text, name="x", **options)


@pytest.mark.parametrize("name", ["x'; touch owned; '", "$(touch owned)", "a\ntouch owned"])
def test_names_never_become_code(name: str, tmp_path: Path) -> None:
    """Whatever the model is called, the script parses and differs in comments alone."""
    plan = PLANS["llama3-70b-512"]
    nasty = replace(plan, model=replace(plan.model, name=name))
    text = dossier("megatron-bridge").emit(nasty).files[megatron_bridge.FILE]
    plain = dossier("megatron-bridge").emit(replace(plan, model=replace(plan.model, name="x")))
    assert _code(text) == _code(plain.files[megatron_bridge.FILE])
    script = tmp_path / "x.sh"
    script.write_text(text)
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def _code(text: str) -> list[str]:
    return [line for line in text.split("\n") if not line.startswith("#")]


@pytest.mark.launchers
def test_bridge_accepts_the_overrides() -> None:
    """Hydra's grammar, Bridge's fields and its validation take 500 legal plans."""
    rng = Random(7)  # noqa: S311 (chance for tests, not for secrets)
    plans = [*PLANS.values(), *(legal_plan(rng) for _ in range(500 - len(PLANS)))]
    cases = [_case(plan, dossier("megatron-bridge").emit(plan)) for plan in plans]
    for plan, answer in zip(plans, ask("megatron-bridge", cases), strict=True):
        s = plan.strategy
        fsdp = s.sharding in (Sharding.ZERO2, Sharding.FSDP, Sharding.HSDP)
        assert answer["error"] is None, f"{plan.model.name} {s}: {answer['error']}"
        assert (answer["tp"], answer["dp"]) == (s.tp, s.dp)
        assert answer["fsdp"] == fsdp or not s.reshard_after_forward


UNCHECKED = {
    "a2a_splits_heads": "Transformer Engine checks it at the first step",
    "chunks_need_p2p_overlap": "Megatron-LM's parser checks it, which Bridge goes without",
    "experts_fill_world": "the process groups check it when they are made",
    "hierarchy_splits_heads": "Transformer Engine checks it at the first step",
    "hsdp_splits_group": "one group, or groups of one, are written as fsdp or as copies",
    "interleaving_groups_micro_batches": "the schedule checks it at the first step",
    "order_keeps_pipeline_groups": "the process groups check it when they are made",
    "param_gather_needs_grad_reduce": "Megatron-LM's parser checks it, which Bridge goes without",
    "recompute_modules_exist": "modules that the model has not are passed over",
    "recomputed_or_offloaded": "it looks for nothing to offload, and there is nothing",
    "sequence_fits_positions": "Megatron-LM's parser checks it, which Bridge goes without",
    "stages_have_layers": "its layouts may leave chunks empty, which are not priced yet",
    "tp_overlap_needs_sp": "Megatron-LM's parser checks it, which Bridge goes without",
}
"""Rules that Bridge's validation passes over, each with the reason why it stays."""


@pytest.mark.launchers
def test_bridge_refuses_what_it_checks() -> None:
    """Of 250 plans that break one rule, those it takes are of rules that are known for it."""
    rng = Random(20261)  # noqa: S311 (chance for tests, not for secrets)
    found: list[tuple[Plan, str, Emission]] = []
    while len(found) < 250:
        plan = random_plan(rng)
        problem = Problem.of(plan.model, plan.cluster, plan.workload, "megatron-bridge")
        broken = [rule.name for rule, _ in broken_rules(problem, plan.strategy)]
        if len(broken) == 1:
            found.append((plan, broken[0], dossier("megatron-bridge").emit(plan)))
    answers = ask("megatron-bridge", [_case(plan, emission) for plan, _, emission in found])
    taken = {
        rule
        for (_, rule, emission), answer in zip(found, answers, strict=True)
        if answer["error"] is None and not emission.not_expressed
    }
    assert taken <= set(UNCHECKED)
    assert sum(answer["error"] is not None for answer in answers) >= 50


def _case(plan: Plan, emission: Emission) -> dict[str, Any]:
    """What the script hands to Bridge."""
    variables = read_script(emission.files[megatron_bridge.FILE], name="x").variables
    names = ("CUDA_DEVICE_MAX_CONNECTIONS", "NVTE_CPU_OFFLOAD_V1")
    return {
        "overrides": [word.text for word in variables["OVERRIDES"]],
        "env": {n: variables[n][0].text for n in names if n in variables},
        "world": plan.strategy.world_size,
        "mla": plan.model.attention == "mla",
    }


@pytest.mark.launchers
def test_published_recipes_are_read() -> None:
    """At least thirty pre-training recipes in the package give a model, GPUs and a batch."""
    recipes = package("megatron.bridge") / "recipes"
    read = []
    for path in sorted(recipes.glob("*/h100/*.py")):
        text = path.read_text(encoding="utf-8")
        for recipe in recipes_in(text, name=path.name).functions:
            if "_pretrain_" in recipe and not recipe.startswith("_"):
                reading = megatron_bridge.read(text, name=path.name, choice=recipe)
                if reading.model and reading.world_size and reading.global_batch_size:
                    read.append(recipe)
    assert len(read) >= 30

"""The best rows of four large jobs, written for every launcher, pass that launcher's own checks."""

from functools import cache
from typing import Any

import pytest

from autopar import api
from autopar.answers.emission import plan_of
from autopar.launchers import dossier
from autopar.launchers.formats.shell import read_script
from autopar.launchers.plan import Plan
from search.result import SearchResult
from search.rules.launchers import SAME_RULES
from tests.autopar.launchers.test_nanotron_fields import complaints
from tests.launchers.ask import ask, megatron_case, require
from tests.launchers.test_other_launchers import EXPECTED

pytestmark = pytest.mark.launchers

JOBS = (("70b", 512), ("405b", 16384), ("mixtral-8x22b", 128), ("deepseek-v3", 2048))
"""Models and H100 GPUs, at 4096 tokens."""
TOP = 5
_VARIABLES = ("CUDA_DEVICE_MAX_CONNECTIONS", "NVTE_CPU_OFFLOAD_V1")


@cache
def _searched(model: str, gpus: int, rules: str) -> SearchResult:
    return api.search(model, gpus, launcher=rules, seq_len=4096, top=TOP)


def plans(name: str, *, dense_only: bool = False) -> list[Plan]:
    """The best five rows of each job, searched for launcher ``name``; all where there are less."""
    found = []
    for model, gpus in JOBS:
        result = _searched(model, gpus, SAME_RULES.get(name, name))
        assert result.frontier or (dense_only and result.model.is_moe), model
        found += [plan_of(result, row) for row in result.frontier]
    return found


def test_megatron_takes_them() -> None:
    """Parser, argument checks, configs and process groups at full size."""
    require("megatron")
    wanted = plans("megatron")
    cases = [megatron_case(dossier("megatron").emit(p), p.strategy.world_size) for p in wanted]
    for plan, verdict in zip(wanted, ask("megatron", cases), strict=True):
        assert verdict["accepted"], f"{plan.model.name} {plan.strategy}: {verdict}"
        assert (verdict["dp"], verdict["tp"]) == (plan.strategy.dp, plan.strategy.tp)


def test_megatron_bridge_takes_them() -> None:
    """Hydra's grammar, Bridge's fields and its validation."""
    require("megatron-bridge")
    wanted = plans("megatron-bridge")
    answers = ask("megatron-bridge", [_bridge_case(p) for p in wanted])
    for plan, answer in zip(wanted, answers, strict=True):
        assert answer["error"] is None, f"{plan.model.name} {plan.strategy}: {answer['error']}"
        assert (answer["tp"], answer["dp"]) == (plan.strategy.tp, plan.strategy.dp)


def _bridge_case(plan: Plan) -> dict[str, Any]:
    text = next(iter(dossier("megatron-bridge").emit(plan).files.values()))
    variables = read_script(text, name="x").variables
    return {
        "overrides": [word.text for word in variables["OVERRIDES"]],
        "env": {n: variables[n][0].text for n in _VARIABLES if n in variables},
        "world": plan.strategy.world_size,
        "mla": plan.model.attention == "mla",
    }


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_the_others_take_them(name: str) -> None:
    """torchtitan, DeepSpeed, Accelerate and MaxText load the files and have the plan's sizes."""
    require(name)
    wanted = plans(name)
    questions = [
        {"launcher": name, "files": dossier(name).emit(p).files, "world": p.strategy.world_size}
        for p in wanted
    ]
    for plan, answer in zip(wanted, ask(name, questions), strict=True):
        assert answer["accepted"], f"{plan.model.name} {plan.strategy}: {answer}"
        expected = EXPECTED[name](plan)
        assert {key: answer["facts"][key] for key in expected} == expected, plan.strategy


def test_nanotron_takes_the_dense_ones() -> None:
    """The fields and checks of nanotron's configuration, which has no release to ask."""
    wanted = plans("nanotron", dense_only=True)
    assert len({plan.model.name for plan in wanted}) == 2
    for plan in wanted:
        text = dossier("nanotron").emit(plan).files["nanotron.yaml"]
        assert not complaints(text, plan.strategy.world_size), plan.strategy

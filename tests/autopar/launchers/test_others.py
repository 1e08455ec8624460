"""Files of torchtitan, DeepSpeed, Accelerate, nanotron and MaxText say what the plan says."""

import ast
import json
from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.launchers import dossier
from autopar.launchers.knobs import effective
from autopar.launchers.plan import Plan, Prediction
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Order, Precision, Recompute, Schedule, Sharding, Strategy
from cost_models.specs.units import GIB
from search.rules import Problem, broken_rules
from tests.launchers.golden import compare
from tests.launchers.random_layouts import MODELS, random_plan, workload

NAMES = tuple(MODELS)

_OVERLAPS = ("overlap_grad_reduce", "overlap_param_gather")
_SHARDS = ("sharding", "dp_shard", "reshard_after_forward")
UNEXPRESSED: Mapping[str, set[str]] = {
    "torchtitan": {*_OVERLAPS, *_SHARDS, "cp_comm", "etp", "stage_layers", "overlap_p2p"},
    "deepspeed": {
        *(*_OVERLAPS, "pp", "stage_layers", "optimizer_offload", "etp"),
        "reshard_after_forward",
    },
    "accelerate": {*_OVERLAPS, "etp", "optimizer_offload"},
    "nanotron": {*_OVERLAPS, "stage_layers", "order"},
    "maxtext": {
        *(*_OVERLAPS, *_SHARDS, "etp", "schedule", "recompute", "order", "stage_layers"),
        *("overlap_tp", "overlap_p2p"),
    },
}
"""Knobs within a launcher's own vocabulary that its files may fail to say."""

PREDICTION = Prediction(
    step_time_s=10.0,
    memory_bytes=60 * GIB,
    step_time_low_s=9.0,
    step_time_high_s=11.5,
    memory_low_bytes=55 * GIB,
    memory_high_bytes=64 * GIB,
)


def plan_of(model: str, strategy: Strategy, batch: int = 1024, sequence: int = 8192) -> Plan:
    """A plan on as many H100 as the strategy uses."""
    return Plan(
        model=load_model(model),
        cluster=Cluster.of(load_gpu("h100"), strategy.world_size),
        workload=workload(batch, sequence),
        strategy=strategy,
        prediction=PREDICTION,
    )


SHARDED = Strategy(dp=64, tp=8, sequence_parallel=True, sharding=Sharding.FSDP, dp_shard=64).with_(
    recompute=Recompute.FULL
)
PIPELINED = SHARDED.with_(
    dp=16, dp_shard=8, pp=4, sharding=Sharding.HSDP, vpp=2, schedule=Schedule.INTERLEAVED
)
GOLDEN: Mapping[str, Plan] = {
    "torchtitan/llama3-70b-512": plan_of("70b", PIPELINED.with_(overlap_tp=True)),
    "torchtitan/mixtral-8x22b-128": plan_of(
        "8x22b", SHARDED.with_(dp=32, dp_shard=32, tp=4, ep=8), 512, 4096
    ),
    "deepspeed/llama3-70b-512": plan_of(
        "70b",
        Strategy(dp=256, cp=2, sharding=Sharding.ZERO3, dp_shard=256, optimizer_offload=0.5),
    ),
    "deepspeed/mixtral-8x22b-128": plan_of(
        "8x22b", Strategy(dp=128, ep=8, sharding=Sharding.ZERO2, dp_shard=128), 512, 4096
    ),
    "accelerate/llama3-70b-512": plan_of(
        "70b", SHARDED.with_(dp=32, dp_shard=16, cp=2, sharding=Sharding.HSDP)
    ),
    "accelerate/mixtral-8x22b-128": plan_of(
        "8x22b", SHARDED.with_(dp=128, dp_shard=128, tp=1, sequence_parallel=False), 512, 4096
    ),
    "nanotron/llama3-70b-512": plan_of(
        "70b", Strategy(dp=16, tp=8, pp=4, sequence_parallel=True, sharding=Sharding.ZERO1)
    ),
    "maxtext/llama3-70b-512": plan_of("70b", SHARDED),
    "maxtext/mixtral-8x22b-128": plan_of(
        "8x22b",
        Strategy(dp=32, tp=4, ep=8, etp=4, sharding=Sharding.FSDP, dp_shard=32),
        512,
        4096,
    ),
}


@pytest.mark.parametrize("path", GOLDEN)
def test_files_are_the_kept_ones(path: str) -> None:
    """Known jobs come out as in tests/golden, to the letter, and come back whole."""
    plan, name = GOLDEN[path], path.split("/")[0]
    emission = dossier(name).emit(plan)

    compare(path, emission)
    reading = dossier(name).read(emission.files)

    assert reading.world_size == plan.strategy.world_size
    unsaid = {line.split()[0] for line in emission.not_expressed}
    changes = {knob: getattr(plan.strategy, knob) for knob in unsaid}
    wanted = effective(plan.strategy, plan.model)
    assert effective(reading.strategy.with_(**changes), plan.model) == wanted


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=75)
def test_strategies_come_back(name: str, seed: int) -> None:
    """What a plan asks for is read again, or is named with what it runs as."""
    plan = random_plan(Random(seed), name)  # noqa: S311
    try:
        emission = dossier(name).emit(plan)
    except SpecError:
        return
    wanted = effective(plan.strategy, plan.model)
    reading = dossier(name).read(emission.files)
    said = effective(reading.strategy, plan.model)

    differing = {k for k in wanted.__slots__ if getattr(wanted, k) != getattr(said, k)}

    unsaid = {line.split()[0] for line in emission.not_expressed}
    by_the_model = {"pp"} if reading.model else {"pp", "etp"}
    assert differing - by_the_model <= unsaid
    assert unsaid - differing <= by_the_model
    assert unsaid <= UNEXPRESSED[name]
    assert reading.world_size == plan.strategy.world_size
    assert reading.global_batch_size in (None, plan.workload.global_batch_size)
    assert reading.sequence_length in (None, plan.workload.sequence_length)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_legal_plans_can_be_written(name: str, seed: int) -> None:
    """Every plan that the launcher's rules allow has files, but for what the table lists."""
    plan = random_plan(Random(seed), name)  # noqa: S311
    problem = Problem.of(plan.model, plan.cluster, plan.workload, name)
    if broken_rules(problem, plan.strategy):
        return
    stricter = {"maxtext": "ep", "deepspeed": "pp optimizer_offload"}.get(name, "").split()
    try:
        dossier(name).emit(plan)
    except SpecError as error:
        if str(error).removeprefix("strategy.").split()[0] not in stricter:
            raise


@pytest.mark.parametrize("name", NAMES)
def test_emitting_twice_gives_the_same(name: str) -> None:
    """The files depend on the plan and on nothing else."""
    plan = GOLDEN[f"{name}/llama3-70b-512"]

    assert dossier(name).emit(plan) == dossier(name).emit(plan)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "hostile", ['"""\nimport os\n', "'; rm -rf $HOME #\n`id`", "\r: {x}\x00\u2028"]
)
def test_names_never_become_code(name: str, hostile: str) -> None:
    """A model's name stays a string, in Python, YAML, JSON and comments alike."""
    plan = GOLDEN[f"{name}/llama3-70b-512"]
    plan = replace(plan, model=replace(plan.model, name=hostile, n_layers=40))

    files = dossier(name).emit(plan).files

    dossier(name).read(files)
    for path, text in files.items():
        if path.endswith(".py"):
            imports = [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Import)]
            assert not imports
        elif path.endswith((".yaml", ".yml")):
            assert isinstance(yaml.safe_load(text), dict)
        elif path.endswith(".json"):
            assert isinstance(json.loads(text), dict)
        elif path.endswith(".sh"):
            code = [line for line in text.splitlines() if not line.startswith("#")]
            assert not any("rm -rf" in line or "id" in line.split() for line in code)


REFUSED: tuple[tuple[str, dict[str, Any], str, str], ...] = (
    ("torchtitan", {"sharding": Sharding.ZERO1}, "sharding", "fsdp"),
    ("torchtitan", {"pp": 2, "schedule": Schedule.ZB_2P}, "schedule", "zb-1p"),
    ("torchtitan", {"pp": 2, "schedule": Schedule.ZB_V}, "vpp", "vpp 2"),
    ("deepspeed", {"pp": 2, "vpp": 2}, "vpp", "vpp 1"),
    ("deepspeed", {"tp": 2, "cp": 2}, "cp", "cp 1"),
    ("accelerate", {"pp": 2}, "pp", "pp 1"),
    ("accelerate", {"ep": 2}, "ep", "ep 1"),
    ("accelerate", {"sharding": Sharding.ZERO3}, "sharding", "deepspeed"),
    ("nanotron", {"ep": 2}, "ep", "ep 1"),
    ("nanotron", {"sharding": Sharding.FSDP}, "sharding", "zero1"),
    ("nanotron", {"pp": 2, "vpp": 2}, "schedule", "1f1b"),
    ("maxtext", {"sharding": Sharding.ZERO2}, "sharding", "fsdp"),
    ("maxtext", {"pp": 3}, "pp", "divides"),
)


@pytest.mark.parametrize(("name", "knobs", "knob", "closest"), REFUSED)
def test_layouts_it_has_no_words_for_are_refused(
    name: str, knobs: dict[str, Any], knob: str, closest: str
) -> None:
    """The error names the knob and its value, the hint the closest layout there is."""
    plan = plan_of("8b", Strategy(dp=8).with_(**knobs), batch=96)

    with pytest.raises(
        SpecError, match=rf"^strategy\.{knob} .* cannot be expressed for {name}$"
    ) as e:
        dossier(name).emit(plan)

    assert closest in (e.value.hint or "")


def test_knobs_without_a_field_are_named() -> None:
    """A knob that only changes the price does not stop a plan; the files say it is lost."""
    strategy = SHARDED.with_(precision=Precision.FP16, order=Order.TP_CP_EP_PP_DP, pp=2, dp=32)
    emission = dossier("torchtitan").emit(plan_of("70b", strategy.with_(dp_shard=32)))

    assert [line.split(":")[0] for line in emission.not_expressed] == [
        "precision fp16, runs as bf16",
        "order tp-cp-ep-pp-dp, runs as tp-cp-ep-dp-pp",
    ]
    assert "# Not expressed: precision fp16" in emission.files["launch.sh"]
    assert (
        "# Predicted: step 10 s (9 to 11.5), memory 60 GiB (55 to 64)"
        in (emission.files["autopar_run/config_registry.py"])
    )

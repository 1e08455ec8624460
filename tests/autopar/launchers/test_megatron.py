"""Megatron-LM scripts say what the plan says, and nothing in a plan becomes code."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.launchers import dossier
from autopar.launchers.knobs import effective
from autopar.launchers.megatron import files as megatron
from autopar.launchers.megatron.args.parallel import assigned_stages
from autopar.launchers.plan import Plan
from cost_models.catalog.gpus import load_gpu
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from search.rules import Problem, broken_rules
from search.space.canonical import canonical_strategy
from tests.launchers.golden import compare
from tests.launchers.known_plans import known_plans
from tests.launchers.random_plans import MODELS, random_plan

PLANS = known_plans()


def with_strategy(plan: Plan, **changes: Any) -> Plan:
    """The plan with some knobs changed, its cluster as large as they need."""
    strategy = plan.strategy.with_(**changes)
    cluster = Cluster.of(plan.cluster.gpu, strategy.world_size)
    return replace(plan, strategy=strategy, cluster=cluster)


def legal_plan(seed: int) -> Plan:
    """The first plan by this seed that our rules allow."""
    rng = Random(seed)  # noqa: S311 (chance for tests, not for secrets)
    while True:
        plan = random_plan(rng)
        problem = Problem.of(plan.model, plan.cluster, plan.workload, "megatron")
        if not broken_rules(problem, plan.strategy):
            return plan


@pytest.mark.parametrize("name", PLANS)
def test_scripts_are_the_kept_ones(name: str) -> None:
    """The four known jobs come out as in tests/golden, to the letter."""
    compare(f"megatron/{name}", dossier("megatron").emit(PLANS[name]))


@pytest.mark.parametrize("name", PLANS)
def test_known_plans_come_back_whole(name: str) -> None:
    """Strategy, model, batch and world size of a known job survive the script."""
    plan = PLANS[name]
    emission = dossier("megatron").emit(plan)
    reading = megatron.read(emission.files)
    assert emission.not_expressed == ()
    assert reading.strategy == plan.strategy
    assert reading.model == replace(plan.model, source="")
    assert reading.world_size == plan.strategy.world_size
    assert reading.global_batch_size == plan.workload.global_batch_size
    assert reading.sequence_length == plan.workload.sequence_length


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_every_legal_strategy_comes_back(seed: int) -> None:
    """What a legal plan asks for is read again, or named as not expressed."""
    plan = legal_plan(seed)
    emission = dossier("megatron").emit(plan)
    said = effective(megatron.read(emission.files).strategy, plan.model).to_json()
    assigned = plan.strategy.with_(stage_layers=assigned_stages(plan))
    wanted = effective(assigned, plan.model).to_json()
    differing = {name for name, value in said.items() if value != wanted[name]}
    assert differing == {line.split()[0] for line in emission.not_expressed} & differing


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_emission_is_the_same_every_time(seed: int) -> None:
    """One plan has one script."""
    plan = legal_plan(seed)
    assert dossier("megatron").emit(plan) == dossier("megatron").emit(plan)


@pytest.mark.parametrize("model", MODELS)
def test_models_come_back(model: str) -> None:
    """Every kind of model is rebuilt from its flags, but for what Megatron cannot build."""
    rng = Random(1)  # noqa: S311
    plan = random_plan(rng, models=(model,))
    plan = replace(plan, workload=replace(plan.workload, sequence_length=2048))
    read = megatron.read(dossier("megatron").emit(plan).files).model
    assert read is not None
    router_bias = plan.model.router_bias and not plan.model.moe_bias
    assert read == replace(plan.model, source="", router_bias=router_bias)


def test_unknown_schedules_are_named() -> None:
    """A zero-bubble plan is written as 1f1b and says so, in the file too."""
    plan = with_strategy(PLANS["llama3-70b-512"], vpp=1, schedule=Schedule.ZB_1P)
    emission = dossier("megatron").emit(plan)
    assert any(line.startswith("schedule zb-1p") for line in emission.not_expressed)
    assert "# Not expressed: schedule zb-1p, runs as 1f1b" in emission.files[megatron.FILE]


def test_weights_that_stay_gathered_need_torch_fsdp() -> None:
    """No resharding is PyTorch's FSDP where that can be, and named where it cannot."""
    plain = with_strategy(
        PLANS["llama3-70b-512"],
        pp=1,
        vpp=1,
        schedule=Schedule._1F1B,
        sharding=Sharding.FSDP,
        reshard_after_forward=False,
    )
    emission = dossier("megatron").emit(plain)
    assert emission.not_expressed == ()
    assert "--torch-fsdp2-no-reshard-after-forward" in emission.files[megatron.FILE]
    assert not megatron.read(emission.files).strategy.reshard_after_forward
    piped = with_strategy(plain, pp=4)
    assert dossier("megatron").emit(piped).not_expressed[0].startswith("reshard_after_forward off")


@pytest.mark.parametrize(
    ("changes", "gpu", "connections"),
    [
        ({}, "h100", "1"),
        ({"sharding": Sharding.FSDP, "vpp": 1}, "h100", "8"),
        ({}, "gb200", None),
    ],
)
def test_hardware_queues_suit_the_collectives(
    changes: dict[str, Any], gpu: str, connections: str | None
) -> None:
    """CUDA_DEVICE_MAX_CONNECTIONS is 1 for tensor parallel before Blackwell, more for FSDP."""
    plan = with_strategy(PLANS["llama3-70b-512"], **changes)
    plan = replace(plan, cluster=Cluster.of(load_gpu(gpu), plan.strategy.world_size))
    text = dossier("megatron").emit(plan).files[megatron.FILE]
    line = f"export CUDA_DEVICE_MAX_CONNECTIONS={connections}\n"
    assert line in text if connections else "CUDA_DEVICE_MAX_CONNECTIONS" not in text


def test_partial_recompute_counts_by_chunk() -> None:
    """Ten layers on a rank with five chunks are two in each, and read as ten."""
    plan = with_strategy(PLANS["llama3-70b-512"], recompute=Recompute.FULL, recompute_layers=10)
    emission = dossier("megatron").emit(plan)
    assert "--recompute-num-layers 2\n" in emission.files[megatron.FILE]
    assert megatron.read(emission.files).strategy == plan.strategy


@pytest.mark.parametrize("precision", Precision)
def test_precisions_come_back(precision: Precision) -> None:
    """Every format has its flags."""
    plan = with_strategy(PLANS["llama3-70b-512"], precision=precision)
    assert megatron.read(dossier("megatron").emit(plan).files).strategy.precision == precision


NASTY = (
    "x'; touch /tmp/owned; '",
    'x"; touch owned; "',
    "a\nrm -rf /\nb",
    "$(touch owned)`touch owned`",
    "name\r\ntouch owned",
    "\u2028touch owned",
    "-rf",
    "",
)


@pytest.mark.parametrize("name", NASTY)
def test_names_never_become_code(name: str, tmp_path: Path) -> None:
    """Whatever the model and the GPU are called, the script runs torchrun and nothing else."""
    plan = PLANS["llama3-70b-512"]
    gpu = replace(plan.cluster.gpu, name=name)
    plan = replace(
        plan,
        model=replace(plan.model, name=name),
        cluster=Cluster.of(gpu, plan.cluster.n_gpus),
    )
    script = tmp_path / "megatron.sh"
    script.write_text(dossier("megatron").emit(plan).files[megatron.FILE])
    (tmp_path / "pretrain_gpt.py").touch()
    fake = tmp_path / "torchrun"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$(dirname "$0")/said"\n')
    fake.chmod(0o755)
    done = subprocess.run(
        ["bash", script],
        cwd=tmp_path,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "megatron.sh",
        "pretrain_gpt.py",
        "said",
        "torchrun",
    ]
    plain = dossier("megatron").emit(PLANS["llama3-70b-512"]).files[megatron.FILE]
    assert _code(script.read_text()) == _code(plain)
    assert megatron.read(script.read_text()).strategy == plan.strategy


def _code(text: str) -> list[str]:
    return [line for line in text.split("\n") if not line.startswith("#")]


def test_a_script_without_its_checkout_says_so(tmp_path: Path) -> None:
    """Where pretrain_gpt.py is not, nothing is started, and the variable to set is named."""
    script = tmp_path / "megatron.sh"
    script.write_text(dossier("megatron").emit(PLANS["llama3-70b-512"]).files[megatron.FILE])
    done = subprocess.run(
        ["bash", script],
        env={"PATH": "/usr/bin:/bin", "MEGATRON_LM": f"{tmp_path}/no where"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"no {tmp_path}/no where/pretrain_gpt.py: set MEGATRON_LM to a checkout of Megatron-LM\n"
    )


def _wrong_scripts() -> Iterator[tuple[str, str]]:
    head = "--num-layers 32 --hidden-size 4096 --num-attention-heads 32 --vocab-size 32000"
    yield f"run {head} \\\n --tensor-model-parallel-size four", r"x\.sh:2: --tensor.* 'four'"
    yield f"run {head} --seq-length $SEQ", r"x\.sh:1: --seq-length: \$SEQ is not set"
    yield f"run {head} --micro-batch-size", r"x\.sh:1: --micro-batch-size needs a value"
    yield f"run {head} --recompute-granularity some", r"x\.sh:1: recompute_granularity must be"
    yield f"run {head} --cp-comm-type ring", r"x\.sh:1: cp_comm_type must be one of"
    yield (
        f"run {head} --pipeline-model-parallel-size 2 --pipeline-model-parallel-layout 'Et*3|tL'",
        r"x\.sh:1: pipeline_model_parallel_layout has 4 layers, num_layers is 32",
    )
    yield (
        f"torchrun --nnodes 1 --nproc-per-node 6 run.py {head} --tensor-model-parallel-size 4",
        r"x\.sh.*: 6 GPUs are no multiple of tp 4",
    )
    yield f"run {head} --bf16 \\\n --fp16", r"x\.sh:1: bf16 and fp16 exclude each other"
    yield (
        f"run {head} --recompute-granularity full",
        r"x\.sh:1: recompute_granularity full needs recompute_method uniform or block, got None",
    )
    yield (
        f"run {head} --recompute-granularity selective\\\n --recompute-method block",
        r"x\.sh:2: recompute_method block goes with recompute_granularity full only",
    )
    yield (
        f"run {head} --pipeline-model-parallel-layout 'Et*16|t*16L' "
        "--decoder-first-pipeline-num-layers 3",
        r"x\.sh:1: decoder_first_pipeline_num_layers and pipeline_model_parallel_layout exclude",
    )
    yield (
        f"run {head} --pipeline-model-parallel-size 2 --num-virtual-stages-per-pipeline-rank 2 "
        "--pipeline-model-parallel-layout 'Et*16|t*16L'",
        r"x\.sh:1: num_virtual_stages_per_pipeline_rank is 2, pipeline_model_parallel_layout has 1",
    )
    yield f"A=('{head}\n", r"x\.sh:1: a quote is never closed"
    yield f"A=({head}\n", r"x\.sh:1: an array is never closed"
    yield "echo hello", r"x\.sh: no Megatron-LM flag found"
    yield (
        f"run {head} --moe-layer-freq '[1]*31' --num-experts 8",
        r"moe_layer_freq must give 0 or 1",
    )


@pytest.mark.parametrize(("text", "message"), tuple(_wrong_scripts()))
def test_wrong_scripts_are_refused_by_line(text: str, message: str) -> None:
    """What cannot be read is one error with file, line and field."""
    with pytest.raises(SpecError, match=message):
        megatron.read(text, name="x.sh")


def test_a_script_in_the_usual_style_is_read() -> None:
    """Strings, arrays, defaults and arithmetic, as people write launch scripts."""
    text = """#!/bin/bash
#SBATCH --nodes=8
#SBATCH --gpus-per-node=8
export CUDA_DEVICE_MAX_CONNECTIONS=1
TP=${TP:-4}; PP=2
VP=2
SEQ=$((4 * 1024))
MODEL_ARGS=(
    --num-layers 32          # layers
    --hidden-size 4096
    --num-attention-heads 32
    --group-query-attention --num-query-groups 8
    --ffn-hidden-size 14336
    --swiglu --normalization RMSNorm --disable-bias-linear
    --untie-embeddings-and-output-weights
    --use-rotary-position-embeddings
)
OPTIONS=" \\
    --tensor-model-parallel-size ${TP} --sequence-parallel \\
    --pipeline-model-parallel-size $PP \\
    --num-layers-per-virtual-pipeline-stage $((32 / PP / VP)) \\
    --seq-length $SEQ --max-position-embeddings=$SEQ \\
    --micro-batch-size 1 --global-batch-size 256 \\
    --use-distributed-optimizer --overlap-grad-reduce \\
    --tokenizer-type HuggingFaceTokenizer --tokenizer-model meta-llama/Meta-Llama-3-8B \\
    --bf16 --recompute-activations --data-path $DATA"
run_cmd="python -u pretrain_gpt.py ${MODEL_ARGS[@]} ${OPTIONS}"
srun -l bash -c "${run_cmd}"
"""
    reading = megatron.read(text, name="train.sh")
    assert reading.world_size == 64
    assert reading.strategy == canonical_strategy(
        Strategy(
            dp=8,
            tp=4,
            pp=2,
            vpp=2,
            schedule=Schedule.INTERLEAVED,
            sequence_parallel=True,
            sharding=Sharding.ZERO1,
            dp_shard=8,
            recompute=Recompute.CORE_ATTN,
            overlap_param_gather=False,
        ),
        moe=False,
    )
    assert reading.model is not None
    assert reading.model.vocab_size == 128256
    assert reading.model.n_kv_heads == 8
    assert (reading.global_batch_size, reading.sequence_length) == (256, 4096)


def test_repeated_and_misspelt_flags_are_passed_over_aloud() -> None:
    """The last of two counts, as for Megatron-LM's parser; a slip of a flag gets a suggestion."""
    reading = megatron.read(
        "run --num-layers 2 --hidden-size 64 --num-attention-heads 4 --micro-batch-size 1\\\n"
        " --micro-batch-size 2 --bf16 --bf16 --tensor-model-paralel-size 4 --exit-interval 3",
    )
    assert reading.strategy.micro_batch_size == 2
    assert reading.ignored == (
        "--micro-batch-size in line 1, for it is in line 2 again",
        "--tensor-model-paralel-size (did you mean --tensor-model-parallel-size?)",
        "--exit-interval",
    )


def test_a_command_line_without_gpus_has_one_replica() -> None:
    """A bare command line says its degrees; without a world size dp is 1, and noted."""
    command = "pretrain_gpt.py --num-layers 2 --hidden-size 64 --num-attention-heads 4 --bf16"
    reading = megatron.read(f"{command} --tensor-model-parallel-size 2")
    assert (reading.strategy.dp, reading.strategy.tp, reading.world_size) == (1, 2, None)
    assert "dp" in reading.notes
    assert megatron.read(command, world_size=16).strategy.dp == 16


def test_the_arguments_dump_is_read() -> None:
    """A log is read from its printout of all arguments."""
    rows = {
        "num_layers": 32,
        "hidden_size": 4096,
        "num_attention_heads": 32,
        "ffn_hidden_size": 14336,
        "padded_vocab_size": 128256,
        "world_size": 64,
        "tensor_model_parallel_size": 4,
        "pipeline_model_parallel_size": 4,
        "virtual_pipeline_model_parallel_size": 2,
        "sequence_parallel": True,
        "use_distributed_optimizer": True,
        "recompute_modules": "['core_attn']",
        "recompute_granularity": None,
        "cp_comm_type": "['p2p']",
        "add_bias_linear": False,
        "swiglu": True,
        "micro_batch_size": 2,
        "global_batch_size": 512,
        "seq_length": 8192,
        "some_other_argument": "x",
    }
    body = "".join(f"3:   {n} {'.' * max(48 - len(n), 0)} {v}\n" for n, v in rows.items())
    start, end = "-" * 24 + " arguments " + "-" * 24, "-" * 20 + " end of arguments " + "-" * 21
    reading = megatron.read(f"using world size: 64\n3: {start}\n{body}3: {end}\n", name="run.log")
    s = reading.strategy
    assert (s.dp, s.tp, s.pp, s.vpp, s.micro_batch_size) == (4, 4, 4, 2, 2)
    assert (s.schedule, s.sharding) == (Schedule.INTERLEAVED, Sharding.ZERO1)
    assert reading.ignored == ("some_other_argument",)
    wrong = body.replace("True", "maybe")
    with pytest.raises(SpecError, match=r"run\.log:\d+: sequence_parallel must be True or False"):
        megatron.read(f"{start}\n{wrong}{end}\n", name="run.log")


@pytest.mark.parametrize("name", PLANS)
def test_bash_parses_the_scripts(name: str, tmp_path: Path) -> None:
    """``bash -n`` has nothing to say."""
    script = tmp_path / "megatron.sh"
    script.write_text(dossier("megatron").emit(PLANS[name]).files[megatron.FILE])
    done = subprocess.run(["bash", "-n", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@given(st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_damaged_scripts_are_read_or_refused(seed: int) -> None:
    """Whatever happens to a script's characters, reading it ends with a reading or one error."""
    rng = Random(seed)  # noqa: S311 (chance for tests, not for secrets)
    plan = PLANS[rng.choice(list(PLANS))]
    text = dossier("megatron").emit(plan).files[megatron.FILE]
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text))
        noise = "".join(rng.choice("'\"`$(){}[]\\\n ;&|<>#=*-0199xE,.~!") for _ in range(3))
        text = text[:at] + noise * rng.randint(0, 1) + text[at + rng.randint(0, 9) :]
    text = (
        re.sub(r"\b\d+\b", lambda m: rng.choice((m.group(), "0", "-1", "9" * 20)), text, count=0)
        if rng.random() < 0.3
        else text
    )
    with suppress(SpecError):
        megatron.read(text)

"""Files that people already have, and files that are broken."""

import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.launchers import dossier
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import ContextParallel, Precision, Recompute, Schedule, Sharding
from tests.launchers.random_layouts import MODELS, random_plan

TITAN_RECIPE = """
from torchtitan.models.llama3 import model_registry

def big_run():
    spec = model_registry("70B", converters=[Float8LinearConverter.Config()])
    return Trainer.Config(
        model_spec=spec,
        training=TrainingConfig(local_batch_size=16, seq_len=8192, global_batch_size=512),
        parallelism=ParallelismConfig(
            tensor_parallel_degree=8,
            pipeline_parallel_degree=4,
            pipeline_parallel_schedule="Interleaved1F1B",
            data_parallel_shard_degree=8,
        ),
        compile=CompileConfig(enable=True, enable_async_tensor_parallel=True),
        activation_checkpoint=FullAC.Config(),
    )
"""


def test_titan_recipe_written_as_one_call() -> None:
    """A config function of one nested call is read without running it."""
    reading = dossier("torchtitan").read({"my/config_registry.py": TITAN_RECIPE})

    s = reading.strategy
    assert (s.dp, s.tp, s.pp, s.vpp, s.micro_batch_size) == (8, 8, 4, 2, 1)
    assert (s.sharding, s.schedule) == (Sharding.FSDP, Schedule.INTERLEAVED)
    assert (s.precision, s.recompute, s.overlap_tp) == (Precision.FP8, Recompute.FULL, True)
    assert not s.reshard_after_forward
    assert reading.world_size == 256
    assert reading.model is not None
    assert reading.model.name == "llama3-70b"
    assert "several runs of the pipeline" in reading.notes["micro_batch_size"]


def test_titan_command_over_a_shipped_config() -> None:
    """Options of the command go over what torchtitan's own config function sets."""
    command = (
        "torchrun --nnodes 2 --nproc-per-node=8 -m torchtitan.train --module llama3 "
        "--config llama3_8b --parallelism.context-parallel-degree 2 "
        "--training.disable_cuda_graphs --compile.enable activation-checkpoint:full"
    )
    reading = dossier("torchtitan").read({"run.sh": command})

    assert reading.strategy.dp == 8
    assert reading.strategy.cp_comm == ContextParallel.ALL_GATHER
    assert reading.strategy.recompute == Recompute.FULL
    assert (reading.world_size, reading.global_batch_size) == (16, 8)
    assert reading.sequence_length == 8192


def test_titan_degree_that_takes_what_is_left() -> None:
    """Without a number of GPUs, a shard degree of -1 is said to be open."""
    reading = dossier("torchtitan").read(
        {"run.sh": "python -m torchtitan.train --module llama3 --config llama3_70b"}
    )

    assert reading.world_size is None
    assert reading.strategy.tp == 8
    assert "say how many" in reading.notes["dp"]


def test_python_is_never_run(tmp_path: Path) -> None:
    """Code in a config module has no effect when it is read."""
    mark = tmp_path / "mark"
    source = f"open({str(mark)!r}, 'w')\n" + TITAN_RECIPE

    dossier("torchtitan").read({"config_registry.py": source})

    assert not mark.exists()


def test_deepspeed_of_the_hugging_face_trainer() -> None:
    """Fields left at ``auto`` count as not said, and the model comes from its config.json."""
    files = {
        "ds.json": '{"bf16": {"enabled": "auto"}, "train_micro_batch_size_per_gpu": 2,'
        ' "train_batch_size": "auto", "zero_optimization": {"stage": 3,'
        ' "offload_optimizer": {"device": "cpu"}}, "steps_per_print": 5}',
        "llama/config.json": '{"model_type": "llama", "hidden_size": 4096, "vocab_size": 32000,'
        ' "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008}',
    }
    reading = dossier("deepspeed").read(files)

    assert reading.strategy.sharding == Sharding.ZERO3
    assert reading.strategy.micro_batch_size == 2
    assert reading.strategy.optimizer_offload == 1
    assert reading.model is not None
    assert (reading.model.name, reading.model.n_layers) == ("llama", 32)
    assert "say it" in reading.notes["dp"]
    assert reading.ignored == ("bf16.enabled", "steps_per_print")


def test_accelerate_of_its_questionnaire() -> None:
    """The file that ``accelerate config`` writes for FSDP: all processes form one group."""
    text = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_activation_checkpointing: true
  fsdp_reshard_after_forward: false
  fsdp_version: 2
mixed_precision: bf16
num_machines: 2
num_processes: 16
"""
    reading = dossier("accelerate").read({"default_config.yaml": text})

    s = reading.strategy
    assert (s.dp, s.dp_shard, s.sharding) == (16, 16, Sharding.FSDP)
    assert (s.recompute, s.reshard_after_forward) == (Recompute.FULL, False)
    assert reading.global_batch_size is None


def test_maxtext_command() -> None:
    """``key=value`` words go over the YAML; an axis of -1 is said to be open."""
    command = (
        "python3 -m maxtext.trainers.pre_train.train base.yml model_name=llama3.1-70b "
        "ici_tensor_parallelism=4 ici_fsdp_parallelism=2 dcn_fsdp_parallelism=4 "
        "dcn_data_parallelism=1 per_device_batch_size=1 remat_policy=minimal"
    )
    reading = dossier("maxtext").read({"run.sh": command})

    assert (reading.strategy.dp, reading.strategy.tp) == (8, 4)
    assert reading.strategy.recompute == Recompute.LAYERNORM | Recompute.CORE_ATTN
    assert reading.world_size == 32
    assert reading.model is not None
    assert reading.model.n_layers == 80


BROKEN: tuple[tuple[str, str, str, str], ...] = (
    ("torchtitan", "config_registry.py", "def f(:\n", r"config_registry.py:1: not valid Python"),
    ("torchtitan", "config_registry.py", "x = 1\n", "0 config functions"),
    (
        "torchtitan",
        "run.sh",
        "python -m torchtitan.train --config lama3_8b",
        "no config function 'lama3_8b'",
    ),
    (
        "torchtitan",
        "run.sh",
        "python -m torchtitan.train --config llama3_8b --parallelism.tensor_parallel_degree 0",
        "run.sh:1: parallelism.tensor_parallel_degree must be a whole number >= 1",
    ),
    ("deepspeed", "ds.json", "{", r"ds.json:1:2: not valid JSON"),
    ("deepspeed", "ds.json", "[]", "ds.json: must hold a table"),
    ("deepspeed", "ds.json", '{"a": 1,\n"a": 2}', "ds.json:2: a is given twice, first in line 1"),
    ("deepspeed", "ds.json", '{"a": "\x7f", "a": 2}', "ds.json: a is given twice"),
    (
        "deepspeed",
        "ds.json",
        '{\n\t"zero_optimization": {\n\t\t"stage": 4}}',
        "ds.json:3: zero_optimization.stage must be 0, 1, 2 or 3, got 4",
    ),
    ("deepspeed", "ds.json", '{"zero_optimization": 3}', "lies in something that is no table"),
    (
        "deepspeed",
        "ds.json",
        '{"train_batch_size": 7, "train_micro_batch_size_per_gpu": 2}',
        "must be a multiple",
    ),
    (
        "deepspeed",
        "ds.json",
        '{"fp16": {"enabled": true}, "bf16": {"enabled": true}}',
        "exclude each other",
    ),
    ("deepspeed", "notes.txt", "hello", "no configuration of deepspeed"),
    ("accelerate", "a.yaml", "a: [1\n", r"a.yaml:2: not valid YAML"),
    ("accelerate", "a.yaml", "{}", "distributed_type is not there"),
    (
        "accelerate",
        "a.yaml",
        "distributed_type: FSDP\nnum_processes: 8\n"
        "parallelism_config: {parallelism_config_tp_size: 3}",
        "a.yaml:3: parallelism_config is for 3 processes, but there are 8",
    ),
    (
        "accelerate",
        "a.yaml",
        "distributed_type: FSDP\nnum_processes: 8\nfsdp_config: &a {b: *a, fsdp_version: 2,\n"
        "  fsdp_version: 1}",
        "a.yaml:4: fsdp_config.fsdp_version is given twice, first in line 3",
    ),
    ("nanotron", "n.yaml", "general: {}", "parallelism is not there"),
    (
        "nanotron",
        "n.yaml",
        "parallelism: {dp: 1, tp: 1, pp: 2, pp_engine: zb}\ntokens: {}",
        "n.yaml:1: parallelism.pp_engine is not understood: 'zb'",
    ),
    (
        "nanotron",
        "n.yaml",
        "parallelism:\n  dp: 1\n  tp: 1\n  tp: 2\ntokens: {}",
        "n.yaml:4: parallelism.tp is given twice, first in line 3",
    ),
    ("maxtext", "m.yml", "ici_tensor_parallelism: 0", "m.yml:1: ici_tensor_parallelism must be"),
    (
        "maxtext",
        "run.sh",
        "set -e\npython -m maxtext.train base.yml \\\n remat_policy=ful",
        "run.sh:3: remat_policy is not understood: 'ful'",
    ),
    ("maxtext", "m.yml", "remat_policy: ful", "is not understood: 'ful'"),
)


@pytest.mark.parametrize(("name", "path", "text", "complaint"), BROKEN)
def test_broken_files_are_one_clear_line(name: str, path: str, text: str, complaint: str) -> None:
    """File, line or field, and what is wrong with it, on a single line."""
    with pytest.raises(SpecError) as error:
        dossier(name).read({path: text})

    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


WORDS = ("-1", "0", "null", "[]", "{}", "'x'", "1e400", "nan", "9" * 20, "*", "\0", "\n", "(", '"')


@pytest.mark.parametrize("name", MODELS)
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=50)
def test_mangled_files_are_read_or_refused(name: str, seed: int) -> None:
    """Whatever happened to a file, it is a strategy or one line that says why not."""
    rng = Random(seed)  # noqa: S311
    try:
        files = dict(dossier(name).emit(random_plan(rng, name)).files)
    except SpecError:
        return
    path = rng.choice(list(files))
    text = files[path]
    for _ in range(rng.randint(1, 3)):
        values = list(re.finditer(r"(?<=[ :=(\[])\w+(?=[\s,)\]]|$)", text))
        cut = rng.randrange(len(text))
        if values and rng.random() < 0.5:
            match = rng.choice(values)
            text = text[: match.start()] + rng.choice(WORDS) + text[match.end() :]
        else:
            text = text[:cut] + rng.choice(WORDS) + text[cut + rng.randrange(8) :]
    files[path] = text

    said = ""
    try:
        dossier(name).read(files)
    except SpecError as error:
        said = str(error)

    assert "\n" not in said

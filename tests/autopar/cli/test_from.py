"""``autopar estimate --from``: other programs' files, told apart, completed and priced."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autopar.answers.emission import emit_plan
from autopar.job.foreign import detect, gather
from autopar.launchers import WRAPPERS, names
from autopar.launchers.plan import Plan
from cost_models.specs.strategy import Schedule, Sharding
from tests.launchers.known_plans import known_plans

Run = Callable[..., Any]

MEGATRON = (
    "torchrun --nnodes 2 --nproc-per-node 8 pretrain_gpt.py --num-layers 32 --hidden-size 4096 "
    "--num-attention-heads 32 --group-query-attention --num-query-groups 8 --swiglu --bf16 "
    "--ffn-hidden-size 14336 --seq-length 4096 --micro-batch-size 1 --global-batch-size 64 "
    "--vocab-size 128256 --tensor-model-parallel-size 4 --use-distributed-optimizer"
)
DEEPSPEED = json.dumps(
    {
        "train_micro_batch_size_per_gpu": 2,
        "gradient_accumulation_steps": 4,
        "zero_optimization": {"stage": 1},
        "bf16": {"enabled": True},
    }
)
ACCELERATE = "distributed_type: FSDP\nnum_processes: 8\nfsdp_config:\n  fsdp_version: 2\n"
MAXTEXT = "base_config: base.yml\nmodel_name: llama3-8b\nper_device_batch_size: 2\n"


def write(folder: Path, name: str, text: str) -> str:
    """A file to read, by its path."""
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.fixture
def estimate(run_words: Run) -> Callable[..., dict[str, Any]]:
    """The document of ``autopar estimate``."""

    def document(*words: str) -> dict[str, Any]:
        ran = run_words("estimate", "--json", "-", *words)
        assert ran.code == 0, ran.err
        found: dict[str, Any] = json.loads(ran.out)
        return found

    return document


Estimate = Callable[..., dict[str, Any]]


@pytest.mark.parametrize("name", names())
def test_our_own_files_are_told_apart(name: str, tmp_path: Path) -> None:
    """Whichever launcher we write for, its folder is known again, wrapped or not."""
    plan = known_plans()["llama3-70b-512"]
    kind = Sharding.ZERO1 if name in ("nanotron", "deepspeed") else Sharding.FSDP
    plain = plan.strategy.with_(pp=1, vpp=1, schedule=Schedule._1F1B, sequence_parallel=False)
    job = Plan(
        model=plan.model,
        cluster=plan.cluster,
        workload=plan.workload,
        strategy=plain.with_(dp=64, dp_shard=64, sharding=kind),
    )
    for wrapper in (None, *WRAPPERS):
        folder = tmp_path / str(wrapper)
        for file, text in emit_plan(job, name, wrapper=wrapper).files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        assert detect(gather([str(folder)])) == name


def test_a_command_is_priced(estimate: Estimate) -> None:
    """World, model, batch and sequence come from the command; rules from its launcher."""
    found = estimate("--from", MEGATRON)
    assert found["strategy"]["tp"] == 4
    assert found["world_size"] == 16
    assert found["workload"]["global_batch_size"] == 64
    assert found["workload"]["sequence_length"] == 4096
    assert found["model"]["n_layers"] == 32
    assert (found["launcher"], found["read"]["launcher"]) == ("megatron", "megatron")
    assert found["workload"]["framework"]["name"] == "megatron-lm"
    assert found["legal"] is True


def test_standard_input_and_files_say_the_same(
    estimate: Estimate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script in a file, on standard input and as a command is one and the same job."""
    monkeypatch.setattr("sys.stdin", io.StringIO(MEGATRON + "\n"))
    told = [
        estimate("--from", source)
        for source in (MEGATRON, "-", write(tmp_path, "train.sh", MEGATRON))
    ]
    assert len({found["step_time_s"] for found in told}) == 1


def test_what_is_typed_goes_before_the_file(estimate: Estimate) -> None:
    """GPUs, batch, sequence, model and knobs replace what the files say."""
    wide = estimate("--from", MEGATRON, "--gpus", "32", "--global-batch", "128")
    assert (wide["world_size"], wide["strategy"]["dp"]) == (32, 8)
    assert wide["workload"]["global_batch_size"] == 128
    knobs = estimate("--from", MEGATRON, "--tp", "2", "--seq-len", "2048", "--model", "llama2-7b")
    assert (knobs["strategy"]["tp"], knobs["strategy"]["dp"]) == (2, 8)
    assert knobs["workload"]["sequence_length"] == 2048
    assert knobs["model"]["name"] == "llama2-7b"
    slower = estimate("--from", MEGATRON, "--gpu", "a100-80gb")
    assert slower["step_time_s"] > estimate("--from", MEGATRON)["step_time_s"]


def test_batches_of_each_replica_grow_with_the_gpus(estimate: Estimate, tmp_path: Path) -> None:
    """A DeepSpeed file without a total says the batch of one rank, whatever their number."""
    path = write(tmp_path, "ds.json", DEEPSPEED)
    small, large = (
        estimate("--from", path, "--model", "8b", "--gpus", count) for count in ("8", "32")
    )
    assert small["workload"]["global_batch_size"] == 8 * 2 * 4
    assert large["workload"]["global_batch_size"] == 32 * 2 * 4
    total = write(tmp_path, "total.json", DEEPSPEED.replace("{", '{"train_batch_size": 256,', 1))
    assert (
        estimate("--from", total, "--model", "8b")["world_size"]
        == estimate("--from", total, "--model", "8b", "--gpus", "32")["world_size"]
        == 32
    )


def test_what_is_left_open_is_said(estimate: Estimate, tmp_path: Path, run_words: Run) -> None:
    """GPUs, batch and sequence that nobody names are assumed, with a note for each."""
    path = write(tmp_path, "ds.json", DEEPSPEED)
    notes = estimate("--from", path, "--model", "8b")["read"]["notes"]
    assert notes["dp"] == "the number of GPUs is not said: 8 assumed, --gpus says it"
    assert "8192 assumed, --seq-len says it" in notes["sequence_length"]
    path = write(tmp_path, "fsdp.yaml", ACCELERATE)
    ran = run_words("estimate", "--from", path, "--model", "8b")
    assert "note: global_batch_size: is not said: 512 assumed" in ran.out


def test_axes_that_take_what_is_left_are_filled(estimate: Estimate, tmp_path: Path) -> None:
    """MaxText shards inside a node and replicates across where base.yml leaves it open."""
    path = write(tmp_path, "job.yml", MAXTEXT)
    found = estimate("--from", path, "--gpus", "32")
    assert (found["strategy"]["sharding"], found["strategy"]["dp_shard"]) == ("hsdp", 8)
    assert (found["strategy"]["dp"], found["workload"]["global_batch_size"]) == (32, 64)


def test_a_model_may_stand_beside_the_file(estimate: Estimate, tmp_path: Path) -> None:
    """A Hugging Face ``config.json`` names the model of a file that does not."""
    config = {
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
        "vocab_size": 128256,
    }  # fmt: skip
    found = estimate(
        "--from", write(tmp_path, "ds.json", DEEPSPEED),
        "--from", write(tmp_path, "config.json", json.dumps(config)),
    )  # fmt: skip
    assert found["model"]["n_layers"] == 16
    whole = estimate("--from", str(tmp_path))
    assert whole["step_time_s"] == found["step_time_s"]


def test_tensor_parallel_cuts_the_experts_of_a_named_model(
    estimate: Estimate, tmp_path: Path
) -> None:
    """What only the model can tell a reader is added once the model is known."""
    text = DEEPSPEED.replace("{", '{"tensor_parallel": {"autotp_size": 4},', 1)
    path = write(tmp_path, "ds.json", text)
    found = estimate("--from", path, "--model", "8x7b", "--gpus", "16")
    assert (found["strategy"]["tp"], found["strategy"]["etp"]) == (4, 4)
    assert found["legal"] is True


def test_broken_rules_come_with_their_arithmetic(run_words: Run) -> None:
    """A job that its launcher refuses is priced all the same, with every rule it breaks."""
    illegal = MEGATRON.replace("--global-batch-size 64", "--global-batch-size 66")
    ran = run_words("estimate", "--from", illegal)
    assert ran.code == 0
    assert (
        "broken: batch_divides: global batch 66 is not divisible by micro_batch_size 1 x dp 4 = 4"
        in ran.out
    )
    assert "step time" in ran.out


def test_the_first_lines_say_what_was_read(run_words: Run, tmp_path: Path) -> None:
    """Whose files they are and which fields were ignored stand above the answer."""
    path = write(tmp_path, "train.sh", MEGATRON + " --lr 1e-4 --exit-interval 3")
    first, second, *_ = run_words("estimate", "--from", path).out.splitlines()
    assert first == f"read {path} as files of megatron"
    assert second == "ignored: --lr, --exit-interval"


def test_files_that_are_not_read_are_said(run_words: Run, tmp_path: Path) -> None:
    """Where one script is the job, another launcher's file beside it counts for nothing."""
    script, other = write(tmp_path, "train.sh", MEGATRON), write(tmp_path, "ds.json", DEEPSPEED)
    lines = run_words("estimate", "--from", script, "--from", other).out.splitlines()
    assert lines[:2] == [f"read {script} and 1 more as files of megatron", f"ignored: {other}"]


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no file": (("nowhere.sh",), "--from 'nowhere.sh': no such file"),
    "empty": (("EMPTY",), "nothing to read"),
    "binary": (("BINARY",), "cannot read: not UTF-8 text"),
    "nobody's": (("echo hello world",), "whose files are these? none is known"),
    "json": (("BROKEN",), "broken.json:1:"),
    "no model": (("DEEPSPEED",), "which model it is for is not said"),
    "launcher": (("DEEPSPEED", "--launcher", "deepsped"), "unknown launcher 'deepsped'"),
    "wrong launcher": (("DEEPSPEED", "--launcher", "nanotron"), "ds.json: parallelism"),
    "gpus": ((MEGATRON, "--gpus", "6"), "6"),
    "several": ((MEGATRON, "--gpus", "8,16"), "--gpus must be one number here"),
    "twice": ((MEGATRON, "--global-batch", "8", "--tokens-per-batch", "4M"), "same thing"),
    "format": ((MEGATRON, "--precision", "nvfp4"), "precision is nvfp4, h100-sxm has bf16"),
    "hybrid": (
        (MEGATRON + " --hybrid-override-pattern M-M*",),
        "hybrid-override-pattern is set, and only transformers can be priced",
    ),
    "tp": ((MEGATRON, "--tp", "3"), "16 GPUs is no multiple of tp 3 x pp 1 x cp 1 = 3"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_files_are_one_line(run_words: Run, tmp_path: Path, name: str) -> None:
    """One line names the file or option, another says the way out; nothing on stdout."""
    words, message = WRONG[name]
    (tmp_path / "binary.sh").write_bytes(b"\xff\xfe\x00")
    files = {
        "EMPTY": write(tmp_path, "empty.sh", " \n"),
        "BINARY": str(tmp_path / "binary.sh"),
        "BROKEN": write(tmp_path, "broken.json", '{"zero_optimization": '),
        "DEEPSPEED": write(tmp_path, "ds.json", DEEPSPEED),
    }
    ran = run_words("estimate", "--from", *(files.get(word, word) for word in words))
    assert (ran.code, ran.out) == (2, ""), ran
    assert message in ran.err.splitlines()[0]
    assert len(ran.err.splitlines()) <= 2


def test_a_folder_of_anything_is_refused(run_words: Run, tmp_path: Path) -> None:
    """A directory without configurations, or with far too many files, is no job."""
    assert "no configuration in there" in run_words("estimate", "--from", str(tmp_path)).err
    for number in range(300):
        write(tmp_path, f"{number}.sh", "echo\n")
    assert "300 files, too many" in run_words("estimate", "--from", str(tmp_path)).err

"""Wrapped files start every rank of the plan, and carry nothing that could become code."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from autopar import launchers
from autopar.launchers import dossier
from autopar.launchers.megatron import files as megatron
from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.node import job_name
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from tests.launchers.ask import ask_wrapper
from tests.launchers.golden import compare
from tests.launchers.known_plans import known_plans

PLAN = known_plans()["llama3-70b-512"]
KINDS = tuple(launchers.WRAPPERS)
NASTY = ("x'; touch owned; '", "$(touch owned)", "a\nEND_OF_FILE\ntouch owned\nb", "", "-x")


def wrapped(kind: str, plan: Plan = PLAN) -> Emission:
    """The Megatron-LM script of the plan under one wrapper."""
    return launchers.wrap(dossier("megatron").emit(plan), plan, kind)


def named(name: str) -> Plan:
    """The known plan for a model and a GPU of that name."""
    cluster = replace(PLAN.cluster, gpu=replace(PLAN.cluster.gpu, name=name or "x"))
    return replace(PLAN, model=replace(PLAN.model, name=name), cluster=cluster)


def run(script: str, folder: Path, **variables: str) -> list[str]:
    """What torchrun is given when bash runs the script; it can reach nothing but coreutils."""
    fake = folder / "bin"
    fake.mkdir()
    (fake / "torchrun").write_text(f'#!/bin/sh\npwd > {folder}/cwd\nprintf "%s\\n" "$@"\n')
    (fake / "torchrun").chmod(0o755)
    (fake / "pretrain_gpt.py").touch()
    own = {"PATH": f"{fake}:/usr/bin:/bin", "TMPDIR": str(folder), "MEGATRON_LM": str(fake)}
    environment = {**own, **variables}
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not list(folder.rglob("owned"))
    return done.stdout.splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_wrapped_files_are_the_kept_ones(kind: str) -> None:
    """Each wrapper's files come out as in tests/golden, to the letter."""
    emission = wrapped(kind)
    new = {n: t for n, t in emission.files.items() if n != megatron.FILE}
    compare(f"wrappers/{kind}", replace(emission, files=new))


@pytest.mark.parametrize("kind", KINDS)
def test_the_launchers_files_stay(kind: str) -> None:
    """A wrapper adds files and changes none; the strategy is read through it."""
    emission = dossier("megatron").emit(PLAN)
    after = launchers.wrap(emission, PLAN, kind)
    assert after.files[megatron.FILE] == emission.files[megatron.FILE]
    assert set(after.files) > set(emission.files)
    assert megatron.read(after.files).strategy == PLAN.strategy


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NASTY)
def test_bash_parses_the_scripts(kind: str, name: str, tmp_path: Path) -> None:
    """``bash -n`` has nothing to say about any script, whatever the model is called."""
    for file, text in wrapped(kind, named(name)).files.items():
        path = tmp_path / file
        path.write_text(_script(yaml.safe_load(text)) if file.endswith(".yaml") else text)
        done = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), file


def _script(document: dict[str, Any]) -> str:
    """The script that a TrainJob, a JobSet or a SkyPilot task runs."""
    if document.get("kind") == "TrainJob":
        return str(document["spec"]["trainer"]["args"][0])
    if document.get("kind") == "JobSet":
        job = document["spec"]["replicatedJobs"][0]["template"]["spec"]
        return str(job["template"]["spec"]["containers"][0]["args"][0])
    return str(document["run"])


@pytest.mark.parametrize("name", ["llama", *NASTY])
@pytest.mark.parametrize(
    ("kind", "variables"),
    [
        (
            "trainjob",
            {"PET_NODE_RANK": "3", "PET_MASTER_ADDR": "first", "PET_MASTER_PORT": "29400"},
        ),
        ("jobset", {"JOB_COMPLETION_INDEX": "3"}),
    ],
)
def test_a_container_rebuilds_the_files_and_starts_them(
    kind: str, variables: dict[str, str], name: str, tmp_path: Path
) -> None:
    """The script inside the YAML writes our files as they were and runs torchrun once."""
    plan, trap = named(name), "END_OF_FILE\ntouch owned\n\tend \n"
    emission = dossier("megatron").emit(plan)
    emission = replace(emission, files={**emission.files, "notes/trap.txt": trap})
    emission = launchers.wrap(emission, plan, kind)
    script = _script(yaml.safe_load(next(t for n, t in emission.files.items() if "yaml" in n)))
    arguments = run(script, tmp_path, **variables)
    assert arguments[:6] == ["--nnodes", "64", "--nproc-per-node", "8", "--node-rank", "3"]
    folder = Path((tmp_path / "cwd").read_text().strip())
    assert (folder / megatron.FILE).read_text() == emission.files[megatron.FILE]
    assert (folder / "notes" / "trap.txt").read_text() == trap


def test_sbatch_asks_for_every_gpu() -> None:
    """Nodes times GPUs in a node are the ranks of the plan."""
    job = wrapped("slurm").files["job.sbatch"]
    found = dict(re.findall(r"^#SBATCH --([\w-]+)=(\S+)$", job, re.MULTILINE))
    assert int(found["nodes"]) * int(found["gpus-per-node"]) == PLAN.strategy.world_size


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("llama3.1-405b", "autopar-llama3-1-405b"),
        ("Meta/Llama 3\n", "autopar-meta-llama-3"),
        ("", "autopar"),
        ("x" * 100, f"autopar-{'x' * 32}"),
    ],
)
def test_job_names_are_dns_labels(model: str, name: str) -> None:
    """A job's name has small letters, digits and dashes only, forty at most."""
    assert job_name(named(model)) == name


def test_wrong_wrappers_are_refused() -> None:
    """An unknown kind gets a suggestion; files that are there already are not replaced."""
    with pytest.raises(SpecError, match="unknown wrapper 'slrum'") as error:
        wrapped("slrum")
    assert error.value.hint == "did you mean 'slurm'?"
    with pytest.raises(SpecError, match=r"run\.sh is already one of the files"):
        launchers.wrap(wrapped("torchrun"), PLAN, "torchrun")
    with pytest.raises(SpecError, match="unknown launcher 'own'"):
        launchers.wrap(replace(dossier("megatron").emit(PLAN), launcher="own"), PLAN, "torchrun")


def test_part_of_a_node_is_asked_for_only_alone() -> None:
    """Four GPUs are half a node; twelve are no number of nodes."""
    strategy = PLAN.strategy.with_(dp=1, tp=2, pp=2, dp_shard=1)
    small = replace(PLAN, strategy=strategy, cluster=Cluster.of(PLAN.cluster.gpu, 4))
    assert "--gpus-per-node=4" in wrapped("slurm", small).files["job.sbatch"]
    odd = replace(PLAN, strategy=strategy.with_(dp=3, dp_shard=3))
    with pytest.raises(SpecError, match="12 GPUs, no multiple of the 8 in a node"):
        wrapped("slurm", odd)


@pytest.mark.launchers
def test_torchrun_takes_its_arguments(tmp_path: Path) -> None:
    """The parser of torchrun parser makes 64 nodes of 8 processes of the script's arguments."""
    script = dossier("megatron").emit(PLAN).files[megatron.FILE]
    argv = run(script, tmp_path, NODE_RANK="5", MASTER_ADDR="first")
    case = {
        "kind": "torchrun",
        "argv": argv,
        "nodes": 64,
        "per_node": 8,
        "program": f"{tmp_path}/bin/pretrain_gpt.py",
    }
    wrong = {**case, "argv": ["eight" if word == "8" else word for word in argv]}
    answers = ask_wrapper([case, wrong], "torch")
    assert answers[0] is None
    assert answers[1] is not None


@pytest.mark.launchers
@pytest.mark.parametrize("kind", ["trainjob", "jobset"])
def test_kubernetes_kinds_fit_their_models(kind: str) -> None:
    """The published models take the document and keep all of it; a misspelt field is lost."""
    text = wrapped(kind).files[f"{kind}.yaml"]
    key = "numNodes" if kind == "trainjob" else "parallelism"
    wrong = text.replace(f"{key}:", f"{key}s:")
    answers = ask_wrapper(
        [{"kind": kind, "text": text}, {"kind": kind, "text": wrong}],
        "kubeflow_trainer_api",
        "kubernetes_validate",
    )
    assert answers[0] is None
    assert answers[1] is not None


@pytest.mark.launchers
def test_skypilot_takes_the_task() -> None:
    """SkyPilot's own schema takes the task and refuses a misspelt field."""
    text = wrapped("skypilot").files["skypilot.yaml"]
    wrong = text.replace("num_nodes", "num_node")
    answers = ask_wrapper(
        [{"kind": "skypilot", "text": text}, {"kind": "skypilot", "text": wrong}], "sky"
    )
    assert answers[0] is None
    assert answers[1] is not None

"""A plan's files for one launcher, or the nearest plan that the launcher can express."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from autopar.job.inputs import as_cluster, as_workload
from autopar.launchers import launcher, wrap
from autopar.launchers.plan import Emission, Plan, Prediction
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from search.result import Priced, SearchResult

Others = Iterable[tuple[int, Callable[[], Plan]]]
"""Plans beside one, by rank, each made when it is asked for."""

_NODE = "NODE_RANK=0 MASTER_ADDR=localhost bash {}  # on every node, NODE_RANK counting up"
_STARTS: Mapping[str, str] = {
    "job.sbatch": "sbatch job.sbatch",
    "trainjob.yaml": "kubectl create -f trainjob.yaml",
    "jobset.yaml": "kubectl create -f jobset.yaml",
    "skypilot.yaml": "sky launch skypilot.yaml",
    **{name: _NODE.format(name) for name in ("run.sh", "megatron.sh", "megatron_bridge.sh")},
    "launch.sh": _NODE.format("launch.sh"),
    "ds_config.json": "deepspeed train.py --deepspeed ds_config.json",
    "accelerate.yaml": "accelerate launch --config_file accelerate.yaml train.py",
    "nanotron.yaml": "torchrun run_train.py --config-file nanotron.yaml",
    "maxtext.yml": "python3 -m maxtext.trainers.pre_train.train maxtext.yml",
}
_NEEDS: Mapping[str, str] = {
    "megatron.sh": "MEGATRON_LM=~/Megatron-LM",
    "megatron_bridge.sh": "MEGATRON_BRIDGE=~/Megatron-Bridge",
}
"""Checkouts that scripts ask for, as people usually have them."""


def emit_plan(
    plan: Plan, name: str, *, wrapper: str | None = None, others: Others = ()
) -> Emission:
    """The files of ``plan``, wrapped if asked.

    Raises
    ------
    SpecError
        For an unknown launcher or wrapper, and for what the launcher cannot express; the
        hint names the first of ``others`` that it can.
    """
    module = launcher(name)
    try:
        emission: Emission = module.emit(plan)
    except SpecError as error:
        ways = [error.hint] if error.hint else []
        raise SpecError(str(error), hint="; ".join([*ways, _way_out(name, others)])) from None
    return emission if wrapper is None else wrap(emission, plan, wrapper)


def _way_out(name: str, others: Others) -> str:
    module = launcher(name)
    for rank, other in others:
        try:
            module.emit(other())
        except SpecError:
            continue
        return f"--rank {rank} can be expressed"
    return f"search again with --launcher {name}"


def plan_of(result: SearchResult, row: Priced) -> Plan:
    """One row of a frontier with everything that a launcher's files must say."""
    predicted = {name: getattr(row, name) for name in Prediction.__slots__}
    return Plan(
        model=result.model,
        cluster=replace(result.cluster, n_gpus=row.strategy.world_size),
        workload=result.workload,
        strategy=row.strategy,
        prediction=Prediction(**predicted),
    )


def others_of(result: SearchResult, rank: int) -> Others:
    """All rows but one, in the order of their ranks."""
    for other, row in enumerate(result.frontier, start=1):
        if other != rank:
            yield other, partial(plan_of, result, row)


def require_model(name: str, model: ModelSpec) -> None:
    """Raise SpecError for a model that the launcher cannot express, whatever the layout."""
    cluster = as_cluster(None, None, 1)
    workload = as_workload(model, cluster, global_batch=1)
    launcher(name).emit(Plan(model=model, cluster=cluster, workload=workload, strategy=Strategy()))


def start_command(files: Iterable[str]) -> str | None:
    """What to type in the folder of the files; where a shell starts them, with what they need."""
    names = set(files)
    command = next((command for file, command in _STARTS.items() if file in names), None)
    if command is None or command.startswith(("kubectl", "sky")):
        return command
    return " ".join([*(need for file, need in _NEEDS.items() if file in names), command])

"""A plan's files for one launcher, or the nearest plan that the launcher can express."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial

from autopar.job.inputs import as_cluster, as_framework, as_workload, constants_for
from autopar.launchers import dossier, wrap
from autopar.launchers.plan import Emission, Plan, Prediction
from cost_models.equations.memory import memory_cost
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import GIB
from search.result import Priced, SearchResult

Others = Iterable[tuple[int, Callable[[], Plan]]]
"""Plans beside one, by rank, each made when it is asked for."""

_NODE = "NODE_RANK=0 MASTER_ADDR=localhost bash run.sh  # on every node, NODE_RANK counting up"
_STARTS: Mapping[str, str] = {
    "job.sbatch": "sbatch job.sbatch",
    "trainjob.yaml": "kubectl create -f trainjob.yaml",
    "jobset.yaml": "kubectl create -f jobset.yaml",
    "skypilot.yaml": "sky launch skypilot.yaml",
    "run.sh": _NODE,
}
"""What starts the files that wrappers add."""


def emit_plan(
    plan: Plan, name: str, *, wrapper: str | None = None, others: Others = ()
) -> Emission:
    """The files of ``plan``, wrapped if asked, with a warning in them where it does not fit.

    Raises
    ------
    SpecError
        For an unknown launcher or wrapper, and for what the launcher cannot express; the
        hint names the first of ``others`` that it can.
    """
    try:
        emission = dossier(name).emit(_with_its_fit(plan, name))
    except SpecError as error:
        ways = [error.hint] if error.hint else []
        raise SpecError(str(error), hint="; ".join([*ways, _way_out(name, others)])) from None
    return emission if wrapper is None else wrap(emission, plan, wrapper)


def _with_its_fit(plan: Plan, name: str) -> Plan:
    """The plan, with a warning where it does not fit as launcher ``name`` runs it.

    A plan that was priced as the launcher's own framework keeps its prediction, whosever
    calibration made it; any other is priced with the shipped one.
    """
    about = dossier(name)
    framework = as_framework(about.framework)
    if plan.prediction is not None and plan.workload.framework == framework:
        needed = plan.prediction.memory_bytes
    else:
        workload = replace(plan.workload, framework=framework)
        constants = constants_for(plan.cluster, framework)
        columns = Strategies.of([plan.strategy])
        needed = float(memory_cost(plan.model, workload, columns, constants).total_bytes[0])
    usable = plan.cluster.usable_memory_bytes
    if needed <= usable:
        return plan
    warning = (
        f"does not fit: as {about.title} runs it, it needs {needed / GIB:.1f} GiB per GPU, "
        f"and there are {usable / GIB:.1f}"
    )
    return replace(plan, warnings=(*plan.warnings, warning))


def _way_out(name: str, others: Others) -> str:
    for rank, other in others:
        try:
            dossier(name).emit(other())
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
    dossier(name).emit(Plan(model=model, cluster=cluster, workload=workload, strategy=Strategy()))


def start_command(emission: Emission) -> str:
    """What to type in the folder of the files; where a shell starts them, with what they need."""
    start = dossier(emission.launcher).start
    command = next((_STARTS[file] for file in _STARTS if file in emission.files), start.command)
    if not start.needs or command.startswith(("kubectl", "sky")):
        return command
    return f"{start.needs} {command}"

"""What ``import autopar`` offers: one job, asked to be searched, priced, replayed, explained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from autopar.job.inputs import as_calibration
from autopar.job.job import Job, Words, one_strategy, require_legal, require_no_words
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload
from search.explore.options import Explore
from search.plan import How, Method, price_strategies, search_strategies
from search.replay.replay_step import StepReplay, replay_step
from search.result import Priced, SearchResult
from search.rules import broken_rules
from search.space.space import Space

if TYPE_CHECKING:
    from cost_models.calibrate.validation import RunTable, Validation
    from search.explore.explore import Worked


def search(
    model: ModelSpec | str | Job = "70b",
    gpus: int | None = None,
    *,
    top: int | None = None,
    method: Method = "auto",
    trials: int | None = None,
    timeout_s: float | None = None,
    sampler: str | None = None,
    storage: str | None = None,
    study: str | None = None,
    verify_cut: int = 0,
    refine: bool = True,
    progress: Callable[[float], None] | None = None,
    **words: Unpack[Words],
) -> SearchResult:
    """The Pareto frontier of memory against step time for one model on one cluster.

    ``words`` are those of :class:`~autopar.job.job.Words`; names stand for specs
    everywhere: ``search("70b", 512, gpu="h100", fixed={"tp": "4,8"})``.  A :class:`Job`
    holds them all already.

    ``method="explore"`` asks Optuna for ``trials`` strategies, at most ``timeout_s``
    seconds long, with any of its samplers by name or import path; ``storage`` (a URL or
    the path of a journal file) and ``study`` keep the trials, and continue them.
    ``verify_cut`` prices a sample of what the sweep's bounds cut.  ``refine`` assigns layers
    to pipeline stages by what they cost, instead of as evenly as they divide.

    Raises
    ------
    SpecError
        For words that are not known and numbers that cannot be.
    """
    if isinstance(model, Job):
        require_no_words(gpus, words)
        job = model
    else:
        job = Job.of(model, gpus, **words)
    exploring = _said(
        trials=trials, timeout_s=timeout_s, sampler=sampler, storage=storage, study=study
    )
    said = {} if storage is None else job.typed()
    how = How(
        method=method,
        explore=Explore(**exploring, said=said),
        verify_cut=verify_cut,
        refine=refine,
        some_layers=not {"recompute_layers", "recompute-layers"} & set(job.fixed),
    )
    return _searched(job, how, top, progress)


def _said(**words: Any) -> dict[str, Any]:
    return {name: value for name, value in words.items() if value is not None}


def _searched(
    job: Job, how: How, top: int | None, progress: Callable[[float], None] | None
) -> SearchResult:
    problem = job.problem
    return search_strategies(
        problem.model,
        problem.cluster,
        problem.workload,
        job.space_for(problem),
        job.constants,
        launcher=job.name,
        seed=job.seed,
        top=top,
        how=how,
        space_for=job.space_for,
        progress=progress,
    )


def search_study(
    storage: str,
    study: str,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    top: int | None = None,
    refine: bool = True,
    progress: Callable[[float], None] | None = None,
) -> SearchResult:
    """Continue an exploration that is kept in a storage, from there alone; its frontier.

    Model, cluster, axes, calibration, sampler and seed are the study's.  ``trials`` is how
    many strategies it is to hold at the end, by default what was asked for so far.

    Raises
    ------
    SpecError
        Where there is no such study, or where another version made it.
    """
    job, asked = job_of_study(storage, study)
    explore = replace(asked, **_said(trials=trials, timeout_s=timeout_s))
    some_layers = "recompute_layers" not in job.fixed
    how = How(method="explore", explore=explore, refine=refine, some_layers=some_layers)
    return _searched(job, how, top, progress)


def job_of_study(storage: str, study: str) -> tuple[Job, Explore]:
    """What a study asks, with the words that were typed for it, and how it explores.

    Raises
    ------
    SpecError
        Where there is no such study, or where another version made it.
    """
    from search.explore.explore import asked_by  # brings Optuna

    asked = asked_by(storage, study)
    layers = {"recompute_layers": asked.space.axes["recompute_layers"]}
    as_usual = Space.core(asked.problem).axes["recompute_layers"] == layers["recompute_layers"]
    job = Job(
        problem=asked.problem,
        launcher=asked.problem.launcher.name,
        precision=None,
        constants=asked.constants,
        space=asked.space,
        fixed={} if as_usual else layers,
        seed=asked.seed,
        said=asked.options.said,
    )
    return job, asked.options


def work(
    storage: str,
    study: str,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> "Worked":
    """Take part in an exploration that ``search`` keeps in a storage, until it has enough.

    Everything that is asked is in the study; ``trials`` and ``timeout_s`` let this worker
    leave earlier.

    Raises
    ------
    SpecError
        Where there is no such study, or where it is not this version's.
    """
    from search.explore.explore import work as explored  # brings Optuna

    return explored(storage, study, trials=trials, timeout_s=timeout_s, progress=progress)


def estimate(
    model: ModelSpec | str | Job,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    force: bool = False,
    **words: Unpack[Words],
) -> Priced:
    """One strategy's step time and memory, each with its breakdown.

    ``strategy`` is a :class:`Strategy`, or a mapping of some of its knobs: the others
    follow as on the command line, ``{"tp": 8, "sharding": "fsdp"}`` on 512 GPUs has dp 64
    sharded over 64 ranks.  The GPUs are as many as it uses unless ``gpus`` says otherwise.
    ``words`` are those of :func:`search`.

    Raises
    ------
    SpecError
        For a strategy that breaks rules, with each of them, unless ``force`` is on; and
        for words that are not known.
    """
    job, problem, one = one_strategy(model, strategy, gpus, **words)
    if not force:
        require_legal(problem, one)
    return price_strategies(problem, [one], job.constants)[0]


def simulate(
    model: ModelSpec | str | Job,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    force: bool = False,
    **words: Unpack[Words],
) -> StepReplay:
    """One step of one strategy, replayed operation by operation beside its closed form.

    ``result.step_time_s`` is the replayed step, ``result.priced`` what :func:`estimate`
    says, ``result.simulation`` holds events, memory over time and the trace.  Arguments
    and errors are those of :func:`estimate`.
    """
    job, problem, one = one_strategy(model, strategy, gpus, **words)
    if not force:
        require_legal(problem, one)
    return replay_step(problem, one, job.constants)


def explain(
    model: ModelSpec | str | Job,
    strategy: Strategy | Mapping[str, Any],
    *,
    gpus: int | None = None,
    **words: Unpack[Words],
) -> list[str]:
    """Every rule that the strategy breaks, ``name: why`` with its numbers; none where legal."""
    _, problem, one = one_strategy(model, strategy, gpus, rules="megatron", **words)
    return [f"{rule.name}: {why}" for rule, why in broken_rules(problem, one)]


def validate(
    runs: "str | Path | RunTable",
    *,
    calibration: str | Path | None = None,
    calibrate_on: int = 0,
    seed: int = 0,
) -> "Validation":
    """How far predictions are from the measured runs of a CSV.

    ``result.rows`` has every row beside its prediction, or why there is none;
    ``result.summary`` the figures by source, GPU, framework and model.  With
    ``calibrate_on``, so many runs of each source, drawn by ``seed``, adjust the constants
    for its others.

    Raises
    ------
    SpecError
        For files that cannot be read, and where no row can be priced.
    """
    from cost_models.calibrate.validation import (  # brings SciPy
        RunTable,
        read_run_table,
        validate_table,
    )

    known = as_calibration(calibration)
    table = runs if isinstance(runs, RunTable) else read_run_table(Path(runs))
    if not table.runs:
        raise SpecError(f"{table.path}: no row can be priced")
    return validate_table(table, known, calibrate_on=calibrate_on, seed=seed)


__all__ = [
    "Cluster",
    "Job",
    "ModelSpec",
    "Priced",
    "SearchResult",
    "SpecError",
    "Strategy",
    "Workload",
    "estimate",
    "explain",
    "search",
    "search_study",
    "simulate",
    "validate",
    "work",
]

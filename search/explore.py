"""Optuna where a sweep would take too long: it proposes points, every point is legal.

Points are decoded by :mod:`search.codec`; a strategy that does not fit is told to Optuna
as a broken constraint.  The study starts from the constraint solver's extreme layouts and
from the frontier of a thin sample of the space.
The sampler is made anew for every trial with a seed of its own, so that a study that was
stopped goes on as if it had not been.
"""

import hashlib
import json
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from inspect import signature
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from cost_models.constants import Constants
from cost_models.errors import SpecError
from cost_models.step import step_cost
from cost_models.strategy import Strategies, Strategy
from search.census import Census
from search.codec import Codec
from search.enumerate import Progress, Swept, scout
from search.explore_options import Explore
from search.feasible import extreme_layouts, find_layouts
from search.lean import leanest, memory_model, min_memory
from search.levels import Question
from search.pareto import Staircase
from search.result import Certificate
from search.rules import Problem, rules_for
from search.space import Space

SAMPLERS = {
    "nsga2": "optuna.samplers:NSGAIISampler",
    "nsga3": "optuna.samplers:NSGAIIISampler",
    "tpe": "optuna.samplers:TPESampler",
    "gp": "optuna.samplers:GPSampler",
    "random": "optuna.samplers:RandomSampler",
}
_PROBLEM = "autopar_problem"
_FITS = "fits_memory"


def explore(
    problem: Problem,
    space: Space,
    census: Census,
    constants: Constants,
    options: Explore,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Swept:
    """The best of ``options.trials`` legal strategies; no claim that nothing is better.

    Raises
    ------
    SpecError
        For a sampler or storage that cannot be used, and for a study of another problem.
    """
    if not census.grids:
        return _swept(census, Staircase(), 0)
    codec = Codec(census)
    known, priced = Staircase(), 0
    with _quiet():
        study = _study(problem, space, constants, options, seed)
        box: dict[str, BaseDistribution] = {
            axis.name: IntDistribution(0, axis.size - 1) for axis in codec.axes
        }
        _begin(study, problem, space, census, constants, codec, options)
        before = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for old in before:
            priced += _learn(problem, constants, codec.strategy(old.params), known)
        started, done = monotonic(), len(before)
        while done < options.trials:
            if options.timeout_s is not None and monotonic() - started > options.timeout_s:
                break
            study.sampler = sampler_called(options.sampler, seed + 1_000_003 * done)
            trial = study.ask(box)
            strategy = codec.strategy(trial.params)
            values, over = _price(problem, constants, strategy)
            trial.set_user_attr("strategy", strategy.to_json())
            _constrain(trial, over)
            study.tell(trial, values)
            priced += _learn(problem, constants, strategy, known)
            done += 1
            if progress is not None:
                progress(done / options.trials)
    return _swept(census, known, priced)


def _swept(census: Census, known: Staircase, priced: int) -> Swept:
    counts = census.explored(priced)
    detail = f"{priced} legal strategies that fit were priced; others may be better"
    certificate = Certificate(complete=False, method="explore", detail=detail)
    return Swept(known.strategies, counts, certificate)


def _price(
    problem: Problem, constants: Constants, strategy: Strategy
) -> tuple[tuple[float, float], float]:
    """Memory and time, and the bytes that are too many, below zero where it fits."""
    cost = step_cost(
        problem.model,
        problem.cluster,
        problem.workload,
        Strategies.of(strategy),
        constants,
        breakdown=False,
    )
    memory = float(cost.memory.total_bytes[0])
    return (memory, float(cost.step_time_s[0])), memory - problem.cluster.usable_memory_bytes


def _learn(problem: Problem, constants: Constants, strategy: Strategy, known: Staircase) -> int:
    """Take a strategy into the frontier; 1 where it fits."""
    (memory, seconds), over = _price(problem, constants, strategy)
    if over > 0:
        return 0
    known.add(np.array([memory]), np.array([seconds]), Strategies.of(strategy))
    return 1


def _begin(
    study: optuna.Study,
    problem: Problem,
    space: Space,
    census: Census,
    constants: Constants,
    codec: Codec,
    options: Explore,
) -> None:
    """Queue the seeds of a new study; give up what a killed one left running."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
    if study.get_trials(deepcopy=False) or options.seeds == "none":
        return
    coarse = Staircase()
    scout(Question(problem, constants), census, coarse)
    seeds = [*_extremes(problem, space, constants), *coarse.strategies.rows()]
    points = [codec.point(strategy) for strategy in seeds]
    for point in list({json.dumps(p, sort_keys=True): p for p in points}.values()):
        study.enqueue_trial(point)


def _extremes(problem: Problem, space: Space, constants: Constants) -> list[Strategy]:
    """The solver's layouts that fit at the ends of the range, with their leanest knobs."""
    rules, memory = rules_for(problem.launcher.name), memory_model(constants)
    found = find_layouts(
        space,
        problem,
        rules,
        min_memory_bytes=min_memory(space, problem, rules, memory),
        capacity_bytes=problem.cluster.usable_memory_bytes,
    )
    if found.memory_bytes is None or not len(found.strategies):
        return []
    ends = extreme_layouts(found.strategies, found.memory_bytes)
    return leanest(space, problem, rules, Strategies.of(ends), memory).strategies.rows()


def _constrain(trial: Trial, over: float) -> None:
    """Tell Optuna whether the strategy fits, in the way its version has."""
    if hasattr(trial, "set_constraint"):
        trial.set_constraint(_FITS, over)
    else:
        trial.set_user_attr(_FITS, over)


def sampler_called(name: str, seed: int) -> BaseSampler:
    """One of Optuna's samplers by name, or any by import path ``package.module:Class``."""
    path = SAMPLERS.get(name, name)
    module, _, attribute = path.replace(":", ".").rpartition(".")
    if not module:
        raise SpecError(
            f"unknown sampler {name!r}",
            hint=f"known: {', '.join(SAMPLERS)}, or an import path like package.module:Class",
        )
    try:
        kind: Callable[..., Any] = getattr(import_module(module), attribute)
        accepted = signature(kind).parameters
        words: dict[str, Any] = {"seed": seed % 2**32} if "seed" in accepted else {}
        if not hasattr(Trial, "set_constraint") and "constraints_func" in accepted:
            words["constraints_func"] = lambda trial: (trial.user_attrs.get(_FITS, 0.0),)
        sampler = kind(**words)
    except (ImportError, AttributeError, TypeError) as error:
        raise SpecError(f"sampler {name!r} cannot be used: {error}") from None
    if not isinstance(sampler, BaseSampler):
        raise SpecError(f"sampler {name!r} is no Optuna sampler")
    return sampler


def fingerprint(
    problem: Problem, space: Space, constants: Constants, options: Explore, seed: int
) -> str:
    """What makes two studies the same, as a short digest."""
    parts = {
        "model": asdict(problem.model),
        "cluster": asdict(problem.cluster),
        "workload": asdict(problem.workload),
        "launcher": problem.launcher.name,
        "axes": {name: list(values) for name, values in space.axes.items()},
        "constants": asdict(constants),
        "sampler": options.sampler,
        "seed": seed,
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _study(
    problem: Problem, space: Space, constants: Constants, options: Explore, seed: int
) -> optuna.Study:
    mark = fingerprint(problem, space, constants, options, seed)
    name = options.study or f"autopar-{mark}"
    try:
        study = optuna.create_study(
            storage=_storage(options.storage),
            study_name=name,
            directions=["minimize", "minimize"],
            sampler=sampler_called(options.sampler, seed),
            load_if_exists=True,
        )
        there = study.user_attrs.get(_PROBLEM)
        if there is None and not study.get_trials(deepcopy=False):
            study.set_user_attr(_PROBLEM, mark)
            there = mark
    except SpecError:
        raise
    except Exception as error:  # every storage fails in its own way
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SpecError(f"storage {options.storage!r} cannot be used: {said}") from None
    if there != mark:
        raise SpecError(
            f"study {name!r} in {options.storage} belongs to another problem",
            hint="give the study another name",
        )
    return study


def _storage(where: str | None) -> Any:
    """A storage URL as it is, a path as a journal file, nothing as nothing."""
    if where is None or "://" in where:
        return where
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _require_journal(Path(where))
    return JournalStorage(JournalFileBackend(where))


def _require_journal(path: Path) -> None:
    """Refuse a file that Optuna did not write, before it is written to."""
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with path.open(encoding="utf-8") as lines:
            journal = "op_code" in json.loads(next(lines))
    except (OSError, ValueError, TypeError):
        journal = False
    if not journal:
        raise SpecError(
            f"storage {str(path)!r} cannot be used: it is no journal of Optuna's",
            hint="name a new file, or one that --storage made",
        )


@contextmanager
def _quiet() -> Any:
    """Optuna without its log lines and its warnings about what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(level)

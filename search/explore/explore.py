"""Optuna where a sweep would take too long: it proposes points, every point is legal.

Points are decoded by :mod:`search.explore.codec`; a strategy that does not fit breaks a
constraint of the study.  The study starts from the frontier of the lower bounds
(:mod:`search.sweep.bound_frontier`), what could add most first: its points are trials like all
others, and none is priced before its trial.  In spaces too vast to bound whole, the
constraint solver's extreme layouts come before them.
The sampler is made anew for every trial with a seed of its own
(:mod:`search.explore.sampler`), so that a study that was stopped goes on as if it had
not been.  The study itself holds the question (:mod:`search.explore.record`), so that
others may work on it (:func:`work`).
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import floor

import numpy as np
import optuna
from optuna.trial import TrialState

from cost_models.equations.constants import Constants
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategies
from search.explore.codec import Codec
from search.explore.options import Explore, Interrupted
from search.explore.record import StudyProblem, StudyStart, digest, record_of
from search.explore.run import price, prices, run
from search.explore.sampler import sampler_called
from search.explore.start import SLOW, box_of, least_share, start
from search.explore.storage import Store, open_store, storage_errors
from search.explore.study import (
    Joined,
    found_study,
    join,
    made_study,
    raise_budget,
    read_study_problem,
    require_same,
    require_same_equations,
)
from search.frontier.pareto import Incumbents
from search.result import Certificate
from search.rules import Problem
from search.space.space import Space
from search.sweep.census import Census, take_census
from search.sweep.sweep import Progress, Swept

_FINGERPRINTED = (
    *("model", "cluster", "workload", "launcher"),
    *("axes", "constants", "sampler", "seed"),
)


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

    With a study that others work on, theirs count too.

    Raises
    ------
    SpecError
        For a sampler or storage that cannot be used, and for a study of another problem.
    Interrupted
        After Ctrl-C.
    """
    if not census.grids:
        return _swept(census, Incumbents(), 0)
    asked = StudyProblem(problem, space, constants, options, seed)
    codec = Codec(census)
    name = options.study or f"autopar-{fingerprint(asked)}"
    with quiet():
        sampler_called(options.sampler, seed)  # before anything is written
        with open_store(options.storage) as store, _blamed(store, name):
            joined = _begun(asked, codec, census, store, name)
            run(joined, asked, codec, budget=lambda: options.trials, progress=progress)
            return _collected(joined, asked, codec, census)


@dataclass(frozen=True, slots=True)
class Worked:
    """What a worker leaves behind."""

    study: str
    storage: str
    """Without its password."""
    here: int
    """Strategies that this worker has priced."""
    priced: int
    """Strategies that the study holds."""
    budget: int
    """Strategies that it is to price."""


def work(
    storage: str,
    study: str,
    *,
    trials: int | None = None,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> Worked:
    """Take part in a study that somebody has made, until it has priced what it is to price.

    ``trials`` and ``timeout_s`` let this worker leave earlier.

    Raises
    ------
    SpecError
        Where there is no such study, and where its problem, calibration or equations are
        not those of this installation.
    Interrupted
        After Ctrl-C.
    """
    with quiet(), open_store(storage, existing=True) as store, _blamed(store, study):
        asked = read_study_problem(store, study, Explore(storage=storage, study=study))
        asked = replace(asked, options=replace(asked.options, timeout_s=timeout_s))
        census = take_census(asked.problem, asked.space)
        codec = Codec(census)
        there = optuna.load_study(study_name=study, storage=store.storage)
        joined = join(asked, there, store, require_same(there, store, record_of(asked)))
        require_same_equations(joined, box_of(codec), _first_price(asked, codec, joined.start))
        here = run(
            joined, asked, codec, budget=lambda: joined.budget, own=trials, progress=progress
        )
        return Worked(study, store.name, here, _done(joined.study), joined.budget)


def asked_by(storage: str, study: str) -> StudyProblem:
    """The question of an existing study, to be searched again or shown.

    Raises
    ------
    SpecError
        Where there is no such study.
    """
    with quiet(), open_store(storage, existing=True) as store, _blamed(store, study):
        return read_study_problem(store, study, Explore(storage=storage, study=study))


def _begun(asked: StudyProblem, codec: Codec, census: Census, store: Store, name: str) -> Joined:
    """The study of that name, made where there is none."""
    mine = record_of(asked)
    study = found_study(store, name)
    if study is None:
        study = made_study(store, name, mine, start(asked, codec, census))
    joined = join(asked, study, store, require_same(study, store, mine))
    require_same_equations(joined, box_of(codec), _first_price(asked, codec, joined.start))
    raise_budget(study, asked.options.trials)
    return joined


def _done(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _collected(joined: Joined, asked: StudyProblem, codec: Codec, census: Census) -> Swept:
    """The best of all that the study holds, whoever priced it."""
    known, priced, share = Incumbents(), 0, None
    trials = joined.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if trials:
        strategies = Strategies.of([codec.strategy(trial.params) for trial in trials])
        memory, seconds = prices(asked.problem, asked.constants, strategies)
        fits = memory <= asked.problem.cluster.usable_memory_bytes
        priced = int(np.count_nonzero(fits))
        if priced:
            known.add(memory[fits], seconds[fits], strategies.take(fits))
            share = least_share(joined.start, asked, memory[fits], seconds[fits])
    return _swept(census, known, priced, share)


def _swept(census: Census, known: Incumbents, priced: int, share: float | None = None) -> Swept:
    counts = census.explored(priced)
    detail = f"{priced} legal strategies that fit were priced; others may be better"
    if share is not None:
        percent = floor(1000.0 * share) / 10.0
        detail += (
            f": by lower bounds, at least {percent:.1f} % of the exact frontier's hypervolume "
            f"is found, up to all usable memory and {SLOW:g} times the fastest step"
        )
    certificate = Certificate(complete=False, method="explore", detail=detail)
    return Swept(known.strategies, counts, certificate)


def _first_price(asked: StudyProblem, codec: Codec, start: StudyStart) -> tuple[float, float]:
    """What this installation says of the study's first point."""
    point: Mapping[str, int] = start.points[0] if start.points else {}
    return price(asked.problem, asked.constants, codec.strategy(point))[0]


def fingerprint(asked: StudyProblem) -> str:
    """What makes two studies the same, as a short digest."""
    record = record_of(asked)
    return digest({part: record[part] for part in _FINGERPRINTED})


@contextmanager
def _blamed(store: Store, name: str) -> Iterator[None]:
    """Say of a storage that fails on the way what it was, and what it still holds."""
    try:
        yield
    except Interrupted:
        raise
    except KeyboardInterrupt:
        raise Interrupted(store.kept(name)) from None
    except storage_errors() as error:
        raise SpecError(
            f"storage {store.name!r} cannot be used: {store.said(error)}",
            hint=store.kept(name),
        ) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna without its log lines and its warnings about what is experimental."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            warnings.filterwarnings("ignore", "Heartbeat of storage is supposed to be used")
            yield
    finally:
        optuna.logging.set_verbosity(level)

"""A study in a storage: made, continued, or joined."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from time import monotonic, sleep
from typing import Any

import optuna

from cost_models.specs.errors import SpecError
from search.explore.options import Explore
from search.explore.record import (
    SAME,
    SCHEMA,
    StudyProblem,
    StudyStart,
    differing,
    study_problem_of,
)
from search.explore.sampler import Slotted
from search.explore.storage import Store
from search.explore.workers import POLL_S, StudyWorker
from search.versions import versions

RECORD = "autopar_study"
BUDGET = "autopar_trials"

RECORD_PATIENCE_S = 5.0
"""Between a study and its record lies one write."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Joined:
    """A study with its question, where it starts, and this process among its workers."""

    study: optuna.Study
    store: Store
    worker: StudyWorker
    sampler: Slotted
    start: StudyStart

    @property
    def budget(self) -> int:
        """Strategies that the study is to price, as whoever asked for most of them said."""
        return int(self.study.user_attrs.get(BUDGET, 0))


def found_study(store: Store, name: str) -> optuna.Study | None:
    """The study of that name, or None."""
    try:
        return optuna.load_study(study_name=name, storage=store.storage)
    except KeyError:
        return None


def record_in(study: optuna.Study, store: Store) -> Mapping[str, Any]:
    """What the study says about itself, waiting for somebody who is just writing it.

    Raises
    ------
    SpecError
        Where it says nothing, or says it in the way of another version.
    """
    asked = monotonic()
    while RECORD not in study.user_attrs:
        if monotonic() - asked > RECORD_PATIENCE_S:
            raise SpecError(
                f"study {study.study_name!r} in {store.name} was not made by autopar",
                hint="give the study another name",
            )
        sleep(POLL_S)
    document: Mapping[str, Any] = study.user_attrs[RECORD]
    here = {"schema": SCHEMA, "autopar": versions()["autopar"]}
    for what, mine in here.items():
        if document.get(what) != mine:
            raise SpecError(
                f"study {study.study_name!r} in {store.name} was made by {what} "
                f"{document.get(what)}, this is {mine}",
                hint="its trials are kept; use the same version of autopar on all machines",
            )
    return document


def require_same(study: optuna.Study, store: Store, mine: Mapping[str, Any]) -> StudyStart:
    """Where the study starts, if it asks the question of the record ``mine``.

    Raises
    ------
    SpecError
        For a study that asks another one.
    """
    document = record_in(study, store)
    unlike = differing(document, mine)
    if unlike:
        raise SpecError(
            f"study {study.study_name!r} in {store.name} belongs to another problem: "
            f"{', '.join(unlike)} differ{'s' if len(unlike) == 1 else ''}",
            hint="give the study another name",
        )
    return StudyStart.from_json(document["start"])


def made_study(store: Store, name: str, mine: Mapping[str, Any], start: StudyStart) -> optuna.Study:
    """A study of that name with its record, or the one that somebody else has just made."""
    try:
        study = optuna.create_study(
            storage=store.storage, study_name=name, directions=["minimize", "minimize"]
        )
    except optuna.exceptions.DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=store.storage)
    study.set_user_attr(RECORD, {**mine, "start": start.to_json()})
    return study


def raise_budget(study: optuna.Study, trials: int) -> None:
    """Let the study's workers go on to so many strategies, or to more."""
    if trials > study.user_attrs.get(BUDGET, 0):
        study.set_user_attr(BUDGET, trials)


def read_study_problem(store: Store, name: str, options: Explore) -> StudyProblem:
    """The question of an existing study.

    Raises
    ------
    SpecError
        Where there is no such study, or where it is of another version.
    """
    study = found_study(store, name)
    if study is None:
        raise SpecError(f"no study {name!r} in {store.name}", hint=_names(store, name))
    try:
        question = study_problem_of(record_in(study, store), options)
    except SpecError as error:
        if error.hint:
            raise
        raise SpecError(
            f"study {name!r} in {store.name} cannot be joined: {error}",
            hint="its trials are kept; use the same version of autopar on all machines",
        ) from None
    trials = int(study.user_attrs.get(BUDGET, options.trials))
    return replace(question, options=replace(question.options, trials=max(trials, 1)))


def join(question: StudyProblem, study: optuna.Study, store: Store, start: StudyStart) -> Joined:
    """Take part in a study."""
    worker = StudyWorker(store)
    sampler = Slotted(question.options.sampler, question.seed, start.points, worker.claim)
    study.sampler = sampler
    return Joined(study, store, worker, sampler, start)


def require_same_equations(
    joined: Joined, box: Mapping[str, int], price: tuple[float, ...]
) -> None:
    """Refuse a study whose axes or prices this installation would not come to.

    Raises
    ------
    SpecError
        With the number that differs.
    """
    name, start = joined.study.study_name, joined.start
    said = None
    if dict(box) != dict(start.box):
        said = f"its rules leave {_sizes(start.box)}, here they leave {_sizes(box)}"
    for mine, theirs, unit in zip(price, start.price, ("bytes", "s"), strict=True):
        if said is None and abs(mine - theirs) > SAME * abs(theirs):
            said = f"its equations say {theirs:.6g} {unit} where these say {mine:.6g} {unit}"
    if said is not None:
        raise SpecError(
            f"study {name!r} in {joined.store.name} was made by another autopar: {said}",
            hint="its trials are kept; use the same version of autopar on all machines",
        )


def _sizes(box: Mapping[str, int]) -> str:
    return " x ".join(f"{name} {size}" for name, size in box.items()) or "one strategy"


def _names(store: Store, name: str) -> str:
    known = optuna.get_all_study_names(storage=store.storage)
    close = get_close_matches(name, known, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    if not known:
        return "it holds no study; autopar search --storage makes one"
    more = ", ..." if len(known) > _SHOWN else ""
    return f"known: {', '.join(sorted(known)[:_SHOWN])}{more}"

"""Whose trial is dead: that of a process that has gone, and nobody's who is at work."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import TrialState

from search.explore import workers as explore_workers
from search.explore.sampler import Slotted
from search.explore.storage import Store, open_store
from search.explore.workers import OWNER, StudyWorker

BOX: dict[str, BaseDistribution] = {"x": IntDistribution(0, 9)}
pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage"),
]


class Worker:
    """One worker on a study, as another process would be one."""

    def __init__(self, store: Store, points: tuple[dict[str, int], ...] = ()) -> None:
        self.member = StudyWorker(store)
        self.study = optuna.create_study(
            storage=store.storage,
            study_name="s",
            directions=["minimize", "minimize"],
            load_if_exists=True,
        )
        self.sampler = Slotted("random", 0, points, self.member.claim)
        self.study.sampler = self.sampler

    def ask(self, **owner: Any) -> optuna.Trial:
        """A trial that this worker begins, or that another owner does."""
        trial = self.study.ask(BOX)
        if owner:
            known = self.study.trials[trial.number].user_attrs[OWNER]
            trial.set_user_attr(OWNER, {**known, **owner})
        return trial

    def state(self, trial: optuna.Trial) -> TrialState:
        """What has become of a trial."""
        return self.study.trials[trial.number].state


@pytest.fixture(params=["journal", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A storage without heartbeats, and one with them."""
    places = {"journal": f"{tmp_path}/j.log", "sqlite": f"sqlite:///{tmp_path}/s.db"}
    with open_store(places[request.param]) as opened:
        yield opened


def dead_pid() -> int:
    """A number that was a process."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_trial_at_work_is_left_alone(store: Store) -> None:
    """A worker that joins fails nobody's trial."""
    with Worker(store).member:
        first, second = Worker(store), Worker(store)
        with first.member:
            trial = first.ask()
            second.member.settle(second.study)
            assert second.state(trial) == TrialState.RUNNING
            first.study.tell(trial, (1.0, 2.0))
            first.member.let_go()
    assert first.state(trial) == TrialState.COMPLETE


@pytest.mark.skipif(os.name == "nt", reason="processes of POSIX")
def test_a_process_that_has_gone_leaves_a_dead_trial(store: Store) -> None:
    """At once on the same machine, and its slot is the next one's."""
    first, second = Worker(store), Worker(store)
    trial = first.ask(pid=dead_pid())
    second.member.settle(second.study)
    assert second.state(trial) == TrialState.FAIL
    second.ask()
    assert second.sampler.slot == first.sampler.slot == 0


def test_a_search_that_failed_leaves_no_trial(store: Store) -> None:
    """Within one process, too: whoever leaves early gives up the trial in flight."""
    worker = Worker(store)
    with worker.member:
        trial = worker.ask()
    assert worker.state(trial) == TrialState.FAIL


def test_a_beat_that_stands_still_is_dead(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """On other machines, by one's own clock; in a database its heartbeats count instead."""
    first, second = Worker(store), Worker(store)
    silent, beating = first.ask(machine="elsewhere"), first.ask(machine="elsewhere")
    monkeypatch.setattr(explore_workers, "GRACE_S", 0.2)
    second.member.settle(second.study)
    assert second.state(silent) == second.state(beating) == TrialState.RUNNING
    beating.set_user_attr("autopar_beat", 1)
    time.sleep(0.3)
    second.member.give_up_dead(second.study, now=True)
    expected = TrialState.FAIL if store.database is None else TrialState.RUNNING
    assert second.state(silent) == expected
    assert second.state(beating) == TrialState.RUNNING


def test_a_heartbeat_that_is_old_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the database's clock."""
    with open_store(f"sqlite:///{tmp_path}/s.db") as store:
        first, second = Worker(store), Worker(store)
        trial = first.ask(machine="elsewhere")
        assert store.database is not None
        monkeypatch.setattr(store.database, "grace_period", -10)
        second.member.settle(second.study)
        assert second.state(trial) == TrialState.FAIL


def test_a_trial_without_an_owner_is_waited_for(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever joins waits until it says whose it is, and then no longer."""
    monkeypatch.setattr(explore_workers, "SETTLE_S", 0.2)
    worker = Worker(store)
    nameless = optuna.load_study(
        study_name="s", storage=store.storage, sampler=optuna.samplers.RandomSampler(seed=0)
    ).ask()
    assert worker.member.give_up_dead(worker.study, now=True)
    worker.ask()
    assert worker.sampler.slot == 1
    worker.member.settle(worker.study)
    assert worker.state(nameless) == TrialState.FAIL


def test_slots_are_given_in_order_and_once() -> None:
    """Each trial has the lowest slot that nobody holds; a failed one's is given again."""
    with open_store(None) as store:
        worker = Worker(store, points=({"x": 7}, {"x": 3}))
        trials = [worker.ask() for _ in range(3)]
        slots = [worker.study.trials[t.number].user_attrs[OWNER]["slot"] for t in trials]
        assert slots == [0, 1, 2]
        assert [trial.params["x"] for trial in trials[:2]] == [7, 3]
        worker.study.tell(trials[1], state=TrialState.FAIL)
        assert worker.ask().params["x"] == 3
        worker.ask()
        assert worker.sampler.slot == 3

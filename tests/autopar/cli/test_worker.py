"""Many workers on one study: nothing is lost but the trial in flight, nothing done twice."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from search.explore.storage import open_store
from search.explore.workers import OWNER
from search.frontier.pareto import pareto_mask
from tests.autopar.cli.documents import answer
from tests.autopar.cli.gated_samplers import GATE, HELD
from tests.autopar.cli.processes import Process, autopar
from tests.autopar.cli.servers import postgres, proxy

GATED = "tests.autopar.cli.gated_samplers"
PROBLEM = ("--gpus", "64", "--model", "8b", "--tp", "1,2,4", "--pp", "1,2", "--no-refine")
TRIALS = 24
PATIENCE_S = 120.0

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="signals of POSIX"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]


_STARTED: list[Process] = []


@pytest.fixture(autouse=True)
def _nobody_is_left() -> Iterator[None]:
    """Processes of a test that failed end with it."""
    yield
    while _STARTED:
        _STARTED.pop().kill()


def start(*words: str) -> Process:
    """A process of ``autopar``."""
    child = autopar(*words)
    _STARTED.append(child)
    return child


def run(*words: str) -> tuple[int, str, str]:
    """One run of ``autopar``."""
    return start(*words).ended()


def until(true: Callable[[], bool], *children: Process) -> None:
    """Wait for something to become true, as long as these processes live."""
    until_s = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < until_s, "it did not happen"
        for child in children:
            assert child.poll() is None, child.said()
        time.sleep(0.02)


class Watched:
    """A study seen from outside."""

    def __init__(self, url: str, name: str) -> None:
        self._store = open_store(url)
        self._name = name

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the database."""
        self._store.__exit__(None, None, None)

    @property
    def trials(self) -> list[FrozenTrial]:
        """All of its trials; none where it does not exist yet."""
        try:
            study = optuna.load_study(study_name=self._name, storage=self._store.storage)
        except KeyError:
            return []
        return study.get_trials(deepcopy=False)

    def by(self, child: Process, *states: TrialState) -> list[FrozenTrial]:
        """The trials of one process."""
        mine = [t for t in self.trials if t.user_attrs.get(OWNER, {}).get("pid") == child.pid]
        return [trial for trial in mine if not states or trial.state in states]


def kill_in_flight(study: Watched, child: Process) -> int:
    """Kill a process that stands at the gate in the middle of a trial; the trial's number."""
    until(lambda: any(trial.number >= HELD for trial in study.by(child, TrialState.RUNNING)), child)
    child.kill()
    (lost,) = study.by(child, TrialState.RUNNING, TrialState.FAIL)  # the others may have noticed
    return lost.number


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What holds trials while it is not there."""
    path = tmp_path / "open"
    monkeypatch.setenv(GATE, str(path))
    return path


@pytest.fixture(
    params=["journal", "sqlite", "grpc", pytest.param("postgres", marks=pytest.mark.postgres)]
)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """One storage of each kind, empty."""
    with ExitStack() as open_servers:
        if request.param == "postgres":
            yield open_servers.enter_context(postgres())
        elif request.param == "grpc":
            yield open_servers.enter_context(proxy(tmp_path / "behind.db"))
        else:
            paths = {"journal": str(tmp_path / "j.log"), "sqlite": f"sqlite:///{tmp_path}/s.db"}
            yield paths[request.param]


def test_a_killed_worker_loses_the_trial_in_flight(url: str, tmp_path: Path, gate: Path) -> None:
    """Three processes, one killed: every slot is priced once, and the best of all is found."""
    answer = tmp_path / "answer.json"
    place = ("--storage", url, "--study", "s")
    slowly = ("--trials", str(TRIALS), "--sampler", f"{GATED}:GatedNSGA2")
    with Watched(url, "s") as study:
        search = start("search", *PROBLEM, *place, *slowly, "--json", str(answer))
        until(lambda: len(study.trials) >= 1, search)
        workers = [start("worker", *place) for _ in range(2)]
        others = (search, workers[1])
        until(lambda: all(study.by(child, TrialState.RUNNING) for child in others), *others)
        lost = kill_in_flight(study, workers[0])
        gate.touch()
        said = [search.ended(), workers[1].ended()]
        trials, helped = study.trials, study.by(workers[1], TrialState.COMPLETE)

    assert [(code, err) for code, _, err in said] == [(0, f"wrote {answer}\n"), (0, "")]
    assert helped
    assert f"{TRIALS} of {TRIALS} strategies priced" in said[1][1]
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(slot_of(trial) for trial in done) == list(range(TRIALS))
    unfinished = [trial for trial in trials if slot_of(trial) < TRIALS and trial not in done]
    assert [(trial.number, trial.state) for trial in unfinished] == [(lost, TrialState.FAIL)]
    memory, seconds = zip(*[trial.values for trial in done], strict=True)
    best = pareto_mask(memory, seconds)
    assert sorted(frontier(answer)) == sorted(
        (m, s) for m, s, good in zip(memory, seconds, best, strict=True) if good
    )


def slot_of(trial: FrozenTrial) -> int:
    """The slot of a trial."""
    slot: int = trial.user_attrs[OWNER]["slot"]
    return slot


def frontier(path: Path) -> list[tuple[float, float]]:
    """Memory and step time of the rows of an answer."""
    rows = json.loads(path.read_text())["frontier"]
    return [(row["memory_bytes"], row["step_time_s"]) for row in rows]


@pytest.mark.parametrize(
    ("kind", "sampler"),
    [("journal", "GatedNSGA2"), ("journal", "GatedTPE"), ("sqlite", "GatedNSGA2")],
)
def test_a_killed_search_goes_on_as_if_it_had_not_been(
    kind: str, sampler: str, tmp_path: Path, gate: Path
) -> None:
    """One worker after another, the first killed in a trial: the answer of one that was not."""
    url = str(tmp_path / "j.log") if kind == "journal" else f"sqlite:///{tmp_path}/s.db"
    place = ("--storage", url, "--study", "s")
    asked = (*PROBLEM, "--trials", str(TRIALS), "--sampler", f"{GATED}:{sampler}")
    with Watched(url, "s") as study:
        kill_in_flight(study, start("search", *asked, *place))
    gate.touch()
    answers = [tmp_path / name for name in ("resumed.json", "whole.json")]
    worker = run("worker", *place)
    again = run("search", *place, "--no-refine", "--json", str(answers[0]))
    whole = run("search", *asked, "--json", str(answers[1]))

    assert [code for code, _, _ in (worker, again, whole)] == [0, 0, 0]
    assert answer(answers[0]) == answer(answers[1])


@pytest.mark.parametrize("killed", ["search", "worker"])
def test_ctrl_c_says_what_is_kept(killed: str, tmp_path: Path) -> None:
    """No trial is lost, and the hint's study goes on from there."""
    url = str(tmp_path / "j.log")
    place = ("--storage", url, "--study", "s")
    first = start("search", *PROBLEM, *place, "--trials", "1000000", "--sampler", "random")
    with Watched(url, "s") as study:
        until(lambda: len(study.trials) >= 3, first)
        if killed == "worker":
            first.kill()
            first = start("worker", *place)
        until(lambda: len(study.by(first, TrialState.COMPLETE)) >= 3, first)
        first.send_signal(signal.SIGINT)
        code, out, err = first.ended()
        mine = study.by(first)

    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "error: interrupted",
        f"hint: what was priced is kept in study 's' of {url}; the same command goes on",
    ]
    assert {trial.state for trial in mine} == {TrialState.COMPLETE}

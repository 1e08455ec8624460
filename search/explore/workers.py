"""Who works on which trial of a study, and which trials nobody works on any more.

Every trial says which process on which machine runs it.  It is given up

* at once, where that process was on this machine and is gone;                       (1)
* in a database, by Optuna's heartbeats and the database's clock;                    (2)
* elsewhere, where its beat has not changed for :data:`GRACE_S` of this worker's own
  clock, so that clocks of two machines are never compared;                          (3)
* where it does not yet say who runs it, after :data:`SETTLE_S`.                     (4)

A worker that was slow rather than dead loses the trial in flight and goes on.
"""

import os
import platform
import threading
from contextlib import suppress
from itertools import count, islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

from optuna import Study
from optuna.exceptions import OptunaError, UpdateFinishedTrialError
from optuna.storages import fail_stale_trials
from optuna.trial import FrozenTrial, TrialState

from search.explore.storage import GRACE_S, HEARTBEAT_S, Store, storage_errors

OWNER = "autopar_owner"
_BEAT = "autopar_beat"
SETTLE_S = 5.0
"""Within which a trial says who runs it; a write or two after it was made."""
CHECK_S = 5.0
"""Between two looks for trials that nobody works on."""
POLL_S = 0.05


class StudyWorker:
    """One process among the workers of a study."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._number = next(_WORKERS)
        pid = os.getpid()
        self._me = {"machine": _machine(), "pid": pid, "born": _born(pid), "worker": self._number}
        self._trial_id: int | None = None
        self._seen: dict[int, tuple[Any, float]] = {}
        self._checked_s = -CHECK_S
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        """Begin to beat, where somebody may listen."""
        _ALIVE.add(self._number)
        if self._store.shared:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop beating, and leave no trial behind that nobody works on."""
        _ALIVE.discard(self._number)
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)
        if self._trial_id is not None:
            with suppress(OptunaError, KeyError, *storage_errors()):  # it may be what failed
                self._store.storage.set_trial_state_values(self._trial_id, state=TrialState.FAIL)

    def claim(self, study: Study, trial: FrozenTrial) -> int:
        """The lowest slot that no trial holds, for a trial that has just been made.

        Trials made at the same time take theirs in the order of their numbers.
        """
        if self._store.database is not None:
            self._store.database.record_heartbeat(trial._trial_id)
        held, ahead = set(), 0
        for other in study.get_trials(deepcopy=False, states=(*_LIVE, TrialState.COMPLETE)):
            if OWNER in other.user_attrs:
                held.add(other.user_attrs[OWNER]["slot"])
            elif other.number < trial.number and other.state in _LIVE:
                ahead += 1
        slot = next(islice((k for k in count() if k not in held), ahead, None))
        study._storage.set_trial_user_attr(trial._trial_id, OWNER, {"slot": slot, **self._me})
        self._trial_id = trial._trial_id
        return slot

    def let_go(self) -> None:
        """The trial in flight has ended."""
        self._trial_id = None

    def settle(self, study: Study) -> None:
        """Give up what is left of dead workers, before the first trial of this one."""
        if not self._store.shared:
            return
        while self.give_up_dead(study, now=True):
            sleep(POLL_S)

    def give_up_dead(self, study: Study, *, now: bool = False) -> bool:
        """Fail trials that nobody works on; whether some do not yet say whose they are."""
        if not self._store.shared or (not now and monotonic() - self._checked_s < CHECK_S):
            return False
        self._checked_s = monotonic()
        if self._store.database is not None:
            fail_stale_trials(study)
        nameless = False
        for trial in study.get_trials(deepcopy=False, states=_LIVE):
            owner = trial.user_attrs.get(OWNER)
            if self._is_dead(trial, owner):
                give_up(study, trial._trial_id)
            elif owner is None:
                nameless = True
        return nameless

    def _is_dead(self, trial: FrozenTrial, owner: dict[str, Any] | None) -> bool:
        if owner is None:
            return self._unchanged_s(trial.number, None) > SETTLE_S
        if owner["machine"] == self._me["machine"] and _gone(owner):
            return True
        if self._store.database is not None:
            return False  # by its heartbeats
        beat = (trial.user_attrs.get(_BEAT), len(trial.params), len(trial.user_attrs))
        return self._unchanged_s(trial.number, beat) > GRACE_S

    def _unchanged_s(self, number: int, state: Any) -> float:
        """How long this worker has seen a trial in this state."""
        known, since = self._seen.get(number, (object(), 0.0))
        if known != state:
            since = monotonic()
            self._seen[number] = (state, since)
        return monotonic() - since

    def _beat(self) -> None:
        """Say now and then that the trial in flight is being worked on."""
        failures = (OptunaError, KeyError) + storage_errors()  # noqa: RUF005
        for number in count(1):
            if self._over.wait(HEARTBEAT_S):
                return
            trial_id = self._trial_id
            if trial_id is None:
                continue
            try:
                if self._store.database is not None:
                    self._store.database.record_heartbeat(trial_id)
                else:
                    self._store.storage.set_trial_user_attr(trial_id, _BEAT, number)
            except failures:
                continue  # the trial has ended, or the trial's own thread meets the same


_LIVE = (TrialState.RUNNING,)
_WORKERS = count()
_ALIVE: set[int] = set()
"""Workers of studies in this process, which may be several in as many threads."""


def give_up(study: Study, trial_id: int) -> None:
    """Mark a trial as failed, unless somebody else has ended it."""
    try:
        study._storage.set_trial_state_values(trial_id, state=TrialState.FAIL)
    except UpdateFinishedTrialError:
        return


def _machine() -> str:
    """One running system, and the processes that it lets us see."""
    parts = [platform.node()]
    boot, processes = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot.exists() and processes.exists():
        parts += [boot.read_text(encoding="ascii").strip(), str(processes.stat().st_ino)]
    return "/".join(parts)


def _born(pid: int) -> str | None:
    """When a process started, by a clock of its own; None where it is gone or not known."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    words = state.rpartition(")")[2].split()
    return None if words[0] in ("Z", "X") else words[19]


def _gone(owner: dict[str, Any]) -> bool:
    """A process of this machine has ended; False where that cannot be known."""
    if owner["pid"] == os.getpid() and owner["born"] == _born(os.getpid()):
        return owner["worker"] not in _ALIVE  # this one, in a search that failed
    if os.name == "nt":
        return False
    if Path("/proc/self/stat").exists():
        return bool(_born(owner["pid"]) != owner["born"])
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False

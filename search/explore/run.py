"""One worker's part of an exploration: trial after trial, until there are enough."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from types import FrameType

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import Trial, TrialState

from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from search.explore.codec import Codec
from search.explore.options import Interrupted
from search.explore.record import StudyProblem
from search.explore.sampler import FITS
from search.explore.study import Joined
from search.explore.workers import POLL_S, give_up
from search.rules import Problem
from search.sweep.sweep import Progress


def run(
    joined: Joined,
    asked: StudyProblem,
    codec: Codec,
    *,
    budget: Callable[[], int],
    own: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Price strategies until the study holds ``budget()``, or this worker its ``own``."""
    study, worker, timeout_s = joined.study, joined.worker, asked.options.timeout_s
    box: dict[str, BaseDistribution] = {
        axis: IntDistribution(0, size - 1) for axis, size in joined.start.box.items()
    }
    started, here = monotonic(), 0
    with held_interrupt() as interrupted, worker:
        worker.settle(study)
        most = budget()
        while own is None or here < own:
            if interrupted():
                raise Interrupted(joined.store.kept(study.study_name))
            if timeout_s is not None and monotonic() - started > timeout_s:
                break
            worker.give_up_dead(study)
            states = [trial.state for trial in study.get_trials(deepcopy=False)]
            done = states.count(TrialState.COMPLETE)
            if done >= most:
                most = budget()  # somebody may have asked for more
                if done >= most:
                    break
            if progress is not None:
                progress(done / most)
            if done + states.count(TrialState.RUNNING) >= most:
                sleep(POLL_S)  # the others may yet die, and leave their slots
                continue
            here += _one(joined, asked, codec, box, most)
    return here


@contextmanager
def held_interrupt() -> Iterator[Callable[[], bool]]:
    """Note the first Ctrl-C, for the caller to ask after; the second interrupts as ever.

    Elsewhere than in the main thread, or where somebody else listens, nothing changes.
    """
    asked = threading.Event()

    def note(_signum: int, _frame: FrameType | None) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)


def _one(
    joined: Joined,
    asked: StudyProblem,
    codec: Codec,
    box: dict[str, BaseDistribution],
    most: int,
) -> bool:
    """Price one strategy; False where others were quicker and it is not needed."""
    study = joined.study
    try:
        trial = study.ask(box)
        if joined.sampler.slot >= most:
            give_up(study, trial._trial_id)
            joined.worker.let_go()
            return False
        strategy = codec.strategy(trial.params)
        values, over = price(asked.problem, asked.constants, strategy)
        trial.set_user_attr("strategy", strategy.to_json())
        constrain(trial, over)
        reported = _reported(study, trial, values)
    except optuna.exceptions.UpdateFinishedTrialError:
        reported = False  # the others took this worker for dead
    joined.worker.let_go()
    return reported


def _reported(study: optuna.Study, trial: Trial, values: tuple[float, float]) -> bool:
    try:
        study.tell(trial, values)
    except ValueError:
        state = study.get_trials(deepcopy=False)[trial.number].state
        if state != TrialState.FAIL:
            raise
        return False  # the others took this worker for dead
    return True


def prices(problem: Problem, constants: Constants, strategies: Strategies) -> tuple[Floats, Floats]:
    """Bytes and seconds of flat strategies."""
    cost = step_cost(
        problem.model,
        problem.cluster,
        problem.workload,
        strategies,
        constants,
        breakdown=False,
    )
    return cost.memory.total_bytes, cost.step_time_s


def price(
    problem: Problem, constants: Constants, strategy: Strategy
) -> tuple[tuple[float, float], float]:
    """Memory and time, and the bytes that are too many, below zero where it fits."""
    memory, seconds = prices(problem, constants, Strategies.of(strategy))
    values = (float(memory[0]), float(seconds[0]))
    return values, values[0] - problem.cluster.usable_memory_bytes


def constrain(trial: Trial, over: float) -> None:
    """Tell Optuna whether the strategy fits, in the way its version has."""
    if hasattr(trial, "set_constraint"):
        trial.set_constraint(FITS, over)
    else:
        trial.set_user_attr(FITS, over)

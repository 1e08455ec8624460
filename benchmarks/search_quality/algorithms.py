"""Searches by name or by import path, all of them called as ``search(task, budget, seed)``.

By path ``package.module:name`` comes one of three:

* a sampler of Optuna's, or a function of at most ``seed`` that makes one;
* ``search(problem, budget, seed)``, which calls ``problem.evaluate(point)``;
* ``start(problem, seed)``, which returns an object with ``ask() -> point`` and
  ``tell(point, memory_bytes, step_time_s)``.

``problem`` is a :class:`benchmarks.search_quality.task.Task`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from typing import Any

from optuna.samplers import BaseSampler

from benchmarks.search_quality.baselines import annealing, grid
from benchmarks.search_quality.seeded import sampled
from benchmarks.search_quality.task import Spent, Task
from cost_models.specs.errors import SpecError
from search.explore.sampler import SAMPLERS, sampler_called

Search = Callable[[Task, int, int], object]

DEFAULT = "autopar"


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A search with its name."""

    name: str
    search: Search
    missing: str | None = None
    """Why it cannot run here."""


def _sampler(name: str, seeds: str = "none") -> Search:
    return partial(sampled, name=name, seeds=seeds)


BUILT_IN: Mapping[str, Search] = {
    DEFAULT: _sampler("nsga2", "bounds"),
    "nsga2-solver": _sampler("nsga2", "solver"),
    "tpe-solver": _sampler("tpe", "solver"),
    **{name: _sampler(name) for name in SAMPLERS},
    "grid": grid,
    "annealing": annealing,
}
"""``autopar`` is what ``autopar search --method explore`` does; ``-solver`` starts from the
constraint solver's layouts."""


def algorithm_called(name: str) -> Algorithm:
    """The built-in of that name, or whatever an import path leads to.

    Raises
    ------
    SpecError
        In one line for what is not known, cannot be imported, or is no search.
    """
    if name in BUILT_IN:
        missing = "torch is not installed" if name == "gp" and find_spec("torch") is None else None
        return Algorithm(name, BUILT_IN[name], missing)
    module, _, attribute = name.replace(":", ".").rpartition(".")
    if not module:
        close = get_close_matches(name, BUILT_IN, n=1)
        known = f"known: {', '.join(BUILT_IN)}, or an import path like package.module:name"
        hint = f"did you mean {close[0]!r}?" if close else known
        raise SpecError(f"unknown algorithm {name!r}", hint=hint)
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # a module that is imported may raise anything
        raise SpecError(f"algorithm {name!r} cannot be imported: {_said(error)}") from None
    return Algorithm(name, _search_of(name, found))


def _search_of(name: str, found: Any) -> Search:
    if isinstance(found, type) and issubclass(found, BaseSampler):
        return _sampler(name)
    wanted = _parameters(name, found)
    if wanted == 3:
        return _called(name, found)
    if wanted == 2:
        return partial(_ask_and_tell, name, found)
    if wanted in (0, 1):
        sampler_called(name, 0)  # says what is wrong with it
        return _sampler(name)
    raise SpecError(
        f"algorithm {name!r} takes {wanted} arguments",
        hint="search(problem, budget, seed), start(problem, seed), or one of Optuna's samplers",
    )


def _parameters(name: str, found: Any) -> int:
    """Arguments that have to be given."""
    try:
        known = signature(found).parameters.values()
    except (TypeError, ValueError):
        raise SpecError(f"algorithm {name!r} cannot be called") from None
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in places and one.default is Parameter.empty for one in known)


def _called(name: str, search: Callable[..., object]) -> Search:
    def run(task: Task, budget: int, seed: int) -> object:
        return _blamed(name, search, task, budget, seed)

    return run


def _ask_and_tell(
    name: str, start: Callable[[Task, int], Any], task: Task, budget: int, seed: int
) -> None:
    search = _blamed(name, start, task, seed)
    if not (hasattr(search, "ask") and hasattr(search, "tell")):
        raise SpecError(f"algorithm {name!r} returns {type(search).__name__}, which cannot ask")
    for _ in range(budget):
        point = _blamed(name, search.ask)
        cost = _blamed(name, task.evaluate, point)
        _blamed(name, search.tell, point, cost.memory_bytes, cost.step_time_s)


def _blamed(name: str, call: Callable[..., Any], *words: Any) -> Any:
    """Blame the algorithm by name for what it raises."""
    try:
        return call(*words)
    except (Spent, SpecError):
        raise
    except Exception as error:  # anybody's code, so anything
        said = f"{type(error).__name__}: {_said(error)}"
        raise SpecError(f"algorithm {name!r} failed: {said}") from error


def _said(error: Exception) -> str:
    """The first line of what it says, or its name."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]

"""What a study says about itself, so that whoever joins it needs nothing else.

One JSON document, :data:`SCHEMA`: the problem, the axes, the constants, the sampler and
the seed; where the exploration starts; and one price, by which a worker finds out that
its equations are not those of the study.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Self, TypeVar, get_args, get_origin, get_type_hints

from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload
from search.explore.options import Explore
from search.rules import Problem, launcher_called
from search.space.space import Space
from search.versions import versions

SCHEMA = "autopar/study/2"
PARTS = {
    "model": "the model",
    "cluster": "the cluster",
    "workload": "the batch or its recipe",
    "launcher": "the launcher",
    "uneven_stages": "the launcher",
    "axes": "the axes",
    "constants": "the calibration",
    "sampler": "the sampler",
    "seed": "the seed",
    "seeds": "how it is seeded",
}
"""What makes two studies the same, and what to call it."""

SAME = 1e-9
"""Relative difference of two prices that another machine's rounding explains."""

_KINDS = get_type_hints(Strategy) | {"recompute_layers": float}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StudyProblem:
    """What is explored, how, and from which seed."""

    problem: Problem
    space: Space
    constants: Constants
    options: Explore
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyStart:
    """Where an exploration begins, worked out once by whoever made the study."""

    box: Mapping[str, int]
    """Positions on every axis that is explored."""
    points: tuple[Mapping[str, int], ...]
    """The first points, in order."""
    price: tuple[float, float]
    """Bytes and seconds of the first point, or of the box's corner where there is none."""
    least: tuple[tuple[float, float], ...] = ()
    """Bytes and seconds that the exact frontier lies nowhere below; none where nobody knows."""

    def to_json(self) -> dict[str, Any]:
        """As a part of the study's document."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`."""
        memory_bytes, step_time_s = document["price"]
        return cls(
            box=dict(document["box"]),
            points=tuple(document["points"]),
            price=(memory_bytes, step_time_s),
            least=tuple((memory, seconds) for memory, seconds in document["least"]),
        )


def record_of(question: StudyProblem) -> dict[str, Any]:
    """The question as a document that JSON gives back as it was."""
    problem, options = question.problem, question.options
    document = {
        "schema": SCHEMA,
        "autopar": versions()["autopar"],
        "model": asdict(problem.model),
        "cluster": asdict(problem.cluster),
        "workload": asdict(problem.workload),
        "launcher": problem.launcher.name,
        "uneven_stages": problem.uneven_stages,
        "axes": {name: list(values) for name, values in question.space.axes.items()},
        "constants": asdict(question.constants),
        "sampler": options.sampler,
        "seed": question.seed,
        "seeds": options.seeds,
        "said": dict(options.said),
    }
    document["calibration"] = digest(document["constants"])
    plain: dict[str, Any] = json.loads(json.dumps(document))
    return plain


def study_problem_of(document: Mapping[str, Any], options: Explore) -> StudyProblem:
    """The question that a document holds; storage, study and budget are the caller's.

    Raises
    ------
    SpecError
        For a document that this version does not read, or does not read as it was meant.
    """
    try:
        problem = Problem(
            _typed(ModelSpec, document["model"]),
            _typed(Cluster, document["cluster"]),
            _typed(Workload, document["workload"]),
            launcher_called(document["launcher"]),
            document["uneven_stages"],
        )
        axes = {name: _axis(name, values) for name, values in document["axes"].items()}
        constants = _typed(Constants, document["constants"])
        words = {name: document[name] for name in ("sampler", "seeds", "said")}
        space = Space.full(problem).with_(**axes)
        question = StudyProblem(problem, space, constants, _with(options, words), document["seed"])
        found = record_of(question)
    except (KeyError, TypeError, ValueError) as error:
        said = f"{type(error).__name__} {error}" if isinstance(error, KeyError) else str(error)
        raise SpecError(f"it cannot be read: {said}") from None
    unlike = differing(document, found)
    if unlike or document.get("calibration") != found["calibration"]:
        raise SpecError(f"it does not come back as it was: {', '.join(unlike or ['calibration'])}")
    return question


def differing(one: Mapping[str, Any], two: Mapping[str, Any]) -> list[str]:
    """What two documents do not agree in."""
    return list(dict.fromkeys(text for part, text in PARTS.items() if one.get(part) != two[part]))


def digest(value: Any) -> str:
    """A short name for what a document holds."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _with(options: Explore, words: Mapping[str, Any]) -> Explore:
    kept = {field.name: getattr(options, field.name) for field in fields(options)}
    return Explore(**{**kept, **words})


def _axis(name: str, values: list[Any]) -> tuple[Any, ...]:
    kind = _KINDS[name]
    return tuple(kind(value) if _is_choice(kind) else value for value in values)


def _is_choice(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, int) and kind not in (int, bool)


def _typed(kind: type[T], value: Mapping[str, Any]) -> T:
    """A dataclass from what :func:`dataclasses.asdict` and JSON made of it."""
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], part) for name, part in value.items()})


def _value(kind: Any, value: Any) -> Any:
    if isinstance(kind, UnionType):
        kind = next((one for one in get_args(kind) if one is not type(None)), kind)
    if is_dataclass(kind) and isinstance(kind, type) and isinstance(value, dict):
        return _typed(kind, value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    return value

"""Answers read back: a document of ``--json`` as the plans that it holds.

The documents hold the whole model, cluster and workload, so that nothing is looked up
again: a plan is what was priced, even where the catalog has changed since.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from autopar.answers.emission import Others
from autopar.answers.schemas import ESTIMATE_SCHEMA, IMPROVE_SCHEMA, SEARCH_SCHEMA
from autopar.launchers.plan import Plan, Prediction
from cost_models.catalog.files import build
from cost_models.catalog.json_file import JsonFile
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategy
from cost_models.specs.workload import Workload

T = TypeVar("T")
SCHEMAS = (SEARCH_SCHEMA, ESTIMATE_SCHEMA, IMPROVE_SCHEMA)
_LIMIT = 100_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What was asked, and the strategies that were found, best first."""

    path: Path
    launcher: str
    """Whose rules the strategies obey."""
    model: ModelSpec
    cluster: Cluster
    workload: Workload
    rows: tuple[Mapping[str, Any], ...]
    said: Mapping[str, Any]
    """What was typed for it, by option; empty in documents that do not say."""

    def others(self, rank: int) -> Others:
        """All plans but one, in the order of their ranks."""
        for other in range(1, len(self.rows) + 1):
            if other != rank:
                yield other, partial(self.plan, other)

    def plan(self, rank: int) -> Plan:
        """The strategy of that rank; raises SpecError where there is none."""
        if not self.rows:
            raise SpecError(f"{self.path}: holds no strategy to run")
        if not 1 <= rank <= len(self.rows):
            raise SpecError(f"--rank must be 1 to {len(self.rows)} for {self.path}, got {rank}")
        row = self.rows[rank - 1]
        strategy = _strategy(row, self.path)
        if strategy.world_size > self.cluster.n_gpus:
            raise SpecError(
                f"{self.path}: strategy {rank} uses {strategy.world_size} GPUs, but there are "
                f"{self.cluster.n_gpus}"
            )
        return Plan(
            model=self.model,
            cluster=replace(self.cluster, n_gpus=strategy.world_size),
            workload=self.workload,
            strategy=strategy,
            prediction=_prediction(row, self.path),
        )


def read_answer(path: Path) -> Answer:
    """The document in ``path``.

    Raises
    ------
    SpecError
        In one line with the file for what is no such document: other JSON, another schema
        version, a key that is missing or of the wrong type.
    """
    document = JsonFile.read(path)
    schema = document.values.get("schema")
    if schema not in SCHEMAS:
        raise SpecError(
            f"{path}: schema is {schema!r:.60}, this version reads {', '.join(SCHEMAS)}",
            hint="write it anew: autopar search ... --json PATH",
        )
    gpu = _built(Gpu, _table(_table(document.values, "cluster", path), "gpu", path), path)
    workload = _table(document.values, "workload", path)
    return Answer(
        path=path,
        launcher=document.text("launcher"),
        model=_built(ModelSpec, _table(document.values, "model", path), path, _COUNTED),
        cluster=_built(Cluster, {**_table(document.values, "cluster", path), "gpu": gpu}, path),
        workload=_built(
            Workload,
            {
                **workload,
                "framework": _built(Framework, _table(workload, "framework", path), path),
                "optimizer": _built(Optimizer, _table(workload, "optimizer", path), path),
            },
            path,
            ("tokens_per_step",),
        ),
        rows=_rows(document, schema),
        said=_said(document),
    )


def _said(document: JsonFile) -> Mapping[str, Any]:
    said = document.values.get("said", {})
    if not isinstance(said, dict) or not all(name.isidentifier() for name in said):
        raise SpecError(f"{document.path}: said must hold options by name")
    return said


_COUNTED = ("n_parameters", "n_active_parameters")


def _rows(document: JsonFile, schema: str) -> tuple[Mapping[str, Any], ...]:
    if schema == ESTIMATE_SCHEMA:
        return (document.values,)
    if schema == IMPROVE_SCHEMA and document.values.get("better") is None:
        return ()
    if schema == IMPROVE_SCHEMA:
        return (_table(document.values, "better", document.path),)
    rows = document.values.get("frontier")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise SpecError(f"{document.path}: frontier must be a list of strategies")
    return tuple(rows[:_LIMIT])


def _table(values: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = values.get(key)
    if not isinstance(value, Mapping):
        raise SpecError(f"{path}: {key} must be an object, got {value!r:.40}")
    return value


def _built(kind: type[T], table: Mapping[str, Any], path: Path, derived: tuple[str, ...] = ()) -> T:
    """One spec; ``derived`` keys follow from the others, and null is what is left out."""
    given = {n: value for n, value in table.items() if n not in derived and value is not None}
    try:
        return build(kind, given, path)
    except (TypeError, ValueError, OverflowError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{path}: no {kind.__name__.lower()} can be read: {error}") from None


def _strategy(row: Mapping[str, Any], path: Path) -> Strategy:
    try:
        return Strategy.from_json(_table(row, "strategy", path))
    except SpecError as error:
        raise SpecError(f"{path}: {error}", hint=error.hint) from None
    except (TypeError, ValueError, OverflowError) as error:
        raise SpecError(f"{path}: no strategy can be read: {error}") from None


def _prediction(row: Mapping[str, Any], path: Path) -> Prediction:
    values: dict[str, float | None] = {}
    for name in Prediction.__slots__:
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise SpecError(f"{path}: {name} must be a number, got {value!r:.40}")
        values[name] = value
    for name in ("step_time_s", "memory_bytes"):
        if values[name] is None:
            raise SpecError(f"{path}: missing key {name!r}")
    return Prediction(**values)  # type: ignore[arg-type]  # the two that must be there are

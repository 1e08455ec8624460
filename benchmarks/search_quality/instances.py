"""Problems of the suite: what a strategy costs, what its space holds, and its exact frontier.

Memory in bytes, step times in seconds.  A strategy of a mixed cluster is one layout of whole
replicas on every pool, its micro-batches shared out by :mod:`search.pools.replicas`.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autopar.answers.mixed import as_pools
from autopar.job.inputs import (
    as_cluster,
    as_model,
    as_precision,
    as_space,
    as_workload,
    constants_for,
)
from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster, joined
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats
from search.explore.codec import Codec
from search.explore.options import Explore
from search.explore.record import StudyProblem, digest, record_of
from search.explore.run import prices
from search.frontier.pareto import pareto_mask
from search.pools.pools import legal_everywhere
from search.pools.replicas import share_out, split_replicas
from search.rules import Problem
from search.space.space import Space
from search.sweep.bound_frontier import BoundFrontier, RelaxedProblem, frontier_of_bounds
from search.sweep.census import Census, take_census
from search.sweep.sweep import sweep

SUITE = Path(__file__).parents[1] / "data" / "search_instances.toml"
Frontier = tuple[Strategies, Floats, Floats]
"""Strategies that no other beats, fastest first, with their memory and step time."""


@dataclass(frozen=True)
class Instance:
    """One model on one cluster, with the axes that are searched."""

    name: str
    kind: str
    question: StudyProblem
    """Of a mixed cluster: of all its GPUs, as those of the pool with the least memory."""

    @cached_property
    def census(self) -> Census:
        """Its legal strategies."""
        return take_census(self.question.problem, self.question.space)

    @cached_property
    def codec(self) -> Codec:
        """Between its strategies and points of a box of whole numbers."""
        return Codec(self.census)

    @cached_property
    def key(self) -> str:
        """A digest of all that decides its frontier but the equations."""
        return digest(self._records())

    def _records(self) -> list[dict[str, Any]]:
        return [record_of(self.question)]

    @property
    def usable_bytes(self) -> float:
        """Memory that a job may ask of one GPU."""
        return self.question.problem.cluster.usable_memory_bytes

    def prices(self, strategies: Strategies) -> tuple[Floats, Floats]:
        """Memory and step time of flat strategies, whether they fit or not."""
        return prices(self.question.problem, self.question.constants, strategies)

    def bounds(self) -> BoundFrontier:
        """The frontier of the lower bounds."""
        q = RelaxedProblem(self.question.problem, self.question.constants)
        return frontier_of_bounds(q, self.census)

    def exact(self) -> Frontier:
        """The exact frontier, by the sweep."""
        q = self.question
        found = sweep(q.problem, q.space, q.constants, census=self.census).candidates
        return _frontier(found, *self.prices(found))


@dataclass(frozen=True, slots=True)
class BestOf(RelaxedProblem):
    """The least of several questions' bounds; memory is one's own."""

    each: tuple[RelaxedProblem, ...] = ()

    def seconds(self, strategies: Strategies, *, bound: bool) -> Floats:
        """Lower bounds of step times, by the best of the questions."""
        self.calls.append(len(self.each) * len(strategies))
        return np.asarray(np.min([q.seconds(strategies, bound=bound) for q in self.each], axis=0))

    def layout_bound_s(self, strategies: Strategies) -> Floats:
        """The layout nodes' bounds, by the best of the problems."""
        self.calls.append(len(self.each) * len(strategies))
        return np.asarray(np.min([q.layout_bound_s(strategies) for q in self.each], axis=0))


@dataclass(frozen=True)
class Mixed(Instance):
    """Whole replicas of one layout on several pools of GPUs."""

    pools: tuple[Cluster, ...]
    problems: tuple[Problem, ...]
    """Of all GPUs, as each pool's."""
    constants: tuple[Constants, ...]

    def _records(self) -> list[dict[str, Any]]:
        one, parts = self.question, zip(self.problems, self.constants, strict=True)
        return [record_of(replace(one, problem=p, constants=c)) for p, c in parts]

    def prices(self, strategies: Strategies) -> tuple[Floats, Floats]:
        """Memory of the fullest GPU of any pool, and the step with the micro-batches shared out."""
        shared = share_out(self.problems, self.pools, self.constants, strategies)
        return shared.memory_bytes, shared.step_time_s

    def bounds(self) -> BoundFrontier:
        """Some pool has at least its share of the micro-batches, so no step beats the best pool's.

        That much looser than on one kind of GPU, and in much the same order.
        """
        parts = zip(self.problems, self.constants, strict=True)
        each = [RelaxedProblem(problem, constants) for problem, constants in parts]
        q = BestOf(self.question.problem, self.question.constants, each=tuple(each))
        return frontier_of_bounds(q, self.census)

    def exact(self) -> Frontier:
        """The exact frontier, by pricing every legal strategy."""
        legal = legal_everywhere(self.problems, self.question.space)
        rows = split_replicas(self.problems, self.pools, self.constants, legal)
        memory = np.array([row.memory_bytes for row in rows])
        seconds = np.array([row.step_time_s for row in rows])
        return _frontier(Strategies.of([row.strategy for row in rows]), memory, seconds)


def _frontier(strategies: Strategies, memory: Floats, seconds: Floats) -> Frontier:
    rows = np.flatnonzero(pareto_mask(memory, seconds))
    rows = rows[np.argsort(seconds[rows])]
    return strategies.take(rows), memory[rows], seconds[rows]


def load_suite(path: Path = SUITE) -> dict[str, Instance]:
    """The instances of a TOML file by name, in its order."""
    with path.open("rb") as file:
        rows = tomllib.load(file)["instance"]
    return {row["name"]: _instance(row) for row in rows}


def chosen(names: Sequence[str], suite: Mapping[str, Instance]) -> list[Instance]:
    """The instances of these names, or all; raises SpecError with the near miss."""
    for name in names:
        if name not in suite:
            close = get_close_matches(name, suite, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(suite)}"
            raise SpecError(f"unknown instance {name!r}", hint=hint)
    return [suite[name] for name in names or suite]


def _instance(row: Mapping[str, Any]) -> Instance:
    model = as_model(row["model"])
    if "cluster" in row:
        pools = as_pools(row["cluster"])
        whole = tuple(replace(pool, n_gpus=joined(pools).n_gpus) for pool in pools)
    else:
        pools = whole = (as_cluster(None, row["gpu"], row["gpus"]),)
    batch = {"seq_len": row["seq_len"], "global_batch": row["global_batch"]}
    problems = tuple(Problem.of(model, one, as_workload(model, one, **batch)) for one in whole)
    constants = tuple(constants_for(p.cluster, p.workload.framework) for p in problems)
    least = min(range(len(whole)), key=lambda k: whole[k].usable_memory_bytes)
    question = StudyProblem(
        problems[least], _space(row, problems[least]), constants[least], Explore(), seed=0
    )
    if len(pools) == 1:
        return Instance(row["name"], row["kind"], question)
    return Mixed(row["name"], row["kind"], question, pools, problems, constants)


def _space(row: Mapping[str, Any], problem: Problem) -> Space:
    precision = as_precision(None, problem.cluster)
    return as_space(row["space"], problem, precision, row.get("fixed"))

"""Pipelines that may gain from uneven stages: which they are, and by how much at most.

No way to assign the layers makes the slowest rank faster than the mean of all ranks, than
one layer, or than the rank that holds the head with no layer at all; nor the fullest rank
emptier than the mean would be with equal shares.  With t_e the slowest rank's time as the
framework assigns the layers and t_b that bound,

    step >= step_e - m (t_e - t_b) (1 + straggler log2(nodes))                       (1)

up to what the equations bend; whoever is assigned layers is priced again in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product

import numpy as np

from cost_models.counting import shards
from cost_models.counting.partition import representative_ranks, stage_layers
from cost_models.equations.constants import Constants
from cost_models.equations.pipeline import in_flight
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import Recompute, Schedule, Strategies, Strategy
from cost_models.specs.units import Floats, Ints
from cost_models.stages.stage_cost import StageCost, StageTerms, Terms, stage_terms
from search.result import Priced
from search.rules import Problem, legal_mask, rules_for
from search.space.axes import KNOB_AXES
from search.space.canonical import canonical
from search.space.space import Space
from search.stages.problem import StageProblem

MOST_ROWS = 12_000
"""Candidates whose bound is computed."""


def stage_problem(
    problem: Problem, strategy: Strategy, cost: StageCost, capacity_bytes: float
) -> StageProblem:
    """What there is to assign to the ranks of one strategy, within so much memory each."""
    return StageProblem(
        n_layers=problem.model.n_layers,
        pp=strategy.pp,
        vpp=strategy.vpp,
        layer_s=cost.layer_s,
        layer_bytes=cost.layer_bytes,
        activation_bytes=cost.activation_bytes,
        recomputed_bytes=cost.activation_bytes,
        chunk_s=cost.chunk_s,
        chunk_bytes=cost.chunk_bytes,
        in_flight=cost.in_flight,
        capacity_bytes=capacity_bytes,
        folded=strategy.schedule == Schedule.ZB_V and strategy.vpp == 2,
    )


def relatives(
    problem: Problem, space: Space, layouts: Strategies, frontier: Sequence[Priced]
) -> Strategies:
    """Pipelined layouts with the frontier's knobs, and with each recompute of the space."""
    piped = layouts.take(np.asarray(layouts.pp > 1))
    sets: dict[tuple[object, ...], Strategy] = {}
    for row in frontier:
        alone = row.strategy.dp * row.strategy.cp == 1
        shardings = space.axes["sharding"] if alone else (row.strategy.sharding,)
        for recompute, sharding in product(space.axes["recompute"], shardings):
            one = row.strategy.with_(recompute=recompute, sharding=sharding, stage_layers=None)
            if recompute & Recompute.FULL and row.strategy.recompute != recompute:
                one = one.with_(recompute_layers=0)
            # what has no effect in this row was not chosen in it either
            silent = () if one.pp > 1 and one.vpp > 1 else ("overlap_p2p",)
            if alone:
                silent = (*silent, "overlap_grad_reduce", "overlap_param_gather")
            one = one.with_(**{name: any(space.axes[name]) for name in silent})
            key = tuple(getattr(one, name) for name in KNOB_AXES if name != "dp_shard")
            sets.setdefault(key, one)
    most = max(1, MOST_ROWS // max(len(piped), 1))
    chosen = list(sets.values())[:most]
    if not len(piped) or not chosen:
        return Strategies().flat().take(np.zeros(0, dtype=np.int64))
    columns = {name: np.tile(c, len(chosen)) for name, c in piped.columns.items()}
    for name in KNOB_AXES:
        columns[name] = np.repeat([getattr(one, name) for one in chosen], len(piped))
    columns["dp_shard"] = columns["dp"]
    grown = canonical(Strategies(**columns), moe=problem.model.is_moe).flat()
    legal, _ = legal_mask(problem, grown, rules_for(problem.launcher.name))
    return distinct(grown.take(legal))


def distinct(s: Strategies) -> Strategies:
    """Flat rows, each once, in their order."""
    table = np.stack([column.astype(np.float64) for column in s.flat().columns.values()], axis=1)
    _, first = np.unique(table, axis=0, return_index=True)
    return s.take(np.sort(first))


@dataclass(frozen=True, slots=True)
class Promise:
    """Flat candidates and the best that uneven stages can make of them."""

    strategies: Strategies
    step_time_s: Floats
    """Lower bound (1)."""
    memory_bytes: Floats
    """Lower bound of the fullest rank."""
    even_bytes: Floats
    """Memory as the framework assigns the layers."""
    least_s: Floats
    """Lower bound of the slowest rank."""
    rate: Floats
    """Seconds of the step for each second of the slowest rank, about."""

    def step_s(self, i: int, slowest_s: float) -> float:
        """Step time of one of them if its slowest rank took so long, about."""
        slower = float(self.rate[i]) * (slowest_s - float(self.least_s[i]))
        return float(self.step_time_s[i]) + slower

    def take(self, rows: Ints) -> "Promise":
        """Some of them, in this order."""
        columns = (getattr(self, f.name)[rows] for f in fields(self)[1:])
        return Promise(self.strategies.take(rows), *columns)


def promise(problem: Problem, s: Strategies, constants: Constants) -> Promise:
    """Bound all candidates at once."""
    model, cluster, workload = problem.model, problem.cluster, problem.workload
    cost = step_cost(model, cluster, workload, s, constants, breakdown=False)
    terms = stage_terms(model, cluster, workload, s, constants)
    m = shards.micro_batches(s, workload.global_batch_size)
    nodes = np.ceil(s.world_size / cluster.gpus_per_node)
    slower = 1.0 + constants.straggler * np.log2(np.maximum(nodes, 1.0))
    least = _least_s(problem, s, terms)
    saved = np.maximum(_slowest_s(problem, s, terms.seconds) - least, 0.0)
    return Promise(
        s,
        np.asarray(cost.step_time_s - m * saved * slower),
        _least_bytes(problem, s, terms, m),
        np.asarray(cost.memory.total_bytes),
        least,
        np.asarray(m * slower),
    )


def _slowest_s(problem: Problem, s: Strategies, t: Terms) -> Floats:
    """Time of the slowest rank as the framework assigns the layers."""
    ranks = []
    for rank in representative_ranks(problem.model, s):
        h = stage_layers(problem.model, problem.workload.framework, s, rank)
        ends = h.has_embedding * t.embedding + h.has_head * t.head
        layers = h.n_layers * t.layer + h.n_moe * t.moe + h.n_windowed * t.windowed
        ranks.append(t.constant + layers + ends)
    return np.asarray(np.max(ranks, axis=0))


def _whole(problem: Problem, t: Terms) -> Floats:
    """All layers of the model."""
    model = problem.model
    kinds = len(model.moe_layers) * t.moe + len(model.sliding_window_layers) * t.windowed
    return np.asarray(model.n_layers * t.layer + kinds)


def _least_s(problem: Problem, s: Strategies, terms: StageTerms) -> Floats:
    """A time that no layout's slowest rank goes below."""
    t = terms.seconds
    mean = t.constant + (_whole(problem, t) + t.embedding + t.head) / s.pp
    lightest = t.layer + np.minimum(t.moe, 0.0) + np.minimum(t.windowed, 0.0)
    least = np.maximum(mean, t.constant + np.maximum(t.head, lightest))
    return np.asarray(least)


def _least_bytes(problem: Problem, s: Strategies, terms: StageTerms, m: Floats) -> Floats:
    """Mean bytes of the ranks with equal shares of the layers."""
    state, kept = terms.state, terms.kept
    first = in_flight(s.schedule, m, s.pp, s.vpp, np.zeros_like(s.pp))
    last = in_flight(s.schedule, m, s.pp, s.vpp, s.pp - 1)
    flying = (first + last) / 2.0  # it falls evenly from the first rank to the last
    fixed = (_whole(problem, state) + state.embedding + state.head) / s.pp
    moving = _whole(problem, kept) / s.pp
    ends = (first * kept.embedding + last * kept.head) / s.pp
    return np.asarray(state.constant + fixed + flying * (kept.constant + moving) + ends)

"""One step of one strategy, replayed: the cost model's seconds as events.

The closed form adds up the slowest rank's work and a bubble; here every operation of every
rank finds its own time (:mod:`search.replay.simulate`).  Gradient reduction and optimizer follow
on each rank, then what is paid once a step, and the stragglers' factor on all of it.
"""

from dataclasses import dataclass

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.equations.step import step_cost
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Schedule, Strategies, Strategy
from cost_models.specs.units import Floats
from cost_models.stages.chunk_cost import ChunkCost, chunk_cost
from search.replay.schedules import n_stages, stage_of
from search.replay.simulate import Pipeline, Simulation, simulate
from search.result import Priced, priced_rows
from search.rules import Problem

MOST_OPERATIONS = 4_000_000
"""Operations of one pipeline beyond which a replay would take minutes."""


@dataclass(frozen=True, slots=True)
class StepReplay:
    """A replayed step beside its closed form."""

    problem: Problem
    priced: Priced
    """The strategy in closed form."""
    cost: ChunkCost
    simulation: Simulation

    @property
    def step_time_s(self) -> float:
        """Seconds of the replayed step."""
        return (self.simulation.step_time_s + self.cost.once_s) * self.cost.slower

    @property
    def pipeline_s(self) -> float:
        """Seconds of its pipeline part, without gradients, optimizer and stragglers."""
        return self.simulation.pipeline_s

    @property
    def closed_pipeline_s(self) -> float:
        """The same in closed form: the slowest rank's work and its bubble."""
        terms = self.priced.time_breakdown_s
        return float(self._slowest_s * self.cost.n_micro_batches + terms["bubble"])

    @property
    def _slowest_s(self) -> float:
        cost = self.cost
        each = cost.forward_s + cost.backward_s + cost.weight_s
        return float(np.bincount(cost.rank, each).max())

    @property
    def ratio(self) -> float:
        """Replayed step over the closed form's."""
        return self.step_time_s / self.priced.step_time_s


def replay_step(problem: Problem, strategy: Strategy, constants: Constants) -> StepReplay:
    """Price a strategy, and replay its step.

    Raises
    ------
    SpecError
        Where the schedule does not exist for so many ranks and micro-batches, and for
        steps of more operations than can be replayed.
    """
    model, cluster, workload = problem.model, problem.cluster, problem.workload
    cost = chunk_cost(model, cluster, workload, strategy, constants)
    operations = 3 * cost.n_micro_batches * strategy.pp * strategy.vpp
    if operations > MOST_OPERATIONS:
        raise SpecError(
            f"{cost.n_micro_batches} micro-batches on {strategy.pp} stages of {strategy.vpp} "
            f"chunks are {operations} operations, more than {MOST_OPERATIONS}",
            hint="a smaller --global-batch shows the same pattern",
        )
    priced = step_cost(model, cluster, workload, Strategies.of(strategy), constants)
    row = priced_rows(priced, [strategy])[0]
    return StepReplay(problem, row, cost, simulate(pipeline_of(strategy, cost)))


def pipeline_of(strategy: Strategy, cost: ChunkCost) -> Pipeline:
    """The pipeline whose operations last as long as the cost model says."""
    pp = strategy.pp
    schedule = strategy.schedule if pp > 1 else Schedule._1F1B
    chunks = 2 if schedule == Schedule.DUALPIPE else strategy.vpp
    stages = n_stages(schedule, pp, chunks)
    if len(cost.rank) != stages:
        raise SpecError(f"{schedule.label} needs {stages} chunks in all, got {len(cost.rank)}")
    where = stage_of(schedule, pp, chunks)
    # a pair hides its collectives in the replay; the cost model has its own knob for that
    shown = 0.0 if schedule == Schedule.DUALPIPE else 1.0
    exposed_forward, exposed_backward = (
        shown * cost.exposed_forward_s,
        shown * cost.exposed_backward_s,
    )

    def table(values: Floats) -> Floats:
        return np.asarray(values[where])

    return Pipeline(
        schedule=schedule,
        n_micro_batches=cost.n_micro_batches,
        pp=pp,
        n_chunks=chunks,
        forward_s=table(cost.forward_s - exposed_forward),
        backward_input_s=table(cost.backward_s - exposed_backward),
        backward_weight_s=table(cost.weight_s),
        exposed_forward_s=table(exposed_forward),
        exposed_backward_s=table(exposed_backward),
        p2p_s=cost.hop_s,
        activation_bytes=table(cost.activation_bytes),
        static_bytes=cost.static_bytes,
        grad_sync_s=cost.grad_sync_s,
        optimizer_s=cost.optimizer_s,
    )

"""A lower bound on the step over everything that only recomputes, offloads or exposes more.

Given a strategy, take all strategies that differ from it by recomputing or offloading more, or
by overlapping p2p, gradients or weights less.  Their ranks' F, B and W can only be longer, so
the terms of :mod:`cost_models.equations.rank_time`, :mod:`cost_models.equations.state_time` and
:mod:`cost_models.equations.step` bound them all, with these in place of their own:

    gathers   max(all of (1) to (3) of state_time - phi (F + B + W), 0): pooled over both
              passes, exposed weights fall by less than the passes grow               (1)
    gradients max(gradients + weights - delta / v (F + B + W), 0), for the same reason (2)
    overlap   of hidden gathers what the host's link is waited for anyhow costs nothing (3)
    filling   while a pipeline fills, of all that stalls a rank only the launch
              overhead is certain not to shrink                                        (4)
    once      (2), its overlap and the optimizer of the rank that has the least       (5)
    bubble    of schedules whose pipeline takes longer whenever a rank's work grows
              (1F1B, GPipe, interleaved); of others nothing                           (6)

The slowest rank by the bounds is the clock, as in (1) of step.  The bound holds where hiding
pays: overlap_price and the shares hidden lie in [0, 1].
"""

from dataclasses import replace

import numpy as np

from cost_models.counting.work import Work, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import Links, links
from cost_models.equations.rank_time import (
    RankTime,
    activation_offload_s,
    compute_time,
    launch_time,
    layer_sum,
    stalled,
)
from cost_models.equations.state_time import (
    gradient_traffic,
    hiding_share,
    optimizer_s,
    weight_traffic,
)
from cost_models.equations.step import (
    all_stages_s,
    bubble_s,
    slowest_rank,
    straggler_s,
)
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload

_GROWING_BUBBLES = (Schedule._1F1B, Schedule.GPIPE, Schedule.INTERLEAVED)


def step_bound_s(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
) -> Floats:
    """Lower bound on the step time; of the strategies' shape or broadcasting to it."""
    return work_bound_s(step_work(model, cluster, workload, strategies), strategies, constants)


def work_bound_s(work: Work, strategies: Strategies, constants: Constants) -> Floats:
    """Lower bound on the step time of counted work, equations (1) to (6)."""
    s, c = strategies, constants
    wires = links(work, c)
    ranks = _rank_bounds(work, s, c, wires)
    clock = slowest_rank(ranks)
    filling = all_stages_s(
        work, s, ranks.total - ranks.only_steady, clock.busy - clock.only_steady
    )  # (4)
    bubble = bubble_s(work, s, wires, clock, filling)
    bubble = np.where(np.isin(s.schedule, _GROWING_BUBBLES), bubble, 0.0)  # (6)
    exposed, hidden = _gradients_bound_s(work, s, c, wires, clock.forward, clock.rest)
    update, host = optimizer_s(work, s, c)
    once = (
        clock.least(exposed)
        + bubble
        + clock.least(update)
        + clock.least(host)
        + c.step_s
        + c.overlap_price * clock.least(hidden)
    )  # (5)
    before = work.n_micro_batches * clock.busy + once
    return np.broadcast_to(
        before + straggler_s(work, c, before), np.broadcast_shapes(s.shape, before.shape)
    )


def _rank_bounds(work: Work, s: Strategies, c: Constants, wires: Links) -> RankTime:
    """Least seconds per micro-batch of every rank, equations (1), (3) and (4)."""
    compute = compute_time(work, s, c)
    launch = launch_time(work, s, c, compute.busy)
    weights = weight_traffic(work, s, wires)
    forward, backward = compute.with_launch(launch.total)
    gathers = np.maximum(weights.total - c.fsdp_hidden * (forward + backward), 0.0)  # (1)
    offload = activation_offload_s(work, s, compute.busy + launch.total, gathers)
    under_compute = np.maximum(weights.total - gathers - offload, 0.0)  # (3)
    ranks = stalled(
        work,
        s,
        c,
        wires,
        compute=compute,
        launch=launch,
        gathers=gathers,
        offload=offload,
        hidden=layer_sum(work, compute.blocks, "hidden") + under_compute,
    )
    return replace(ranks, only_steady=ranks.stall - launch.filling)  # (4)


def _gradients_bound_s(
    work: Work, s: Strategies, c: Constants, wires: Links, forward: Floats, backward: Floats
) -> tuple[Floats, Floats]:
    """Equation (2) on every rank: exposed and hidden seconds per step."""
    gradients, weights = gradient_traffic(work, s, wires)
    covered = hiding_share(work, s, c) * (forward + backward)
    exposed = np.maximum(gradients + weights - covered, 0.0)  # (2)
    return work.trained * exposed, work.trained * (gradients + weights - exposed)

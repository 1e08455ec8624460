"""One step of a pipeline whose stages run on different GPUs.

Every rank is priced by the equations of :mod:`cost_models.equations.step` and
:mod:`cost_models.equations.memory` with the numbers of its own pool; then they meet as they do
there: the slowest rank is the clock, hops go at the pace of the slower end, and what is
paid once is the slowest rank's.  With pools alike that is the step of one cluster.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cost_models.counting.activations import layer_activations
from cost_models.counting.partition import stage_layers
from cost_models.counting.work import step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import links
from cost_models.equations.memory import rank_bytes, rank_memory
from cost_models.equations.pipeline import pipeline_s
from cost_models.equations.rank_time import hop_s, rank_times
from cost_models.equations.state_time import gradients_s, optimizer_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledStep:
    """Seconds of the step, and what each pipeline rank takes and holds."""

    step_time_s: float
    rank_s: Floats
    """Seconds of one micro-batch on each rank."""
    rank_bytes: Floats


@dataclass(frozen=True, slots=True)
class _Ranks:
    """All ranks of a pipeline, as one pool would run them; shape (pp,)."""

    forward: Floats
    backward: Floats
    weight: Floats
    only_steady: Floats
    """Seconds of one micro-batch that are not lost while the pipeline fills."""
    hidden: Floats
    """Communication under compute, once a step."""
    once: Floats
    """Exposed gradients, optimizer and offload."""
    bytes: Floats
    hop_s: float


def pooled_step(
    model: ModelSpec,
    workload: Workload,
    strategy: Strategy,
    pools: Sequence[tuple[Cluster, Constants]],
    pool_of_rank: Sequence[int],
) -> PooledStep:
    """Price a strategy with ``stage_layers`` whose rank r runs on ``pools[pool_of_rank[r]]``."""
    columns = Strategies.of(strategy)
    every = [
        _ranks(model, workload, columns, replace(cluster, n_gpus=strategy.world_size), constants)
        for cluster, constants in pools
    ]
    used = sorted(set(pool_of_rank))

    def pick(name: str) -> Floats:
        return np.array([float(getattr(every[k], name)[r]) for r, k in enumerate(pool_of_rank)])

    forward, backward, weight = pick("forward"), pick("backward"), pick("weight")
    total = forward + backward + weight
    slowest, steady = int(np.argmax(total)), pick("only_steady")
    constants = [pools[k][1] for k in used]
    m = workload.global_batch_size / (strategy.micro_batch_size * strategy.dp)
    spent, _ = pipeline_s(
        strategy.schedule,
        m,
        strategy.pp,
        strategy.vpp,
        forward_s=forward[slowest],
        backward_s=backward[slowest],
        weight_s=weight[slowest],
        all_stages_s=(total - steady).sum() + steady[slowest],
        p2p_s=max(every[k].hop_s for k in used),
    )
    price = max(float(c.overlap_price) for c in constants)
    before = float(spent) + float(pick("once")[slowest] + price * pick("hidden")[slowest])
    before += max(float(c.step_s) for c in constants)
    ranks_each = strategy.world_size // strategy.pp
    nodes = sum(
        np.ceil(pool_of_rank.count(k) * ranks_each / pools[k][0].gpus_per_node) for k in used
    )
    slower = max(float(c.straggler) for c in constants) * np.log2(max(nodes, 1.0))
    return PooledStep(
        step_time_s=before * (1.0 + float(slower)), rank_s=total, rank_bytes=pick("bytes")
    )


def _ranks(
    model: ModelSpec, workload: Workload, s: Strategies, cluster: Cluster, c: Constants
) -> _Ranks:
    act = layer_activations(model, workload.framework, s, workload.sequence_length)
    work = step_work(model, cluster, workload, s)
    wires = links(work, c)
    ranks = rank_times(work, s, c, wires, breakdown=False)
    exposed, hidden = gradients_s(work, s, c, wires, ranks.forward, ranks.backward + ranks.weight)
    update, host = optimizer_s(work, s, c)
    pp = int(s.pp[0])

    def each(values: Floats) -> Floats:
        return np.broadcast_to(np.asarray(values), (pp, 1))[:, 0]

    held = [
        rank_bytes(
            rank_memory(
                model,
                workload,
                s,
                stage_layers(model, workload.framework, s, np.asarray([rank])),
                act,
            ),
            c,
        )
        for rank in range(pp)
    ]
    return _Ranks(
        forward=each(ranks.forward),
        backward=each(ranks.backward),
        weight=each(ranks.weight),
        only_steady=each(ranks.only_steady),
        hidden=each(hidden),
        once=each(exposed + update + host),
        bytes=np.array([float(np.max(value)) for value in held]),
        hop_s=float(np.max(hop_s(work, wires))),
    )

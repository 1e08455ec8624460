"""One strategy's pipeline, operation by operation: what a replay of its step needs.

Seconds and bytes of every rank are those of :mod:`cost_models.equations.step` and
:mod:`cost_models.equations.memory`, layers given stage by stage.  A rank's are split among its
chunks as the chunks alone would be priced, so that they add up to the rank's again.
"""

from dataclasses import dataclass, replace

import numpy as np

from cost_models.counting.activations import layer_activations
from cost_models.counting.partition import StageLayers, even_stage_layers, stage_layers
from cost_models.counting.work import step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import links
from cost_models.equations.memory import rank_bytes, rank_memory
from cost_models.equations.pipeline import in_flight
from cost_models.equations.rank_time import hop_s, rank_times
from cost_models.equations.state_time import gradients_s, optimizer_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Strategies, Strategy
from cost_models.specs.units import Floats, Ints
from cost_models.specs.workload import Workload
from cost_models.stages.stage_cost import chunk_ranks, rank_work

COLLECTIVES = ("tp_comm", "cp_comm", "ep_comm", "fsdp_comm", "pp_comm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkCost:
    """Chunks in model order, shape (chunks,); ranks, shape (pp,)."""

    n_micro_batches: int
    layers: tuple[int, ...]
    """Layers of each chunk."""
    rank: Ints
    """Pipeline rank of each chunk."""
    forward_s: Floats
    """One micro-batch of each chunk, the exposed collectives that it waits for included."""
    backward_s: Floats
    weight_s: Floats
    exposed_forward_s: Floats
    """Exposed collectives in ``forward_s``, about half of a rank's."""
    exposed_backward_s: Floats
    activation_bytes: Floats
    """Bytes that each chunk keeps of one micro-batch."""
    static_bytes: Floats
    """Per rank: state, buffers and what the running layer needs."""
    hop_s: float
    grad_sync_s: Floats
    """Per rank: gradient reduction that no backward pass hides."""
    optimizer_s: Floats
    """Per rank: update, and the trip of offloaded state."""
    once_s: float
    """Per step, beside the pipeline: what overlap and the host cost."""
    slower: float
    """Factor of the stragglers on everything."""


def chunk_cost(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategy: Strategy,
    constants: Constants,
) -> ChunkCost:
    """The costs of one strategy's chunks and ranks.

    Raises
    ------
    SpecError
        Where the batch is no whole number of micro-batches.
    """
    pp, vpp = strategy.pp, strategy.vpp
    layers = strategy.stage_layers or even_stage_layers(model, workload.framework, pp, vpp)
    one = Strategies.of(strategy.with_(stage_layers=layers))
    m = _whole_micro_batches(workload, strategy)
    work = step_work(model, cluster, workload, one)
    wires = links(work, constants)
    ranks = rank_times(work, one, constants, wires, breakdown=True)
    held = _chunks(model, one, layers)
    bare = Strategies(**one.columns)
    alone = rank_times(
        rank_work(model, cluster, workload, bare, held),
        bare,
        constants,
        wires,
        breakdown=False,
    )
    rank = chunk_ranks(pp, vpp, folded=strategy.schedule == Schedule.ZB_V and vpp % 2 == 0)
    times = [
        _split(_per(getattr(ranks, k), pp), _per(getattr(alone, k), len(held)), rank)
        for k in ("forward", "backward", "weight")
    ]
    exposed = np.asarray(sum(_per(ranks.terms[name], pp) for name in COLLECTIVES) / 2.0)
    static, moving = _memory(model, workload, one, constants, held, m)
    grads, grads_hidden = gradients_s(
        work, one, constants, wires, ranks.forward, ranks.backward + ranks.weight
    )
    update, host = optimizer_s(work, one, constants)
    hidden = float(_per(grads_hidden, pp)[int(np.argmax(_per(ranks.total, pp)))])
    nodes = max(float(np.max(work.machine.n_nodes)), 1.0)
    return ChunkCost(
        n_micro_batches=m,
        layers=layers,
        rank=rank,
        forward_s=times[0],
        backward_s=times[1],
        weight_s=times[2],
        exposed_forward_s=np.minimum(_split(exposed, times[0], rank), times[0]),
        exposed_backward_s=np.minimum(_split(exposed, times[1], rank), times[1]),
        activation_bytes=_split(static[1], moving, rank),
        static_bytes=static[0],
        hop_s=float(np.max(hop_s(work, wires))) if pp > 1 else 0.0,
        grad_sync_s=_per(grads, pp),
        optimizer_s=_per(update, pp) + _per(host, pp),
        once_s=float(constants.step_s) + float(constants.overlap_price) * hidden,
        slower=1.0 + float(constants.straggler) * float(np.log2(nodes)),
    )


def _whole_micro_batches(workload: Workload, strategy: Strategy) -> int:
    """Micro-batches of one pipeline in one step."""
    m, rest = divmod(workload.global_batch_size, strategy.dp * strategy.micro_batch_size)
    if m < 1 or rest:
        raise SpecError(
            f"global batch {workload.global_batch_size} is no whole number of micro-batches: "
            f"dp {strategy.dp} x micro_batch_size {strategy.micro_batch_size}"
        )
    return int(m)


def _per(values: Floats, count: int) -> Floats:
    """Values of shape (count, 1), or alike for all, as (count,)."""
    array = np.asarray(values, dtype=np.float64)
    return np.broadcast_to(array.reshape(len(array), -1)[:, 0] if array.ndim > 1 else array, count)


def _split(whole: Floats, weights: Floats, rank: Ints) -> Floats:
    """Shares of each rank's ``whole`` in proportion to its chunks' ``weights``."""
    sums = np.bincount(rank, weights, len(whole))
    equal = 1.0 / np.bincount(rank, minlength=len(whole))
    shares = np.where(sums[rank] > 0, weights / np.maximum(sums[rank], 1e-300), equal[rank])
    return np.asarray(whole[rank] * shares)


def _chunks(model: ModelSpec, s: Strategies, layers: tuple[int, ...]) -> list[StageLayers]:
    """What every chunk holds, in model order."""
    moe, windowed = set(model.moe_layers), set(model.sliding_window_layers)
    held, begin = [], 0
    for k, count in enumerate(layers):
        mine = range(begin, begin + count)
        begin += count
        held.append(
            StageLayers(
                rank=np.asarray(k % int(s.pp[0])),
                n_layers=np.asarray(float(count)),
                n_moe=np.asarray(float(len(moe.intersection(mine)))),
                n_windowed=np.asarray(float(len(windowed.intersection(mine)))),
                n_first=np.asarray(count / int(s.vpp[0])),
                has_embedding=np.asarray(k == 0),
                has_head=np.asarray(k == len(layers) - 1),
            )
        )
    return held


def _memory(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    constants: Constants,
    held: list[StageLayers],
    m: int,
) -> tuple[tuple[Floats, Floats], Floats]:
    """Bytes of every rank: held throughout and per micro-batch; and the latter per chunk."""
    act = layer_activations(model, workload.framework, s, workload.sequence_length)

    def both(h: StageLayers) -> tuple[float, float]:
        part = rank_memory(model, workload, s, h, act)
        fixed = float(np.max(rank_bytes(replace(part, resident=np.zeros(1)), constants)))
        flying = float(in_flight(s.schedule, m, s.pp, s.vpp, h.rank)[0])
        return fixed, (float(np.max(rank_bytes(part, constants))) - fixed) / flying

    ranks = [
        stage_layers(model, workload.framework, s, np.asarray([rank]))
        for rank in range(int(s.pp[0]))
    ]
    # what chunks of unequal length hold beyond the average is for the replay to find
    whole = [both(replace(h, n_first=h.n_layers / s.vpp)) for h in ranks]
    fixed, moving = np.array(whole).T
    return (fixed, moving), np.array([both(h)[1] for h in held])

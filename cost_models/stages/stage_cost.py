"""A pipeline taken apart: what one layer, one chunk and one place in the schedule cost.

Around the average rank, seconds T and bytes of a rank are linear in what it holds.  With
l layers, m of them mixtures of experts, w of them windowed,

    T(l, m, w) = T0 + a l + b m + c w + embedding + head                            (1)
    bytes      = S0 + s l + ... + f (A0 + k l + ...)                                (2)

where f micro-batches are in flight on the rank, S counts state, buffers and logits, and A
what one micro-batch keeps.  Every coefficient is a difference of two ranks priced by the
equations of :mod:`cost_models.equations.step` and :mod:`cost_models.equations.memory`; what is
not linear there (launch overhead, exposed gathers) is priced again once the layers are assigned.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import starmap
from typing import NamedTuple

import numpy as np

from cost_models.counting import shards
from cost_models.counting.activations import layer_activations
from cost_models.counting.partition import StageLayers
from cost_models.counting.rank_state import stack, stages_of, state_of
from cost_models.counting.work import Work, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import links
from cost_models.equations.memory import rank_bytes, rank_memory
from cost_models.equations.pipeline import first_in_flight, in_flight
from cost_models.equations.rank_time import rank_times
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Strategies
from cost_models.specs.units import Floats
from cost_models.specs.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """One strategy's layers and chunks, both in model order; seconds per micro-batch."""

    layer_s: Floats
    """Shape (layers,): forward, both gradients and whatever the strategy recomputes."""
    layer_bytes: Floats
    """Shape (layers,): weights, gradients and optimizer state."""
    activation_bytes: Floats
    """Shape (layers,): kept of one micro-batch."""
    chunk_s: Floats
    """Shape (chunks,): embedding, head and what a rank takes whatever it holds."""
    chunk_bytes: Floats
    """Shape (chunks,): bytes of embedding and head, and what a rank holds whatever its layers, its
    micro-batches in flight counted."""
    in_flight: Floats
    """Shape (chunks,): micro-batches of the chunk in flight."""


class _Probe(NamedTuple):
    """What a probed rank holds beyond the average."""

    layers: float = 0.0
    moe: float = 0.0
    windowed: float = 0.0
    embedding: bool = False
    head: bool = False


PROBES = (
    _Probe(),
    _Probe(layers=1.0),
    _Probe(layers=1.0, moe=1.0),
    _Probe(layers=1.0, windowed=1.0),
    _Probe(embedding=True),
    _Probe(head=True),
)


class Terms(NamedTuple):
    """Coefficients of (1), or of one half of (2), each of shape (n,)."""

    constant: Floats
    layer: Floats
    moe: Floats
    """Beyond a dense layer, for a mixture of experts."""
    windowed: Floats
    """Beyond a layer with full attention, for a windowed one."""
    embedding: Floats
    head: Floats


class StageTerms(NamedTuple):
    """What many strategies' ranks take and hold, equations (1) and (2)."""

    seconds: Terms
    state: Terms
    """Bytes whatever is in flight."""
    kept: Terms
    """Bytes for each micro-batch in flight."""


def stage_terms(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
) -> StageTerms:
    """The coefficients of flat ``strategies``; their ``stage_layers`` do not matter."""
    s = Strategies(**strategies.flat().columns)
    held = list(starmap(_held, ((model, s, probe) for probe in PROBES)))
    seconds = _terms(model, s, _seconds(model, cluster, workload, s, constants, held))
    fixed, moving = _bytes(model, workload, s, constants, held)
    return StageTerms(seconds, _terms(model, s, fixed), _terms(model, s, moving))


def stage_costs(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
) -> list[StageCost]:
    """One cost for each of the flat ``strategies``; their ``stage_layers`` do not matter."""
    s = Strategies(**strategies.flat().columns)
    terms = stage_terms(model, cluster, workload, s, constants)
    return [
        _cost(model, workload, s, i, *(Terms(*(v[i] for v in t)) for t in terms))
        for i in range(len(s))
    ]


def _held(model: ModelSpec, s: Strategies, probe: _Probe) -> StageLayers:
    """The average rank and a little more."""
    share = 1.0 / s.pp
    return StageLayers(
        rank=s.pp - 1,
        n_layers=model.n_layers * share + probe.layers,
        n_moe=len(model.moe_layers) * share + probe.moe,
        n_windowed=len(model.sliding_window_layers) * share + probe.windowed,
        n_first=(model.n_layers * share + probe.layers) / s.vpp,
        has_embedding=np.full(s.shape, probe.embedding),
        has_head=np.full(s.shape, probe.head),
    )


def rank_work(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    s: Strategies,
    held: list[StageLayers],
) -> Work:
    """The work of ``s`` whose ranks hold what ``held`` says, axis 0 in that order."""
    work = step_work(model, cluster, workload, s)
    stages = stages_of(model, held, s.shape)
    state = state_of(model, workload, s, held, s.shape)
    return replace(work, stages=stages, state=state)


def _seconds(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    s: Strategies,
    constants: Constants,
    held: list[StageLayers],
) -> Floats:
    """Seconds per micro-batch of every probe, shape (probes, n)."""
    work = rank_work(model, cluster, workload, s, held)
    ranks = rank_times(work, s, constants, links(work, constants), breakdown=False)
    total = ranks.forward + ranks.backward + ranks.weight
    return np.broadcast_to(total, (len(held), *s.shape))


def _bytes(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    constants: Constants,
    held: list[StageLayers],
) -> tuple[Floats, Floats]:
    """Bytes of every probe with nothing in flight, and more for each micro-batch in flight."""
    act = layer_activations(model, workload.framework, s, workload.sequence_length)
    m = shards.micro_batches(s, workload.global_batch_size)
    fixed, moving = [], []
    for h in held:
        part = rank_memory(model, workload, s, h, act)
        alone = rank_bytes(replace(part, resident=np.zeros(())), constants)
        flying = in_flight(s.schedule, m, s.pp, s.vpp, h.rank)
        fixed.append(alone)
        moving.append((rank_bytes(part, constants) - alone) / flying)
    return stack(fixed, s.shape), stack(moving, s.shape)


def _terms(model: ModelSpec, s: Strategies, probed: Floats) -> Terms:
    """Differences between the probes."""
    base, layer, moe, windowed, embedding, head = probed
    slopes = layer - base, moe - layer, windowed - layer
    average = model.n_layers, len(model.moe_layers), len(model.sliding_window_layers)
    held = sum(n / s.pp * slope for n, slope in zip(average, slopes, strict=True))
    return Terms(np.asarray(base - held), *slopes, embedding - base, head - base)


def _cost(
    model: ModelSpec,
    workload: Workload,
    s: Strategies,
    i: int,
    seconds: Terms,
    state: Terms,
    kept: Terms,
) -> StageCost:
    pp, vpp = int(s.pp[i]), int(s.vpp[i])
    folded = bool(s.schedule[i] == Schedule.ZB_V) and vpp % 2 == 0
    rank = chunk_ranks(pp, vpp, folded=folded)
    m = float(shards.micro_batches(s, workload.global_batch_size)[i])
    flying = in_flight(s.schedule[i], m, pp, vpp, np.arange(pp))
    first = np.arange(pp * vpp) < pp
    of_chunk = flying[rank]
    if s.schedule[i] == Schedule.INTERLEAVED and vpp > 1 and pp > 1:
        held_first = first_in_flight(m, pp, np.arange(pp))
        others = (flying * vpp - held_first) / (vpp - 1)
        of_chunk = np.where(first, held_first[rank], others[rank])

    def chunks(terms: Terms, shared: Floats) -> Floats:
        value = shared * terms.constant
        value[0] += terms.embedding
        value[-1] += terms.head
        return value

    held = chunks(state, first.astype(np.float64))
    moving = flying[rank] * chunks(kept, first.astype(np.float64))
    return StageCost(
        layer_s=np.maximum(_layers(model, seconds), 0.0),
        layer_bytes=np.maximum(_layers(model, state), 0.0),
        activation_bytes=np.maximum(_layers(model, kept), 0.0),
        chunk_s=np.maximum(chunks(seconds, np.full(pp * vpp, 1.0 / vpp)), 0.0),
        chunk_bytes=np.maximum(held + moving, 0.0),
        in_flight=of_chunk,
    )


def chunk_ranks(pp: int, vpp: int, *, folded: bool) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Pipeline rank of every chunk in model order.

    >>> chunk_ranks(2, 2, folded=False).tolist(), chunk_ranks(2, 2, folded=True).tolist()
    ([0, 1, 0, 1], [0, 1, 1, 0])
    """
    return np.array(list(_ranks(pp, vpp, folded)), dtype=np.int64)


def _ranks(pp: int, vpp: int, folded: bool) -> Iterator[int]:
    for round_ in range(vpp):
        there = range(pp - 1, -1, -1) if folded and round_ % 2 else range(pp)
        yield from there


def _layers(model: ModelSpec, terms: Terms) -> Floats:
    """One value per layer."""
    value = np.full(model.n_layers, float(terms.layer))
    value[list(model.moe_layers)] += terms.moe
    value[list(model.sliding_window_layers)] += terms.windowed
    return value

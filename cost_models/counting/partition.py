"""Which layers a pipeline rank holds.

A model of L layers is cut into C = pp * vpp chunks in model order; rank r holds the
chunks r, r + pp, r + 2 pp, ... (in the V-shaped schedules r and 2 pp - 1 - r).  Where the
strategy does not give ``stage_layers``, the framework's habit decides:

``even``
    q = floor(L / C) layers each, and one more for L mod C chunks, from the second on,
    so that the embedding's and the head's chunks are the short ones           (1)
    with multi-token prediction ceil(L / C) each, and what that is too many is
    taken from the last chunk, which has the extra heads, then from the first  (1')
``embedding_and_head_as_layers``
    (1) for L + 2, the first and the last being embedding and head             (2)
``parameter_weight``
    chunk c ends after the first layer whose cumulated parameters reach
    (c + 1) / C of the layers' and the head's                                  (3)
    (nanotron's HEAD asks for more than that; the memory of its published sweep shows that a
    stage ended on the tie)

References
----------
.. [1] Megatron-LM, ``megatron/core/transformer/transformer_block.py``,
   ``get_num_layers_to_build`` (account_for_embedding/loss_in_pipeline_split).
.. [2] nanotron, ``src/nanotron/models/__init__.py``, ``build_model``.
.. [3] Megatron-Bridge, ``scripts/performance/configs/deepseek``: pipeline layouts of
   DeepSeek-V3, ``Et*4|(t*4|)*14tmL`` for 16 chunks and ``Et|(tt|)*30mL`` for 32.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cost_models.specs.framework import Framework
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Schedule, Strategies
from cost_models.specs.units import Floats, Ints

Bools = NDArray[np.bool_]

TIE = 1e-9
"""Layers within which (3) is reached: sixteen layers and a head worth four more cut in two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLayers:
    """What one pipeline rank holds; every field broadcasts with the strategies."""

    rank: Ints
    n_layers: Floats
    n_moe: Floats
    n_windowed: Floats
    n_first: Floats
    """Layers of the rank's first chunk."""
    has_embedding: Bools
    has_head: Bools

    @property
    def n_dense(self) -> Floats:
        """Layers with a dense MLP."""
        return np.asarray(self.n_layers - self.n_moe)


def _first_layer(chunk: Ints, model: ModelSpec, framework: Framework, chunks: Ints) -> Ints:
    """Index of the first layer of ``chunk``; ``chunk == chunks`` gives n_layers."""
    layers = model.n_layers
    if framework.partition == "parameter_weight":
        layer = model.attention_parameters + (
            model.expert_parameters * model.n_experts
            if model.is_moe
            else model.dense_mlp_parameters
        )
        total = layers + model.vocab_size * model.hidden_size / layer
        ends = np.ceil(chunk * total / chunks - TIE).astype(np.int64)
        # no chunk takes a second layer before the one ahead of it has its first
        ends = np.where(total < chunks, chunk, ends)
        return np.where(chunk == 0, 0, np.where(chunk >= chunks, layers, np.minimum(ends, layers)))
    virtual = 1 if framework.partition == "embedding_and_head_as_layers" else 0
    total_layers = layers + 2 * virtual
    base, more = total_layers // chunks, total_layers % chunks
    offset = np.where(more <= chunks - 2, 1, 0)
    start = chunk * base + np.minimum(np.maximum(chunk - offset, 0), more)
    if model.mtp_layers:
        full = base + (more > 0)
        spare = full * chunks - total_layers
        from_first = np.maximum(spare - full, 0)
        start = np.where(from_first < full, chunk * full - np.where(chunk, from_first, 0), start)
    return np.asarray(np.minimum(np.maximum(start - virtual, 0), layers), dtype=np.int64)


def even_stage_layers(model: ModelSpec, framework: Framework, pp: int, vpp: int) -> tuple[int, ...]:
    """Layers of every chunk in model order, as the framework assigns them by itself."""
    chunks = np.asarray(pp * vpp)
    starts = _first_layer(np.arange(pp * vpp + 1), model, framework, chunks)
    return tuple(int(n) for n in np.diff(starts))


def _chunk_bounds(
    chunk: Ints, model: ModelSpec, framework: Framework, strategies: Strategies
) -> tuple[Ints, Ints]:
    chunks = strategies.pp * strategies.vpp
    start = _first_layer(chunk, model, framework, chunks)
    stop = _first_layer(chunk + 1, model, framework, chunks)
    given = strategies.stage_layers
    if given is None:
        return start, stop
    ends = np.cumsum(given, axis=0)
    shape = ends.shape[1:]
    several = chunk.shape[: max(chunk.ndim - len(shape), 0)]
    index = np.broadcast_to(np.minimum(chunk, len(ends) - 1), (*(several or (1,)), *shape))
    stop_given = np.take_along_axis(ends, index, axis=0)
    start_given = stop_given - np.take_along_axis(np.asarray(given), index, axis=0)
    if not several:
        stop_given, start_given = stop_given[0], start_given[0]
    fixed = given.any(axis=0)
    return np.where(fixed, start_given, start), np.where(fixed, stop_given, stop)


def stage_layers(
    model: ModelSpec, framework: Framework, strategies: Strategies, rank: Ints
) -> StageLayers:
    """What pipeline rank ``rank`` holds, summed over its chunks, by equations (1) to (3)."""
    pp, vpp = strategies.pp, strategies.vpp
    v_shaped = (strategies.schedule == Schedule.ZB_V) | (strategies.schedule == Schedule.DUALPIPE)
    if strategies.stage_layers is None:
        counts = _held_each_once(model, framework, pp, vpp, v_shaped, rank)
    else:
        counts = _held(model, framework, strategies, v_shaped, rank)
    folded = v_shaped & (vpp % 2 == 0)
    return StageLayers(
        rank=rank,
        n_layers=counts[0],
        n_moe=counts[1],
        n_windowed=counts[2],
        n_first=counts[3],
        has_embedding=rank == 0,
        has_head=np.where(folded, rank == 0, rank == pp - 1),
    )


def _held_each_once(
    model: ModelSpec, framework: Framework, pp: Ints, vpp: Ints, v_shaped: Bools, rank: Ints
) -> tuple[Floats, ...]:
    """:func:`_held` computed for distinct stages only: a grid has many layouts and few of them."""
    arrays = np.broadcast_arrays(rank, pp, vpp, v_shaped)
    shape = arrays[0].shape
    flat = [array.reshape(-1) for array in arrays]
    size = [int(array.max(initial=0)) + 1 for array in flat]
    code = np.ravel_multi_index(flat, size)
    distinct, which = np.unique(code, return_inverse=True)
    rank, pp, vpp, folds = np.unravel_index(distinct, size)
    held = _held(model, framework, Strategies(pp=pp, vpp=vpp), folds > 0, rank)
    return tuple(np.broadcast_to(n, distinct.shape)[which].reshape(shape) for n in held)


def _held(
    model: ModelSpec, framework: Framework, strategies: Strategies, v_shaped: Bools, rank: Ints
) -> tuple[Floats, ...]:
    """Layers, MoE layers and windowed layers of one pipeline rank, and its first chunk's layers."""
    moe_before = np.concatenate([[0], np.cumsum(_mask(model.moe_layers, model.n_layers))])
    windowed = _mask(model.sliding_window_layers, model.n_layers)
    windowed_before = np.concatenate([[0], np.cumsum(windowed)])
    pp, vpp = strategies.pp, strategies.vpp
    n_dims = max(np.ndim(x) for x in (pp, vpp, v_shaped, rank))
    index = np.arange(int(vpp.max())).reshape(-1, *(1,) * n_dims)
    turned = v_shaped & (index % 2 == 1)
    chunk = index * pp + np.where(turned, pp - 1 - rank, rank)
    start, stop = _chunk_bounds(chunk, model, framework, strategies)

    def over_chunks(values: Ints) -> Floats:
        return np.asarray(np.where(index < vpp, values, 0).sum(axis=0), dtype=np.float64)

    n_layers = over_chunks(stop - start)
    n_first = np.asarray((stop - start)[0], dtype=np.float64)
    start, stop = (np.minimum(np.maximum(n, 0), model.n_layers) for n in (start, stop))
    n_moe = over_chunks(moe_before[stop] - moe_before[start])
    n_windowed = over_chunks(windowed_before[stop] - windowed_before[start])
    return n_layers, n_moe, n_windowed, n_first


def round_share(model: ModelSpec, framework: Framework, strategies: Strategies) -> Floats:
    """Largest share of the layers in one round of chunks, one on each rank: 1 / v when equal.

    As frameworks assign layers by themselves, one of the first two rounds is the longest.
    """
    most = np.zeros(())
    most_rounds = int(strategies.vpp.max())
    rounds = min(most_rounds, 2) if strategies.stage_layers is None else most_rounds
    begin: Ints = np.zeros((), dtype=np.int64)
    for index in range(rounds):
        last = np.minimum((index + 1) * strategies.pp, strategies.pp * strategies.vpp) - 1
        _, end = _chunk_bounds(last, model, framework, strategies)
        most = np.maximum(most, end - begin)
        begin = end
    return np.asarray(most / model.n_layers)


def _mask(indices: tuple[int, ...], length: int) -> NDArray[np.int64]:
    mask = np.zeros(length, dtype=np.int64)
    mask[list(indices)] = 1
    return mask


def representative_ranks(model: ModelSpec, strategies: Strategies) -> list[Ints]:
    """Pipeline ranks among which the slowest and the fullest are found.

    Even partitions are settled by the first rank (embedding, most micro-batches in
    flight), the second (the longest stage) and the last (head, logits); models whose
    first layers are dense need the first ranks past those, and windows the third rank,
    which may have fewer of them; given ``stage_layers`` need all.
    """
    pp = strategies.pp
    if strategies.stage_layers is not None:
        return [np.minimum(rank, pp - 1) for rank in range(int(pp.max()))]
    if int(pp.max()) == 1:
        return [np.zeros_like(pp)]
    ranks = [np.zeros_like(pp), np.minimum(1, pp - 1), pp - 1]
    if model.is_moe and 0 < len(model.moe_layers) < model.n_layers and min(model.moe_layers) > 0:
        first = min(model.moe_layers)
        past = np.maximum(first * pp * strategies.vpp // model.n_layers, 2)
        ranks += [np.minimum(past, pp - 1), np.minimum(past + 1, pp - 1)]
    elif model.sliding_window_layers:
        ranks.append(np.minimum(2, pp - 1))
    return ranks

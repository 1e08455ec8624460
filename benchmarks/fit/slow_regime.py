"""Runs of a published sweep that a slow regime caught: what ``slow_regime`` says in the data."""

from collections.abc import Sequence

from cost_models.calibrate.runs import Run
from cost_models.specs.units import GIB


def wrong_rows(runs: Sequence[Run]) -> list[str]:
    """Rows whose ``slow_regime`` column is not what :func:`slow_regime` makes of the times."""
    return [
        run.row_id
        for run, slow in zip(runs, slow_regime(runs), strict=True)
        if run.slow_regime != slow
    ]


def slow_regime(runs: Sequence[Run]) -> list[bool]:
    """Runs that pay an extra cost per micro-batch that the rest of their sweep does not pay.

    One published sweep (nanotron on EFA, ``ultrascale-playbook``) has two regimes: about a
    third of its pipelined runs lose 0.3 to 2 s in every micro-batch, whatever the model's
    size; runs above 70 GiB reserved lose time to the allocator.  Measured times alone decide.
    A healthy pipeline of this sweep takes no longer per layer and micro-batch than the host's
    6 ms + 2.7 ms for each tensor-parallel rank, or the layer's FLOPs at a slow rate; what a
    run takes beyond is near nothing or more than :data:`EXTRA_S`, hardly ever between.
    Without a pipeline, a run is slow where it takes twice its siblings' best and 0.4 s more;
    siblings share model and tensor-parallel, and a larger micro-batch may take proportionally
    longer.
    """
    siblings: dict[tuple[object, ...], list[tuple[int, float]]] = {}
    rates = [_seconds_per_micro_batch(run) for run in runs]
    for run, rate in zip(runs, rates, strict=True):
        if rate is not None:
            siblings.setdefault(_sweep(run), []).append((run.strategy.micro_batch_size, rate))
    return [
        rate is not None and _is_slow(run, rate, siblings[_sweep(run)])
        for run, rate in zip(runs, rates, strict=True)
    ]


SLOW_SOURCES = ("ultrascale-playbook",)
"""Sources whose runs were seen to fall into two regimes."""
EXTRA_S = 0.25
"""Between the two regimes: seconds per micro-batch beyond what the slowest healthy run takes."""
HOST_LAYER_S, HOST_RANK_S = 6e-3, 2.7e-3
"""What a healthy pipeline's host takes for a layer, and for each tensor-parallel rank of it."""
SLOW_FLOP_PER_S = 250e12
"""At least so fast are the layers of the sweep's healthy runs that no host holds up."""


def _sweep(run: Run) -> tuple[object, ...]:
    return (run.source, run.model.name, run.strategy.tp, run.strategy.pp)


def _seconds_per_micro_batch(run: Run) -> float | None:
    if run.source not in SLOW_SOURCES or run.step_time_s is None:
        return None
    s = run.strategy
    return run.step_time_s / (run.workload.global_batch_size / s.dp / s.micro_batch_size + s.pp - 1)


def _is_slow(run: Run, rate: float, siblings: Sequence[tuple[int, float]]) -> bool:
    if (run.memory_bytes or 0.0) > 70 * GIB:
        return True
    s, micro = run.strategy, run.strategy.micro_batch_size
    if s.pp == 1:  # here the rate holds the gradients' exchange, too
        best = min(other * max(1.0, micro / size) for size, other in siblings)
        return rate > 2.0 * best + 0.4
    parameters = run.model.attention_parameters + run.model.dense_mlp_parameters
    flop = 6.0 * parameters * micro * run.workload.sequence_length / s.tp
    layer_s = max(HOST_LAYER_S + HOST_RANK_S * s.tp, flop / SLOW_FLOP_PER_S)
    return rate - run.model.n_layers / s.pp * layer_s > EXTRA_S

"""Uneven pipelines on a frontier: better, legal, priced in full, and bounded beforehand."""

from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from cost_models.calibrate.calibration import prior_constants
from cost_models.counting.partition import even_stage_layers
from cost_models.counting.work import step_work
from cost_models.equations.step import step_cost
from cost_models.specs.strategy import Schedule, Strategies, Strategy
from cost_models.stages.stage_cost import stage_costs
from search.plan import How, price_strategies, search_strategies
from search.rules import Problem, broken_rules
from search.space.space import Space
from search.stages.uneven import promise, stage_problem
from tests.search.small_problems import dense, moe, problem

CONSTANTS = replace(
    prior_constants(),
    layer_floor_s=0.0,
    layer_floor_tp_s=0.0,
    micro_batch_s=0.0,
    pipeline_micro_batch_s=0.0,
    moe_layer_s=0.0,
    framework_bytes=1e6,
    communicator_bytes=0.0,
)
"""A machine whose host is never in the way."""


PIPELINES = {"pp": "4", "tp": "1"}
ONE_CHUNK = PIPELINES | {"vpp": "1"}
"""A stage is one chunk: several let equal chunks share a heavy head out nearly as well."""


def searched(p: Problem, axes: dict[str, str], **how: Any) -> Any:
    """The core space of a small problem, narrowed."""
    space = Space.core(p).narrowed(axes)
    return search_strategies(p.model, p.cluster, p.workload, space, CONSTANTS, how=How(**how))


HEAVY_HEAD = {"vocab_size": 4096, "n_layers": 9}


@pytest.mark.parametrize(
    ("model", "axes", "share"),
    [
        (dense(**HEAVY_HEAD), PIPELINES, 0.97),
        (dense(vocab_size=4096), ONE_CHUNK, 0.9),
        (moe(vocab_size=4096), ONE_CHUNK, 0.9),
    ],
)
def test_refined_rows_are_legal_fit_and_beat_the_frontier(
    model: Any, axes: dict[str, str], share: float
) -> None:
    """Each is priced in full; nothing that was on the frontier is lost to something worse."""
    p = problem(model, gpus=8, batch=64)
    even, refined = searched(p, axes, refine=False), searched(p, axes)
    assert refined.frontier[0].step_time_s < share * even.frontier[0].step_time_s
    for row in refined.frontier:
        assert not broken_rules(p, row.strategy)
        assert row.memory_bytes <= p.cluster.usable_memory_bytes
        if row not in even.frontier:
            assert price_strategies(p, [row.strategy], CONSTANTS) == [row]
    for old in even.frontier:
        assert any(
            new.step_time_s <= old.step_time_s * (1 + 1e-9)
            and new.memory_bytes <= old.memory_bytes * (1 + 1e-9)
            for new in refined.frontier
        )
    assert "uneven stages" in refined.certificate.detail


def test_the_same_question_has_the_same_answer() -> None:
    """Refining twice gives the same rows in the same order."""
    p = problem(moe(**HEAVY_HEAD), gpus=8, batch=64)
    assert searched(p, PIPELINES).frontier == searched(p, PIPELINES).frontier


def test_a_launcher_that_assigns_layers_by_itself_is_left_alone() -> None:
    """MaxText's stages are equal: no row says otherwise."""
    p = problem(dense(vocab_size=4096), gpus=8, batch=64, launcher="maxtext")
    space = Space.core(p).narrowed(PIPELINES)
    result = search_strategies(p.model, p.cluster, p.workload, space, CONSTANTS, launcher="maxtext")
    assert result.frontier
    assert all(row.strategy.stage_layers is None for row in result.frontier)


@pytest.mark.parametrize("vpp", [1, 2])
@pytest.mark.parametrize(
    "model", [dense(), moe(), moe(sliding_window=16, sliding_window_layers=(1, 3, 5))]
)
def test_a_taken_apart_pipeline_adds_up(model: Any, vpp: int) -> None:
    """Layers and chunks priced one by one sum to what every rank takes and holds."""
    p = problem(model, gpus=4, batch=16)
    schedule = Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B
    layers = (3, 2, 2, 1) if vpp == 1 else (1,) * 8
    one = Strategy(pp=4, vpp=vpp, schedule=schedule, overlap_p2p=False, stage_layers=layers)
    columns = Strategies.of(one)
    cost = stage_costs(p.model, p.cluster, p.workload, columns, CONSTANTS)[0]
    seconds, held = stage_problem(p, one, cost, 1e9).costs(layers, [0] * len(layers))
    priced = step_cost(p.model, p.cluster, p.workload, columns, CONSTANTS)
    assert held.max() == pytest.approx(
        float(priced.memory.total_bytes[0]), rel=1e-6 if vpp == 1 else 1e-2
    )
    terms = priced.time_terms
    m = 16.0
    per_micro_batch = sum(
        float(terms[name][0])
        for name in terms
        if name not in ("bubble", "dp_comm", "optimizer", "straggler", "launch")
    )
    assert seconds.max() * m >= 0.999 * per_micro_batch


@pytest.mark.parametrize("model", [dense(vocab_size=4096), moe(vocab_size=4096)])
def test_no_assignment_of_layers_beats_the_bound(model: Any) -> None:
    """Every partition of the layers into four stages, priced: none below the promise."""
    p = problem(model, gpus=8, batch=64)
    base = Strategy(dp=2, pp=4, overlap_p2p=False)
    bound = promise(p, Strategies.of(base), CONSTANTS)
    cuts = [c for c in product(range(1, 8), repeat=3) if sorted(set(c)) == list(c)]
    ways = [tuple(b - a for a, b in pairwise((0, *c, 8))) for c in cuts]
    priced = price_strategies(p, [base.with_(stage_layers=way) for way in ways], CONSTANTS)
    assert min(row.step_time_s for row in priced) >= 0.995 * float(bound.step_time_s[0])
    even = even_stage_layers(p.model, p.workload.framework, 4, 1)
    assert even in ways


def test_a_round_of_long_chunks_is_counted() -> None:
    """Equal chunks: one over v; the longest round of chunks where they differ."""
    p = problem(dense(n_layers=10), gpus=2, batch=16)
    given = [(2, 2, 2, 2, 1, 1), (1, 1, 1, 1, 3, 3), None]
    s = Strategies.of(
        [Strategy(pp=2, vpp=3, schedule=Schedule.INTERLEAVED, stage_layers=g) for g in given]
    )
    work = step_work(p.model, p.cluster, p.workload, s)
    np.testing.assert_allclose(work.round_share, [0.4, 0.6, 0.4])

"""Priced strategies replayed: the closed forms hold within stated bounds."""

import json

import numpy as np
import pytest

from autopar.job.inputs import as_cluster, as_framework, as_model, as_workload, constants_for
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from search.replay.replay_step import StepReplay, replay_step
from search.rules import Problem


def replayed(strategy: Strategy, model: str = "70b", batch: int = 256) -> StepReplay:
    """One strategy on H100s."""
    spec, framework = as_model(model), as_framework("megatron-lm")
    cluster = as_cluster(None, "h100", strategy.world_size)
    workload = as_workload(spec, cluster, seq_len=4096, global_batch=batch, framework=framework)
    problem = Problem.of(spec, cluster, workload, "any")
    return replay_step(problem, strategy, constants_for(cluster, framework))


def piped(schedule: Schedule, pp: int, vpp: int = 1, dp: int = 4, **knobs: object) -> Strategy:
    """A tensor-parallel pipeline with its optimizer sharded."""
    return Strategy(
        dp=dp,
        tp=8,
        pp=pp,
        vpp=vpp,
        schedule=schedule,
        sequence_parallel=True,
        sharding=Sharding.ZERO1,
        dp_shard=dp,
    ).with_(**knobs)


CLOSE = [
    piped(Schedule._1F1B, 1),
    piped(Schedule._1F1B, 4),
    piped(Schedule._1F1B, 8, recompute=Recompute.FULL),
    piped(Schedule._1F1B, 8, stage_layers=(10, 10, 11, 11, 11, 10, 9, 8)),
    piped(Schedule.GPIPE, 4),
    piped(Schedule.INTERLEAVED, 4, 5),
    piped(Schedule.INTERLEAVED, 8, 10),
    piped(Schedule.INTERLEAVED, 8, 2, recompute=Recompute.FULL, recompute_layers=4),
    piped(Schedule.ZB_1P, 4),
    piped(Schedule.ZB_1P, 8),
    piped(Schedule.ZB_2P, 8),
]


@pytest.mark.parametrize("strategy", CLOSE, ids=[str(i) for i in range(len(CLOSE))])
def test_the_closed_form_is_within_two_percent(strategy: Strategy) -> None:
    """Step time within 2 %, and the fullest rank's memory within 3 %."""
    found = replayed(strategy)
    assert found.ratio == pytest.approx(1.0, abs=0.02)
    assert found.pipeline_s == pytest.approx(found.closed_pipeline_s, rel=0.02)
    peak = found.simulation.peak_bytes.max()
    assert peak == pytest.approx(found.priced.memory_bytes, rel=0.03)


@pytest.mark.parametrize(
    "strategy", [piped(Schedule.ZB_V, 8, 2), piped(Schedule.DUALPIPE, 8)], ids=["zb-v", "dualpipe"]
)
def test_folded_and_mirrored_pipelines_are_no_slower_than_said(strategy: Strategy) -> None:
    """Ranks hold two parts of the model each, and the closed form takes the slower for both."""
    found = replayed(strategy)
    assert 0.75 < found.ratio < 1.02


def test_uneven_chunks_cost_what_the_replay_says() -> None:
    """A long first round of chunks fills and drains slowly, and holds more at once."""
    long_first = piped(Schedule.INTERLEAVED, 8, 4, dp=8).with_(stage_layers=(4,) * 16 + (1,) * 16)
    found = replayed(long_first, batch=64)
    assert found.ratio == pytest.approx(1.0, abs=0.03)
    peak = found.simulation.peak_bytes.max()
    assert peak == pytest.approx(found.priced.memory_bytes, rel=0.06)


def test_mixtures_of_experts_are_replayed() -> None:
    """Dense layers first, multi-token prediction last, in 8 bits."""
    strategy = Strategy(
        dp=32, tp=2, pp=4, ep=8, sequence_parallel=True, precision=Precision.FP8, dp_shard=32,
        recompute=Recompute.FULL, sharding=Sharding.ZERO1,
    )  # fmt: skip
    assert replayed(strategy, "deepseek-v3", 512).ratio == pytest.approx(1.0, abs=0.03)


def test_chunks_add_up_to_their_rank() -> None:
    """Whatever the chunks, a rank works as long as the closed form's."""
    even = replayed(piped(Schedule.INTERLEAVED, 4, 5)).cost
    plain = replayed(piped(Schedule._1F1B, 4)).cost
    for name in ("backward_s", "weight_s"):
        chunks = np.bincount(even.rank, getattr(even, name))
        np.testing.assert_allclose(chunks, getattr(plain, name), rtol=0.02)


def test_a_trace_holds_every_operation() -> None:
    """As many slices as forwards and backwards, none of a negative length."""
    found = replayed(piped(Schedule._1F1B, 4), batch=32)
    rows = json.loads(json.dumps(found.simulation.trace()))["traceEvents"]
    slices = [row for row in rows if row["ph"] == "X" and row["cat"] in ("F", "BW")]
    assert len(slices) == 2 * 4 * found.cost.n_micro_batches
    assert min(row["dur"] for row in slices) > 0


def test_a_step_too_long_to_replay_is_refused() -> None:
    """Millions of operations would take minutes: the hint names the batch."""
    with pytest.raises(SpecError, match="operations") as refused:
        replayed(piped(Schedule._1F1B, 8, dp=1), batch=10**6)
    assert "--global-batch" in str(refused.value.hint)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    """Half a micro-batch is none."""
    with pytest.raises(SpecError, match="no whole number of micro-batches"):
        replayed(piped(Schedule._1F1B, 4, dp=3), batch=256)

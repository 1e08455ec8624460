"""The replay obeys the laws of any schedule, comes close to measured steps, and draws them."""

import itertools
import json
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Floats
from search.replay.schedules import Kind
from search.replay.simulate import Pipeline, Simulation, simulate

SECONDS = st.integers(1, 20).map(lambda tenths: tenths / 10)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """Any legal pipeline, its ranks and hops unequal."""
    schedule = draw(st.sampled_from(list(Schedule)))
    pp = draw(st.sampled_from([2, 4]) if schedule == Schedule.DUALPIPE else st.integers(1, 5))
    n_chunks = {Schedule.INTERLEAVED: draw(st.integers(1, 3)), Schedule.ZB_V: 2}.get(schedule, 1)
    m = draw(st.integers(1, 12))
    if schedule == Schedule.DUALPIPE:
        n_chunks, m = 2, 2 * (pp + m)
    elif schedule == Schedule.INTERLEAVED:
        m = pp * ((m + 3) // 4)

    def table(seconds: st.SearchStrategy[float]) -> list[list[float]]:
        return [[draw(seconds) for _ in range(n_chunks)] for _ in range(pp)]

    return Pipeline(
        schedule=schedule,
        n_micro_batches=m,
        pp=pp,
        n_chunks=n_chunks,
        forward_s=table(SECONDS),
        backward_input_s=table(SECONDS),
        backward_weight_s=table(SECONDS),
        exposed_forward_s=table(st.just(0.05)),
        p2p_s=[draw(st.floats(0, 0.5)) for _ in range(pp)],
        overlap_p2p=draw(st.booleans()),
        activation_bytes=table(st.integers(0, 9).map(float)),
    )


def bare_s(pipeline: Pipeline) -> Floats:
    """Each rank's work without exposed collectives."""
    passes = (pipeline.forward_s, pipeline.backward_input_s, pipeline.backward_weight_s)
    whole = sum(np.sum(seconds, axis=1) for seconds in passes) * pipeline.n_micro_batches
    share = 2 if pipeline.schedule == Schedule.DUALPIPE else 1
    return np.asarray(whole / share)


@given(pipelines())
def test_every_pass_runs_once_and_in_order(pipeline: Pipeline) -> None:
    """Each micro-batch meets each chunk with F, B and W, one after the other, never two at once."""
    step = simulate(pipeline)
    seen: Counter[tuple[int, int, int, Kind]] = Counter()
    for rank, events in itertools.groupby(step.events(), key=lambda event: event.rank):
        clock, done = 0.0, set()
        for event in events:
            assert event.start_s >= clock - 1e-9
            assert event.end_s >= event.start_s
            clock = event.end_s
            kinds = (Kind.B, Kind.W) if event.kind == Kind.BW else (event.kind,)
            for kind in kinds:
                key = (event.chunk, event.micro_batch)
                assert kind == Kind.F or (*key, Kind(kind - 1)) in done
                done.add((*key, kind))
                seen[(rank, *key, kind)] += 1
    copies = 1 if pipeline.schedule == Schedule.DUALPIPE else pipeline.n_chunks
    assert set(seen.values()) == {1}
    assert len(seen) == 3 * pipeline.pp * copies * pipeline.n_micro_batches


@given(pipelines())
def test_a_step_lasts_at_least_the_slowest_ranks_work(pipeline: Pipeline) -> None:
    """No schedule beats the busiest rank, and a synchronous one must also fill and drain."""
    step = simulate(pipeline)
    assert step.pipeline_s >= bare_s(pipeline).max() - 1e-9
    assert (step.busy_fraction <= 1 + 1e-9).all()
    assert step.step_time_s == pytest.approx(step.pipeline_s)
    if pipeline.schedule == Schedule._1F1B:
        forward_s = np.asarray(pipeline.forward_s)[:, 0]
        fill = np.cumsum(forward_s) - forward_s
        assert step.pipeline_s >= (bare_s(pipeline) + fill).max() - 1e-9


@given(pipelines())
def test_memory_returns_to_where_it_began(pipeline: Pipeline) -> None:
    """What F keeps, B and W give back; nothing is ever negative."""
    step = simulate(pipeline)
    for rank in range(pipeline.pp):
        _, held = step.memory(rank)
        assert held[-1] == pytest.approx(0)
        assert held.min() >= -1e-9
        assert step.peak_bytes[rank] == held.max()


@given(pipelines())
def test_stages_follow_each_other(pipeline: Pipeline) -> None:
    """No forward starts before the stage before it is done and the message is there."""
    if pipeline.n_chunks > 1:
        return
    step = simulate(pipeline)
    ends = {(e.rank, e.micro_batch): e.end_s for e in step.events() if e.kind == Kind.F}
    for event in step.events():
        if event.kind == Kind.F and event.rank > 0:
            hop_s = np.asarray(pipeline.p2p_s)[event.rank - 1]
            assert event.start_s >= ends[event.rank - 1, event.micro_batch] + hop_s - 1e-9


def small(**changes: object) -> Simulation:
    """Four ranks, eight micro-batches, one second for each pass."""
    values: dict[str, object] = {
        "schedule": Schedule._1F1B,
        "n_micro_batches": 8,
        "pp": 4,
        "forward_s": 1.0,
        "backward_input_s": 1.0,
        "backward_weight_s": 1.0,
    }
    return simulate(Pipeline(**{**values, **changes}))  # type: ignore[arg-type]


def test_static_memory_and_weight_gradients_count() -> None:
    """A rank holds its static bytes, and past B only what W needs."""
    step = small(schedule=Schedule.ZB_1P, activation_bytes=4.0, weight_grad_bytes=1.0)
    assert step.peak_bytes[0] == 16.0
    assert (step.peak_bytes[1:] <= 16.0).all()
    assert small(static_bytes=[5, 6, 7, 8]).peak_bytes.tolist() == [5, 6, 7, 8]


def test_the_optimizer_comes_last() -> None:
    """A barrier adds the slowest reduction and optimizer; without one each rank adds its own."""
    ends = {"grad_sync_s": [0.5, 0, 0, 0], "optimizer_s": [0, 0, 0, 2.0]}
    assert small(**ends).step_time_s == 33 + 0.5 + 2.0
    assert small(**ends, synchronized=False).step_time_s == 33 + 0.5


def test_first_and_last_stage_may_do_more() -> None:
    """The head at the last stage sets the pace and is paid per micro-batch."""
    step = simulate(
        Pipeline.of_stages(
            Schedule._1F1B,
            8,
            4,
            forward_s=1.0,
            backward_input_s=1.0,
            backward_weight_s=1.0,
            last=(0.5, 0.5, 0.5),
        )
    )
    assert step.busy_s.tolist() == [24.0, 24.0, 24.0, 36.0]
    assert step.pipeline_s == 8 * 4.5 + 3 * 3


def test_pairs_hide_exposed_collectives() -> None:
    """DualPipe's paired passes run at their compute time, the others pay."""
    exposed = {"schedule": Schedule.DUALPIPE, "n_chunks": 2, "exposed_forward_s": 0.5}
    assert small().pipeline_s < small(exposed_forward_s=0.5).pipeline_s
    saved = small(**exposed).busy_s
    assert (saved < 8 * 3.5).all()
    assert (saved > 8 * 3).all()


def test_the_trace_is_a_valid_chrome_trace() -> None:
    """Every slice is complete, lies inside the step, and none overlap on one track."""
    step = small(schedule=Schedule.ZB_1P, p2p_s=0.1, activation_bytes=1.0, exposed_backward_s=0.2)
    document = json.loads(json.dumps(step.trace()))
    slices = [row for row in document["traceEvents"] if row["ph"] == "X"]
    assert {row["cat"] for row in slices} == {"F", "B", "W", "comm", "p2p"}
    assert {row["ph"] for row in document["traceEvents"]} == {"X", "C", "M"}
    assert sum(row["cat"] == "p2p" for row in slices) == 2 * 3 * 8
    last = step.last_s.max() * 1e6
    tracks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for row in slices:
        assert 0 <= row["ts"] <= row["ts"] + row["dur"] <= last + 1e-3
        if row["cat"] != "comm":
            tracks.setdefault((row["pid"], row["tid"]), []).append((row["ts"], row["dur"]))
    assert {rank for rank, _ in tracks} == set(range(4))
    for spans in tracks.values():
        for (start, length), (then, _) in itertools.pairwise(sorted(spans)):
            assert start + length <= then + 1e-3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_micro_batches": 0}, r"pipeline\.n_micro_batches must be a whole number >= 1, got 0"),
        ({"n_micro_batches": 2.5}, r"n_micro_batches must be a whole number >= 1, got 2\.5"),
        ({"pp": 0}, r"pipeline\.pp must be a whole number >= 1, got 0"),
        ({"n_chunks": 2}, r"1f1b has 1 chunks on each rank, got 2"),
        ({"schedule": Schedule.ZB_V}, r"zb-v has 2 chunks on each rank, got 1"),
        (
            {"schedule": Schedule.INTERLEAVED, "n_chunks": 2, "n_micro_batches": 6},
            r"interleaved needs micro-batches in whole groups of pp = 4, got 6",
        ),
        (
            {"schedule": Schedule.DUALPIPE, "n_chunks": 2, "n_micro_batches": 6},
            r"dualpipe needs an even pp .* got pp = 4 and 6",
        ),
        ({"forward_s": -1.0}, r"pipeline\.forward_s must be finite and >= 0, got -1\.0"),
        ({"p2p_s": float("nan")}, r"pipeline\.p2p_s must be finite"),
        ({"forward_s": [1.0, 2.0, 3.0]}, r"pipeline\.forward_s must have shape \(4, 1\)"),
        ({"weight_grad_bytes": 1.0}, r"weight_grad_bytes must be part of activation_bytes"),
    ],
)
def test_impossible_pipelines_are_refused_by_name(changes: dict[str, object], message: str) -> None:
    """The message names the field, the bound and the value."""
    with pytest.raises(SpecError, match=message):
        small(**changes)


def test_large_pipelines_replay_in_seconds() -> None:
    """64 ranks, 512 micro-batches, 4 chunks: a quarter of a million passes."""
    begin = time.process_time()
    step = small(schedule=Schedule.INTERLEAVED, n_micro_batches=512, pp=64, n_chunks=4)
    assert step.pipeline_s == pytest.approx(12 * 512 + 63 * 3)
    assert time.process_time() - begin < 3

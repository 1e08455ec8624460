"""The closed forms equal the event-driven replay where they claim to, and bound it elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.equations.pipeline import in_flight, pipeline_s
from cost_models.specs.strategy import Schedule
from search.replay.schedules import n_stages
from search.replay.simulate import Pipeline, Simulation, simulate

CHUNKS = {Schedule.ZB_V: 2, Schedule.DUALPIPE: 2}
SECONDS = st.integers(1, 20).map(lambda tenths: tenths / 10)


def replay(
    schedule: Schedule,
    n_micro_batches: int,
    pp: int,
    work: tuple[float, float, float],
    *,
    vpp: int = 1,
    hop_s: float = 0.0,
    overlap_p2p: bool = True,
) -> Simulation:
    """One step of equal ranks, ``work`` being F, B and W of a whole rank."""
    n_chunks = CHUNKS.get(schedule, vpp)
    share = pp / n_stages(schedule, pp, n_chunks)
    return simulate(
        Pipeline(
            schedule=schedule,
            n_micro_batches=n_micro_batches,
            pp=pp,
            n_chunks=n_chunks,
            forward_s=work[0] * share,
            backward_input_s=work[1] * share,
            backward_weight_s=work[2] * share,
            p2p_s=hop_s,
            overlap_p2p=overlap_p2p,
            activation_bytes=share,
        )
    )


def closed(
    schedule: Schedule,
    n_micro_batches: int,
    pp: int,
    work: tuple[float, float, float],
    *,
    vpp: int = 1,
    hop_s: float = 0.0,
    overlap_p2p: bool = True,
) -> float:
    """The same step by the closed form."""
    total, _ = pipeline_s(
        schedule,
        n_micro_batches,
        pp,
        vpp,
        forward_s=work[0],
        backward_s=work[1],
        weight_s=work[2],
        all_stages_s=pp * sum(work),
        p2p_s=hop_s,
        overlap_p2p=overlap_p2p,
    )
    return float(total)


@pytest.mark.parametrize(
    ("schedule", "vpp", "bubble_s"),
    [
        (Schedule._1F1B, 1, 7 * (1 + 1.2 + 0.9)),
        (Schedule.GPIPE, 1, 7 * (1 + 1.2 + 0.9)),
        (Schedule.INTERLEAVED, 2, 7 * (1 + 1.2 + 0.9) / 2),
        (Schedule.INTERLEAVED, 4, 7 * (1 + 1.2 + 0.9) / 4),
        (Schedule.ZB_1P, 1, 7 * (1 + 1.2 - 0.9)),
        (Schedule.DUALPIPE, 2, 3 * (1 + 2 * 1.2 - 0.9)),
    ],
)
def test_the_papers_bubbles_are_what_the_replay_finds(
    schedule: Schedule, vpp: int, bubble_s: float
) -> None:
    """Each table's bubble, the closed form and the replay are one number."""
    work = (1.0, 1.2, 0.9)
    assert replay(schedule, 24, 8, work, vpp=vpp).pipeline_s - 24 * 3.1 == pytest.approx(bubble_s)
    assert closed(schedule, 24, 8, work, vpp=vpp) - 24 * 3.1 == pytest.approx(bubble_s)


@pytest.mark.parametrize("schedule", [Schedule.ZB_2P, Schedule.ZB_V])
@pytest.mark.parametrize("pp", [2, 4, 8])
def test_equal_passes_leave_no_bubble(schedule: Schedule, pp: int) -> None:
    """With F = B = W and 2p - 1 micro-batches, ZB-2p and ZB-V never idle."""
    for m in (2 * pp - 1, 4 * pp):
        assert replay(schedule, m, pp, (1.0, 1.0, 1.0)).pipeline_s == pytest.approx(3 * m)
        assert closed(schedule, m, pp, (1.0, 1.0, 1.0)) == pytest.approx(3 * m)


@given(
    st.sampled_from([Schedule._1F1B, Schedule.GPIPE, Schedule.INTERLEAVED]),
    st.integers(1, 5),
    st.integers(1, 6),
    st.integers(1, 4),
    st.tuples(SECONDS, SECONDS, SECONDS),
)
def test_equal_ranks_are_exact(
    schedule: Schedule, groups: int, pp: int, vpp: int, work: tuple[float, float, float]
) -> None:
    """(1) to (3) are the replay for any number of ranks, chunks and micro-batches."""
    vpp = vpp if schedule == Schedule.INTERLEAVED else 1
    m = groups * pp
    found = replay(schedule, m, pp, work, vpp=vpp).pipeline_s
    assert found == pytest.approx(closed(schedule, m, pp, work, vpp=vpp))


@given(st.integers(1, 24), st.integers(1, 6), SECONDS, SECONDS, st.floats(0.1, 1))
def test_zb_1p_is_exact_when_w_is_the_shortest(
    m: int, pp: int, forward_s: float, backward_s: float, share: float
) -> None:
    """(4) holds below p micro-batches too, where there are fewer W than gaps."""
    work = (forward_s, backward_s, share * min(forward_s, backward_s))
    found = replay(Schedule.ZB_1P, m, pp, work).pipeline_s
    assert found == pytest.approx(closed(Schedule.ZB_1P, m, pp, work))


@given(st.integers(1, 32), st.integers(2, 6), SECONDS, SECONDS, st.floats(0.1, 1))
def test_zb_2p_is_within_one_w_of_its_law(
    m: int, pp: int, forward_s: float, backward_s: float, share: float
) -> None:
    """The room for a 2p-th micro-batch saves up to one W more than (5) says."""
    work = (forward_s, backward_s, share * min(forward_s, backward_s))
    found = replay(Schedule.ZB_2P, m, pp, work).pipeline_s
    law = closed(Schedule.ZB_2P, m, pp, work)
    assert law - 1.01 * work[2] <= found <= law + max(abs(forward_s - backward_s), 1e-9) * pp


@given(st.integers(0, 12), st.sampled_from([2, 4, 6]), SECONDS, SECONDS, st.floats(0, 1))
def test_dualpipe_is_exact(
    more: int, pp: int, forward_s: float, backward_s: float, share: float
) -> None:
    """(7) holds wherever the schedule exists."""
    work = (forward_s, backward_s, share * min(forward_s, backward_s))
    m = 2 * (pp + more)
    found = replay(Schedule.DUALPIPE, m, pp, work).pipeline_s
    assert found == pytest.approx(closed(Schedule.DUALPIPE, m, pp, work))


@pytest.mark.parametrize("pp", [2, 3, 4, 8])
@pytest.mark.parametrize("overlap_p2p", [True, False])
@pytest.mark.parametrize(
    ("schedule", "vpp"),
    [
        (Schedule._1F1B, 1),
        (Schedule.GPIPE, 1),
        (Schedule.INTERLEAVED, 2),
        (Schedule.INTERLEAVED, 3),
    ],
)
def test_short_hops_are_exact(schedule: Schedule, vpp: int, pp: int, overlap_p2p: bool) -> None:
    """(8) to (10), and (15) where the sender waits."""
    for m in (pp, 2 * pp, 4 * pp):
        found = replay(
            schedule, m, pp, (1.0, 1.5, 0.5), vpp=vpp, hop_s=1e-3, overlap_p2p=overlap_p2p
        )
        law = closed(schedule, m, pp, (1.0, 1.5, 0.5), vpp=vpp, hop_s=1e-3, overlap_p2p=overlap_p2p)
        assert found.pipeline_s == pytest.approx(law, abs=1e-9)


@pytest.mark.parametrize("schedule", [Schedule.ZB_1P, Schedule.ZB_2P, Schedule.DUALPIPE])
@pytest.mark.parametrize("overlap_p2p", [True, False])
def test_hops_of_split_schedules_come_close(schedule: Schedule, overlap_p2p: bool) -> None:
    """(11), (12), (14) and (15) are within 2 % of the step for hops of 2 % of F."""
    for pp, m in ((2, 8), (4, 16), (8, 16), (8, 64)):
        work = (1.0, 1.0, 0.9)
        found = replay(schedule, m, pp, work, hop_s=0.02, overlap_p2p=overlap_p2p).pipeline_s
        law = closed(schedule, m, pp, work, hop_s=0.02, overlap_p2p=overlap_p2p)
        assert law == pytest.approx(found, rel=0.02)


@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.tuples(SECONDS, SECONDS, SECONDS))
@settings(max_examples=40)
def test_zb_v_is_within_its_stated_bound(m: int, pp: int, work: tuple[float, float, float]) -> None:
    """(6) is a fit: it misses by no more than one longest pass per rank."""
    found = replay(Schedule.ZB_V, m, pp, work).pipeline_s
    assert closed(Schedule.ZB_V, m, pp, work) == pytest.approx(found, abs=pp * max(work))


@given(st.lists(SECONDS, min_size=2, max_size=6), st.integers(1, 12))
def test_unequal_ranks_are_bounded(stages: list[float], m: int) -> None:
    """(1) is above the replay by no more than what the other ranks lack to the slowest."""
    pp, slowest = len(stages), max(stages)
    whole = np.array(stages)
    found = simulate(
        Pipeline.of_stages(
            Schedule._1F1B,
            m,
            pp,
            forward_s=whole / 3,
            backward_input_s=whole / 3,
            backward_weight_s=whole / 3,
        )
    ).pipeline_s
    law, _ = pipeline_s(
        Schedule._1F1B,
        m,
        pp,
        1,
        forward_s=slowest / 3,
        backward_s=slowest / 3,
        weight_s=slowest / 3,
        all_stages_s=whole.sum(),
    )
    lacking = (slowest - whole).sum()
    assert law - lacking - 1e-9 <= found <= law + 1e-9


@given(st.integers(2, 6), st.integers(0, 5), st.integers(6, 40), st.integers(1, 8))
def test_a_slower_rank_hides_the_steady_hops(pp: int, place: int, m: int, tenths: int) -> None:
    """One rank twice as slow as the others waits for hops only while the pipeline fills."""
    whole = np.ones(pp)
    whole[place % pp] = 2.0
    hop_s = tenths / 20
    third = whole / 3
    pipeline = Pipeline.of_stages(
        Schedule._1F1B,
        m,
        pp,
        forward_s=third,
        backward_input_s=third,
        backward_weight_s=third,
        p2p_s=hop_s,
    )
    found = simulate(pipeline).pipeline_s
    law, _ = pipeline_s(
        Schedule._1F1B,
        m,
        pp,
        1,
        forward_s=2.0 / 3,
        backward_s=2.0 / 3,
        weight_s=2.0 / 3,
        all_stages_s=whole.sum(),
        p2p_s=hop_s,
    )
    assert law - (pp - 1) - 1e-9 <= found <= law + 1e-9


@given(
    st.sampled_from(list(Schedule)),
    st.integers(1, 5),
    st.sampled_from([1, 2, 4, 6]),
    st.integers(1, 4),
)
def test_peak_memory_is_what_the_replay_holds(
    schedule: Schedule, groups: int, pp: int, vpp: int
) -> None:
    """``in_flight`` is the peak of every rank, for every schedule."""
    vpp = vpp if schedule == Schedule.INTERLEAVED else 1
    if schedule == Schedule.DUALPIPE:
        pp, groups = max(pp, 2), groups + 1
    m = groups * pp
    peak = replay(schedule, m, pp, (1.0, 1.0, 1.0), vpp=vpp).peak_bytes
    law = in_flight(schedule, m, pp, vpp, np.arange(pp))
    np.testing.assert_allclose(peak, law)


@pytest.mark.parametrize("schedule", list(Schedule))
def test_one_rank_has_no_bubble(schedule: Schedule) -> None:
    """There is nobody to wait for, and one micro-batch is held at a time."""
    assert closed(schedule, 5, 1, (1.0, 2.0, 1.0), hop_s=0.1) == 20.0
    assert in_flight(schedule, 5, 1, 1, 0) == 1.0


def test_more_micro_batches_lower_the_bubble_fraction() -> None:
    """The bubble is paid once a step, whatever the schedule."""
    m = 8 * np.arange(2, 20)
    for schedule in Schedule:
        total, bubble = pipeline_s(
            schedule, m, 8, 2, forward_s=1, backward_s=1.2, weight_s=0.8, all_stages_s=24.0
        )
        assert (np.diff(bubble / total) <= 1e-12).all()


def test_columns_of_schedules_broadcast() -> None:
    """A column of layouts against a row of schedules gives each pair its own law."""
    pp = np.array([[1], [4], [8]])
    codes = np.array([list(Schedule)])
    times = {"forward_s": 1.0, "backward_s": 1.1, "weight_s": 0.7}
    total, bubble = pipeline_s(codes, 32, pp, 2, **times, all_stages_s=2.8 * pp, p2p_s=0.01)
    held = in_flight(codes, 32, pp, 2, pp - 1)
    assert total.shape == bubble.shape == held.shape == (3, len(Schedule))
    for i, p in enumerate((1, 4, 8)):
        for j, schedule in enumerate(Schedule):
            alone, _ = pipeline_s(schedule, 32, p, 2, **times, all_stages_s=2.8 * p, p2p_s=0.01)
            assert total[i, j] == alone
            assert held[i, j] == in_flight(schedule, 32, p, 2, p - 1)

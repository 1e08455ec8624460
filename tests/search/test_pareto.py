"""What is beaten is what some other row beats, however the rows come in."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.specs.strategy import Strategies
from search.frontier.pareto import SLACK, Incumbents, near_pareto, pareto_mask

COSTS = st.lists(
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4)), min_size=1, max_size=40
)


def beaten(rows: Sequence[tuple[int, ...]], index: int) -> bool:
    """Some other row is as good in everything and better in one, or equal and earlier."""
    mine = rows[index]
    return any(
        all(a <= b for a, b in zip(other, mine, strict=True)) and (other != mine or place < index)
        for place, other in enumerate(rows)
        if place != index
    )


@settings(deadline=None, derandomize=True)
@given(COSTS)
def test_the_masks_are_brute_forces(rows: list[tuple[int, int, int]]) -> None:
    """Two objectives and three: a row stays when no other beats it, of equals the first."""
    pairs = [row[:2] for row in rows]
    memory, time, gpus = (np.array(column, dtype=float) for column in zip(*rows, strict=True))

    assert pareto_mask(memory, time).tolist() == [not beaten(pairs, i) for i in range(len(rows))]
    assert pareto_mask(memory, time, gpus).tolist() == [
        not beaten(rows, i) for i in range(len(rows))
    ]


@pytest.mark.parametrize("size", [3, 2000])
def test_a_staircase_holds_the_frontier_of_all_that_came(size: int) -> None:
    """Batch by batch or all at once, the same strategies are left."""
    random = np.random.default_rng(size)
    memory, time = random.random(size) + 0.1, random.random(size) + 0.1
    batch = Strategies(micro_batch_size=np.arange(1, size + 1)).flat()
    stairs = Incumbents()
    for part in np.array_split(np.arange(size), 3):
        stairs.add(memory[part], time[part], batch.take(part))
    expected = np.flatnonzero(pareto_mask(memory, time)) + 1

    assert sorted(stairs.strategies.micro_batch_size.tolist()) == expected.tolist()
    assert (np.flatnonzero(near_pareto(memory, time)) + 1).tolist() == expected.tolist()


def test_ties_within_the_slack_stay() -> None:
    """Equal memory and times that differ in the last digits are for the end to settle."""
    stairs = Incumbents()
    time = np.array([1.0, 1.0 + SLACK / 2, 1.0 + 3 * SLACK])
    stairs.add(np.ones(3), time, Strategies(micro_batch_size=[1, 2, 4]).flat())

    assert stairs.strategies.micro_batch_size.tolist() == [1, 2]
    assert not stairs.beats([1.0], [1.0 + SLACK / 2])[0]
    assert stairs.beats([1.0], [1.0 + 3 * SLACK])[0]
    assert not stairs.beats([0.9], [5.0])[0]

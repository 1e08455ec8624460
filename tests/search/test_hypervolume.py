"""The area under a frontier is what counting its cells says, and gains are differences of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.frontier.hypervolume import hypervolume, in_order_of_gain
from search.frontier.pareto import pareto_mask

POINTS = st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=1, max_size=12)
SIDE = 7
"""Of the square that is counted; some points lie outside."""


@settings(deadline=None, derandomize=True)
@given(POINTS)
def test_the_area_is_the_number_of_cells_that_some_point_dominates(
    points: list[tuple[int, int]],
) -> None:
    """Unit cells of the square, each asked of every point."""
    cells = sum(any(m <= x and t <= y for m, t in points) for x in range(SIDE) for y in range(SIDE))
    memory, seconds = (np.array(column, dtype=float) for column in zip(*points, strict=True))

    assert hypervolume(memory, seconds, (SIDE, SIDE)) == cells


def test_nothing_within_the_reference_is_no_area() -> None:
    """Too slow, too large, and not there at all."""
    assert hypervolume(np.array([1.0, 9.0]), np.array([9.0, 1.0]), (5.0, 5.0)) == 0.0
    assert hypervolume(np.zeros(0), np.zeros(0), (5.0, 5.0)) == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_each_time_the_row_that_adds_most_comes_next(seed: int) -> None:
    """The order is that of trying every row that is left, in memory and log time."""
    random = np.random.default_rng(seed)
    memory, seconds = random.random(40) + 0.1, random.random(40) + 0.1
    front = pareto_mask(memory, seconds)
    memory, seconds = memory[front], seconds[front]
    logs = np.log(seconds)
    reference = (2.0, float(logs.max() + 0.1 * np.ptp(logs)))

    def area(rows: list[int]) -> float:
        return hypervolume(memory[rows], logs[rows], reference)

    found = in_order_of_gain(memory, seconds, 2.0).tolist()

    assert sorted(found) == list(range(len(memory)))
    for place, row in enumerate(found):
        best = max(area([*found[:place], other]) for other in found[place:])
        assert area([*found[:place], row]) == pytest.approx(best)

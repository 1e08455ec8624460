"""Several numbers of GPUs are one search with a third axis."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from autopar.answers.sizes import Objective, search_sizes, sizes_between
from autopar.job.inputs import as_cluster
from autopar.job.job import Job
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from search.result import Priced, SearchResult

NARROW = {"tp": "1,2", "pp": "1,2"}


def priced_cluster(usd_per_hour: float | None = None) -> Cluster:
    """Sixteen H100 at this price."""
    cluster = as_cluster(None, "h100", 16)
    return replace(cluster, gpu=replace(cluster.gpu, price_usd_per_hour=usd_per_hour))


def searched(counts: Sequence[int], objective: Objective, usd: float | None = None) -> SearchResult:
    """8b on some numbers of GPUs."""
    cluster = replace(priced_cluster(usd), n_gpus=max(counts))
    job = Job.of("8b", cluster=cluster, fixed=NARROW)
    return search_sizes(job, counts, objective=objective)


def beats(one: Priced, other: Priced) -> bool:
    """No worse in memory, time and GPUs, and better in one."""
    mine = (one.memory_bytes, one.step_time_s, one.world_size)
    theirs = (other.memory_bytes, other.step_time_s, other.world_size)
    return mine != theirs and all(a <= b for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize(
    ("first", "last", "sizes"),
    [
        (256, 1024, [256, 384, 512, 768, 1024]),
        (7, 9, [7, 8, 9]),
        (100, 100, [100]),
        (1, 8, [1, 8]),
    ],
)
def test_a_range_holds_its_ends_and_whole_nodes(first: int, last: int, sizes: list[int]) -> None:
    """Nodes are doubled from one and from three."""
    assert sizes_between(first, last, 8) == sizes


def test_no_row_is_beaten_in_all_three() -> None:
    """Fewer GPUs are worth more time; the fewest come first."""
    frontier = searched([8, 16], "gpus").frontier
    assert {row.world_size for row in frontier} == {8, 16}
    assert [row.world_size for row in frontier] == sorted(row.world_size for row in frontier)
    assert not any(beats(one, other) for one in frontier for other in frontier)


def test_the_batch_is_the_same_on_every_size() -> None:
    """Half the GPUs take about twice the time, not half the batch."""
    result = searched([8, 16], "gpus")
    fastest = {
        n: min(row.step_time_s for row in result.frontier if row.world_size == n) for n in (8, 16)
    }
    assert 1.7 < fastest[8] / fastest[16] < 2.6


def test_counts_are_those_of_all_sizes() -> None:
    """The space of two searches is the sum of both."""
    both = searched([8, 16], "gpus").counts
    alone = [searched([n], "gpus").counts for n in (8, 16)]
    assert both.space == sum(counts.space for counts in alone)
    assert both.space - sum(both.pruned_by.values()) == both.fits


def test_dollars_follow_price_time_and_gpus() -> None:
    """A step's cost is what all GPUs cost while it lasts, and the cheapest is first."""
    frontier = searched([8, 16], "cost", usd=3.6).frontier
    for row in frontier:
        assert row.usd_per_step == pytest.approx(0.001 * row.world_size * row.step_time_s)
    dollars = [row.usd_per_step or 0.0 for row in frontier]
    assert dollars == sorted(dollars)


def test_cost_without_a_price_is_refused() -> None:
    """The hint says where a price belongs."""
    with pytest.raises(SpecError, match="no price is known for an hour of h100-sxm") as refused:
        searched([8], "cost")
    assert "price_usd_per_gpu_hour" in str(refused.value.hint)

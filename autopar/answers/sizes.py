"""One workload on several numbers of GPUs: the frontier gets a third axis."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

from autopar.api import search
from autopar.job.job import Job
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from search.frontier.pareto import pareto_mask
from search.result import Certificate, Counts, Priced, SearchResult

Objective = Literal["gpus", "cost"]
OBJECTIVES: tuple[Objective, ...] = ("gpus", "cost")
SECONDS_PER_HOUR = 3600.0


def sizes_between(first: int, last: int, gpus_per_node: int) -> list[int]:
    """The ends, and between them one, two, three, four, six, eight ... whole nodes.

    >>> sizes_between(256, 1024, 8)
    [256, 384, 512, 768, 1024]
    """
    doublings = range(last.bit_length())
    nodes = {times << power for times in (1, 3) for power in doublings}
    between = {gpus_per_node * n for n in nodes if first < gpus_per_node * n < last}
    return sorted({first, last} | between)


def search_sizes(
    job: Job,
    counts: Sequence[int],
    *,
    objective: Objective = "gpus",
    progress: Callable[[float], None] | None = None,
    **how: Any,
) -> SearchResult:
    """The frontier of memory, step time and GPUs, or dollars, over several sizes of a cluster.

    The batch is the job's on all of them.  ``how`` is to be searched as
    :func:`autopar.api.search` says.
    The result's cluster is the largest; every row says how many GPUs it uses.

    Raises
    ------
    SpecError
        For an objective of cost where a GPU has no price.
    """
    cluster = job.problem.cluster
    price = cluster.gpu.price_usd_per_hour
    if objective == "cost" and price is None:
        raise SpecError(
            f"no price is known for an hour of {cluster.gpu.name}",
            hint="put price_usd_per_gpu_hour into a file for --cluster",
        )
    results = []
    for index, count in enumerate(counts):
        part = _part_of(progress, index, len(counts))
        results.append(search(job.on(count), progress=part, **how))
    rows = [row for result in results for row in result.frontier]
    if price is not None:
        rows = [replace(row, usd_per_step=_usd(row, price)) for row in rows]
    return _merged(results, _frontier(rows, objective), cluster, max(counts))


def _part_of(
    progress: Callable[[float], None] | None, index: int, parts: int
) -> Callable[[float], None] | None:
    if progress is None:
        return None
    return lambda share: progress((index + share) / parts)


def _usd(row: Priced, price_usd_per_hour: float) -> float:
    return price_usd_per_hour * row.world_size * row.step_time_s / SECONDS_PER_HOUR


def _third(row: Priced, objective: Objective) -> float:
    return float(row.world_size if objective == "gpus" else row.usd_per_step or 0.0)


def _frontier(rows: list[Priced], objective: Objective) -> list[Priced]:
    """Rows that no other beats in all three, the least of the third axis first."""
    if not rows:
        return []
    columns = (
        [row.memory_bytes for row in rows],
        [row.step_time_s for row in rows],
        [_third(row, objective) for row in rows],
    )
    kept = [row for row, keep in zip(rows, pareto_mask(*columns), strict=True) if keep]
    return sorted(kept, key=lambda row: (_third(row, objective), row.step_time_s))


def _merged(
    results: list[SearchResult], frontier: list[Priced], cluster: Cluster, largest: int
) -> SearchResult:
    last = results[-1]
    methods = dict.fromkeys(result.certificate.method for result in results)
    return replace(
        last,
        cluster=replace(cluster, n_gpus=largest),
        frontier=frontier,
        counts=_sum([result.counts for result in results]),
        certificate=Certificate(
            complete=all(result.certificate.complete for result in results),
            method=" and ".join(methods),
            detail=f"{len(results)} numbers of GPUs, each searched by itself",
        ),
        explanation=None if frontier else last.explanation,
    )


def _sum(parts: Sequence[Counts]) -> Counts:
    """Counts of several searches together."""
    numbers: dict[str, Any] = {}
    for name in Counts.__dataclass_fields__:
        values = [getattr(part, name) for part in parts]
        if isinstance(values[0], dict):
            keys = dict.fromkeys(key for value in values for key in value)
            numbers[name] = {key: sum(value.get(key, 0) for value in values) for key in keys}
        else:
            numbers[name] = sum(values)
    return Counts(**numbers)

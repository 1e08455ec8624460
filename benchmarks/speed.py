"""How fast strategies are priced and questions answered; ``python -m benchmarks.speed``.

Three ways to price the same strategies by the same equations: one at a time, as rows of
a flat table, and as a grid whose axes broadcast.  Then the time to an exact frontier, a
fresh interpreter's start included, with the strategies decided per second.
"""

import json
import resource
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version
from time import perf_counter

import numpy as np

from autopar.inputs import as_cluster, as_model, as_precision, as_workload, constants_for
from cost_models.constants import Constants
from cost_models.step import step_cost
from cost_models.strategy import Strategies
from search.census import take_census
from search.knob_axes import grid
from search.rules import Problem
from search.space import Space

QUESTIONS = (
    ("70b", 512, "h100", 8192, 1024, "core"),
    ("70b", 512, "h100", 8192, 1024, "full"),
    ("405b", 16384, "h100", 8192, 2048, "core"),
    ("405b", 16384, "h100", 8192, 2048, "full"),
    ("deepseek-v3", 2048, "h800", 4096, 15360, "core"),
    ("deepseek-v3", 2048, "h800", 4096, 15360, "full"),
)
_ANSWER = """
import autopar, json, resource, sys
r = autopar.search({model!r}, {gpus}, gpu={gpu!r}, seq_len={length}, global_batch={batch},
                   space={space!r})
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([r.counts.space, r.counts.legal, r.counts.fits, r.counts.priced,
                  len(r.frontier), r.certificate.complete, peak]))
"""


@dataclass(frozen=True, slots=True)
class Rate:
    """Strategies priced per second on one core."""

    how: str
    strategies: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Strategies in one second."""
        return self.strategies / self.seconds


def _problem(model: str, gpus: int, gpu: str) -> Problem:
    spec, cluster = as_model(model), as_cluster(None, gpu, gpus)
    return Problem.of(spec, cluster, as_workload(spec, cluster))


def _seconds(problem: Problem, strategies: Strategies, constants: Constants) -> float:
    """The best of three."""
    times = []
    for _ in range(3):
        start = perf_counter()
        step_cost(
            problem.model,
            problem.cluster,
            problem.workload,
            strategies,
            constants,
            breakdown=False,
        )
        times.append(perf_counter() - start)
    return min(times)


def rates(model: str, gpus: int, gpu: str) -> list[Rate]:
    """One grid of the model's full space, priced in three ways."""
    problem = _problem(model, gpus, gpu)
    constants = constants_for(problem.cluster, problem.workload.framework)
    space = Space.full(problem, as_precision(None, problem.cluster))
    census = take_census(problem, space)
    whole = max(census.grids, key=lambda g: g.count())
    rows = max(1, 2_000_000 * len(whole.layouts) // int(np.prod(list(whole.sizes.values()))))
    part = whole.rows(slice(0, rows))
    box = grid(part.layouts, part.axes)
    flat = box.take(np.linspace(0, len(box) - 1, 65536).astype(np.int64))
    few = flat.take(np.arange(0, len(flat), 512))
    start = perf_counter()
    for index in range(len(few)):
        one = few.take(np.array([index]))
        step_cost(problem.model, problem.cluster, problem.workload, one, constants, breakdown=False)
    return [
        Rate("one at a time", len(few), perf_counter() - start),
        Rate("rows of a table", len(flat), _seconds(problem, flat, constants)),
        Rate("grid that broadcasts", len(box), _seconds(problem, box, constants)),
    ]


def _print_rates(model: str, gpus: int, gpu: str) -> None:
    print(f"\npricing {model} on {gpus} x {gpu}, one core")
    found = rates(model, gpus, gpu)
    for rate in found:
        ratio = rate.per_second / found[0].per_second
        print(
            f"  {rate.how:22}{rate.strategies:>10,} strategies"
            f"{rate.per_second:>14,.0f} /s{ratio:>10,.0f} x"
        )


def answer(question: tuple[str, int, str, int, int, str]) -> tuple[float, list[float]]:
    """Wall time of a fresh interpreter that answers, and what it counted."""
    names = ("model", "gpus", "gpu", "length", "batch", "space")
    code = _ANSWER.format(**dict(zip(names, question, strict=True)))
    start = perf_counter()
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return perf_counter() - start, json.loads(done.stdout)


def _print_answers() -> None:
    print("\ntime to the exact frontier, start-up included")
    print(
        f"  {'question':34}{'space':>10}{'legal':>16}{'fit':>16}{'priced':>9}"
        f"{'frontier':>9}{'seconds':>9}{'legal/s':>10}{'peak':>10}"
    )
    for question in QUESTIONS:
        model, gpus, gpu, _, _, space = question
        seconds, (raw, legal, fits, priced, rows, complete, peak) = answer(question)
        proved = "" if complete else " (not exact)"
        print(
            f"  {f'{model} {gpus} {gpu} {space}':34}{raw:>10.1e}{legal:>16,}{fits:>16,}"
            f"{priced:>9,}{rows:>9}{seconds:>9.2f}{legal / seconds:>10.1e}"
            f"{peak / 2**20:>6.0f} MiB{proved}"
        )


def main() -> None:
    """Print all tables."""
    print(f"python {sys.version.split()[0]}, numpy {version('numpy')}")
    _print_answers()  # first: a child's peak counts what its parent holds when it starts
    for question in (QUESTIONS[0], QUESTIONS[4]):
        _print_rates(*question[:3])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\npeak memory of this process: {peak / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()

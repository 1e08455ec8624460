"""What a search gets to see of an instance, and what is written down of it.

Every strategy whose step time a search learns is an evaluation, whether it fits or not and
whether it was asked for before or not.  Nothing else tells a search a step time.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.search_quality.instances import Instance
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Strategies, Strategy
from search.sweep.census import legal_of

MOST_AT_ONCE = 100_000
"""Strategies of a space that are priced before the searches begin."""
ALONE = 9
"""Strategies priced by themselves to know what one takes: the median."""


class Spent(Exception):  # noqa: N818  not an error: it ends a search
    """The budget of evaluations, or the time, is used up."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a search learns of one strategy."""

    memory_bytes: float
    step_time_s: float
    over_bytes: float
    """Bytes that are too many for the GPU; 0 or less where it fits."""

    @property
    def fits(self) -> bool:
        """The GPU has room for it."""
        return self.over_bytes <= 0


class Prices:
    """Costs of an instance's points, each with the seconds it took: shared by all its runs.

    In a small space all strategies are priced at once, which takes far less than one by one;
    what a search is charged for one of them is what one takes by itself.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._points: dict[tuple[tuple[str, int], ...], tuple[Cost, float]] = {}
        self._strategies: dict[Strategy, Cost] = {}
        self._each_s = 0.0
        if instance.census.legal <= MOST_AT_ONCE:
            self._price_all()

    def of(self, point: Mapping[str, int]) -> tuple[Cost, float]:
        """The cost, and the seconds of it that were not spent just now."""
        key = tuple(sorted(point.items()))
        if key in self._points:
            return self._points[key]
        start = perf_counter()
        strategy = self.instance.codec.strategy(point)
        saved_s = self._each_s if strategy in self._strategies else 0.0
        if strategy not in self._strategies:
            self._price(Strategies.of(strategy))
        cost = self._strategies[strategy]
        self._points[key] = cost, perf_counter() - start + saved_s
        return cost, saved_s

    def _price(self, strategies: Strategies) -> None:
        costs = zip(*(values.tolist() for values in self.instance.prices(strategies)), strict=True)
        for strategy, (memory, seconds) in zip(strategies.rows(), costs, strict=True):
            over = memory - self.instance.usable_bytes
            self._strategies[strategy] = Cost(memory, seconds, over)

    def _price_all(self) -> None:
        legal = legal_of(self.instance.census)
        times = []
        for row in range(min(ALONE, len(legal))):
            start = perf_counter()
            self.instance.prices(legal.take(np.array([row])))
            times.append(perf_counter() - start)
        self._each_s = median(times)
        self._price(legal)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One line of a run's trace."""

    cost: Cost
    at_s: float
    """Seconds since the search began."""


class Task:
    """The problem of one run: a box of whole numbers, every point of which is legal.

    ``box`` is the number of positions on every axis; :meth:`evaluate` takes a position for
    each, 0 to its size - 1 (what is left out is 0), and raises :class:`Spent` at the end.
    """

    def __init__(self, prices: Prices, budget: int, limit_s: float | None = None) -> None:
        self.instance = prices.instance
        self.budget = budget
        self.box = {axis.name: axis.size for axis in self.instance.codec.axes}
        self.trace: list[Evaluation] = []
        self._prices = prices
        self._limit_s = limit_s
        self._start = perf_counter()
        self._saved_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start; a price known from another run counts what it took there."""
        return perf_counter() - self._start + self._saved_s

    def charge(self, seconds: float) -> None:
        """Count what was worked out once for all runs."""
        self._saved_s += seconds

    def strategy(self, point: Mapping[str, int]) -> Strategy:
        """The legal strategy nearest to a point, which evaluating it would price."""
        self._require_known(point)
        return self.instance.codec.strategy(point)

    def _require_known(self, point: Mapping[str, int]) -> None:
        unknown = set(point) - set(self.box)
        if unknown:
            raise SpecError(f"no axis is called {', '.join(sorted(unknown))}")

    def evaluate(self, point: Mapping[str, int]) -> Cost:
        """Price the strategy of a point: one evaluation."""
        over_time = self._limit_s is not None and self.elapsed_s > self._limit_s
        if len(self.trace) >= self.budget or over_time:
            raise Spent
        self._require_known(point)
        cost, saved_s = self._prices.of(point)
        self._saved_s += saved_s
        self.trace.append(Evaluation(cost, self.elapsed_s))
        return cost

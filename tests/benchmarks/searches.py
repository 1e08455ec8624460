"""Searches as a user might write them, good ones and bad ones."""

import random
from typing import Any


def search(problem: Any, budget: int, seed: int) -> None:
    """Random points, each evaluated."""
    draw = random.Random(seed)  # noqa: S311
    for _ in range(budget):
        problem.evaluate({name: draw.randrange(size) for name, size in problem.box.items()})


class Asked:
    """The same the other way round; remembers what it was told."""

    told = 0

    def __init__(self, problem: Any, seed: int) -> None:
        self._box, self._draw = problem.box, random.Random(seed)  # noqa: S311

    def ask(self) -> dict[str, int]:
        """A random point."""
        return {name: self._draw.randrange(size) for name, size in self._box.items()}

    def tell(self, point: dict[str, int], memory_bytes: float, step_time_s: float) -> None:
        """Count what is told."""
        assert point
        assert memory_bytes > 0
        assert step_time_s > 0
        Asked.told += 1


def fails(problem: Any, budget: int, seed: int) -> None:
    """Divide by zero."""
    del problem, budget, seed
    _ = 1 / 0


def four(problem: Any, budget: int, seed: int, more: int) -> None:
    """Take one argument too many."""


def silent(problem: Any, seed: int) -> int:
    """Return what cannot be asked."""
    del problem
    return seed


def lost(problem: Any, budget: int, seed: int) -> None:
    """Name an axis that there is not."""
    del budget, seed
    problem.evaluate({"tensor": 1})


NUMBER = 3

"""A bar with the time left, on standard error, for what lasts longer than a second."""

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_S = 1.0
"""What is over by then needs no bar."""


class Bar:
    """Called with the share that is done, from 0 to 1; draws on terminals only."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start_s = time.monotonic()
        self._drawn: tuple[Progress, TaskID] | None = None
        self._silent = not sys.stderr.isatty()

    def __call__(self, share: float) -> None:
        """Move the bar; draw it where the patience is over."""
        if self._silent:
            return
        if self._drawn is None:
            if time.monotonic() - self._start_s < PATIENCE_S or share >= 1:
                return
            self._drawn = self._draw()
        bar, task = self._drawn
        bar.update(task, completed=share)

    def _draw(self) -> "tuple[Progress, TaskID]":
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
        task = bar.add_task(self._title, total=1.0)
        bar.start()
        return bar, task

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        if self._drawn is not None:
            self._drawn[0].stop()

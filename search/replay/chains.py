"""Who waits for whom in a pipeline, and the replay of fixed orders under those waits.

A micro-batch goes forward through S stages and backward through the same ones: a chain
of 2 * S positions, forward of stage s at position s, backward at 2 * S - 1 - s.  The
operation of micro-batch i at position q has the number q * m + i, so its input's maker
is always the number less m.  W stands outside: its number is past the chains'.

DualPipe runs a forward and a backward as a pair: neither starts before both inputs are
there, and both results leave at the end.  Each hides the other's collectives.
"""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from cost_models.specs.strategy import Schedule
from cost_models.specs.units import Floats, Ints
from search.replay.schedules import Kind, n_stages, stage_of


class Operations(NamedTuple):
    """The operations of one rank, one value each."""

    number: list[int]
    maker: list[int]
    """Number of the operation that makes the input; negative for none."""
    hop_s: list[float]
    """Travel of the input."""
    seconds: list[float]
    send_s: list[float]
    """How long the rank is held up by sending the result."""
    paired: list[bool]
    """The operation runs together with the next one: both inputs first, both results last."""


@dataclass(frozen=True)
class Chains:
    """Lengths of all operations and hops of one pipeline step."""

    schedule: Schedule
    n_micro_batches: int
    pp: int
    n_chunks: int
    seconds: Floats
    """Shape (kind, pp, chunks)."""
    position: Ints
    """Shape (kind, pp, chunks); W after all chains."""
    hop_s: Floats
    """Travel of the input of each, shape (kind, pp, chunks)."""
    out_s: Floats
    """Travel of the result."""
    overlap_p2p: bool
    """The sender does not wait for it."""
    hidden_s: Floats
    """What a pair hides of each operation, shape (kind, pp, chunks)."""

    @classmethod
    def of(
        cls,
        schedule: Schedule,
        n_micro_batches: int,
        pp: int,
        n_chunks: int,
        *,
        seconds: Floats,
        p2p_s: Floats,
        overlap_p2p: bool,
        hidden_s: Floats | float = 0.0,
    ) -> Self:
        """Chains of a schedule; ``p2p_s`` is per link, rank r to r + 1 and back."""
        stage = stage_of(schedule, pp, n_chunks)
        depth = n_stages(schedule, pp, n_chunks)
        down = _hops(schedule, pp, n_chunks, p2p_s)
        back = 2 * depth - 1 - stage
        position = np.stack([stage, back, 2 * depth + stage, back])
        into = np.where(stage > 0, down[0], 0.0)
        out = np.where(stage < depth - 1, down[1], 0.0)
        none = np.zeros_like(into)
        out_s = np.stack([out, into, none, into])
        hop_s = np.stack([into, out, none, out])
        hidden_s = np.broadcast_to(np.asarray(hidden_s, dtype=np.float64), seconds.shape)
        sizes = (schedule, n_micro_batches, pp, n_chunks)
        return cls(*sizes, seconds, position, hop_s, out_s, overlap_p2p, hidden_s)

    @property
    def depth(self) -> int:
        """Stages of one chain."""
        return n_stages(self.schedule, self.pp, self.n_chunks)

    def work(self, rank: int, order: Ints) -> Operations:
        """Look up each operation of a rank's order."""
        kind, chunk, micro_batch = order.T
        number = self.position[kind, rank, chunk] * self.n_micro_batches + micro_batch
        maker = np.where(kind == Kind.W, -1, number - self.n_micro_batches)
        paired = np.zeros(len(order), dtype=bool)
        if self.schedule == Schedule.DUALPIPE:
            paired[:-1] = (kind[:-1] == Kind.F) & (kind[1:] == Kind.BW)
        alone = ~(paired | np.roll(paired, 1))
        columns = (
            number,
            maker,
            self.hop_s[kind, rank, chunk],
            self.seconds[kind, rank, chunk]
            - np.where(alone, 0.0, self.hidden_s[kind, rank, chunk]),
            self.out_s[kind, rank, chunk] * (not self.overlap_p2p),
            paired,
        )
        return Operations(*(column.tolist() for column in columns))


def _hops(schedule: Schedule, pp: int, n_chunks: int, p2p_s: Floats) -> tuple[Floats, Floats]:
    """Travel into each chunk from the stage before it, and out to the stage after it."""
    rank = np.arange(pp)
    shape = (pp, n_chunks)
    before, after = p2p_s[(rank - 1) % pp], p2p_s
    if schedule not in (Schedule.ZB_V, Schedule.DUALPIPE):
        looped = np.zeros_like(p2p_s) if pp == 1 else 1.0
        return (
            np.broadcast_to((before * looped)[:, None], shape),
            np.broadcast_to((after * looped)[:, None], shape),
        )
    before = np.where(rank > 0, before, 0.0)
    after = np.where(rank < pp - 1, after, 0.0)
    return np.stack([before, after], axis=1), np.stack([after, before], axis=1)


def replay(chains: Chains, orders: list[Ints]) -> tuple[list[Floats], list[Floats]]:
    """Start and end of every operation, rank by rank."""
    work = [chains.work(rank, order) for rank, order in enumerate(orders)]
    end = [-1.0] * (3 * chains.depth * chains.n_micro_batches)
    clocks = [0.0] * chains.pp
    starts: list[list[float]] = [[] for _ in orders]
    waiting: dict[int, int] = {}
    ready = list(range(chains.pp))[::-1]
    while ready:
        rank = ready.pop()
        _advance(rank, work[rank], starts[rank], clocks, end, waiting, ready)
    if waiting:
        raise RuntimeError(f"{chains.schedule.label}: the orders wait for each other")
    start_s = [np.array(start) for start in starts]
    end_s = [s + np.array(w.seconds) for s, w in zip(start_s, work, strict=True)]
    return start_s, end_s


def _advance(
    rank: int,
    work: Operations,
    start: list[float],
    clocks: list[float],
    end: list[float],
    waiting: dict[int, int],
    ready: list[int],
) -> None:
    """Work through a rank's order until an input is missing."""
    clock = clocks[rank]
    numbers, makers, hops, seconds, sends, paired = work
    for i in range(len(start), len(numbers)):
        if paired[i]:
            maker = makers[i + 1]
            if end[maker] < 0:
                waiting[maker] = rank
                break
            clock = max(end[maker] + hops[i + 1], clock)
        maker = makers[i]
        if maker >= 0:
            arrival = end[maker]
            if arrival < 0:
                waiting[maker] = rank
                break
            arrival += hops[i]
            clock = max(arrival, clock)
        start.append(clock)
        number = numbers[i]
        clock += seconds[i]
        end[number] = clock + seconds[i + 1] if paired[i] else clock
        clock += sends[i]
        if number in waiting:
            ready.append(waiting.pop(number))
    clocks[rank] = clock

"""One operation of a replayed step."""

from typing import NamedTuple

from search.replay.schedules import Kind


class Event(NamedTuple):
    """One operation of one rank."""

    rank: int
    kind: Kind
    chunk: int
    micro_batch: int
    start_s: float
    end_s: float

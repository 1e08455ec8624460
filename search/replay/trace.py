"""A replayed step as a Chrome trace (the JSON that Perfetto and chrome://tracing open).

One process per rank with a track for what it computes and tracks for its messages;
times in microseconds.

References
----------
.. [1] Google, "Trace Event Format," 2016: phases X (complete), C (counter), M (metadata)
"""

from collections.abc import Iterable, Sequence
from typing import Any

from cost_models.specs.units import MICRO, Floats
from search.replay.chains import Chains
from search.replay.events import Event
from search.replay.schedules import Kind

Row = dict[str, Any]

COMPUTE = 0
"""Track of the operations; messages take the tracks above it."""


def chrome_trace(
    events: Iterable[Event],
    chains: Chains,
    *,
    exposed_s: Floats,
    memory: Sequence[tuple[Floats, Floats]],
) -> dict[str, Any]:
    """The ``traceEvents`` document; categories are F, B, W, BW, comm and p2p."""
    rows: list[Row] = []
    lanes: list[list[float]] = [[] for _ in range(chains.pp)]
    for event in events:
        rows += _operation(event, float(exposed_s[event.kind, event.rank, event.chunk]))
        travel_s = float(chains.out_s[event.kind, event.rank, event.chunk])
        if travel_s > 0:
            rows.append(_message(event, travel_s, lanes[event.rank]))
    for rank, (times, held) in enumerate(memory):
        rows.append(_name("process_name", rank, COMPUTE, f"rank {rank}"))
        rows.append(_name("thread_name", rank, COMPUTE, "compute"))
        rows += [_name("thread_name", rank, 1 + lane, "p2p") for lane in range(len(lanes[rank]))]
        if held.any():
            rows += [
                {"name": "memory", "ph": "C", "pid": rank, "ts": t / MICRO, "args": {"bytes": b}}
                for t, b in zip(times.tolist(), held.tolist(), strict=True)
            ]
    return {"traceEvents": rows, "displayTimeUnit": "ms"}


def _operation(event: Event, exposed_s: float) -> list[Row]:
    """An operation, and inside it the exposed collectives that end it."""
    rows = [_slice(event, event.kind.name, COMPUTE, event.start_s, event.end_s)]
    exposed_s = min(exposed_s, event.end_s - event.start_s)
    if exposed_s > 0 and event.kind != Kind.W:
        rows.append(_slice(event, "comm", COMPUTE, event.end_s - exposed_s, event.end_s))
    return rows


def _message(event: Event, travel_s: float, lanes: list[float]) -> Row:
    """The result on its way, on the first track that is free."""
    end_s = event.end_s + travel_s
    for lane, busy_until_s in enumerate(lanes):
        if busy_until_s <= event.end_s:
            lanes[lane] = end_s
            return _slice(event, "p2p", 1 + lane, event.end_s, end_s)
    lanes.append(end_s)
    return _slice(event, "p2p", len(lanes), event.end_s, end_s)


def _name(what: str, rank: int, track: int, name: str) -> Row:
    return {"name": what, "ph": "M", "pid": rank, "tid": track, "args": {"name": name}}


def _slice(event: Event, category: str, track: int, start_s: float, end_s: float) -> Row:
    """A complete event."""
    return {
        "name": f"{category} {event.kind.name}{event.micro_batch}"
        if track or category == "comm"
        else f"{category}{event.micro_batch}",
        "cat": category,
        "ph": "X",
        "pid": event.rank,
        "tid": track,
        "ts": start_s / MICRO,
        "dur": (end_s - start_s) / MICRO,
        "args": {"micro_batch": event.micro_batch, "chunk": event.chunk},
    }

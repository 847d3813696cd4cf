"""From the counters of a transport, read before and after, to its lane of the report.

Invariant: what is counted lies between the two readings, except `connect_…`, which lies before the first, and
`requests`, which are all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from .grounds import NOBODY
from .relay import Traffic
from .report import ComparedLane, DelayFigures
from .tally import Tally, percentile

__all__ = ["LaneCounters", "beyond_nobody", "compared_lane"]


@dataclass(frozen=True, slots=True)
class LaneCounters:
    """A transport's counters at one moment, `traffic.now`."""

    traffic: Traffic
    requests: int
    page_bytes: int


def compared_lane(
    transport: str,
    tally: Tally,
    readings: tuple[LaneCounters, LaneCounters, LaneCounters],
    numbers: range,
    published: int,
    *,
    ours: bool,
    cpu_seconds: float | None,
) -> ComparedLane:
    """Return a lane. `readings` are those once all were attached, before the first and after the last message.

    `numbers` are the messages that count, `published` how many of them were.
    """
    connected, before, after = readings
    began = before.traffic.now
    received = tally.received(numbers.start, numbers.stop)
    delays = sorted(delay for at, delay in zip(tally.arrived, tally.delays, strict=True) if at - delay >= began)
    state, reason = _state_of(tally, received, published)
    people = max(1, len(tally.seen))
    held = after.traffic.held_seconds - before.traffic.held_seconds
    return ComparedLane(
        transport=transport,
        state=state,
        reason=reason,
        listeners=tally.attached,
        expected=tally.attached * published,
        received=received,
        repeated=tally.repeated,
        gaps=tally.gaps,
        delay=_figures(delays),
        requests=after.requests,
        polls=after.requests - before.requests if transport.endswith("poll") else 0,
        page_bytes=after.page_bytes - before.page_bytes,
        empty_answers=sum(at >= began for at in tally.empty),
        bytes_up=after.traffic.up - before.traffic.up,
        bytes_down=after.traffic.down - before.traffic.down,
        connect_up=connected.traffic.up / people,
        connect_down=connected.traffic.down / people,
        ours=ours,
        cpu_seconds=cpu_seconds,
        held=held / max(after.traffic.now - began, 1e-9),
        reconnects=after.traffic.opened - before.traffic.opened,
    )


def beyond_nobody(before: Mapping[str, float], after: Mapping[str, float], name: str) -> float | None:
    """Return a server's seconds of CPU time beyond those of the server without listeners; None where unknown."""
    if not {name, NOBODY} <= before.keys() & after.keys():
        return None
    return (after[name] - before[name]) - (after[NOBODY] - before[NOBODY])


def _state_of(tally: Tally, received: int, published: int) -> tuple[Literal["measured", "blocked", "silent"], str]:
    """Return a lane's state and its reason."""
    if not tally.attached:
        return "blocked", tally.reason or "the server has not answered"
    if not received and published:
        held_back = "the connection was accepted, but nothing came through: a proxy may hold the stream back"
        return "silent", tally.reason or held_back
    return "measured", tally.reason if tally.broken or tally.refused else ""


def _figures(delays: Sequence[float]) -> DelayFigures | None:
    if not delays:
        return None
    return DelayFigures(percentile(delays, 50), percentile(delays, 99), delays[-1], sum(delays) / len(delays))

"""What a comparison has found: values that are printed, drawn and written as JSON.

Seconds, bytes and counts throughout. To add a figure, add a field, set it in `measurement.py`, and show it in
`table.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import msgspec

__all__ = ["ORDER", "TITLES", "ComparedLane", "ComparisonReport", "DelayFigures", "Equivalent", "LaneMarks", "Verdict"]

ORDER = ("short-poll", "long-poll", "sse", "websocket")
TITLES = {"short-poll": "short poll", "long-poll": "long poll", "sse": "SSE", "websocket": "WebSocket"}


class DelayFigures(msgspec.Struct, frozen=True):
    """Delays from publish to arrival, in seconds."""

    p50: float
    p99: float
    max: float
    mean: float


class ComparedLane(msgspec.Struct, frozen=True, kw_only=True):
    """One transport. Counts are of all its listeners, in the time that is measured.

    `state` is `measured`; `blocked` where no listener was attached; `silent` where they were, and nothing arrived.
    `reason` says why. `requests` are all, those to connect too; `polls` are those in the time that is measured.
    `page_bytes` are what the messages themselves took in the answers to polls; `connect_up` and `connect_down` what one
    listener needed to be attached, before that time. `ours` says whether the server
    is a process of the comparison, `cpu_seconds` is the server's CPU time beyond that of the server
    without listeners, None where it is not known. `held` is the number of open connections on average.
    """

    transport: str
    state: Literal["measured", "blocked", "silent"]
    reason: str = ""
    listeners: int = 0
    expected: int = 0
    received: int = 0
    repeated: int = 0
    gaps: int = 0
    delay: DelayFigures | None = None
    requests: int = 0
    polls: int = 0
    empty_answers: int = 0
    page_bytes: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    connect_up: float = 0.0
    connect_down: float = 0.0
    ours: bool = False
    cpu_seconds: float | None = None
    held: float = 0.0
    reconnects: int = 0

    def a_message(self, value: float | None) -> float | None:
        """Return a value for each message that arrived; None where none has."""
        return value / self.received if value is not None and self.received else None

    @property
    def bytes_a_message(self) -> float:
        """Bytes in both directions for each message; infinite where none has arrived."""
        return (self.bytes_up + self.bytes_down) / self.received if self.received else math.inf


class Equivalent(msgspec.Struct, frozen=True):
    """The seconds between short polls that would cost as much as a WebSocket; None where no interval is that cheap.

    `cpu` is None too where the CPU time is not known, or too little to divide by.
    """

    bytes: float | None = None
    cpu: float | None = None


class Verdict(msgspec.Struct, frozen=True):
    """The transport to take (None where none works), and why, in sentences."""

    transport: str | None
    sentences: Sequence[str]


class ComparisonReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole comparison. `late` is the longest that a publish came after its moment; `ended` why it was cut short."""

    schedule: str
    describes: str
    server: str
    seconds: float
    listeners: int
    size: int
    poll_interval: float
    rtt_ms: float
    through: str = ""
    published: int = 0
    unpublished: int = 0
    publish_failure: str = ""
    late: float = 0.0
    ended: str = ""
    cpu_of_all: float | None = None  # of a server that serves all transports, where it says so
    lanes: Sequence[ComparedLane] = ()
    equivalent: Equivalent = Equivalent()
    verdict: Verdict = Verdict(None, ())

    def lane(self, transport: str) -> ComparedLane:
        """Return a transport's lane."""
        return next(lane for lane in self.lanes if lane.transport == transport)


class LaneMarks(msgspec.Struct, frozen=True):
    """For a picture: when messages arrived and after which delay, and when polls were answered with nothing."""

    arrivals: Sequence[tuple[float, float]]
    empty: Sequence[float]

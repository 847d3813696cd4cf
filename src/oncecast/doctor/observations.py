"""What the probes have seen, as plain values. Invariant: nothing here judges, and times are seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["EventDelays", "Handshake", "HttpAnswer", "Quiet", "Reading", "Streamed"]


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer over HTTP. `status` is 0 where none came, and `trouble` says why.

    `headers` has lower-case names. `code` and `message` are those of an error of Oncecast, "" where it is none. `sent`
    and `came` are Unix seconds.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    code: str = ""
    message: str = ""
    trouble: str = ""
    sent: float = 0.0
    came: float = 0.0


@dataclass(frozen=True, slots=True)
class Handshake:
    """An attempt to open a WebSocket. `answer` is what came in place of a 101; `spoke`: a frame came back."""

    opened: bool
    spoke: bool = False
    answer: HttpAnswer = HttpAnswer()


@dataclass(frozen=True, slots=True)
class Streamed:
    """The beginning of a stream. `began` is after how long its first event came, None where none did in time."""

    answer: HttpAnswer
    began: float | None = None


@dataclass(frozen=True, slots=True)
class EventDelays:
    """How long after its publish was acknowledged each event came on a stream; None for one that did not come."""

    seconds: tuple[float | None, ...] = ()
    refused: str = ""  # why nothing could be published


@dataclass(frozen=True, slots=True)
class Quiet:
    """A connection on which nothing was said. `lasted` is how long, `end` how it ended, "" where it did not."""

    transport: str
    lasted: float
    end: str = ""


@dataclass(frozen=True, slots=True)
class Reading:
    """A poll on a connection of its own: its cursor, and whether it has the message that was published."""

    cursor: str
    has_it: bool | None = None

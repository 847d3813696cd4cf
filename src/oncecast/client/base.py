"""The client's contract: what a transport is given, what it yields, how it ends.

A transport is a function from *a start for each channel* to an async iterator of events. It keeps nothing: when it
breaks, the next one, of the same kind or another, is given the starts that follow from the events so far. It ends by
raising `Broken` (resume later) or `Refused` (do not), never by returning.

To add a transport, write a module with such a function, and name it in `transports.TRANSPORTS`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..message import Cursor
from .failures import Refused
from .reading import parse_cursor
from .values import ClientMessage, Gap

__all__ = [
    "Adjustable",
    "Authorize",
    "ChannelRefused",
    "CursorMoved",
    "Expiring",
    "Received",
    "Renewable",
    "RetryHint",
    "StartQuery",
    "Transport",
    "TransportEvent",
    "anonymous",
    "common_start",
]


@dataclass(frozen=True, slots=True)
class Received:
    """A message has arrived; its channel's place is now right after it."""

    message: ClientMessage


@dataclass(frozen=True, slots=True)
class CursorMoved:
    """The place of one channel, or of all where `channel` is None, is now `cursor`; no message goes with it."""

    cursor: str
    channel: str | None = None


@dataclass(frozen=True, slots=True)
class RetryHint:
    """The server asks to stay away for `seconds` once this connection has ended."""

    seconds: float


@dataclass(frozen=True, slots=True)
class ChannelRefused:
    """The server refuses this channel, for good; the connection and its other channels live on."""

    channel: str
    error: Refused


@dataclass(frozen=True, slots=True)
class Expiring:
    """The token ends soon."""


TransportEvent = Received | Gap | CursorMoved | RetryHint | ChannelRefused | Expiring


@dataclass(frozen=True, slots=True)
class StartQuery:
    """Where to read a channel from, a field of a query: `after` (a cursor, `latest`, `earliest`), `last`, `since`."""

    name: str
    value: str

    @property
    def cursor(self) -> Cursor | None:
        """The cursor, where it is one that can be compared."""
        return parse_cursor(self.value) if self.name == "after" else None


Authorize = Callable[[], Awaitable[Sequence[tuple[str, str]]]]  # the headers that identify the client


async def anonymous() -> Sequence[tuple[str, str]]:
    """Return no headers: the request has no identity."""
    return ()


class Transport(Protocol):
    """One way to listen: yields events from `starts` on, until it raises `Broken` or `Refused`."""

    def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Connect and attach each channel at its start."""
        ...


@runtime_checkable
class Adjustable(Protocol):
    """A transport that can change its channels while it listens; any other is called again."""

    async def adjust(self, join: Mapping[str, StartQuery], leave: Collection[str]) -> None:
        """Leave channels, then attach others; one that is in both is attached again. Never raises `Broken`."""
        ...


@runtime_checkable
class Renewable(Protocol):
    """A transport that can take another token while it listens; any other is called again."""

    async def renew(self) -> None:
        """Send the token of now. Never raises `Broken`."""
        ...


def common_start(starts: Mapping[str, StartQuery]) -> StartQuery:
    """Return one start from which no channel misses anything; what a channel has had already is dropped as a repeat.

    `starts` is in the order in which the places last moved, so where epochs differ the first is of the oldest.
    """
    distinct = set(starts.values())
    if len(distinct) == 1:
        return distinct.pop()
    for start in distinct:
        if start.value == "earliest" or start.name == "since":
            return start  # the others began there too, and have moved on
    cursors = [cursor for start in starts.values() if (cursor := start.cursor)]
    if not cursors:
        return next(iter(starts.values()))
    oldest = min((c for c in cursors if c.epoch == cursors[0].epoch), key=lambda c: c.seq)
    return StartQuery("after", str(oldest))

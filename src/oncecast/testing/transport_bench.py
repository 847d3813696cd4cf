"""The tools of a transport's checks: a server of its own, and calls to publish to it and to listen by one transport.

A bench owns the server, its clock and its subscribers, and ends them in `close`. Invariant: the log's messages are
numbered from 1, and `bench.at(n)` is the cursor right after message n, so that a check can compare exactly.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ..brokers.base import Outcome
from ..brokers.memory import MemoryBroker
from ..core.node import Node
from ..errors import OncecastError
from ..message import Draft, Kind
from ..server.server import Server
from ..server.settings import Settings
from .pipe import FaultyPipe
from .subscriber import GapSeen, MessageSeen, Subscriber

__all__ = ["EPOCH", "Heard", "Serve", "Served", "TransportBench", "TransportFailed", "expect", "serve"]

EPOCH = "life1"
BEGAN = 1_764_000_000.0  # Unix seconds of the first message
REAL = 0.01  # of a second, for each second that a check lets pass where the broker has a clock of its own


class TransportFailed(OncecastError):
    """A transport breaks its contract. The text is the clause, and what the check has seen instead."""


class Served(Protocol):
    """A running server."""

    @property
    def port(self) -> int:
        """The port that it listens on, at 127.0.0.1."""
        ...

    @property
    def node(self) -> Node:
        """The node to publish to."""
        ...

    async def stop(self, seconds: float, /) -> None:
        """Stop within `seconds`."""
        ...


Serve = Callable[[Settings, MemoryBroker], Awaitable[Served]]


async def serve(settings: Settings, broker: MemoryBroker) -> Served:
    """Start our own server."""
    server = Server(settings, broker=broker)
    await server.start()
    return server


@dataclass(slots=True)
class Heard:
    """The items that a subscriber has received, in order, by kind."""

    messages: list[MessageSeen] = field(default_factory=list)
    gaps: list[GapSeen] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)

    @property
    def data(self) -> list[object]:
        """The messages' data."""
        return [message.data for message in self.messages]


class TransportBench:
    """One server and the subscribers of one kind. `own_clock`: the broker's clock is that of this machine."""

    def __init__(self, kind: type[Subscriber], start: Serve = serve, *, own_clock: bool = False) -> None:
        self.kind = kind
        self.wall = BEGAN
        self.published: list[Draft] = []
        self.second = REAL if own_clock else 1.0  # what a second of `pass_time` is on the broker's clock
        self._own_clock = own_clock
        self._start = start
        self._served: Served | None = None
        self._subscribers: list[Subscriber] = []
        self._unanswered = 0
        self._answered = asyncio.Event()

    async def serve(self, settings: Settings | None = None) -> None:
        """Start the server. The bench sets `host` and `port` of the settings."""
        self._served = await self._start(settings or Settings(port=0), MemoryBroker(EPOCH, lambda: self.wall))

    async def close(self) -> None:
        """Stop everything."""
        for subscriber in self._subscribers:
            subscriber.cut()
        if self._served is not None:
            await self._served.stop(0.1)

    def now(self) -> float:
        """Return the broker's time: Unix seconds, in whole milliseconds, as those of messages."""
        return math.floor(time.time() * 1000) / 1000 if self._own_clock else self.wall

    async def pass_time(self, seconds: float) -> None:
        """Let time pass on the broker's clock: `seconds` times `second`."""
        if self._own_clock:
            await asyncio.sleep(seconds * self.second)
        else:
            self.wall += seconds

    @property
    def served(self) -> Served:
        """The server."""
        assert self._served is not None
        return self._served

    @staticmethod
    def at(seq: int) -> str:
        """Return the cursor right after message number `seq`."""
        return f"{EPOCH}-{seq}"

    def publish(self, *drafts: Draft) -> None:
        """Publish the drafts in one batch."""

        def done(outcomes: Sequence[Outcome]) -> None:
            self._unanswered -= 1
            self._answered.set()
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise outcome

        self.published.extend(drafts)
        self._unanswered += 1
        self.served.node.publish(drafts, done)

    async def acknowledged(self) -> None:
        """Wait until every publish is answered: a broker on another machine answers later."""
        while self._unanswered:
            self._answered.clear()
            await self._answered.wait()

    def publish_numbers(self, count: int, channel: str = "c") -> None:
        """Publish `count` messages whose data is their number."""
        first = len(self.published) + 1
        self.publish(*(Draft(channel, str(n).encode(), Kind.JSON) for n in range(first, first + count)))

    def subscriber(
        self,
        *channels: str,
        start: str = "after=earliest",
        extra: str = "",
        port: int | None = None,
        receive_buffer: int | None = None,
    ) -> Subscriber:
        """Return an unconnected subscriber, of channel `c` by default."""
        made = self.kind(
            port or self.served.port,
            channels or ("c",),
            start=start,
            extra=extra,
            receive_buffer=receive_buffer,
        )
        self._subscribers.append(made)
        return made

    def pipe(self) -> FaultyPipe:
        """Return a pipe to the server, as a context manager. It has no faults until its `plan` is set."""
        return FaultyPipe(("127.0.0.1", self.served.port))

    def shown(self, subscriber: Subscriber, first: int, last: int | None = None) -> list[object]:
        """Return the data of the messages `first` to `last`, as this subscriber shows it."""
        return [subscriber.shows(draft) for draft in self.published[first - 1 : last]]

    async def listen(self, subscriber: Subscriber, messages: int = 0, *, gaps: int = 0, cursors: int = 0) -> Heard:
        """Receive until there are that number of messages, gaps and cursors. Connects first if needed."""
        heard = Heard()
        await self.acknowledged()
        while len(heard.messages) < messages or len(heard.gaps) < gaps or len(heard.cursors) < cursors:
            if not subscriber.connected:
                await subscriber.connect()
            await self.hear(subscriber, heard)
        return heard

    @staticmethod
    async def hear(subscriber: Subscriber, heard: Heard) -> None:
        """Receive once, and add the items."""
        for seen in await subscriber.receive():
            match seen:
                case MessageSeen():
                    heard.messages.append(seen)
                case GapSeen():
                    heard.gaps.append(seen)
                case _:
                    heard.cursors.append(seen.cursor)

    async def attach(self, subscriber: Subscriber) -> None:
        """Connect, and wait until the subscriber has a cursor, so that it misses no later message."""
        await self.acknowledged()
        await subscriber.connect()
        if subscriber.resumes:
            while any(channel not in subscriber.cursors for channel in subscriber.channels):
                await subscriber.receive()


def expect(expected: object, actual: object, clause: str) -> None:
    """Raise `TransportFailed` unless they are equal."""
    if expected != actual:
        raise TransportFailed(f"{clause}\n  expected {_short(expected)}\n  actual   {_short(actual)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:400]} … {text[-200:]}"

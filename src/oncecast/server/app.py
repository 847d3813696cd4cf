"""What all connections of one server share: the node, the limits, the clock, the wheel, and who is connected."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..core.node import Node
from ..errors import Refusal
from ..policy.origin import Origins
from ..protocol.base import Settings as TransportSettings
from ..wire import http1
from .memo import Memo
from .process.drain import Drain
from .wheel import Item, Wheel

logger = logging.getLogger("oncecast.server")

READ_BYTES = 32 << 10  # of one connection in a turn of the loop. The dearest byte is one of a publish in a frame of
# seven, at about 1 µs: such a read holds the loop for 30 ms.
REMIND_SECONDS = 60.0  # a server at its ceiling says so this often, not for each connection it turns away


# Calls back, within a few seconds, with the metrics of all workers. None where there is only this process.
Collect = Callable[[Callable[[bytes], None]], None]


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a connection may take, in seconds."""

    head: float = 10.0
    body: float = 30.0
    keep_alive: float = 75.0
    answer: float = 30.0  # in which a client must take some of an answer that does not fit into its socket


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the settings a connection is held to. `ceiling` is how many there may be."""

    limits: http1.Limits
    deadlines: Deadlines
    settings: TransportSettings
    origins: Origins
    ceiling: int


@dataclass(frozen=True, slots=True)
class Page:
    """A file that is served as it is, or as `gzipped` to who takes that; b"" where compressing it gains nothing."""

    content_type: str
    body: bytes
    etag: str
    gzipped: bytes = b""


@dataclass(slots=True)
class Counters:
    """What the connections have done since the server began."""

    connections: int = 0
    requests: Counter[int] = field(default_factory=Counter)  # by status
    publishes: int = 0
    turned_away: int = 0


class Peer(Item, Protocol):
    """A connection, as the server as a whole sees it."""

    def expired(self, now: float, /) -> None:
        """Its deadline has come."""
        ...

    def drain(self) -> None:
        """The server is stopping: end what is idle, say goodbye on a stream."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class App:
    """One server in one process. `scheme` is what its own pages are reached by: `http` or `https`."""

    def __init__(
        self,
        node: Node,
        *,
        rules: Rules,
        pages: Mapping[str, Page],
        monotonic: Callable[[], float],
        wall: Callable[[], float] = time.time,
        scheme: str = "http",
    ) -> None:
        self.node = node
        self.adopt(rules)
        self.pages = pages
        self.monotonic = monotonic
        self.wall = wall
        self.scheme = scheme
        self.ready = True  # until the server begins to stop
        self.leaving: Drain[Peer] | None = None  # who is still to be told that the server stops, once it does
        self.counters = Counters()
        self.wheel: Wheel[Peer] = Wheel(monotonic())
        self.connections: set[Peer] = set()
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.when_empty: Callable[[], None] | None = None
        self.collect: Collect | None = None
        self._reminded = -REMIND_SECONDS
        self.second = 0
        self.date = b""  # of an answer made now (RFC 9110 §6.6.1)
        self._read_clock()

    def adopt(self, rules: Rules) -> None:
        """Let these rules hold for whatever begins from now on."""
        self.limits = rules.limits
        self.deadlines = rules.deadlines
        self.settings = rules.settings
        self.origins = rules.origins
        self.ceiling = rules.ceiling
        self.memo = Memo()  # what a poll may have could be another now

    def leave(self, per_second: float) -> Drain[Peer]:
        """Begin to stop: tell so many connections a second that they are to go. The first ones are told now."""
        self.ready = False
        if self.leaving is None:
            now = self.monotonic()
            self.leaving = Drain(self.connections, per_second, now)
            self._let_go(self.leaving, now)
        return self.leaving

    def told(self, connection: Peer) -> bool:
        """Whether a connection's moment to go has come already."""
        return self.leaving is not None and connection not in self.leaving

    def admit(self, connection: Peer) -> Refusal | None:
        """Count a new connection in, or say why it can't be."""
        self.connections.add(connection)
        self.counters.connections += 1
        if self.leaving is not None:  # it was accepted just before the server began to stop
            self.leaving.add(connection)
        if len(self.connections) <= self.ceiling:
            return None
        self.counters.turned_away += 1
        now = self.monotonic()
        if now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            logger.warning(
                "%d connections are open, the most that this process may hold: more are answered with 503. "
                "Raise the limit of open files (ulimit -n) or limits.connections.",
                self.ceiling,
            )
        return Refusal("unavailable", "The server holds as many connections as it can: try again soon.", retry_after=5)

    def dismiss(self, connection: Peer) -> None:
        """Count a connection out."""
        self.wheel.clear(connection)
        self.connections.discard(connection)
        if self.leaving is not None:
            self.leaving.discard(connection)
        if not self.connections and self.when_empty is not None:
            self.when_empty()

    def tick(self) -> None:
        """Wake every connection whose deadline or moment has come. Call it every `wheel.RESOLUTION` seconds."""
        self._read_clock()
        now = self.monotonic()
        for connection in self.wheel.expire(now):
            try:
                connection.expired(now)
            except Exception:
                logger.exception("a connection failed at its deadline")
                connection.abort()
        if self.leaving is not None:
            self._let_go(self.leaving, now)

    def _let_go(self, leaving: Drain[Peer], now: float) -> None:
        for connection in leaving.due(now):
            try:
                connection.drain()
            except Exception:
                logger.exception("a connection failed at its goodbye")
                connection.abort()

    def _read_clock(self) -> None:
        second = int(self.wall())
        if second != self.second:
            self.second = second
            self.date = http1.http_date(second)

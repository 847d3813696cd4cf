"""What all connections of one server share: the service that answers them, the clock, the wheel, and their set."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from ..core.node import Node
from ..errors import Refusal
from ..http.service import Asset, Collect, Rules, Service
from .process.drain import Drain
from .wheel import Item, Wheel

logger = logging.getLogger("oncecast.server")

READ_BYTES = 32 << 10  # of one connection in a turn of the loop. The dearest byte is one of a publish in a frame of
# seven, at about 1 µs: such a read holds the loop for 30 ms.
REMIND_SECONDS = 60.0  # a server at its ceiling says so this often, not for each connection it turns away


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


class App(Service):
    """One server in one process: a `Service`, and the connections that use it. `monotonic` returns seconds."""

    def __init__(
        self,
        node: Node,
        *,
        rules: Rules,
        pages: Mapping[str, Asset],
        monotonic: Callable[[], float],
        wall: Callable[[], float] = time.time,
        scheme: str = "http",
        collect: Collect | None = None,
    ) -> None:
        super().__init__(node, rules=rules, pages=pages, wall=wall, scheme=scheme, collect=collect)
        self.monotonic = monotonic
        self.leaving: Drain[Peer] | None = None  # who is still to be told that the server stops, once it does
        self.wheel: Wheel[Peer] = Wheel(monotonic())
        self.connections: set[Peer] = set()
        self.read_buffer = memoryview(bytearray(READ_BYTES))
        self.when_empty: Callable[[], None] | None = None
        self._reminded = -REMIND_SECONDS

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
        self.read_clock()
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

"""What all connections of one server share: the service that answers them, the clock, the wheel, and their set."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Protocol

from ..core.delays import Histogram
from ..core.node import Node
from ..http import routes
from ..http.exchange import Exchange
from ..http.service import Asset, CollectMetrics, Rules, Service
from ..policy.access import Access
from ..policy.identity import Identity
from ..wire import http1
from .admission import Admission
from .capacity import Capacity
from .expiries import Expiries
from .jwks import RemoteKeys
from .logs import Logs
from .process.drain import Drain
from .read_budget import READ_BYTES, ReadBudget
from .refusals import Refusals
from .tls.meters import TlsMeters
from .unfinished import Unfinished
from .wheel import Item, Wheel

logger = logging.getLogger("oncecast.server")

RECHECKS = 1000  # connections in a tick, after a reload: a few milliseconds
DISCONNECTED = 5000  # connections that are looked at in one turn: a few milliseconds
Handle = Callable[[Service, Exchange, http1.Request], None]  # answers a request, now or later; may raise `Refusal`
UNLIMITED = Capacity(1 << 30, 0)  # until the server knows how many files it has open itself


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

    def evict(self) -> bool:
        """Close at once, answering 503 where no answer has been given. Return False where one is being made."""
        ...

    def recheck(self, access: Access, /) -> None:
        """Other access rules hold: obey them, and end what they refuse."""
        ...

    @property
    def identity(self) -> Identity:
        """Who is at the other end."""
        ...

    def disconnect(self) -> None:
        """End a stream, a socket or a poll that waits, as its user is to be disconnected."""
        ...

    def look_at_expiry(self, now: float, /) -> None:
        """Its token ends soon, or has ended. `now` is in Unix seconds."""
        ...

    def overflow(self) -> None:
        """Refuse the unfinished request or message."""
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
        collect: CollectMetrics | None = None,
        capacity: Capacity = UNLIMITED,
        schedule: Callable[[Callable[[], None]], object],
    ) -> None:
        self.unfinished = Unfinished()
        self.tls = TlsMeters()
        self._rechecked: list[Peer] = []  # connections that are to be held to other access rules
        self.connections: set[Peer] = set()  # before the first `adopt`
        super().__init__(node, rules=rules, pages=pages, wall=wall, scheme=scheme, collect=collect)
        self.monotonic = monotonic
        self.leaving: Drain[Peer] | None = None  # the connections to tell yet, once the server stops
        self.wheel: Wheel[Peer] = Wheel(monotonic())
        self.admission: Admission[Peer] = Admission(capacity, monotonic)
        self.connections = self.admission.connections
        self._schedule = schedule
        self.expiries: Expiries[Peer] = Expiries()
        self.issuer: RemoteKeys | None = None  # where the server fetches keys
        self.reading = ReadBudget(monotonic, schedule)
        self.name = ""  # its node's, once it listens
        self.broker = "memory"  # its kind, as the scheme of its URL says
        self.refusals = Refusals()
        self.listeners: Counter[str] = Counter()  # streams, sockets and polls that wait, by transport
        self.stalls = Histogram()  # how late the loop has come to each tick
        self.handle: Handle = routes.handle  # of an application beside, what asks it first who the client is
        self.when_empty: Callable[[], None] | None = None

    def adopt(self, rules: Rules) -> None:
        """Apply these rules to whatever begins from now on."""
        super().adopt(rules)
        limits = rules.settings
        most = limits.header_bytes + max(limits.body_bytes, limits.message_bytes)  # one alone may always be finished
        self.unfinished.limit = max(limits.unfinished_bytes, most + READ_BYTES)
        self._rechecked = list(self.connections)

    @property
    def confers(self) -> bool:
        """Whether nodes tell each other of tickets and revocations, or who is there for an overview that is open."""
        return self.authenticator is not None or self.asked or (self.open and self.broker != "memory")

    @property
    def logs(self) -> Logs | None:
        """The logs of its requests and refusals; a server that is a part of a program has none."""
        return self.refusals.logs

    @logs.setter
    def logs(self, logs: Logs | None) -> None:
        self.refusals.logs = logs

    def leave(self, per_second: float) -> Drain[Peer]:
        """Begin to stop: tell `per_second` connections a second to leave, the first ones now."""
        self.ready = False
        if self.leaving is None:
            now = self.monotonic()
            self.leaving = Drain(self.connections, per_second, now)
            self._drain_due(self.leaving, now)
        return self.leaving

    async def wait_until_empty(self, seconds: float) -> None:
        """Wait until no connection is open, for `seconds` at most."""
        if self.connections:
            empty = asyncio.Event()
            self.when_empty = empty.set
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(empty.wait(), seconds)

    def must_leave(self, connection: Peer) -> bool:
        """Return whether a connection has been asked to leave, as the server stops."""
        return self.leaving is not None and connection not in self.leaving

    def admit(self, connection: Peer) -> bool:
        """Count a connection in. Return whether it is reserved: see `Admission`."""
        if self.leaving is not None:  # it was accepted just before the server began to stop
            self.leaving.add(connection)
        return self.admission.add(connection)

    def dismiss(self, connection: Peer) -> None:
        """Count a connection out."""
        self.wheel.clear(connection)
        self.admission.remove(connection)
        if self.unfinished:
            self.unfinished.set(connection, 0)
        if self.expiries:
            self.expiries.forget(connection)
        if self.leaving is not None:
            self.leaving.discard(connection)
        if self.settings.review is not None:
            self.settings.review.leave(connection)
        if not self.connections and self.when_empty is not None:
            self.when_empty()

    def disconnect(self, subject: str) -> None:
        """End the connections of a user, some in each turn of the loop."""
        self.ended.note(subject)
        self._disconnect(subject, list(self.connections))

    def _disconnect(self, subject: str, connections: list[Peer]) -> None:
        for connection in connections[-DISCONNECTED:]:
            identity = connection.identity
            if identity.subject == subject and identity.kind == "token":
                try:
                    connection.disconnect()
                except Exception:
                    logger.exception("a connection failed as its user was disconnected")
                    connection.abort()
        del connections[-DISCONNECTED:]
        if connections:
            self._schedule(lambda: self._disconnect(subject, connections))

    def tick(self) -> None:
        """Wake the connections whose deadline has come, and those that are to leave: every `RESOLUTION`."""
        self.read_clock()
        self.node.delays.tick()
        if self.logs is not None:
            self.logs.tick()
        now = self.monotonic()
        for connection in self.wheel.expire(now):
            try:
                connection.expired(now)
            except Exception:
                logger.exception("a connection failed at its deadline")
                connection.abort()
        if self.expiries:
            self._look_at_expiries(self.wall())
        if self._rechecked:
            self._recheck()
        if self.leaving is not None:
            self._drain_due(self.leaving, now)

    def _recheck(self) -> None:
        """Hold the next connections to the access rules of the last reload."""
        now, self._rechecked = self._rechecked[-RECHECKS:], self._rechecked[:-RECHECKS]
        for connection in now:
            if connection not in self.connections:
                continue
            try:
                connection.recheck(self.access)
            except Exception:
                logger.exception("a connection failed at new access rules")
                connection.abort()

    def _look_at_expiries(self, wall: float) -> None:
        for connection in self.expiries.due(wall):
            try:
                connection.look_at_expiry(wall)
            except Exception:
                logger.exception("a connection failed at the end of its token")
                connection.abort()

    def _drain_due(self, leaving: Drain[Peer], now: float) -> None:
        for connection in leaving.due(now):
            try:
                connection.drain()
            except Exception:
                logger.exception("a connection failed at its goodbye")
                connection.abort()

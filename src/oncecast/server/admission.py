"""Which connections are open, and which of a full server's connections may do what.

Up to `Capacity.ceiling` connections may do anything. The next `Capacity.reserve` are *reserved*: each makes one
request, of those that `may_use_reserve` names, and is closed. So a server full of listeners still takes publishes and
answers probes. Where the reserve is full, a new connection takes the place of the oldest reserved one that does not
wait for an answer. Past that a connection is refused by the acceptor.

Where the connections of all processes together have a limit (`room`), a connection past it is a reserved one too.

Invariant: `Capacity.total` is never exceeded, save by connections that have been cut and are closing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ..errors import Refusal
from ..wire import http1
from .capacity import Capacity

__all__ = ["FULL", "Admission", "may_use_reserve"]

logger = logging.getLogger("oncecast.server")

REMIND_SECONDS = 60.0  # between two warnings that the server is full
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})

FULL = Refusal("unavailable", "The server holds as many connections as it can: try again soon.", retry_after=5)


class Evictable(Protocol):
    """A connection, as seen from here."""

    def evict(self) -> bool:
        """Close at once, answering 503 where no answer has been given. Return False where one is being made."""
        ...


T = TypeVar("T", bound=Evictable)


class Admission(Generic[T]):
    """The open connections of one process. `monotonic` returns seconds."""

    def __init__(self, capacity: Capacity, monotonic: Callable[[], float]) -> None:
        self.capacity = capacity
        self.connections: set[T] = set()
        self.opened = 0
        self.turned_away = 0
        self.unnamed = 0  # closed, as no proxy has said whose they are
        self._monotonic = monotonic
        self._opening = 0  # accepted, and not in `connections` yet: a TLS handshake takes its time
        self._reserved: dict[T, None] = {}  # the oldest first
        self._evicted: set[T] = set()
        self._reminded = -REMIND_SECONDS
        self.room: Callable[[int], int] = _unlimited  # for more, in all processes: see `Quotas.room`

    @property
    def full(self) -> bool:
        """Whether the next connection is reserved or refused."""
        return self._occupied() >= self.capacity.ceiling or self._room() <= 0

    def take(self) -> bool:
        """Take a place for a connection that has been accepted. Return False where there is none."""
        if self._has_place() or self._evict():
            self._opening += 1
            return True
        return False

    def take_over(self) -> None:
        """Take the place of a connection that is being opened and was cut for it."""
        self._opening += 1
        self.turn_away()

    def give_back(self) -> None:
        """Give back the place of a connection that never opened."""
        self._opening -= 1
        self._room()

    def add(self, connection: T) -> bool:
        """Count a connection in that has opened. Return whether it is reserved."""
        if self._opening:
            self._opening -= 1
        self.connections.add(connection)
        self.opened += 1
        if len(self.connections) - len(self._reserved) <= self.capacity.ceiling and self._room() >= 0:
            return False
        self._reserved[connection] = None
        return True

    def promote(self, connection: T) -> bool:
        """Let a reserved connection do anything if there is a place by now. Return whether there is."""
        if len(self.connections) - len(self._reserved) >= self.capacity.ceiling or self._room() < 0:
            return False
        self._reserved.pop(connection, None)
        return True

    def remove(self, connection: T) -> None:
        """Count a connection out that has closed."""
        self.connections.discard(connection)
        self._reserved.pop(connection, None)
        self._evicted.discard(connection)
        self._room()

    def turn_away(self) -> None:
        """Count a connection that is answered 503, and log a warning unless one was logged within the last minute."""
        self.turned_away += 1
        now = self._monotonic()
        if now - self._reminded >= REMIND_SECONDS:
            self._reminded = now
            logger.warning(
                "%d connections are open, as many as may be: further ones may publish and ask for /healthz, /readyz "
                "and /metrics, and are answered 503 otherwise. Raise limits.connections, limits.connections_in_all or "
                "the limit of open files (ulimit -n).",
                len(self.connections),
            )

    def _room(self) -> int:
        """Say how many places are taken, and return how many more there are in all processes."""
        return self.room(self._occupied())

    def _has_place(self) -> bool:
        if self._occupied() >= self.capacity.total:
            return False
        reserved = len(self._reserved) - len(self._evicted) + self._opening
        return self._room() > 0 or reserved < self.capacity.reserve  # past the limit in all, only as a reserved one

    def _occupied(self) -> int:
        return len(self.connections) + self._opening - len(self._evicted)

    def _evict(self) -> bool:
        for connection in list(self._reserved):
            if connection not in self._evicted and connection.evict():
                if connection in self.connections:
                    self._evicted.add(connection)
                return True
        return False


def _unlimited(own: int) -> int:
    return 1


def may_use_reserve(request: http1.Request) -> bool:
    """Return whether a reserved connection may make this request: a publish, its CORS preflight, or a probe."""
    if request.method in ("POST", "OPTIONS"):
        return request.path.startswith("/v1/")
    return request.path in PROBES

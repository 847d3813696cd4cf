"""The reading side of a connection: when its socket is read, and how much of that is handled in a turn of the loop.

Invariant: bytes are handled in the order in which they came. What a spent `ReadBudget` leaves over is held here, and
the socket is not read until it has been handled.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from .app import App
from .outlet import Outlet
from .read_budget import READ_BYTES, TURN_SECONDS

__all__ = ["Inlet"]


class Inlet(Outlet, ABC):
    """An `Outlet` that reads as well. `_held` is what waits for its turn; None where this connection waits for none.

    No method is called `data_received`: uvloop would keep a bound one for each connection, and never call it.
    """

    __slots__ = ("_held", "app")

    def __init__(self, app: App, descriptor: int | None) -> None:
        super().__init__(descriptor)
        self.app = app
        self._held: bytes | None = None

    @abstractmethod
    def receive(self, data: bytes) -> None:
        """Handle bytes."""

    @abstractmethod
    def _read_on(self) -> None:
        """Handle what the connection has kept itself, where it waited for its turn with that."""

    @abstractmethod
    def _wants_bytes(self) -> bool:
        """Whether the socket is to be read, as far as the connection is concerned."""

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the one buffer of all connections: what has come is taken from it before the loop reads again."""
        return self.app.reading.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Handle what has come, or hold it for the next turn if this turn's reads have taken their time."""
        app = self.app
        budget = app.reading
        data = bytes(budget.buffer[:nbytes])
        if self._held is not None or budget.spent:
            self.take(data)
        else:  # as there: a call more would be a fiftieth of a remembered poll
            began = app.monotonic()
            self.receive(data)
            budget.seconds += app.monotonic() - began
            if budget.seconds >= TURN_SECONDS:
                budget.exhaust()
        if nbytes == READ_BYTES and self._held is None:  # there is more: the others come first
            self._wait_for_turn(b"")

    def take(self, data: bytes) -> None:
        """Do as `buffer_updated`, with bytes that were in a buffer of TLS."""
        app = self.app
        budget = app.reading
        if self._held is not None:
            self._held += data
        elif budget.spent:
            self._wait_for_turn(data)
        else:
            began = app.monotonic()
            self.receive(data)
            budget.seconds += app.monotonic() - began
            if budget.seconds >= TURN_SECONDS:
                budget.exhaust()

    def go_on(self) -> None:
        """Handle what an earlier turn left, and read on."""
        data, self._held = self._held, None
        if data:
            self.receive(data)
        else:
            self._read_on()
        if self._held is None:
            self._set_reading()

    def hold(self, size: int) -> None:
        """Count `size` bytes as those of this connection's unfinished request or message; 0 once it is whole."""
        if size or self.app.unfinished:
            self.app.unfinished.set(self, size)

    @abstractmethod
    def overflow(self) -> None:
        """Refuse what is unfinished: all connections together hold too much."""

    def _wait_for_turn(self, data: bytes) -> None:
        self._held = data
        self.read_if(False)
        self.app.reading.wait(self)

    def _set_reading(self) -> None:
        self.read_if(self._held is None and not self._full and self._wants_bytes())

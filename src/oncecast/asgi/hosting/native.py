"""The server's side of a connection that an application shares: it gives the connection away, and takes it back.

A request of the application is seen by how it begins (`split.py`): then the connection is lent with its bytes, as to a
transport. Invariant: it is lent, and taken back, only between two requests, with every answer before that sent; the
place and the counts of the connection stay with this object all the while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, Protocol

from ...errors import Refusal
from ...http.exchange import Agreement
from ...policy.access import Access
from ...policy.identity import Identity
from ...protocol.base import Carrier, Duplex, Verified
from ...server.admission import FULL
from ...server.app import App
from ...server.connection import Connection
from ...server.logged import LoggedConnection
from ...server.phases import READING, STREAMING
from ...server.responder import IDLE
from ...wire import http1
from ..peer import Renew
from .patient import Patient
from .split import Split

__all__ = ["Borrower", "Lendable", "LoggedSharedConnection", "SharedConnection", "Sharing"]

SLICE_BYTES = 64 << 10
_SURELY_NATIVE = (b"GET /v1/channels/", b"POST /v1/channels/", b"POST /v1/publish ")


class Borrower(Protocol):
    """What has a connection: `uvicorn_side.py` has the two kinds."""

    def shutdown(self) -> None:
        """End what is idle, and the rest after its answer."""
        ...


class _Lent:
    """The `Listener` of a connection that the application has. Its streams and its answers are not the server's."""

    __slots__ = ("borrower", "connection")

    slice_bytes = SLICE_BYTES

    def __init__(self, connection: Lendable) -> None:
        self.connection = connection
        self.borrower: Borrower | None = None

    def received(self, data: bytes, /) -> None:
        """Never called: the transport calls the borrower."""

    def blocked(self) -> None:
        """Never called."""

    def drained(self) -> None:
        """Never called."""

    def woken(self, now: float, /) -> None:
        """A head did not come in time."""
        self.connection.abort()

    def drain(self) -> None:
        """The server is stopping."""
        if self.borrower is not None:
            self.borrower.shutdown()

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """The application has its own rules."""

    def expiring(self, seconds: float, /) -> None:
        """Never called: there is no token here."""

    def refuse(self, refusal: Refusal, /) -> None:
        """There is no user here that the server knows."""

    def closed(self) -> None:
        """The borrower has heard it before."""


class Sharing(Protocol):
    """What the connections of one server share with its application."""

    @property
    def split(self) -> Split:
        """Whose a request is."""
        ...

    def borrow(self, connection: Lendable, transport: asyncio.Transport, data: bytes, /) -> Borrower:
        """Give a transport to the application, with what has come of a request."""
        ...

    def run(self, work: Coroutine[Any, Any, None], /) -> None:
        """Run what the application is asked in a task."""
        ...


class _Parser(http1.RequestParser):
    """Reads the server's requests, up to one of the application's: then `foreign` is true."""

    __slots__ = ("_split", "foreign")

    def __init__(self, limits: http1.RequestLimits, split: Split) -> None:
        super().__init__(limits)
        self._split = split
        self.foreign = False

    def whole(self, data: bytes) -> http1.Request | None:
        """Return the request if it is whole and the server's."""
        if data.startswith(_SURELY_NATIVE) or self._split.begins_native(data):
            return http1.RequestParser.whole(self, data)  # as `super()`, at half its cost
        return None

    def next(self) -> http1.Request | None:
        """Return the next request, None where it is not whole, or not the server's."""
        unread = self.unread
        if self.foreign or (unread and self._split.begins_foreign(unread)):
            self.foreign = True
            return None
        return super().next()


class Lendable(Connection):
    """A `Connection` that may be lent."""

    __slots__ = ()

    _sharing: Sharing
    _patient: Patient | None  # the session of a WebSocket
    renew: Renew | None  # asks the application about a token

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read."""
        super().connection_made(transport)
        self._parser = _Parser(self.app.settings, self._sharing.split)

    def _read(self) -> None:
        super()._read()
        parser = self._parser
        if isinstance(parser, _Parser) and parser.foreign and self.phase is READING and not self._full:
            self._lend(parser.take_rest())

    def _lend(self, data: bytes) -> None:
        transport = self._transport
        assert transport is not None
        if self._reserved and not self.app.admission.promote(self):
            self.app.admission.turn_away()
            self.fail(FULL.with_traceback(None))
            return
        self._reserved = self._fresh = False
        if self.presence is not None and self.presence.asks:
            self.presence.begin(self.identity, {})  # whose request it is the application finds out
        self._move("streamed")
        self._parser = None
        self.hold(0)
        self.app.wheel.clear(self)
        self.read_if(True)  # from here on it is the borrower's to pause
        lent = _Lent(self)
        self._listener = lent
        transport.set_write_buffer_limits()
        borrower = self._sharing.borrow(self, transport, data)
        if lent.borrower is None:  # else it has changed into a socket meanwhile
            lent.borrower = borrower
        if self.phase is STREAMING and self.app.must_leave(self):
            self.drain()

    def _unlisten(self) -> None:
        if isinstance(self._listener, _Lent):  # no listener of the server's was counted
            self._listener = None
        else:
            super()._unlisten()

    def lent_to(self, borrower: Borrower) -> None:
        """Note that the application's request has become a socket."""
        if isinstance(self._listener, _Lent):
            self._listener.borrower = borrower

    def give_back(self, data: bytes) -> None:
        """Take the connection back, with the beginning of a request of the server's."""
        transport = self._transport
        assert transport is not None
        self._move("returned")
        self._unlisten()
        self._parser = _Parser(self.app.settings, self._sharing.split)
        self._stage = IDLE
        transport.pause_reading()  # uvloop reads in another way for this kind of protocol
        transport.set_protocol(self)
        transport.set_write_buffer_limits(high=0)
        transport.resume_reading()
        self.take(data)

    def _wait_for_turn(self, data: bytes) -> None:
        if not isinstance(self._listener, _Lent):
            super()._wait_for_turn(data)

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Give the connection to a WebSocket: one that waits for the application, where that judges tokens."""
        if self.renew is None:
            super().open_websocket(agreement, make)
            return

        def patient(carrier: Carrier) -> Duplex:
            made = Patient(make(carrier))
            self._patient = made  # type: ignore[misc] # a slot of both kinds, which a base of both can't have
            return made

        super().open_websocket(agreement, patient)

    def verify(self, token: str, done: Verified) -> None:
        """Call `done` with the identity that a token stands for, once the application has said it."""
        renew, patient = self.renew, self._patient
        if renew is None or patient is None:
            super().verify(token, done)
            return
        patient.wait()
        self._set_reading()
        self._sharing.run(self._ask(patient, renew(token), done))

    async def _ask(self, patient: Patient, asked: Awaitable[Identity], done: Verified) -> None:
        found: Identity | Refusal
        try:
            found = await asked
        except Refusal as refusal:
            found = refusal.as_value()
        if self.phase is STREAMING:
            self._call(partial(self._go_on, patient, partial(done, found)))

    def _go_on(self, patient: Patient, done: Callable[[], None]) -> None:
        done()
        patient.go_on()
        if self.phase is STREAMING:
            self._set_reading()

    def _wants_bytes(self) -> bool:
        """Whether the socket is to be read."""
        return super()._wants_bytes() and (self._patient is None or not self._patient.waiting)


class SharedConnection(Lendable):
    """A `Connection` that may be lent."""

    __slots__ = ("_patient", "_sharing", "renew")

    def __init__(self, app: App, descriptor: int | None, identity: Identity, sharing: Sharing) -> None:
        super().__init__(app, descriptor, identity)
        self._sharing = sharing
        self._patient = None
        self.renew = None


class LoggedSharedConnection(Lendable, LoggedConnection):
    """The same with an access log of the server's requests; the application's are logged where they end."""

    __slots__ = ("_patient", "_sharing", "renew")

    def __init__(self, app: App, descriptor: int | None, identity: Identity, sharing: Sharing) -> None:
        super().__init__(app, descriptor, identity)
        self._sharing = sharing
        self._patient = None
        self.renew = None

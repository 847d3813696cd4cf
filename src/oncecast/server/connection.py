"""One connection, from its opening until it closes: the calls of the loop, of the server and of a carrier.

`phases.py` has the phases and what moves a connection from one to another. A connection is built of layers: `outlet.py`
writes, `inlet.py` says when the socket is read, `responder.py` answers requests. This one gives the connection to a
transport, and says what happens at a deadline, at the peer's end and at the server's. LINGERING sends what is left, and
discards what comes until the peer closes: closing at once would make the kernel reset the connection, and the last
answer could be lost.

Every phase has a deadline on the wheel; a stream's is its transport's own. The deadline for taking an answer moves for
as long as the client takes some of it.

No connection holds up the others: `read_budget.py` bounds the time that all of them read in a turn of the loop, and
`unfinished.py` the memory that unfinished requests take.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import cast

from ..errors import ERRORS, Refusal
from ..http.exchange import Agreement
from ..http.listening import SSE, WEBSOCKET
from ..http.replies import encode_fault, events_head, socket_head
from ..policy.access import Access
from ..policy.identity import Identity
from ..policy.origin import Headers
from ..protocol.base import Carrier, Duplex, Session, Verified
from ..wire import http1
from .admission import FULL
from .expiries import DISCONNECTED, ENDED, warn_at
from .framing.base import Listener
from .framing.event_stream import event_stream_carrier
from .framing.websocket import websocket_carrier
from .phases import CLOSED, LINGERING, READING, STREAMING, WAITING
from .presence import become, join
from .responder import HEAD, IDLE, Responder

__all__ = ["FIRST_SECONDS", "LEAST_TAKEN_BYTES", "Connection"]

logger = logging.getLogger("oncecast.server")

LEAST_TAKEN_BYTES = 1024  # of an answer, in each `answer_seconds`: a client that takes less is cut off
FIRST_SECONDS = 1.0  # for the first request on a connection that was accepted just before the server stops

REFUSED = {ERRORS[code].close: ERRORS[code] for code in ("unauthorized", "forbidden", "too_many_requests")}

OVERFLOW = Refusal(
    "unavailable", "The server holds too many unfinished requests: send it again, and without a pause.", retry_after=2
)


class Connection(Responder):
    """The protocol object of one socket, and the `Link` of a carrier.

    `descriptor` is the socket's, or None with TLS.
    """

    __slots__ = ()

    @property
    def opened(self) -> bool:
        """Whether the loop has opened this connection, even if it is closed by now."""
        return self._transport is not None or self.phase is CLOSED

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, within the time for a head."""
        self.attach(cast(asyncio.Transport, transport))
        self._parser = http1.RequestParser(self.app.settings)
        self.wake_at(self.now() + self.app.settings.head_seconds)
        self._reserved = self.app.admit(self)

    def receive(self, data: bytes) -> None:
        """Read requests, or hand the bytes to the transport."""
        if self.phase is STREAMING:
            self._hand_over(data)
        elif self.phase is READING:
            assert self._parser is not None
            request = self._parser.whole(data) if not self._full else None
            if request is None:
                self._parser.feed(data)
                self._read()
                return
            self._handle(request)
            if self.phase is READING and not self._full:
                if self._eof:
                    self.end()
                else:  # as `_await`, whose checks would be a twentieth of a remembered poll
                    app = self.app
                    self.wake_at(app.monotonic() + app.settings.keep_alive_seconds)
        elif self.phase is WAITING:
            assert self._parser is not None
            self._parser.feed(data)
            self._count_unfinished()
            self._set_reading()

    def eof_received(self) -> bool:
        """A half-closed client still gets the answers it waits for; a stream to one ends.

        A long poll is answered at once: such a client looks the same as one that has gone.
        """
        if not (self.phase is WAITING or (self.phase is READING and self._full)):  # no answers are due
            return False
        self._eof = True
        if self._listener is not None:
            self._listener.drain()
        return self.phase in (READING, WAITING)

    def pause_writing(self) -> None:
        """The socket is full: write no messages, and read no requests whose answers would not fit either."""
        self._full = True
        self.read_if(False)
        if self._listener is not None:
            self._taking = None  # the first heartbeat counts what is untaken, the others compare
            self._call(self._listener.blocked)
        elif self.phase is READING:
            self._await_taking()

    def resume_writing(self) -> None:
        """The socket takes bytes again: what was read ahead has its turn.

        It is not handled here, as asyncio would call `connection_lost` twice if it closed the connection meanwhile.
        """
        self._full = False
        if self._listener is not None:
            self._set_reading()
            self._call(self._listener.drained)
        elif self.phase is READING:
            self._stage = IDLE
            if self._held is None:
                self._wait_for_turn(b"")
        else:
            self._set_reading()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget everything."""
        listener = self._listener
        self._move("lost")
        self.app.dismiss(self)
        self.forget()
        self._unlisten()
        self._transport = self._parser = self._request = None
        self.release()
        if listener is not None:
            listener.closed()

    def forget(self) -> None:
        """Count this connection no more by its address and its user."""
        if self.presence is not None:
            self.presence.end()
            self.presence = None

    # -- what the server calls

    def expired(self, now: float) -> None:
        """The deadline has come."""
        if self._listener is not None:
            if self.phase is STREAMING and self._full and self.is_stuck():
                self.abort()
            else:
                self._listener.woken(now)
        elif self.phase is READING and not self._full:
            if self._held is not None:  # the server is late, not the client
                self.wake_at(now + self.app.settings.head_seconds)
            elif self._stage is IDLE:
                self.end()  # an idle keep-alive connection
            else:
                what = "head" if self._stage is HEAD else "body"
                self.fail(Refusal("timeout", f"The request's {what} did not come in time: send it faster."))
        elif self.has_taken(LEAST_TAKEN_BYTES):  # slow, but it takes: a large answer on a thin line has its time
            self.wake_at(now + self.app.settings.answer_seconds)
        else:
            self.abort()

    def drain(self) -> None:
        """Leave, as the server stops: end what is idle, let a stream say goodbye, or close after the next answer."""
        if self._listener is not None:
            self._listener.drain()
        elif self.phase is READING and self._stage is IDLE and self._held is None:
            if self._fresh:  # its first request is on the way, and there is no other connection to ask on
                self.wake_at(self.now() + FIRST_SECONDS)
            else:
                self.end()

    def evict(self) -> bool:
        """Close at once, answering 503 where no answer has been given. Return False where one is being made."""
        if self._transport is None or self.phase not in (READING, LINGERING):
            return False
        if self.phase is READING:
            self.write(encode_fault(self.app, self._parser.headers_read if self._parser is not None else {}, FULL))
            self.app.admission.turn_away()
        self.abort()
        return True

    def disconnect(self) -> None:
        """End a stream, a socket or a poll that waits, as its user is to be disconnected."""
        self._refuse(DISCONNECTED)

    def look_at_expiry(self, now: float) -> None:
        """Warn of the end of the token, or end: only a stream and a socket live longer than a request."""
        expires = self.identity.expires
        if self.phase is not STREAMING or expires is None:
            return
        listener = cast(Listener, self._listener)
        if now >= expires:
            listener.refuse(ENDED)
        elif now >= warn_at(self.identity):
            self.app.expiries.watch(self, expires)
            listener.expiring(expires - now)
        else:  # the clock was set back
            self.app.expiries.watch(self, warn_at(self.identity))

    def overflow(self) -> None:
        """Refuse the unfinished request: all connections together hold too much."""
        if self.phase is READING:
            self.fail(OVERFLOW)
        elif self.phase is STREAMING:
            cast(Listener, self._listener).refuse(OVERFLOW)
            if self.phase is STREAMING:  # it has said goodbye before, and would hold the message until the peer does
                self.abort()
        else:  # an answer is under way, and the refusal can't be put into it
            self.abort()

    # -- the Link of a carrier

    def recheck(self, access: Access) -> None:
        """Hold a stream, a socket or a long poll to other access rules, and to the keys that came with them."""
        try:
            self.app.check_counts(self.identity)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        if self._listener is not None:
            self._listener.recheck(access, self.identity)

    def verify(self, token: str, done: Verified) -> None:
        """Call `done` with the identity that a token stands for."""
        try:
            found: Identity | Refusal = self.app.verify(token, self.identity.address)
        except Refusal as refusal:
            found = refusal.as_value()
        done(found)

    def identify(self, identity: Identity) -> None:
        """Replace the identity, and count the user of a socket that was nobody's. Raises `Refusal`."""
        quotas = self.app.settings.quotas
        if quotas is not None and self.identity.kind == "anybody":
            self.presence = become(self.presence, quotas, identity, self.now())
        self.identity = identity
        self.app.expiries.forget(self)
        if identity.expires is not None:
            self.app.expiries.watch(self, warn_at(identity))

    @property
    def full(self) -> bool:
        """Whether the socket takes no more bytes."""
        return self._full

    def closing(self, code: int, /, *, ours: bool = True) -> None:
        """The carrier closes with this code."""
        if ours:
            self.app.refusals.close(code, self._transport_name)
        if ours and self.app.logs is not None and code in REFUSED:
            self.app.logs.refuse(REFUSED[code], self.identity, how="close")

    # -- what routes call, where a transport takes the connection

    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Give the connection to an event stream. `make` may raise `Refusal`: nothing is written then."""
        if self._request is not None:
            head = events_head(self.app, self._request, headers)
            self._stream(lambda: event_stream_carrier(self, head.data, make, chunked=head.chunked), SSE)

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Give the connection to a WebSocket, also while it waits. Do nothing where the client is gone.

        `make` may raise `Refusal`: nothing is written then.
        """
        if self._request is not None:
            head, deflate, settings = socket_head(agreement), agreement.deflate, self.app.settings
            self._stream(lambda: websocket_carrier(self, head, make, settings=settings, deflate=deflate), WEBSOCKET)

    def _stream(self, make: Callable[[], Listener], transport: str) -> None:
        assert self._parser is not None
        self._transport_name = transport  # a session may close as it is made
        quotas = self.app.settings.quotas
        if quotas is not None:
            self.presence = join(self.presence, quotas, self.identity, self.now())
        try:
            carrier = make()
        except BaseException:
            if self.presence is not None:
                self.presence.leave()
            raise
        self._move("streamed")
        self._listen(carrier, transport)
        rest = self._parser.take_rest()
        self._parser = self._request = None
        self.hold(0)
        if self._full:
            carrier.blocked()
        if self.identity.expires is not None:
            self.app.expiries.watch(self, warn_at(self.identity))
        if rest:
            self._hand_over(rest)
        if self.phase is STREAMING:
            self._set_reading()  # it may have been waiting, with as much sent ahead as is taken
        if self.app.must_leave(self):  # its moment to leave came while its request did
            self.drain()

    # -- helpers

    def _refuse(self, refusal: Refusal) -> None:
        """End what listens: a stream, a socket, a long poll, and what of these waits for its place.

        A publish that waits for the broker gets its receipt: the message is on its way.
        """
        if self._listener is not None:
            self._listener.refuse(refusal)
        elif self.phase is WAITING and self._request is not None and self._request.method in ("GET", "HEAD"):
            self.fail(refusal)  # frames may follow a handshake, so what comes after it may be no request

    def _hand_over(self, data: bytes) -> None:
        """Hand bytes to the carrier, slice by slice while this turn's time for reads lasts."""
        carrier = cast(Listener, self._listener)
        size = carrier.slice_bytes
        if len(data) <= size:
            carrier.received(data)
            return
        until = self.now() + self.app.reading.left
        for begin in range(0, len(data), size):
            if begin and self.now() > until:
                self._wait_for_turn(data[begin:])
                return
            carrier.received(data[begin : begin + size])
            if self.phase is not STREAMING:
                return

    def _call(self, callback: Callable[[], None]) -> None:
        """Run a callback of the loop, which would log an exception and leave the connection as it is."""
        try:
            callback()
        except Exception:
            logger.exception("a connection failed")
            self.abort()

"""One connection: requests in, answers out, until a transport takes it over or it closes.

`phases.py` has the phases and what moves a connection from one to another; `outlet.py` has the writing side, and
`inlet.py` says when the socket is read. While
READING, the parser's requests are answered one by one, in order, so pipelining needs nothing more. LINGERING sends what
is left, and discards what comes until the peer closes: closing at once would make the kernel reset the connection, and
the last answer could be lost.

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

from ..errors import Refusal
from ..http import routes
from ..http.replies import encode, encode_fault, error_reply
from ..policy.bucket import Bucket
from ..policy.identity import ANYBODY, Identity
from ..protocol.base import Carrier, Duplex, Reply, Session
from ..wire import http1
from ..wire.ws_deflate import Parameters
from .admission import FULL, may_use_reserve
from .app import App
from .framing.base import Listener
from .framing.event_stream import EventStreamCarrier
from .framing.websocket import websocket_carrier
from .inlet import Inlet
from .phases import ConnectionEvent, Phase, after

logger = logging.getLogger("oncecast.server")

PIPELINE_BYTES = 64 << 10  # what a client may send ahead while an answer is being made
LINGER_SECONDS = 2.0
LEAST_TAKEN_BYTES = 1024  # of an answer, in each `answer_seconds`: a client that takes less is cut off
FIRST_SECONDS = 1.0  # for the first request on a connection that was accepted just before the server stops

OVERFLOW = Refusal(
    "unavailable", "The server holds too many unfinished requests: send it again, and without a pause.", retry_after=2
)

# Names for the members: to look one up on its class costs ten times the comparison, and a request makes a dozen.
READING, WAITING, STREAMING, LINGERING, CLOSED = Phase
IDLE, HEAD, BODY = http1.Stage


class Connection(Inlet):
    """The protocol object of one socket, the `Exchange` of its requests, and the `Link` of a carrier.

    `descriptor` is the socket's, or None with TLS; `identity` says who is at the other end.
    """

    __slots__ = (
        "_bucket",
        "_eof",
        "_fresh",
        "_listener",
        "_parser",
        "_request",
        "_reserved",
        "_stage",
        "deadline",
        "identity",
        "phase",
        "tick",
    )

    def __init__(self, app: App, descriptor: int | None = None, identity: Identity = ANYBODY) -> None:
        super().__init__(app, descriptor)
        self.identity = identity
        self.phase = READING
        self.deadline = 0.0
        self.tick = 0
        self._parser: http1.RequestParser | None = None
        self._request: http1.Request | None = None
        self._listener: Session | None = None  # a carrier, while STREAMING, or a long poll, while WAITING
        self._bucket: Bucket | None = None
        self._stage = IDLE
        self._eof = False
        self._fresh = True  # no request has come yet
        self._reserved = False  # it may make one request of a few, and is closed: see `Admission`

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

    def data_received(self, data: bytes) -> None:
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
                self._await(IDLE)
        elif self.phase is WAITING:
            assert self._parser is not None
            self._parser.feed(data)
            self._count_unfinished()
            self._set_reading()

    def eof_received(self) -> bool:
        """A half-closed client still gets the answers it waits for; a stream to one ends.

        A long poll is answered at once: such a client looks the same as one that has gone.
        """
        assert self._transport is not None
        answers_due = self.phase is WAITING or (self.phase is READING and self._full)
        if not answers_due or not self._transport.can_write_eof():  # TLS can't be half closed
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
            self._call(self._listener.blocked)
        elif self.phase is READING:
            self._await_taking()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._full = False
        self._set_reading()
        if self._listener is not None:
            self._call(self._listener.drained)
        elif self.phase is READING:
            self._stage = IDLE
            self._call(self._read)

    def connection_lost(self, error: Exception | None) -> None:
        """Forget everything."""
        listener = self._listener
        self._move(ConnectionEvent.LOST)
        self.app.dismiss(self)
        self._listener = self._transport = self._parser = self._request = None
        self.release()
        if listener is not None:
            listener.closed()

    # -- what the server calls

    def expired(self, now: float) -> None:
        """The deadline has come."""
        if self._listener is not None:
            self._listener.woken(now)
        elif self.phase is READING and not self._full:
            if self._held is not None:  # the server is late, not the client
                self.wake_at(now + self.app.settings.head_seconds)
            elif self._stage is IDLE:
                self.end()  # an idle keep-alive connection
            else:
                what = "head" if self._stage is HEAD else "body"
                self.fail(Refusal("timeout", f"The request's {what} did not come in time: send it faster."))
        elif 0 < (untaken := self.count_untaken()) <= self._untaken - LEAST_TAKEN_BYTES:
            self._untaken = untaken  # slow, but it takes: a large answer on a thin line has its time
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

    def overflow(self) -> None:
        """Refuse the unfinished request: all connections together hold too much."""
        if self.phase is READING:
            self.fail(OVERFLOW)
        elif self.phase is STREAMING:
            cast(Listener, self._listener).refuse(OVERFLOW)
        else:  # an answer is under way, and the refusal can't be put into it
            self.abort()

    # -- the Link of a carrier

    @property
    def full(self) -> bool:
        """Whether the socket takes no more bytes."""
        return self._full

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        return self.app.monotonic()

    def wake_at(self, when: float) -> None:
        """Set the deadline."""
        if self.tick and when >= self.deadline > 0:
            self.deadline = when  # as `Wheel.set` would: it stands in an early enough bucket
        elif self.phase is not CLOSED:
            self.app.wheel.set(self, when)

    def end(self) -> None:
        """Send what is written, then close."""
        if self.phase in (LINGERING, CLOSED):
            return
        assert self._transport is not None
        self._move(ConnectionEvent.ENDED)
        self._listener = self._parser = self._request = None
        self.hold(0)
        self._full = False
        self._set_reading()
        self.release()
        self._untaken = self.count_untaken()
        unsent = self._transport.get_write_buffer_size() > 0
        self.wake_at(self.now() + (self.app.settings.answer_seconds if unsent else LINGER_SECONDS))
        self.finish(at_once=self._eof)

    # -- what routes call

    def reply(self, reply: Reply | Refusal) -> None:
        """Answer the request that is being handled, and go on to the next."""
        request = self._request
        if request is None:
            return
        if isinstance(reply, Refusal):
            reply = error_reply(reply)
        self.send(encode(self.app, request, reply, close=self._reserved or not self.app.ready))

    def send(self, answer: bytes) -> None:
        """Do as `reply` does, with an answer that is bytes already."""
        request = self._request
        if request is None:  # the client is gone
            return
        self._request = self._listener = None
        self.write(answer)
        waiting = self.phase is WAITING
        if waiting:
            self._move(ConnectionEvent.ANSWERED)
        if self._reserved or not (request.keep_alive and self.app.ready):
            self.end()
        elif waiting and self._full:
            self._await_taking()
        elif waiting:
            self._set_reading()
            self._read()

    def fail(self, refusal: Refusal) -> None:
        """Answer with an error and close, where it is not known where the next request begins."""
        if self._request is not None:
            self.write(encode(self.app, self._request, error_reply(refusal), close=True))
        elif self._parser is not None:
            self.write(encode_fault(self.app, self._parser.headers_read, refusal))
        self.end()

    def open_events(self, head: bytes, make: Callable[[Carrier], Session], /, *, chunked: bool) -> None:
        """Give the connection to an event stream, after `head`. `make` may raise `Refusal`: nothing is written then."""
        self._stream(EventStreamCarrier(self, head, make, chunked=chunked))

    def open_websocket(
        self, head: bytes, make: Callable[[Carrier], Duplex], /, *, deflate: Parameters | None = None
    ) -> None:
        """Give the connection to a WebSocket, after `head`. `make` may raise `Refusal`: nothing is written then."""
        self._stream(websocket_carrier(self, head, make, settings=self.app.settings, deflate=deflate))

    def _stream(self, carrier: Listener) -> None:
        assert self._parser is not None
        self._move(ConnectionEvent.STREAMED)
        self._listener = carrier
        rest = self._parser.take_rest()
        self._parser = self._request = None
        self.hold(0)
        if self._full:
            carrier.blocked()
        if rest:
            self._hand_over(rest)
        if self.app.must_leave(self):  # its moment to leave came while its request did
            self.drain()

    def wait(self, request: http1.Request, session: Session | None = None) -> None:
        """Unless it has come already, the answer comes later, by `reply`. `session` hears of the connection meanwhile.

        Without a session the answer has the time that `answer_seconds` gives it.
        """
        if self._request is not request:
            return
        if session is not None and (self._eof or self.app.must_leave(self)):
            session.drain()  # see `eof_received` and `drain`
            return
        self._move(ConnectionEvent.POSTPONED)
        self._listener = session
        if session is None:
            self.wake_at(self.now() + self.app.settings.answer_seconds)

    def spend_publishes(self, count: int) -> None:
        """Count publishes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        now = self.now()
        if self._bucket is None:
            self._bucket = Bucket.steady(self.app.settings.publishes_per_second, now)
        seconds = self._bucket.take(now, count)
        if seconds:
            raise Refusal(
                "too_many_requests", f"Publish at most {self._bucket.rate:g} messages a second.", retry_after=seconds
            )

    # -- helpers

    def _read(self) -> None:
        """Answer the requests that have come, until one must wait or the answers fill the socket."""
        parser = self._parser
        until = 0.0
        while self.phase is READING and parser is not None and not self._full:
            try:
                request = parser.next()
            except Refusal as refusal:
                self.fail(refusal)
                return
            if request is None:
                if parser.take_continue():
                    self.write(http1.CONTINUE)
                self._count_unfinished()
                self._await(parser.stage)
                return
            if until == 0.0:
                until = self.now() + self.app.reading.left
            self._handle(request)
            if self.app.unfinished:
                self._count_unfinished()
            if parser.empty:
                if self.phase is READING and not self._full:
                    self._await(IDLE)
                return
            if self.phase is READING and self.now() > until:
                self._wait_for_turn(b"")
                return

    def _handle(self, request: http1.Request) -> None:
        self._stage = IDLE
        self._fresh = False
        self._request = request
        try:
            if self._reserved:
                self._check_reserved(request)
            routes.handle(self.app, self, request)
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # a defect of ours: the log gets all of it, the client little
            logger.exception("a request could not be handled: %s %s", request.method, request.path)
            self._fail_internally(request)

    def _check_reserved(self, request: http1.Request) -> None:
        if self.app.admission.promote(self):
            self._reserved = False
        elif not may_use_reserve(request):
            self.app.admission.turn_away()
            raise FULL.with_traceback(None)

    def _fail_internally(self, request: http1.Request) -> None:
        if self._request is request:
            self.fail(Refusal("internal", "The server failed at this request: its log has the cause."))
        else:  # part of an answer may have gone out
            self.abort()

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

    def _read_on(self) -> None:
        if self.phase is READING and not self._full:
            self._read()

    def _wants_bytes(self) -> bool:
        """Whether the client does not send too far ahead."""
        return self.phase is not WAITING or self._parser is None or self._parser.buffered <= PIPELINE_BYTES

    def _count_unfinished(self) -> None:
        if self._parser is not None:
            self.hold(self._parser.buffered)

    def _await(self, stage: http1.Stage) -> None:
        """Set the deadline for what is awaited; the bytes of a head or a body that dribble in do not move it."""
        if self.phase is not READING:
            return
        if self._eof:
            self.end()  # what is missing will never come
            return
        if stage is self._stage and stage is not IDLE:
            return
        self._stage = stage
        settings = self.app.settings
        seconds = settings.keep_alive_seconds
        if stage is not IDLE:
            seconds = settings.head_seconds if stage is HEAD else settings.body_seconds
        self.wake_at(self.now() + seconds)

    def _await_taking(self) -> None:
        """Set the deadline for the client to take what is written; `expired` moves it as long as some is taken."""
        self._untaken = self.count_untaken()
        self.wake_at(self.now() + self.app.settings.answer_seconds)

    def _call(self, callback: Callable[[], None]) -> None:
        """Run a callback of the loop, which would log an exception and leave the connection as it is."""
        try:
            callback()
        except Exception:
            logger.exception("a connection failed")
            self.abort()

    def _move(self, event: ConnectionEvent) -> None:
        self.phase = after(self.phase, event)

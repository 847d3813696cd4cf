"""One connection: requests in, answers out, until a transport takes it over or it closes.

The phases and their legal moves stand in `MOVES`. While READING, the parser's requests are answered one by one, in
order, so pipelining needs nothing more. A request that can't be answered at once makes it WAITING; a stream makes it
STREAMING, and the parser is let go. LINGERING sends what is left and reads on to nowhere until the peer closes: closing
at once would make the kernel reset the connection, and take an error's answer with it.

Every phase has a deadline on the wheel, but a stream's is its transport's own. The one for taking an answer moves for
as long as the client takes some of it.

No connection may hold up the others: of each, at most `app.READ_BYTES` are read in a turn of the loop, and requests
that have come together are answered for `TURN_SECONDS`, then the rest waits for the next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import logging
import os
import sys
import termios
from collections.abc import Callable
from typing import cast

from ..errors import Refusal
from ..http import routes
from ..http.replies import encode, error_reply
from ..policy.bucket import Bucket
from ..protocol.base import Listener, Reply
from ..wire import http1
from .app import App

logger = logging.getLogger("oncecast.server")

TURN_SECONDS = 0.01
TLS_HIGH, TLS_LOW = 64 << 10, 16 << 10  # unsent bytes: what a TLS record and its buffers hold anyway
PIPELINE_BYTES = 64 << 10  # what a client may send ahead while an answer is being made
LINGER_SECONDS = 2.0
FIRST_SECONDS = 1.0  # for the first request on a connection that was taken just before the server stops


class Phase(enum.Enum):
    """What a connection is doing."""

    READING = "reading"
    WAITING = "waiting"
    STREAMING = "streaming"
    LINGERING = "lingering"
    CLOSED = "closed"


MOVES: dict[Phase, frozenset[Phase]] = {
    Phase.READING: frozenset({Phase.WAITING, Phase.STREAMING, Phase.LINGERING, Phase.CLOSED}),
    Phase.WAITING: frozenset({Phase.READING, Phase.LINGERING, Phase.CLOSED}),
    Phase.STREAMING: frozenset({Phase.LINGERING, Phase.CLOSED}),
    Phase.LINGERING: frozenset({Phase.CLOSED}),
    Phase.CLOSED: frozenset(),
}

# Names for the members: to look one up on its class costs ten times the comparison, and a request makes a dozen.
READING, WAITING, STREAMING, LINGERING, CLOSED = Phase
IDLE, HEAD, BODY = http1.Stage


class Connection(asyncio.BufferedProtocol):
    """The protocol object of one socket, and the `Link` of the transport that takes it over."""

    __slots__ = (
        "_bucket",
        "_eof",
        "_fresh",
        "_full",
        "_listener",
        "_parser",
        "_paused",
        "_request",
        "_stage",
        "_transport",
        "_untaken",
        "app",
        "deadline",
        "descriptor",
        "phase",
        "tick",
        "write",
    )

    def __init__(self, app: App) -> None:
        self.app = app
        self.phase = READING
        self.deadline = 0.0
        self.tick = 0
        self.write: Callable[[bytes], None] = _nowhere
        self._transport: asyncio.Transport | None = None
        self._parser: http1.RequestParser | None = None
        self._request: http1.Request | None = None
        self._listener: Listener | None = None
        self._bucket: Bucket | None = None
        self._stage = IDLE
        self.descriptor: int | None = None
        self._eof = False
        self._fresh = True  # no request has come yet
        self._full = False
        self._paused = False
        self._untaken = 0

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to read, within the time for a head."""
        self._transport = cast(asyncio.Transport, transport)
        self.write = self._transport.write
        if self._transport.get_extra_info("sslcontext") is None:
            # One unsent byte is enough to be full: the kernel's buffer is the queue, and we keep none of our own.
            self._transport.set_write_buffer_limits(high=0)
            self._take_hold(self._transport)
        else:
            self._transport.set_write_buffer_limits(high=TLS_HIGH, low=TLS_LOW)
        self._parser = http1.RequestParser(self.app.settings)
        self.wake_at(self.now() + self.app.settings.head_seconds)
        refusal = self.app.admit(self)
        if refusal is not None:
            self.fail(refusal)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Read into one buffer for all connections: what has come is taken from it before the loop reads again."""
        return self.app.read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what has come. After a full buffer there is more: it waits for the next turn, for the others' sake."""
        self.data_received(bytes(self.app.read_buffer[:nbytes]))
        if nbytes == len(self.app.read_buffer):
            self._pause_reading()
            asyncio.get_running_loop().call_soon(self._next_turn)

    def data_received(self, data: bytes) -> None:
        """Read requests, or hand the bytes to the transport."""
        if self.phase is STREAMING:
            assert self._listener is not None
            self._listener.received(data)
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
            if self._parser.buffered > PIPELINE_BYTES:
                self._pause_reading()

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
        self._pause_reading()
        if self._listener is not None:
            self._listener.blocked()
        elif self.phase is READING:
            self._await_taking()

    def resume_writing(self) -> None:
        """The socket takes bytes again."""
        self._full = False
        self._resume_reading()
        if self._listener is not None:
            self._listener.drained()
        elif self.phase is READING:
            self._stage = IDLE
            self._read()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget everything."""
        listener = self._listener
        self._move(CLOSED)
        self.app.dismiss(self)
        self._listener = self._transport = self._parser = self._request = None
        self._let_go()
        if listener is not None:
            listener.closed()

    def expired(self, now: float) -> None:
        """The deadline has come."""
        if self._listener is not None:
            self._listener.woken(now)
        elif self.phase is READING and not self._full and self._stage is not IDLE:
            what = "head" if self._stage is HEAD else "body"
            self.fail(Refusal("timeout", f"The request's {what} did not come in time: send it faster."))
        elif self.phase is READING and not self._full:
            self.end()  # an idle keep-alive connection
        elif 0 < (untaken := self._count_untaken()) < self._untaken:
            self._untaken = untaken  # slow, but it takes: a large answer on a thin line has its time
            self.wake_at(now + self.app.settings.answer_seconds)
        else:
            self.abort()

    # -- the Link of a transport

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
        transport = self._transport
        assert transport is not None
        self._move(LINGERING)
        self._listener = self._parser = self._request = None
        self._full = False
        self._resume_reading()
        self._let_go()
        self._untaken = self._count_untaken()
        unsent = transport.get_write_buffer_size() > 0
        self.wake_at(self.now() + (self.app.settings.answer_seconds if unsent else LINGER_SECONDS))
        if self._eof or not transport.can_write_eof():  # TLS has its own goodbye
            transport.close()
            return
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection, and the loop has not noticed yet
            transport.abort()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- what routes call

    def reply(self, reply: Reply | Refusal) -> None:
        """Answer the request that is being handled, and go on to the next."""
        request = self._request
        if request is None:
            return
        if isinstance(reply, Refusal):
            reply = error_reply(reply)
        self.send(encode(self.app, request, reply, close=not self.app.ready))

    def send(self, answer: bytes) -> None:
        """Do as `reply` does, with an answer that is bytes already."""
        request = self._request
        if request is None:  # the client is gone
            return
        self._request = self._listener = None
        self.write(answer)
        waiting = self.phase is WAITING
        if waiting:
            self._move(READING)
        if not (request.keep_alive and self.app.ready):
            self.end()
        elif waiting and self._full:
            self._await_taking()
        elif waiting:
            self._resume_reading()
            self._read()

    def fail(self, refusal: Refusal) -> None:
        """Answer with an error and close, where it is not known where the next request begins."""
        self.write(encode(self.app, self._request, error_reply(refusal), close=True))
        self.end()

    def stream(self, make: Callable[[], Listener]) -> None:
        """Give the connection to a transport. `make` may raise `Refusal`, before it has written anything."""
        assert self._parser is not None
        listener = make()
        self._move(STREAMING)
        self._listener = listener
        rest = self._parser.take_rest()
        self._parser = self._request = None
        if self._full:
            listener.blocked()
        if rest:
            listener.received(rest)
        if self.app.told(self):  # its moment to go came while its request did
            self.drain()

    def wait(self, request: http1.Request, listener: Listener | None = None) -> None:
        """Unless it has come already, the answer comes later, by `reply`. `listener` hears of the connection meanwhile.

        Without a listener the answer has the time that `answer_seconds` gives it.
        """
        if self._request is not request:
            return
        if listener is not None and (self._eof or self.app.told(self)):
            listener.drain()  # see `eof_received` and `drain`
            return
        self._move(WAITING)
        self._listener = listener
        if listener is None:
            self.wake_at(self.now() + self.app.settings.answer_seconds)

    def drain(self) -> None:
        """The moment to go has come: end what is idle, let a stream say goodbye, and close after the next answer."""
        if self._listener is not None:
            self._listener.drain()
        elif self.phase is READING and self._stage is IDLE:
            if self._fresh:  # its first request is on the way, and there is no other connection to ask on
                self.wake_at(self.now() + FIRST_SECONDS)
            else:
                self.end()

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
                self._await(parser.stage)
                return
            if until == 0.0:
                until = self.now() + TURN_SECONDS
            self._handle(request)
            if parser.empty:
                if self.phase is READING and not self._full:
                    self._await(IDLE)
                return
            if self.phase is READING and self.now() > until:
                self._move(WAITING)
                self.wake_at(self.now() + self.app.settings.answer_seconds)
                asyncio.get_running_loop().call_soon(self._next_turn)
                return

    def _handle(self, request: http1.Request) -> None:
        self._stage = IDLE
        self._fresh = False
        self._request = request
        try:
            routes.handle(self.app, self, request)
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # a defect of ours: the log gets all of it, the client little
            logger.exception("a request could not be handled: %s %s", request.method, request.path)
            self._fail_internally(request)

    def _fail_internally(self, request: http1.Request) -> None:
        if self._request is request:
            self.fail(Refusal("internal", "The server failed at this request: its log has the cause."))
        else:  # part of an answer may have gone out
            self.abort()

    def _next_turn(self) -> None:
        """Go on with what the last turn of the loop left."""
        if self.phase is WAITING and self._request is None:
            self._move(READING)
            self._read()
        ahead = self.phase is WAITING and self._parser is not None and self._parser.buffered > PIPELINE_BYTES
        if not (ahead or self._full):
            self._resume_reading()

    def _await(self, stage: http1.Stage) -> None:
        """Set the deadline for what is awaited; the bytes of a head or a body that dribble in do not move it."""
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
        self._untaken = self._count_untaken()
        self.wake_at(self.now() + self.app.settings.answer_seconds)

    def _count_untaken(self) -> int:
        """Return how many bytes the client has not taken: the transport's, and the kernel's, which are not few."""
        assert self._transport is not None
        untaken = self._transport.get_write_buffer_size()
        shared = self._transport.get_extra_info("socket")
        if shared is not None:
            with contextlib.suppress(OSError):  # not every system counts them
                untaken += int.from_bytes(fcntl.ioctl(shared.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
        return untaken

    def _move(self, phase: Phase) -> None:
        if phase not in MOVES[self.phase]:
            raise AssertionError(f"a connection can't go from {self.phase.value} to {phase.value}")
        self.phase = phase

    # -- writing past the loop's transport

    def _take_hold(self, transport: asyncio.Transport) -> None:
        """Let bytes go straight to the socket: the transport's way there costs a microsecond more a write."""
        shared = transport.get_extra_info("socket")
        if shared is not None:  # else it is a transport without one: what is written goes its way
            self.descriptor = shared.fileno()
            self.write = self._write_straight

    def _let_go(self) -> None:
        """Forget the descriptor, which is the transport's to close: what is written from here on goes nowhere."""
        self.descriptor = None
        self.write = _nowhere

    def _write_straight(self, data: bytes) -> None:
        descriptor = self.descriptor
        if descriptor is None:  # kept by a transport that has ended
            return
        if not self._full:  # else the transport holds bytes that come before these
            try:
                sent = os.write(descriptor, data)
            except OSError:  # full, or broken: the transport finds out which
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)  # type: ignore[union-attr]

    def _pause_reading(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._paused and self._transport is not None and not self._full:
            self._paused = False
            self._transport.resume_reading()


def _nowhere(data: bytes) -> None:
    """Drop what is written to a connection that is closed or closing."""

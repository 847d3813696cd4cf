"""The answering side of a connection: requests in, answers out, one by one and in order.

A request is read only once the one before it is answered, so pipelining needs nothing more. Invariant: `_request` is
the request whose answer is due, and None where none is.

Each stage of a request has a deadline. The bytes of a head or of a body do not move it.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable

from ..errors import Refusal
from ..http.exchange import Agreement
from ..http.flood import FloodGuard
from ..http.listening import LONG_POLL
from ..http.replies import encode, encode_fault, error_reply, events_head
from ..policy.access import Access
from ..policy.identity import ANYBODY, Identity
from ..policy.origin import Headers
from ..policy.quotas import Quotas
from ..protocol.base import Carrier, Duplex, Reply, Session
from ..wire import http1
from .admission import FULL, may_use_reserve
from .app import App
from .inlet import Inlet
from .logs.requests import shown_briefly
from .phases import CLOSED, LINGERING, READING, WAITING, ConnectionEvent, after
from .presence import Presence, become

__all__ = ["HEAD", "IDLE", "LINGER_SECONDS", "PIPELINE_BYTES", "Responder"]

logger = logging.getLogger("oncecast.server")

PIPELINE_BYTES = 64 << 10  # what a client may send ahead while an answer is being made
LINGER_SECONDS = 2.0
SEPARATE_BYTES = 64 << 10  # of a body that is not copied behind its head: several connections may share it

IDLE, HEAD, BODY = http1.Stage  # names of their own, for the same reason as those of the phases


class Responder(Inlet):
    """An `Inlet` that answers requests: the `Exchange` of the routes. `identity` is that of the peer,
    `presence` what of it is counted.
    """

    __slots__ = (
        "_eof",
        "_flood",
        "_fresh",
        "_listener",
        "_parser",
        "_request",
        "_reserved",
        "_stage",
        "_transport_name",
        "deadline",
        "identity",
        "phase",
        "presence",
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
        self._flood: FloodGuard | None = None
        self._stage = IDLE
        self._transport_name = ""  # of the listener's transport
        self._eof = False
        self._fresh = True  # no request has come yet
        self.presence: Presence | None = None
        self._reserved = False  # it may make one request of a few, and is closed: see `Admission`

    # -- what the connection adds: what routes call where a transport takes it, and what the server calls

    @abstractmethod
    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Give the connection to an event stream. `make` may raise `Refusal`: nothing is written then."""

    @abstractmethod
    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Give the connection to a WebSocket. `make` may raise `Refusal`: nothing is written then."""

    @abstractmethod
    def expired(self, now: float) -> None:
        """The deadline has come."""

    @abstractmethod
    def drain(self) -> None:
        """Leave, as the server stops: end what is idle, let a stream say goodbye, or close after the next answer."""

    @abstractmethod
    def recheck(self, access: Access) -> None:
        """Other access rules hold."""

    @abstractmethod
    def disconnect(self) -> None:
        """End what belongs to the user at the other end."""

    @abstractmethod
    def look_at_expiry(self, now: float) -> None:
        """The token ends soon, or has ended."""

    @abstractmethod
    def evict(self) -> bool:
        """Close at once, answering 503 where no answer has been given. Return False where one is being made."""

    # -- what routes call

    def reply(self, reply: Reply | Refusal) -> None:
        """Answer the request that is being handled, and go on to the next."""
        request = self._request
        if request is None:
            return
        if isinstance(reply, Refusal):
            self._note(reply, request)
            reply = error_reply(reply)
        close, body = self._reserved or not self.app.ready, reply.body
        if len(body) < SEPARATE_BYTES or request.method == "HEAD":
            self.send(encode(self.app, request, reply, close=close))
        else:
            self.send(encode(self.app, request, reply, close=close, head_only=True), body)

    def send(self, answer: bytes, body: bytes = b"") -> None:
        """Do as `reply` does, with an answer that is bytes already; of a large one `body` may be apart."""
        request = self._request
        if request is None:  # the client is gone
            return
        if self._listener is not None:
            self._unlisten()
            if self.presence is not None:
                self.presence.leave()
        self._request = None
        self.write(answer)
        if body:
            self.write(body)
        waiting = self.phase is WAITING
        if waiting:
            self._move("answered")
        if self._reserved or not (request.keep_alive and self.app.ready):
            self.end()
        elif waiting and self._full:
            self._await_taking()
        elif waiting:
            self._set_reading()
            self._read()

    def answer_events(self, headers: Headers, events: bytes, /) -> None:
        """Answer with an event stream that ends after `events`, or with its head alone."""
        request = self._request
        if request is None:
            return
        head = events_head(self.app, request, headers)
        if request.method == "HEAD":  # RFC 9110 §9.3.2: what GET would say, so no length; and RFC 9112 §6.3: no body
            self.send(head.data)
            if not head.goes_on:
                self.end()
        else:
            self.send(head.framed(events))
            self.end()

    def fail(self, refusal: Refusal) -> None:
        """Answer with an error and close, where it is not known where the next request begins."""
        if self._request is not None:
            self._note(refusal, self._request)
            self.write(encode(self.app, self._request, error_reply(refusal), close=True))
        elif self._parser is not None:
            self.app.refusals.unread(refusal)
            self.write(encode_fault(self.app, self._parser.headers_read, refusal))
        self.end()

    def wait(self, request: http1.Request, session: Session | None = None) -> None:
        """Unless it has come already, the answer comes later, by `reply`. `session` hears of the connection meanwhile.

        Without a session the answer has the time that `answer_seconds` gives it.
        """
        if self._request is not request:
            return
        if session is not None and (self._eof or self.app.must_leave(self)):
            session.drain()  # see `eof_received` and `drain`
            return
        if session is not None and self.app.settings.quotas is not None:
            self._count_user(session, self.app.settings.quotas)
        if self.phase is not WAITING:  # it has waited for something else before
            self._move("postponed")
        if session is not None:
            self._listen(session, LONG_POLL)
        else:
            self.wake_at(self.now() + self.app.settings.answer_seconds)

    def spend_publishes(self, count: int, size: int, now: float) -> None:
        """Count messages and their bytes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        if self._flood is None:
            self._flood = FloodGuard()
        self._flood.spend_publishes(self.app.settings, now, count, size)

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history. Return why it may read none now, or None."""
        if self._flood is None:
            self._flood = FloodGuard()
        return self._flood.read_page(self.app.settings, self.identity, self.now())

    # -- time and the end

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
        self._move("ended")
        self._unlisten()
        self._parser = self._request = None
        self.hold(0)
        self._full = False
        self._set_reading()
        self.release()
        self.watch_taking()
        unsent = self._transport.get_write_buffer_size() > 0
        self.wake_at(self.now() + (self.app.settings.answer_seconds if unsent else LINGER_SECONDS))
        self.finish(at_once=self._eof)

    # -- helpers

    def _listen(self, listener: Session, transport: str) -> None:
        """Let a long poll or a carrier hear of the connection from now on, and count it."""
        self._listener, self._transport_name = listener, transport
        self.app.listeners[transport] += 1

    def _unlisten(self) -> None:
        if self._listener is not None:
            self._listener = None
            self.app.listeners[self._transport_name] -= 1

    def _note(self, refusal: Refusal, request: http1.Request) -> None:
        """Count a refusal of a request, and let the audit log have it."""
        self.app.refusals.request(refusal, self.identity, request)

    def _count_user(self, session: Session, quotas: Quotas) -> None:
        """Count a long poll that waits as one of its user's connections. Raises `Refusal`, and ends it."""
        if quotas.user(self.identity):
            try:
                self.presence = become(self.presence, quotas, self.identity, self.now())
            except Refusal:
                session.closed()
                raise

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
        if self.presence is not None and self.presence.asks:
            self.identity = self.presence.begin(self.identity, request.headers)
        try:  # as in `proceed`: a call more would be a tenth of a remembered poll
            if self._reserved:
                self._check_reserved(request)
            self.app.handle(self.app, self, request)
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # noqa: BLE001 - it is logged there
            self._defect(request)

    def proceed(self, request: http1.Request, call: Callable[[], None]) -> None:
        """Go on with a request that has waited, unless the client is gone."""
        if self._request is not request:
            return
        try:
            call()
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # noqa: BLE001 - it is logged there
            self._defect(request)

    def _defect(self, request: http1.Request) -> None:
        """Report a defect of ours: the log gets all of it, the client little."""
        logger.exception("a request could not be handled: %s", shown_briefly(request.method, request.path))
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
        if self._eof or (stage is IDLE and not self._fresh and self.app.must_leave(self)):
            self.end()  # what is missing will never come, or its moment to leave came while it waited for its turn
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
        self.watch_taking()
        self.wake_at(self.now() + self.app.settings.answer_seconds)

    def _move(self, event: ConnectionEvent) -> None:
        self.phase = after(self.phase, event)

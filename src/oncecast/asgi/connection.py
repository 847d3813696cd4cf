"""One request or socket of another server: the `Exchange` of the routes.

The server's task for it runs `_pump`, which sends what is put; what comes from the peer is read beside it. Invariants:
an answer begins once and ends once; when `run` returns, the session is closed and the connection counted out.
"""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Iterator
from functools import partial
from typing import Any

from ..errors import Refusal
from ..http import routes
from ..http.exchange import Agreement
from ..http.listening import LONG_POLL, WEBSOCKET
from ..http.replies import error_reply, headers_of
from ..policy.origin import Headers
from ..protocol.base import Carrier, Duplex, Reply, Session
from ..server.admission import FULL, may_use_reserve
from ..server.expiries import warn_at
from ..server.logs.audit import NAMES
from ..server.logs.line import Value
from ..server.logs.requests import shown_briefly, shown_method, shown_target
from ..server.presence import Presence
from ..wire import http1
from .logs import AppLogs
from .peer import AsgiPeer
from .scopes import AsgiSend, Event, Receive

__all__ = ["AsgiConnection"]

logger = logging.getLogger("oncecast.asgi")


class AsgiConnection(AsgiPeer):
    """A connection of which `request` is the request. `identity` is that of its caller.

    A kind has a `transport`, and the `status` with which that begins.
    """

    transport: str
    status: int

    # -- for the kinds

    @abstractmethod
    def _events(self, items: Iterable[Any]) -> Iterator[Event]:
        """Return the events of ASGI for what was put."""

    @abstractmethod
    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Put a whole answer."""

    @abstractmethod
    def answer_events(self, headers: Headers, events: bytes, /) -> None:
        """Answer with an event stream that ends after `events`, or with its head alone."""

    @abstractmethod
    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Become an event stream. `make` may raise `Refusal`: nothing is sent then."""

    @abstractmethod
    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Accept a handshake. `make` may raise `Refusal`: nothing is sent then."""

    @abstractmethod
    async def _listen(self, receive: Receive) -> None:
        """Read what the peer sends, until it is gone."""

    # -- its life

    async def run(self, receive: Receive, send: AsgiSend, prepare: Callable[[], Awaitable[None]]) -> None:
        """Answer the request, as `prepare` does; return once the answer has ended, or the peer is gone.

        `prepare` answers, or begins to. It may raise `Refusal`.
        """
        reserved, self._began = self.app.admit(self), self.now()
        listening: asyncio.Task[None] | None = None
        try:
            async with asyncio.timeout(None) as self._life:
                await self._prepare(prepare if not reserved or may_use_reserve(self.request) else self._turn_away)
                if not self._pending.ended:
                    listening = asyncio.create_task(self._listen_whole(receive))
                if self._streaming:
                    # In a task of its own: else each turn would step through the coroutines of all the middleware.
                    await asyncio.create_task(self._pump(send))
                else:
                    await self._pump(send)
        except TimeoutError:
            if self._life is None or not self._life.expired():
                raise
        except OSError:
            logger.debug("a peer has gone", exc_info=True)
        finally:
            self._life = None
            if listening is not None:
                listening.cancel()
                await asyncio.wait({listening})
            self.close()
            logs = self.app.logs
            if isinstance(logs, AppLogs) and logs.accesses:  # a server around logs what its application answers
                logs.access(self._line())

    def close(self) -> None:
        """Forget everything. Safe to call twice."""
        session = self._session
        self._unlisten()
        self._pending.drop()
        self.app.dismiss(self)
        if self._presence is not None:
            self._presence.end()
            self._presence = None
        if session is not None:
            session.closed()

    def handle(self) -> None:
        """Call the routes, unless the request is answered already."""
        self.proceed(self.request, partial(routes.handle, self.app, self, self.request))

    async def _prepare(self, prepare: Callable[[], Awaitable[None]]) -> None:
        try:
            await prepare()
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # noqa: BLE001 - it is logged there
            self._defect()

    async def _turn_away(self) -> None:
        self.app.admission.turn_away()
        raise FULL.with_traceback(None)

    def _count(self) -> None:
        """Count a stream, a socket or a poll that waits as its client's, whatever proxy it comes through, and as its
        user's. Raises `Refusal`.
        """
        quotas = self.app.settings.quotas
        if quotas is not None and self._presence is None:
            presence = Presence(quotas, proxy=self.identity.address or "-")
            presence.join(self.identity, self.now())
            self._presence = presence

    def _listen_to(self, session: Session, transport: str) -> None:
        self._session, self._listener = session, transport
        self.app.listeners[transport] += 1

    def _unlisten(self) -> None:
        if self._session is not None:
            self._session = None
            self.app.listeners[self._listener] -= 1

    def _line(self) -> dict[str, Value]:
        """Return the fields of the access log."""
        fields: dict[str, Value] = {"address": self.identity.address or "-"}
        name = NAMES[self.identity.kind]
        if name and self.identity.subject is not None:
            fields[name] = self.identity.subject
        fields |= {"method": shown_method(self.request.method), "path": shown_target(self.request)}
        if self._status:
            fields["status"] = self._status
        if self._streaming:
            fields["as"] = "socket" if self.transport == WEBSOCKET else "events"
            if self._code is not None:
                fields["close"] = self._code
        return fields | {"seconds": round(self.now() - self._began, 3)}

    async def _pump(self, send: AsgiSend) -> None:
        while items := await self._pending.take():
            for event in self._events(items):
                await send(event)
            self._take_on()

    def _take_on(self) -> None:
        """Note that the items that were taken are sent."""
        if self._pending.sent() and self._session is not None:
            self._call(self._session.drained)

    async def _listen_whole(self, receive: Receive) -> None:
        try:
            await self._listen(receive)
        except Exception:
            logger.exception("a connection failed as it was read")
        self._pending.drop()

    def attempt(self, call: Callable[[], None]) -> None:
        """Run a call about the request. Answer with the `Refusal` that it raises; report any other exception."""
        try:
            call()
        except Refusal as refusal:
            self.reply(refusal)
        except Exception:  # noqa: BLE001 - it is logged there
            self._defect()

    def _defect(self) -> None:
        """Log an exception of our own code, and answer with `internal`, without details."""
        asked = shown_briefly(self.request.method, self.request.path)
        logger.exception("a request could not be handled: %s", asked)
        if self._streaming:
            self.abort()
        else:
            self.reply(Refusal("internal", "The server failed at this request: its log has the cause."))

    # -- the exchange of the routes

    def reply(self, reply: Reply | Refusal, /) -> None:
        """Answer the request, once."""
        if self._answered or self._streaming:
            return
        self._answered = True
        self._unlisten()
        if isinstance(reply, Refusal):
            self.app.refusals.request(reply, self.identity, self.request)
            reply = error_reply(reply)
        self._status = reply.status
        self.app.counters.requests[reply.status] += 1
        self._answer(reply.status, headers_of(self.app, self.request, reply), reply.body)
        self._pending.end()
        self._say_goodbye()

    def send(self, answer: bytes, /) -> None:
        """Never called: no request is kept alive here."""
        raise NotImplementedError

    def fail(self, refusal: Refusal, /) -> None:
        """Answer with an error."""
        self.reply(refusal)

    def wait(self, request: http1.Request, session: Session | None = None) -> None:
        """Expect the answer later, by `reply`."""
        if self._answered or self._streaming:
            return
        if session is not None and self.app.must_leave(self):
            session.drain()
            return
        if session is not None:
            try:
                self._count()
            except Refusal:
                session.closed()
                raise
            self._listen_to(session, LONG_POLL)
        else:
            self.wake_at(self.now() + self.app.settings.answer_seconds)

    def proceed(self, request: http1.Request, call: Callable[[], None], /) -> None:
        """Go on with a request that has waited, unless the client is gone."""
        if not (self._answered or self._streaming or self._pending.ended):
            self.attempt(call)

    def spend_publishes(self, count: int, size: int, now: float, /) -> None:
        """Count messages and their bytes against the flood guard. Raises `Refusal` (`too_many_requests`)."""
        self._flood.spend_publishes(self.app.settings, now, count, size)

    def _stream(self, make: Callable[[], Session]) -> None:
        """Become a stream. Raises what `make` raises; then nothing is sent."""
        self._count()
        session = make()
        self._streaming = True
        self._status = self.status
        if self._pending.ended:  # the session has ended, or the peer is gone
            session.closed()
            return
        self._listen_to(session, self.transport)
        if self._pending.full:
            session.blocked()
        if self.identity.expires is not None:
            self.app.expiries.watch(self, warn_at(self.identity))
        if self.app.must_leave(self):
            self.drain()

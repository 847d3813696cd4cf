"""`Oncecast.stream`: an event stream as the answer of an application's own route.

The answer is an ASGI application, as Starlette and Litestar take one from a route. FastAPI takes instances of
Starlette's `Response` only; where that is loaded, the answer is one as well. For frameworks that send what they iterate
over, `blocks` yields the body's pieces, and `headers` has what to send with it (Quart, Django).
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

from ..errors import Refusal
from ..policy.access import Access
from ..policy.origin import Headers
from ..protocol.base import Carrier
from ..protocol.events import EventStream, error_event, parse_stream, retry_event, stream_headers
from ..protocol.query import Query
from ..wire import http1
from .life import AppLife
from .requests import EventsConnection
from .scopes import AsgiSend, Receive, Scope, headers_of_scope

__all__ = ["EventAnswer", "answer_of", "scope_of"]


def scope_of(request: Any) -> Scope:
    """Return the scope of a framework's request, or of one that is a scope itself."""
    scope: Scope = getattr(request, "scope", request)
    return scope


class _RouteConnection(EventsConnection):
    """A request of a route of the application's, which has decided who may listen: it has no identity of ours."""

    def recheck(self, access: Access, /) -> None:
        """Go on: neither rules nor keys of the settings apply."""


class EventAnswer:
    """The answer. `life` returns the running part when it is needed."""

    status_code = 200
    media_type = "text/event-stream"
    background: Any = None

    def __init__(
        self,
        life: Callable[[], Awaitable[AppLife]],
        request: Any,
        channels: tuple[str, ...],
        query: Query,
        heartbeat_seconds: float,
    ) -> None:
        self._life = life
        self._channels = channels
        self._query = query
        self._last_event_id = headers_of_scope(scope_of(request)).get("last-event-id")
        self._set_headers(stream_headers(heartbeat_seconds))

    def _set_headers(self, headers: Headers) -> None:
        self.headers: Any = dict(headers)

    def _sent_headers(self) -> Headers:
        return tuple(self.headers.items())

    async def __call__(self, scope: Scope, receive: Receive, send: AsgiSend) -> None:
        """Send the stream, until the client or this process leaves."""
        life = await self._life()
        request = http1.Request(
            method=str(scope.get("method", "GET")), target=self.media_type, path="", keep_alive=False
        )
        connection = _RouteConnection(life.app, request, "")
        await connection.run(receive, send, partial(self._open, life, connection))
        if self.background is not None:
            await self.background()

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the pieces of the body. Close it (or end its iteration) to leave."""
        life = await self._life()
        request = http1.Request(method="GET", target="", path="", keep_alive=False)
        connection = _RouteConnection(life.app, request, "")
        life.app.admit(connection)
        try:
            await self._open(life, connection)
            async for block in connection.blocks():
                yield block
        except Refusal as refusal:
            yield retry_event(refusal) if refusal.error.retry else error_event(refusal)
        finally:
            connection.close()

    async def _open(self, life: AppLife, connection: EventsConnection) -> None:
        """Become a stream. Raises `Refusal`."""
        settings = life.app.settings
        start = parse_stream(settings, self._channels, self._query, self._last_event_id)
        found = await life.resolve_start(self._channels, start)

        if connection.request.method == "HEAD":  # a framework asks a route for GET (RFC 9110 §9.3.2)
            connection.answer_events(self._sent_headers(), b"")
            return

        def make(carrier: Carrier) -> EventStream:
            query: Query = replace(self._query, start=found)
            return EventStream(life.node, settings, carrier, self._channels, query, None)

        connection.open_events(self._sent_headers(), make)


@lru_cache(maxsize=1)
def _of_starlette(response: type) -> type[EventAnswer]:
    """Return an answer that is a `Response` of Starlette too."""

    class StarletteEventAnswer(EventAnswer, response):  # type: ignore[misc]
        """An `EventAnswer` with the headers that Starlette's answers have."""

        def _set_headers(self, headers: Headers) -> None:
            self.init_headers(dict(headers))

        def _sent_headers(self) -> Headers:
            return tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in self.raw_headers)

    return StarletteEventAnswer


def answer_of(*arguments: Any) -> EventAnswer:
    """Return the answer, a Starlette `Response` if Starlette is loaded."""
    responses = sys.modules.get("starlette.responses")
    kind = EventAnswer if responses is None else _of_starlette(responses.Response)
    return kind(*arguments)

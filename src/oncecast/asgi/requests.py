"""A request of HTTP over ASGI: its body, its answer, or the stream that it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from msgspec import structs

from ..errors import Refusal
from ..http.exchange import Agreement
from ..http.listening import SSE
from ..policy.origin import Headers
from ..protocol.base import Carrier, Duplex, Session
from .carriers import END_OF_BODY, EventsOverAsgi
from .connection import AsgiConnection
from .scopes import Event, Receive

__all__ = ["EventsConnection", "encoded"]

READ_ON = 4  # times the limit: hypercorn and granian reset a connection whose body is not read, and the answer is lost


def encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Return headers as ASGI has them."""
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


class EventsConnection(AsgiConnection):
    """A request of HTTP."""

    transport = SSE
    status = 200

    def _events(self, items: Iterable[Any]) -> Iterator[Event]:
        data: list[bytes] = []
        for item in items:
            if isinstance(item, bytes):
                data.append(item)
                continue
            if data:
                yield {"type": "http.response.body", "body": b"".join(data), "more_body": True}
                data = []
            yield item
        if data:
            yield {"type": "http.response.body", "body": b"".join(data), "more_body": True}

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        if status < 200 or status in (204, 304):
            body = b""
        else:
            headers = (*headers, ("Content-Length", str(len(body))))
        if status == 426:  # RFC 9110 §7.8
            headers = (*headers, ("Connection", "Upgrade"))
        self._begin(status, headers)
        body = b"" if self.request.method == "HEAD" else body
        self._pending.put({"type": "http.response.body", "body": body, "more_body": False}, len(body))

    def _begin(self, status: int, headers: Headers) -> None:
        self._pending.put({"type": "http.response.start", "status": status, "headers": encoded(headers)}, 0)

    def answer_events(self, headers: Headers, events: bytes, /) -> None:
        """Answer with an event stream that ends after `events`, or with its head alone."""
        if self._answered or self._pending.ended:
            return
        self._answered = True
        self._status = 200
        self._begin(200, headers)
        if events and self.request.method != "HEAD":
            self._pending.put(events, len(events))
        self._pending.put(END_OF_BODY, 0)
        self._pending.end()

    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Become an event stream. `make` may raise `Refusal`: nothing is sent then."""
        if self._answered or self._pending.ended:
            return
        self._stream(lambda: self._make(headers, make))

    def _make(self, headers: Headers, make: Callable[[Carrier], Session]) -> Session:
        self._begin(200, headers)
        try:
            return make(EventsOverAsgi(self))
        except BaseException:
            self._pending.clear()
            raise

    async def blocks(self) -> AsyncIterator[bytes]:
        """Yield the pieces of a stream's body, for a framework that sends them itself."""
        while items := await self._pending.take():
            for event in self._events(items):
                if event.get("body"):
                    yield event["body"]
            self._take_on()

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Never called: a request of HTTP asks for no socket here."""
        raise NotImplementedError

    async def read_body(self, receive: Receive) -> None:
        """Read the body, if the request has one. Raises `Refusal` for one that is too large or too slow."""
        if self.request.method in ("GET", "HEAD", "OPTIONS"):
            return
        settings, limit = self.app.settings, self.app.settings.body_bytes
        if int(self.request.headers.get("content-length", "0")) > READ_ON * limit:
            raise _too_large(limit)
        size = 0
        body = bytearray()  # a list of the pieces would be many times the size of small ones
        try:
            async with asyncio.timeout(settings.body_seconds):
                while not self._pending.ended:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        self._pending.drop()
                        return
                    piece = event.get("body", b"")
                    size += len(piece)
                    if size <= limit:
                        body += piece
                        self.app.unfinished.set(self, size)
                    if not event.get("more_body", False) or size > READ_ON * limit:
                        break
        except TimeoutError:
            if size > limit:
                raise _too_large(limit) from None
            raise Refusal("timeout", "The request's body did not come in time: send it faster.") from None
        finally:
            self.app.unfinished.set(self, 0)
        if size > limit:
            raise _too_large(limit)
        self.request = structs.replace(self.request, body=bytes(body))

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # the rest of a body that the routes did not read


def _too_large(limit: int) -> Refusal:
    return Refusal("body_too_large", f"The body is over {limit} bytes.")

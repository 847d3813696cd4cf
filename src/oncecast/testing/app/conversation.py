"""One request to an ASGI application, without a socket, whose answer is read while the application makes it.

Other transports for tests run the application to its end before they return the answer. An event stream has no end, so
they hang. Here the application runs in a task of its own (`call.py`), and `close` tells it that the peer has gone, as a
server does (`http.disconnect`). Invariant: the unread part of its answer has a bound.

ASGI 3.0, HTTP 2.3: as uvicorn has it, `send` does nothing once the peer has gone.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Protocol

from ...wire.sse import EventParser, SseEvent
from .call import ANSWER_SECONDS, AsgiApplication, AsgiCall, ScopeDict

__all__ = ["AsgiConversation", "HttpxRequest", "scope_of_request"]


class HttpxRequest(Protocol):
    """The part of `httpx.Request` that a scope is made of."""

    method: str
    url: Any
    headers: Any


def scope_of_request(request: HttpxRequest, root_path: str = "") -> ScopeDict:
    """Return the scope of an httpx request."""
    url = request.url
    raw_path, _, query = bytes(url.raw_path).partition(b"?")
    port = url.port or {"https": 443}.get(url.scheme, 80)
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 50000),
        "server": (url.host, port),
        "state": {},
        "extensions": {},
    }


class AsgiConversation(AsgiCall):
    """A request: `open` it, then read its `status`, its `headers` and its body, and `close` it in any case."""

    def __init__(self, app: AsgiApplication, scope: ScopeDict, body: bytes = b"") -> None:
        super().__init__(app, scope)
        self._body: bytes | None = body
        self._unread: deque[bytes] = deque()
        self._ended = False  # the body has
        self._parser = EventParser()
        self._events: deque[SseEvent] = deque()

    async def open(self, seconds: float | None = ANSWER_SECONDS) -> None:
        """Send the request, and return once the answer has begun. Raises what the application raises until then."""
        await self._begin(seconds)

    async def block(self, seconds: float | None = None) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises what the application raises, and `TimeoutError`."""
        try:
            async with asyncio.timeout(seconds):
                while not self._unread:
                    if self._ended or self._returned:
                        self._raise()
                        return b""
                    await self._change()
        except TimeoutError:
            raise TimeoutError(f"no more of the answer came within {seconds:g} s") from None
        self._room.set()
        return self._unread.popleft()

    async def event(self, seconds: float | None = ANSWER_SECONDS) -> SseEvent | None:
        """Return the next event of an event stream, None at its end. Raises `TimeoutError` where there is none."""
        try:
            async with asyncio.timeout(seconds):
                while not self._events:
                    block = await self.block()
                    if not block:
                        return None
                    self._events += self._parser.receive(block)
        except TimeoutError:
            raise TimeoutError(f"no event came within {seconds:g} s") from None
        return self._events.popleft()

    async def close(self) -> None:
        """Disconnect, and wait until the application has ended. Raises what it raises meanwhile."""
        self._unread.clear()
        await super().close()

    # -- the two functions of ASGI

    async def _receive(self) -> ScopeDict:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, event: ScopeDict) -> None:
        if event["type"] == "http.response.start":
            self.status = event["status"]
            self.headers = [(bytes(name), bytes(value)) for name, value in event.get("headers", ())]
        elif event["type"] == "http.response.body":
            await self._wait_for_room(lambda: len(self._unread))
            if self._gone.is_set():
                return
            if body := bytes(event.get("body", b"")):
                self._unread.append(body)
            self._ended = not event.get("more_body", False)
        self._changed.set()

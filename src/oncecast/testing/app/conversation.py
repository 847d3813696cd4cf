"""One request to an ASGI application, without a socket, whose answer is read while the application makes it.

Other transports for tests run the application to its end before they return the answer. An event stream has no end, so
they hang. Here the application runs in a task of its own, and `close` tells it that the peer has gone, as a server does
(`http.disconnect`). Invariant: after `close` the task has ended. The unread part of its answer has a bound.

ASGI 3.0, HTTP 2.3: as uvicorn has it, `send` does nothing once the peer has gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from ...errors import UsageError
from ...wire.sse import EventParser, SseEvent

__all__ = ["AsgiApplication", "AsgiConversation", "HttpxRequest", "scope_of_request"]

logger = logging.getLogger("oncecast.testing")

UNREAD_BLOCKS = 16  # of an answer; then the application's send waits, as for a slow peer
END_SECONDS = 2.0  # for an application to end after its peer has gone; then it is cancelled
ANSWER_SECONDS = 10.0  # for the application to answer, or to send the next event

# What ASGI says that an application is; the frameworks spell these types in their own ways.
AsgiApplication: TypeAlias = Callable[..., Awaitable[Any]]
ScopeDict: TypeAlias = MutableMapping[str, Any]


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


class AsgiConversation:
    """A request: `open` it, then read its `status`, its `headers` and its body, and `close` it in any case."""

    def __init__(self, app: AsgiApplication, scope: ScopeDict, body: bytes = b"") -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._app = app
        self._scope = scope
        self._body: bytes | None = body
        self._unread: deque[bytes] = deque()
        self._changed = asyncio.Event()  # the answer has begun, a piece has come, or the end
        self._room = asyncio.Event()
        self._gone = asyncio.Event()
        self._ended = False  # the body has
        self._raised = False
        self._task: asyncio.Task[None] | None = None
        self._parser = EventParser()
        self._events: deque[SseEvent] = deque()

    async def open(self, seconds: float | None = ANSWER_SECONDS) -> None:
        """Send the request, and return once the answer has begun. Raises what the application raises until then."""
        if self._task is not None:
            raise UsageError("A conversation is opened once: make one for each request.")
        task = asyncio.get_running_loop().create_task(self._run(), name="oncecast.testing: an ASGI application")
        task.add_done_callback(lambda _: self._changed.set())
        self._task = task
        try:
            async with asyncio.timeout(seconds):
                while not self.status and not task.done():
                    await self._change()
        except BaseException as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise TimeoutError(f"the application did not begin its answer within {seconds:g} s") from None
            raise
        if not self.status:
            self._raise()
            raise UsageError("The application has returned without an answer.")

    async def block(self, seconds: float | None = None) -> bytes:
        """Return the next piece of the body, b"" at its end. Raises what the application raises, and `TimeoutError`."""
        try:
            async with asyncio.timeout(seconds):
                while not self._unread:
                    if self._ended or self._task is None or self._task.done():
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
        self._gone.set()
        self._room.set()
        self._unread.clear()
        task = self._task
        if task is None:
            return
        if not task.done():
            await asyncio.wait({task}, timeout=END_SECONDS)
        if not task.done():
            logger.warning("an application did not end %g s after its peer had gone: it is cancelled", END_SECONDS)
            task.cancel()
            await asyncio.wait({task})
        self._raise()

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
            while len(self._unread) >= UNREAD_BLOCKS and not self._gone.is_set():
                self._room.clear()
                await self._room.wait()
            if self._gone.is_set():
                return
            if body := bytes(event.get("body", b"")):
                self._unread.append(body)
            self._ended = not event.get("more_body", False)
        self._changed.set()

    # -- helpers

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _raise(self) -> None:
        """Raise what the application has raised, once."""
        task = self._task
        if self._raised or task is None or not task.done() or task.cancelled():
            return
        self._raised = True
        if (error := task.exception()) is not None:
            raise error

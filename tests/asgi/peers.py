"""One peer over ASGI, driven by hand: no server, no socket."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from oncecast.asgi.scopes import Event, Scope
from oncecast.asgi.wrapping import AsgiApp
from tests.asgi.conftest import SECONDS

__all__ = ["HandPeer", "http_scope", "socket_scope"]


def http_scope(path: str, *headers: tuple[str, str], method: str = "GET", query: str = "", **more: Any) -> Scope:
    """Return a scope of HTTP."""
    fields = [("host", "app.example"), *headers]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in fields],
        "client": ("192.0.2.1", 1234),
        "server": ("192.0.2.2", 80),
        **more,
    }


def socket_scope(path: str, *headers: tuple[str, str], protocols: tuple[str, ...] = (), **more: Any) -> Scope:
    """Return a scope of a WebSocket."""
    return http_scope(path, *headers, **{"type": "websocket", "scheme": "ws", "subprotocols": list(protocols), **more})


class HandPeer:
    """Runs an application on a scope. While `let` is cleared, `send` does not return: the peer does not read."""

    def __init__(self, app: AsgiApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._to_app: asyncio.Queue[Event] = asyncio.Queue()
        self._sent: asyncio.Queue[Event] = asyncio.Queue()
        self.let = asyncio.Event()
        self.let.set()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> HandPeer:
        if self._scope["type"] == "websocket":
            self.say({"type": "websocket.connect"})
        self.task = asyncio.ensure_future(self._run())
        return self

    async def _run(self) -> None:
        await self._app(self._scope, self._to_app.get, self._send)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self.task is not None
        self.leave()
        self.let.set()
        await self.ended()

    async def _send(self, event: Event) -> None:
        await self._sent.put(event)
        await self.let.wait()

    def say(self, event: Event) -> None:
        """Give the application an event."""
        self._to_app.put_nowait(event)

    def text(self, text: str) -> None:
        """Send a text message."""
        self.say({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        """Disconnect."""
        kind = self._scope["type"]
        self.say({"type": f"{kind}.disconnect", "code": 1005})

    async def next(self) -> Event:
        """Return the next event that the application sends."""
        async with asyncio.timeout(SECONDS):
            return await self._sent.get()

    async def until(self, part: bytes) -> bytes:
        """Return the body that has come once it has this part."""
        body = b""
        while part not in body:
            body += (await self.next()).get("body", b"")
        return body

    async def ended(self) -> None:
        """Wait for the application to return."""
        assert self.task is not None
        async with asyncio.timeout(SECONDS):
            await asyncio.wait({self.task})
        self.task.result()

    @property
    def unheard(self) -> int:
        """How many events the application has not received."""
        return self._to_app.qsize()

    @property
    def waiting(self) -> int:
        """How many events were sent and not taken out."""
        return self._sent.qsize()

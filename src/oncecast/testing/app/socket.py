"""One WebSocket of an ASGI application, without a network: `AsgiSocket` on the test's loop, `PortalSocket` beside it.

Invariant: each wait has a deadline, and neither side holds more than `UNREAD` messages for the other.

ASGI 3.0, WebSocket 2.4: a refused handshake is `websocket.close` before `websocket.accept` (403), or an HTTP answer by
the extension `websocket.http.response`.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

from ...errors import OncecastError
from .call import ANSWER_SECONDS, UNREAD, AsgiApplication, AsgiCall, ScopeDict

__all__ = ["AsgiSocket", "HandshakeRefused", "PortalSocket", "SocketClosed", "scope_of_socket", "socket_scope"]

DEADLINE = ANSWER_SECONDS


class HandshakeRefused(OncecastError):
    """The application has refused a handshake, with `status` and `body`: 403 and b"" where it says no more."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the application has refused the WebSocket with {status}: {body.decode('utf-8', 'replace')}")
        self.status = status
        self.body = body


class SocketClosed(OncecastError):
    """The application has closed the WebSocket, with `code` and `reason`; 1006 if it was cut without a goodbye."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"the application has closed the WebSocket with {code}{reason and ': ' + reason}")
        self.code = code
        self.reason = reason


def socket_scope(scope: ScopeDict, protocols: Sequence[str]) -> ScopeDict:
    """Return the scope of a handshake at the URL of a request's scope, with its headers."""
    scheme = "wss" if scope["scheme"] in ("https", "wss") else "ws"
    extensions: ScopeDict = {"websocket.http.response": {}}
    kept = {name: value for name, value in scope.items() if name != "method"}
    return {**kept, "type": "websocket", "scheme": scheme, "subprotocols": [*protocols], "extensions": extensions}


def scope_of_socket(url: str, headers: Mapping[str, str], protocols: Sequence[str], root_path: str) -> ScopeDict:
    """Return the scope of a handshake at a URL, or at a path of `ws://test`."""
    parts = urlsplit(url)
    fields = {"host": parts.netloc or "test", **{name.lower(): value for name, value in headers.items()}}
    scope: ScopeDict = {
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "scheme": parts.scheme or "ws",
        "path": unquote(parts.path),
        "raw_path": parts.path.encode("latin-1"),
        "query_string": parts.query.encode("latin-1"),
        "root_path": root_path,
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields.items()],
        "client": ("127.0.0.1", 50000),
        "server": (parts.hostname or "test", parts.port or 80),
        "state": {},
    }
    return socket_scope(scope, protocols)


class AsgiSocket(AsgiCall):
    """A WebSocket, open within its `async with`, or from `open` to `close`."""

    def __init__(self, app: AsgiApplication, scope: ScopeDict) -> None:
        super().__init__(app, scope)
        self.protocol: str | None = None  # the subprotocol that the application has chosen
        self._said: asyncio.Queue[ScopeDict] = asyncio.Queue(UNREAD)  # for the application
        self._said.put_nowait({"type": "websocket.connect"})
        self._unread: deque[str | bytes] = deque()
        self._refusal = bytearray()
        self._refused = False  # all of the refusal has come
        self._closed: tuple[int, str] | None = None  # by the application
        self._left = 1005  # the code of this side; without a code, RFC 6455 §7.1.5

    async def open(self, seconds: float | None = DEADLINE) -> None:
        """Open it. Raises `HandshakeRefused`, `TimeoutError`, and what the application raises until then."""
        await self._begin(seconds)
        if self.status != 101:
            while not (self._refused or self._returned):
                await self._change()
            await self.close()
            raise HandshakeRefused(self.status, bytes(self._refusal))

    async def send(self, message: Any, seconds: float | None = DEADLINE) -> None:
        """Send text or bytes as they are, or anything else as JSON. Raises `SocketClosed` and `TimeoutError`."""
        if self._closed is not None or self._returned:
            self._end()
        key = "bytes" if isinstance(message, bytes) else "text"
        data = message if isinstance(message, str | bytes) else json.dumps(message)
        try:
            async with asyncio.timeout(seconds):
                await self._said.put({"type": "websocket.receive", key: data})
        except TimeoutError:
            raise TimeoutError(f"the application did not receive within {seconds:g} s") from None

    async def receive(self, seconds: float | None = DEADLINE) -> str | bytes:
        """Return the next message. Raises `SocketClosed`, `TimeoutError`, and what the application raises."""
        try:
            async with asyncio.timeout(seconds):
                while not self._unread:
                    if self._closed is not None or self._returned:
                        self._end()
                    await self._change()
        except TimeoutError:
            raise TimeoutError(f"no message came within {seconds:g} s") from None
        self._room.set()
        return self._unread.popleft()

    async def receive_json(self, seconds: float | None = DEADLINE) -> Any:
        """Return the next message, which is JSON. Raises as `receive`, and `ValueError` for what is no JSON."""
        return json.loads(await self.receive(seconds))

    async def close(self, code: int = 1000) -> None:
        """Close it as a browser does, and wait until the application has ended. Raises what it raises meanwhile."""
        if not self._gone.is_set():
            self._left = code
        self._unread.clear()
        await super().close()

    async def __aenter__(self) -> AsgiSocket:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- the two functions of ASGI

    async def _receive(self) -> ScopeDict:
        if self._said.empty() and not self._gone.is_set():
            said = asyncio.ensure_future(self._said.get())
            gone = asyncio.ensure_future(self._gone.wait())
            try:
                await asyncio.wait({said, gone}, return_when=asyncio.FIRST_COMPLETED)
                if said.done():
                    return said.result()
            finally:
                said.cancel()
                gone.cancel()
        if not self._said.empty():
            return self._said.get_nowait()
        code, reason = self._closed or (self._left, "")
        return {"type": "websocket.disconnect", "code": code, "reason": reason}

    async def _send(self, event: ScopeDict) -> None:
        kind = event["type"]
        if kind == "websocket.send":
            await self._wait_for_room(lambda: len(self._unread))
            if self._gone.is_set():
                return
            text = event.get("text")
            self._unread.append(bytes(event["bytes"]) if text is None else text)
        elif kind == "websocket.accept":
            self.status, self.protocol = 101, event.get("subprotocol")
            self.headers = [*event.get("headers", ())]
        elif kind == "websocket.http.response.start":
            self.status, self.headers = event["status"], [*event.get("headers", ())]
        elif kind == "websocket.http.response.body":
            self._refusal += event.get("body", b"")
            self._refused = not event.get("more_body", False)
        elif kind == "websocket.close":
            self._closed = event.get("code") or 1000, event.get("reason") or ""
            if self.status != 101:
                self.status, self._refused = 403, True
            self._gone.set()
        self._changed.set()

    def _end(self) -> None:
        """Raise why there is nothing more."""
        if self._returned:
            self._raise()
        raise SocketClosed(*(self._closed or (1006, "")))


class PortalSocket:
    """A WebSocket of the application of a `TestClient`, open from its making until the end of its `with`.

    Each call runs on the loop of the client's portal, and is as that of `AsgiSocket`.
    """

    def __init__(self, portal: Any, app: AsgiApplication, scope: ScopeDict) -> None:
        self._portal = portal
        self._socket: AsgiSocket = portal.call(AsgiSocket, app, scope)
        portal.call(self._socket.open)

    @property
    def protocol(self) -> str | None:
        """The subprotocol that the application has chosen."""
        return self._socket.protocol

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the handshake's answer, by their names in lower case."""
        return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._socket.headers}

    def send(self, message: Any, seconds: float = DEADLINE) -> None:
        """Send text or bytes as they are, or anything else as JSON. Raises `SocketClosed` and `TimeoutError`."""
        self._portal.call(self._socket.send, message, seconds)

    def receive(self, seconds: float = DEADLINE) -> str | bytes:
        """Return the next message. Raises `SocketClosed`, `TimeoutError`, and what the application raises."""
        message: str | bytes = self._portal.call(self._socket.receive, seconds)
        return message

    def receive_json(self, seconds: float = DEADLINE) -> Any:
        """Return the next message, which is JSON. Raises as `receive`, and `ValueError` for what is no JSON."""
        return self._portal.call(self._socket.receive_json, seconds)

    def close(self, code: int = 1000) -> None:
        """Close it as a browser does, and wait until the application has ended. Raises what it raises meanwhile."""
        self._portal.call(self._socket.close, code)

    def __enter__(self) -> PortalSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""A WebSocket over ASGI: its handshake, which may be refused, then its messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..errors import Refusal
from ..http.exchange import Agreement
from ..http.listening import WEBSOCKET
from ..policy.identity import Identity
from ..policy.origin import Headers
from ..protocol.base import Carrier, Duplex, Session
from ..server.app import App
from ..wire import http1
from .carriers import SocketOverAsgi
from .connection import AsgiConnection
from .requests import encoded
from .scopes import Event, Receive, Scope

__all__ = ["SocketConnection"]

ROOM_SECONDS = 1.0  # between two messages of a peer that does not read
UNREAD = 256  # such messages, before its connection is ended
REFUSED = "websocket.http.response"  # with this extension a server can refuse a handshake with other answers than 403


class SocketConnection(AsgiConnection):
    """A WebSocket. `scope` is that of its handshake."""

    transport = WEBSOCKET
    status = 101

    def __init__(self, app: App, request: http1.Request, address: str, scope: Scope) -> None:
        super().__init__(app, request, address)
        self._speaks = REFUSED in (scope.get("extensions") or {})
        self._duplex: Duplex | None = None
        self._unread = 0  # messages that were received one after the other while the peer did not read

    def _events(self, items: Iterable[Any]) -> Iterator[Event]:
        for item in items:
            if isinstance(item, str):
                yield {"type": "websocket.send", "text": item}
            elif isinstance(item, bytes):
                yield {"type": "websocket.send", "bytes": item}
            else:
                yield item

    def _answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Refuse the handshake, with the error if the server has the extension."""
        if not self._speaks:
            self._pending.put({"type": "websocket.close", "code": 1008, "reason": ""}, 0)
            return
        headers = (*headers, ("Content-Length", str(len(body))))
        self._pending.put({"type": f"{REFUSED}.start", "status": status, "headers": encoded(headers)}, 0)
        self._pending.put({"type": f"{REFUSED}.body", "body": body, "more_body": False}, len(body))

    def answer_events(self, headers: Headers, events: bytes, /) -> None:
        """Never called: a handshake asks for no events."""
        raise NotImplementedError

    def open_events(self, headers: Headers, make: Callable[[Carrier], Session], /) -> None:
        """Never called."""
        raise NotImplementedError

    def open_websocket(self, agreement: Agreement, make: Callable[[Carrier], Duplex], /) -> None:
        """Accept the handshake. `make` may raise `Refusal`: nothing is sent then."""
        if self._answered or self._pending.ended:
            return
        self._stream(lambda: self._make(agreement, make))

    def _make(self, agreement: Agreement, make: Callable[[Carrier], Duplex]) -> Session:
        headers = encoded(agreement.headers)
        self._pending.put({"type": "websocket.accept", "subprotocol": agreement.protocol, "headers": headers}, 0)
        try:
            self._duplex = make(SocketOverAsgi(self))
        except BaseException:
            self._pending.clear()
            raise
        return self._duplex

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity, and count the user of a socket that was nobody's. Raises `Refusal`."""
        if self._presence is not None and self.identity.kind == "anybody":
            self._presence.become(identity, self.now())
        super().identify(identity)

    async def connected(self, receive: Receive) -> None:
        """Wait for the event of the handshake."""
        if (await receive())["type"] != "websocket.connect":
            self._pending.drop()

    async def _listen(self, receive: Receive) -> None:
        while (event := await receive())["type"] == "websocket.receive":
            if self._reads and self._duplex is not None:
                text: str | None = event.get("text")
                # No server hands over a half of a surrogate pair, which RFC 6455 §8.1 does not allow.
                payload = event.get("bytes") or b"" if text is None else text.encode("utf-8", "replace")
                self._take(self._duplex, payload, is_text=text is not None)
                await self.answer_token()
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        """Wait while the peer does not read, as its next question has an answer too.

        Not for ever: hypercorn puts the end of the connection behind what was not received, and waits with it.
        """
        if not self._pending.full:
            self._unread = 0
            return
        self._unread += 1
        if self._unread > UNREAD:
            self.abort()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ROOM_SECONDS):
                await self._pending.room()

    def _take(self, session: Duplex, payload: bytes, *, is_text: bool) -> None:
        limit = self.app.settings.message_bytes
        if len(payload) > limit:
            self.stop_reading()
            session.refuse(Refusal("body_too_large", f"A message is at most {limit} bytes."))
            return
        session.received(payload, is_text)
        if not self._pending.ended:
            session.flush()

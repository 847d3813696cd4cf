"""The publisher of every application that has none of its own: a bare WebSocket at /publish, in ASGI alone.

It takes the frame that `sink` sends, gives the message's JSON to the library, and answers as `sink` waits for. /ready
says how many listeners there are, as a library may add a listener after it has answered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

__all__ = ["Event", "PublishBeside", "Receive", "Scope", "Send"]

Scope = dict[str, Any]
Event = dict[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]

RECEIPT = '{"type":"published","id":1}'  # `sink` reads the first letter of the type


class _Frame(msgspec.Struct):
    data: msgspec.Raw


class PublishBeside:
    """An ASGI application: /publish and /ready, and all else is `app`'s. `publish` takes the JSON of a message."""

    def __init__(self, app: Any, publish: Callable[[str], Awaitable[None]], count: Callable[[], int]) -> None:
        self._app = app
        self._publish = publish
        self._count = count
        self._decode = msgspec.json.Decoder(_Frame).decode

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        path = scope.get("path")
        if path == "/publish":
            await self._take(receive, send)
        elif path in ("/ready", "/"):
            await receive()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b'{"listeners":%d}' % self._count()})
        else:
            await self._app(scope, receive, send)

    async def _take(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            await self._publish(bytes(self._decode(event["text"]).data).decode())
            await send({"type": "websocket.send", "text": RECEIPT})

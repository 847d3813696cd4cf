"""From a scope of ASGI to its answer: makes the connection, finds its identity, and calls the routes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ..errors import Refusal, UsageError
from ..wire import http1
from .callers import WhoAsks
from .connection import AsgiConnection
from .gate import find_out
from .life import AppLife
from .requests import EventsConnection
from .scopes import AsgiSend, Receive, Scope, address_of, read_request
from .sockets import SocketConnection

__all__ = ["serve_scope"]


async def serve_scope(
    life: AppLife, scope: Scope, receive: Receive, send: AsgiSend, authorize: WhoAsks | None, seconds: float
) -> None:
    """Answer a request or a socket. Raises `UsageError` for a scope of another type."""
    if scope["type"] not in ("http", "websocket"):
        raise UsageError(f"ASGI: a scope of the type {scope['type']!r} is not known")
    life.meet()
    refusal: Refusal | None = None
    try:
        request = read_request(scope, life.app.settings)
    except Refusal as error:
        request, refusal = _unread(scope), error
    address = life.address(address_of(scope), request.headers)
    connection: AsgiConnection
    begin: Callable[[Receive], Awaitable[None]]
    if scope["type"] == "http":
        events = connection = EventsConnection(life.app, request, address)
        begin = events.read_body
    else:
        socket = connection = SocketConnection(life.app, request, address, scope)
        begin = socket.connected

    async def answer() -> None:
        if refusal is None or scope["type"] == "websocket":
            await begin(receive)
        if refusal is not None:
            raise refusal
        await find_out(life, connection, scope, authorize, seconds)
        connection.handle()

    await connection.run(receive, send, answer)


def _unread(scope: Scope) -> http1.Request:
    """Return what is known of a request that is refused as it was read."""
    return http1.Request(method=str(scope.get("method", "GET")), target="", path="", keep_alive=False)

"""WebSocket: one connection to `/v1/connect`, speaking `oncecast.v1`, with a subscription for each channel.

The only transport whose channels have a place each. A silent connection is pinged before it is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

import msgspec

from ..errors import ERRORS
from ..wire.ws_connection import CloseReceived, DataReceived, ProtocolFailed, Role, WebSocketConnection
from ..wire.ws_connection import Event as Frame
from ..wire.ws_handshake import HandshakeFailed, check_response, new_key, request_bytes
from .base import (
    MESSAGE_BYTES,
    Broken,
    CursorMoved,
    Event,
    Received,
    Refused,
    RetryHint,
    Start,
    Timing,
    Unsuited,
    parse_gap,
    parse_message,
)
from .http import CLOSE_SECONDS, Connection, Server

__all__ = ["PROTOCOL", "WebSocket"]

PROTOCOL = "oncecast.v1"
_RETRY_CLOSES = {row.close for row in ERRORS.values() if row.retry}


class WebSocket:
    """The transport."""

    def __init__(self, server: Server, *, timing: Timing, sleep: Callable[[float], Awaitable[object]]) -> None:
        self._server = server
        self._timing = timing

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = Connection(self._server, timing=self._timing)
        codec = WebSocketConnection(Role.CLIENT, max_message_bytes=MESSAGE_BYTES)
        try:
            data = await self._open(connection)
            session = _Session(set(starts))
            await connection.write(b"".join(codec.text(_subscribe(*item)) for item in starts.items()))
            while True:
                for frame in codec.receive(data):
                    for event in session.take(frame):
                        yield event
                if answers := codec.data_to_send():
                    await connection.write(answers)
                data = await self._read(connection, codec, attached=not session.waiting)
        finally:
            await self._leave(connection, codec)

    async def _open(self, connection: Connection) -> bytes:
        """Shake hands; return the bytes that came with the answer."""
        key, target = new_key(), self._server.prefix + "/v1/connect"
        head, rest = await connection.upgrade(request_bytes(self._server.authority, target, key, protocols=(PROTOCOL,)))
        try:
            protocol = check_response(head.status, head.headers, key, (PROTOCOL,))
        except HandshakeFailed as error:
            raise Unsuited(str(error)) from None
        if protocol != PROTOCOL:
            raise Unsuited(f"the server does not speak {PROTOCOL}")
        return rest

    async def _read(self, connection: Connection, codec: WebSocketConnection, *, attached: bool) -> bytes:
        """Return the next bytes. A server that is silent for too long is asked once whether it is there."""
        data = await connection.read(self._timing.idle if attached else self._timing.answer)
        if data is None and attached:
            await connection.write(codec.ping())
            data = await connection.read(self._timing.answer)
        if data is None:
            raise Broken("the server has gone silent")
        if not data:
            raise Broken("the server closed the connection")
        return data

    async def _leave(self, connection: Connection, codec: WebSocketConnection) -> None:
        """Say goodbye where that is still possible (RFC 6455 §7.1.1), and close."""
        with contextlib.suppress(Broken, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.write(codec.data_to_send() + codec.close(1000))
        await connection.close()


class _Session:
    """What the frames of one connection mean. `waiting` are the channels that are not attached yet."""

    def __init__(self, channels: set[str]) -> None:
        self.waiting = channels
        self._attached: set[str] = set()

    def take(self, frame: Frame) -> Iterator[Event]:
        """Yield what a frame says. Raises `Broken` or `Refused` where it ends the subscription."""
        match frame:
            case DataReceived(data=data, is_text=True):
                try:
                    yield from self._take(_read_type(data).type, data)
                except msgspec.MsgspecError:
                    raise Broken("the server sent a frame that is malformed") from None
            case CloseReceived(code=code, reason=reason):
                text = f"the server closed the connection: {code or 'no code'}{reason and ' ' + reason}"
                # Ours are 4400 to 4499; in RFC 6455 §7.4.1's own, nothing says that a retry is no use.
                raise Refused(text) if code in range(4400, 4500) and code not in _RETRY_CLOSES else Broken(text)
            case ProtocolFailed(reason=reason):
                raise Broken(f"the server broke the WebSocket protocol: {reason}")
            case _:
                pass  # a pong, or a ping that the codec answers

    def _take(self, kind: str, frame: bytes) -> Iterator[Event]:
        match kind:
            case "message":
                yield Received(parse_message(frame))
            case "subscribed":
                fields = msgspec.json.decode(frame, type=_Subscribed)
                self.waiting.discard(fields.channel)
                self._attached.add(fields.channel)
                yield CursorMoved(fields.cursor, fields.channel)
            case "gap":
                yield parse_gap(frame)
            case "cursor":
                # It counts for what was attached when it was sent; a channel that is not keeps its start.
                cursor = msgspec.json.decode(frame, type=_Cursor).cursor
                for channel in sorted(self._attached):
                    yield CursorMoved(cursor, channel)
            case "drain":
                yield RetryHint(msgspec.json.decode(frame, type=_Drain).retry_after_ms / 1000)
                raise Broken("the server is about to stop")
            case "error":
                error = msgspec.json.decode(frame, type=_Error)
                row = ERRORS.get(error.code)
                raise (
                    Broken(error.message) if row is not None and row.retry else Refused(error.message, code=error.code)
                )
            case "unsubscribed":
                raise Broken("the server ended the subscription")
            case _:
                pass  # a later version's frame


class _Type(msgspec.Struct):
    type: str


_read_type = msgspec.json.Decoder(_Type).decode


class _Subscribed(msgspec.Struct):
    channel: str
    cursor: str


class _Cursor(msgspec.Struct):
    cursor: str


class _Drain(msgspec.Struct):
    retry_after_ms: float = 0.0


class _Error(msgspec.Struct):
    code: str
    message: str


def _subscribe(channel: str, start: Start) -> bytes:
    """Return a subscribe frame. `last` and `since` are numbers in it."""
    value: str | int | float = start.value
    if start.name != "after":
        value = int(start.value) if start.name == "last" else float(start.value)
    return msgspec.json.encode({"type": "subscribe", "channel": channel, start.name: value, "ref": channel})

"""WebSocket: one connection to `/v1/connect`, speaking `oncecast.v1`, with a subscription for each channel.

The only transport whose channels have a place each, and can be changed while it listens. A silent connection is pinged
before it is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping

import msgspec

from ..errors import ERRORS
from ..wire.ws_connection import CloseReceived, DataReceived, ProtocolFailed, Role, WebSocketConnection
from ..wire.ws_connection import Event as Frame
from ..wire.ws_handshake import HandshakeFailed, check_response, new_key, request_bytes
from .base import (
    MALFORMED,
    MESSAGE_BYTES,
    Authorize,
    Broken,
    ChannelRefused,
    CursorMoved,
    Drained,
    Event,
    Received,
    Refused,
    RetryHint,
    Start,
    Timing,
    Unsuited,
    anonymous,
    parse_gap,
    parse_message,
)
from .http import CLOSE_SECONDS, Connection, OverHttp, Server

__all__ = ["PROTOCOL", "Session", "WebSocket"]

PROTOCOL = "oncecast.v1"
PING_AT = 0.8  # of the silence that is borne: then the server is asked whether it is there
# What a server says to a handshake whose headers a proxy has taken away, or one that it does not know.
_NO_HANDSHAKE = {"request_invalid", "not_found", "method_not_allowed", "upgrade_required"}
_RETRY_CLOSES = {row.close for row in ERRORS.values() if row.retry}


class WebSocket(OverHttp):
    """The transport."""

    def __init__(
        self,
        server: Server,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
    ) -> None:
        super().__init__(server, timing=timing, sleep=sleep, authorize=authorize)
        self._starts: dict[str, Start] = {}
        self._live: tuple[Connection, WebSocketConnection, Session] | None = None

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = self._connection()
        codec = WebSocketConnection(Role.CLIENT, max_message_bytes=MESSAGE_BYTES)
        self._starts = dict(starts)
        try:
            data = await self._open(connection)
            session = Session()
            self._live = connection, codec, session
            await connection.write(b"".join(_frames(codec, session, self._starts, ())))
            while True:
                for frame in codec.receive(data):
                    for event in session.take(frame):
                        yield event
                if answers := codec.data_to_send():
                    await connection.write(answers)
                data = await self._read(connection, codec, session)
        finally:
            self._live = None
            await self._leave(connection, codec)

    async def adjust(self, join: Mapping[str, Start], leave: Collection[str]) -> None:
        """Leave channels, then attach others, on the connection that is being listened to."""
        if self._live is None:  # being opened: what it will ask for is changed
            for channel in leave:
                self._starts.pop(channel, None)
            self._starts.update(join)
            return
        connection, codec, session = self._live
        with contextlib.suppress(Broken):  # whoever listens hears of it
            await connection.write(b"".join(_frames(codec, session, join, leave)))

    async def _open(self, connection: Connection) -> bytes:
        """Shake hands; return the bytes that came with the answer."""
        key, target = new_key(), self._server.prefix + "/v1/connect"
        try:
            head, rest = await connection.upgrade(
                lambda headers: request_bytes(
                    self._server.authority, target, key, protocols=(PROTOCOL,), headers=headers
                )
            )
        except Refused as error:
            if error.code in _NO_HANDSHAKE:
                raise Unsuited(f"the server has seen no handshake: {error}") from None
            raise
        try:
            protocol = check_response(head.status, head.headers, key, (PROTOCOL,))
        except HandshakeFailed as error:
            raise Unsuited(str(error)) from None
        if protocol != PROTOCOL:
            raise Unsuited(f"the server does not speak {PROTOCOL}")
        return rest

    async def _read(self, connection: Connection, codec: WebSocketConnection, session: Session) -> bytes:
        """Return the next bytes. A server that is silent for too long is asked once whether it is there."""
        attached = not session.waiting
        data = await connection.read(self._timing.idle * PING_AT if attached else self._timing.answer)
        if data is None and attached:
            await connection.write(codec.ping())
            data = await connection.read(self._timing.idle * (1 - PING_AT))
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


class Session:
    """What the frames of one connection mean.

    `waiting` are the channels that are not attached yet. What still comes of a channel that has been left counts for
    nothing until the server has said that it has ended, as often as it was left: only then do its frames belong to the
    subscription that followed.
    """

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self._attached: set[str] = set()
        self._leaving: Counter[str] = Counter()

    def leave(self, channel: str) -> None:
        """Note that an unsubscribe has been sent."""
        self.waiting.discard(channel)
        self._attached.discard(channel)
        self._leaving[channel] += 1

    def take(self, frame: Frame) -> Iterator[Event]:
        """Yield what a frame says. Raises `Broken` or `Refused` where it ends the subscription."""
        match frame:
            case DataReceived(data=data, is_text=True):
                try:
                    yield from self._take(_read_type(data).type, data)
                except MALFORMED:
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
                message = parse_message(frame)
                if not self._leaving[message.channel]:
                    yield Received(message)
            case "subscribed":
                fields = msgspec.json.decode(frame, type=_Subscribed)
                if not self._leaving[fields.channel]:
                    self.waiting.discard(fields.channel)
                    self._attached.add(fields.channel)
                    yield CursorMoved(fields.cursor, fields.channel)
            case "gap":
                gap = parse_gap(frame)
                if not self._leaving[gap.channel]:
                    yield gap
            case "cursor":
                # It counts for what was attached when it was sent; a channel that is not keeps its start.
                cursor = msgspec.json.decode(frame, type=_Cursor).cursor
                for channel in sorted(self._attached):
                    yield CursorMoved(cursor, channel)
            case "drain":
                yield RetryHint(msgspec.json.decode(frame, type=_Drain).retry_after_ms / 1000)
                raise Drained("the server is about to stop")
            case "error":
                yield from self._error(msgspec.json.decode(frame, type=_Error))
            case "unsubscribed":
                channel = msgspec.json.decode(frame, type=_Unsubscribed).channel
                if not self._leaving[channel]:
                    raise Broken("the server ended the subscription")
                self._leaving[channel] -= 1
            case _:
                pass  # a later version's frame

    def _error(self, error: _Error) -> Iterator[Event]:
        """Yield what an error means for a channel; raise what it means for all of them."""
        row = ERRORS.get(error.code)
        if row is not None and row.retry:
            raise Broken(error.message)
        refused = Refused(error.message, code=error.code)
        if not isinstance(error.ref, str):
            raise refused
        if self._leaving[error.ref]:
            return
        self.waiting.discard(error.ref)
        yield ChannelRefused(error.ref, refused)


class _Type(msgspec.Struct):
    type: str


_read_type = msgspec.json.Decoder(_Type).decode


class _Subscribed(msgspec.Struct):
    channel: str
    cursor: str


class _Cursor(msgspec.Struct):
    cursor: str


class _Unsubscribed(msgspec.Struct):
    channel: str


class _Drain(msgspec.Struct):
    retry_after_ms: float = 0.0


class _Error(msgspec.Struct):
    code: str
    message: str
    ref: str | int | None = None


def _frames(
    codec: WebSocketConnection, session: Session, join: Mapping[str, Start], leave: Collection[str]
) -> Iterator[bytes]:
    """Yield the frames that leave channels, and attach others."""
    for channel in leave:
        session.leave(channel)
        yield codec.text(msgspec.json.encode({"type": "unsubscribe", "channel": channel}))
    for channel, start in join.items():
        session.waiting.add(channel)
        yield codec.text(_subscribe(channel, start))


def _subscribe(channel: str, start: Start) -> bytes:
    """Return a subscribe frame. `last` and `since` are numbers in it."""
    value: str | int | float = start.value
    if start.name != "after":
        value = int(start.value) if start.name == "last" else float(start.value)
    return msgspec.json.encode({"type": "subscribe", "channel": channel, start.name: value, "ref": channel})

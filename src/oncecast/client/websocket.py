"""WebSocket: one connection to `/v1/connect`, speaking `oncecast.v1`, with a subscription for each channel.

The only transport whose channels have a place each, and can be changed while it listens, as its token can. A silent
connection is pinged before it is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping

import msgspec

from ..errors import ERRORS
from ..wire.ws_connection import CloseReceived, DataReceived, ProtocolFailed, Role, WebSocketConnection
from ..wire.ws_connection import WebSocketEvent as Frame
from ..wire.ws_handshake import HandshakeFailed, check_response, new_key, request_bytes
from .base import (
    Authorize,
    ChannelRefused,
    CursorMoved,
    Expiring,
    Received,
    RetryHint,
    StartQuery,
    TransportEvent,
    anonymous,
)
from .dialing import Endpoint
from .failures import MALFORMED, Broken, Drained, Refused, Unsuited
from .http import CLOSE_SECONDS, HttpConnection, OverHttp
from .reading import MESSAGE_BYTES, parse_gap, parse_message
from .timing import Timing, heartbeat_of

__all__ = ["PROTOCOL", "V1Reader", "WebSocketTransport"]

PROTOCOL = "oncecast.v1"
PING_AT = 0.8  # of the idle time: then a Ping asks the server for a sign of life
# The codes that a server answers to a handshake whose headers a proxy has removed, or to an unknown path.
_NO_HANDSHAKE = {"request_invalid", "not_found", "method_not_allowed", "upgrade_required"}
_CODES = {row.close: row.code for row in reversed(ERRORS.values())}  # of several codes the first, most general one
_RETRY_CLOSES = {row.close for row in ERRORS.values() if row.retry}
# The server ends the connection in words (RFC 6455 §7.4.1: going away, restart, try again later): the transport works.
_DRAINED_CLOSES = {1001, 1012, 1013, *_RETRY_CLOSES}


class WebSocketTransport(OverHttp):
    """The transport."""

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
        connection: Callable[..., HttpConnection] = HttpConnection,
    ) -> None:
        super().__init__(endpoint, timing=timing, sleep=sleep, authorize=authorize, connection=connection)
        self._starts: dict[str, StartQuery] = {}
        self._idle = timing.idle_for(None)
        self._live: tuple[HttpConnection, WebSocketConnection, V1Reader] | None = None

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = self._connection()
        codec = WebSocketConnection(Role.CLIENT, max_message_bytes=MESSAGE_BYTES)
        self._starts = dict(starts)
        try:
            data = await self._open(connection)
            session = V1Reader(self._timing.answer)
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

    async def adjust(self, join: Mapping[str, StartQuery], leave: Collection[str]) -> None:
        """Leave channels, then attach others, on the connection that is being listened to."""
        if self._live is None:  # being opened: what it will ask for is changed
            for channel in leave:
                self._starts.pop(channel, None)
            self._starts.update(join)
            return
        connection, codec, session = self._live
        with contextlib.suppress(Broken):  # the next read fails too, and raises it
            await connection.write(b"".join(_frames(codec, session, join, leave)))

    async def renew(self) -> None:
        """Send the token of now in an `auth` frame; a server that refuses it answers with an error for all channels."""
        if self._live is None:  # the handshake will have it
            return
        connection, codec, _ = self._live
        with contextlib.suppress(Broken):  # the next read fails too, and raises it
            headers = dict(await self._authorize())
            token = headers["Authorization"].partition(" ")[2]
            await connection.write(codec.text(msgspec.json.encode({"type": "auth", "token": token})))

    async def _open(self, connection: HttpConnection) -> bytes:
        """Shake hands; return the bytes that came with the answer."""
        key, target = new_key(), self._endpoint.url.prefix + "/v1/connect"
        try:
            head, rest = await connection.upgrade(
                lambda headers: request_bytes(
                    self._endpoint.url.authority, target, key, protocols=(PROTOCOL,), headers=headers
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
        self._idle = self._timing.idle_for(heartbeat_of(head.headers))
        return rest

    async def _read(self, connection: HttpConnection, codec: WebSocketConnection, session: V1Reader) -> bytes:
        """Return the next bytes. A server that is silent for too long is pinged once before it is given up."""
        if session.waiting:
            data = await self._read_answer(connection, session)
        else:
            data = await connection.read(self._idle * PING_AT)
            if data is None:
                await connection.write(codec.ping())
                data = await connection.read(self._idle * (1 - PING_AT))
        if data is None:
            raise Broken("the server has gone silent")
        if not data:
            raise Broken("the server closed the connection")
        return data

    async def _read_answer(self, connection: HttpConnection, session: V1Reader) -> bytes | None:
        """Read while a subscribe frame is not answered. All reads together take `Timing.answer` at most."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        data = await connection.read(session.answer_seconds)
        session.answer_seconds = max(0.0, session.answer_seconds - (loop.time() - began))
        return data

    async def _leave(self, connection: HttpConnection, codec: WebSocketConnection) -> None:
        """Send a Close where that is still possible (RFC 6455 §7.1.1), and close."""
        with contextlib.suppress(Broken, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await connection.write(codec.data_to_send() + codec.close(1000))
        await connection.close()


class V1Reader:
    """What the frames of one connection mean.

    `waiting` are the channels whose subscribe frame is not answered yet; `answer_seconds` is how long the server may
    still take for that. Frames of a channel that was left are dropped until the server has confirmed each unsubscribe
    of it: only the frames after that belong to the subscription that followed.
    """

    def __init__(self, answer_seconds: float = math.inf) -> None:
        self.waiting: set[str] = set()
        self.answer_seconds = answer_seconds
        self._answer_seconds = answer_seconds
        self._attached: set[str] = set()
        self._leaving: Counter[str] = Counter()

    def join(self, channel: str) -> None:
        """Note that a subscribe has been sent."""
        if not self.waiting:
            self.answer_seconds = self._answer_seconds
        self.waiting.add(channel)

    def leave(self, channel: str) -> None:
        """Note that an unsubscribe has been sent."""
        self.waiting.discard(channel)
        self._attached.discard(channel)
        self._leaving[channel] += 1

    def take(self, frame: Frame) -> Iterator[TransportEvent]:
        """Yield what a frame says. Raises `Broken` or `Refused` where it ends the subscription."""
        match frame:
            case DataReceived(data=data, is_text=True):
                try:
                    yield from self._take(_read_type(data).type, data)
                except MALFORMED:
                    raise Broken("the server sent a frame that is malformed") from None
            case CloseReceived(code=code, reason=reason):
                text = f"the server closed the connection: {code or 'no code'}{reason and ' ' + reason}"
                # Codes of errors are 4400 to 4499; none of RFC 6455 §7.4.1 says that a retry is no use.
                if code is not None and 4400 <= code < 4500 and code not in _RETRY_CLOSES:
                    raise Refused(text, code=_CODES.get(code, ""))
                raise Drained(text) if code in _DRAINED_CLOSES else Broken(text)
            case ProtocolFailed(reason=reason):
                raise Broken(f"the server broke the WebSocket protocol: {reason}")
            case _:
                pass  # a pong, or a ping that the codec answers

    def _take(self, kind: str, frame: bytes) -> Iterator[TransportEvent]:
        match kind:
            case "message":
                message = parse_message(frame)
                if not self._leaving[message.channel]:
                    yield Received(message)
            case "subscribed":
                fields = msgspec.json.decode(frame, type=_Subscribed)
                known = fields.channel in self.waiting or fields.channel in self._attached
                if known and not self._leaving[fields.channel]:
                    self.waiting.discard(fields.channel)
                    self._attached.add(fields.channel)
                    yield CursorMoved(fields.cursor, fields.channel)
            case "gap":
                gap = parse_gap(frame)
                if not self._leaving[gap.channel]:
                    yield gap
            case "cursor":
                # It holds for the channels that were attached when it was sent; the others keep their start.
                cursor = msgspec.json.decode(frame, type=_Cursor).cursor
                for channel in sorted(self._attached):
                    yield CursorMoved(cursor, channel)
            case "drain":
                yield RetryHint(msgspec.json.decode(frame, type=_Drain).retry_after_ms / 1000)
                raise Drained("the server is about to stop")
            case "expiring":
                yield Expiring()
            case "error":
                yield from self._error(msgspec.json.decode(frame, type=_ErrorFrame))
            case "unsubscribed":
                channel = msgspec.json.decode(frame, type=_Unsubscribed).channel
                if not self._leaving[channel]:
                    raise Broken("the server ended the subscription")
                self._leaving[channel] -= 1
            case _:
                pass  # a later version's frame

    def _error(self, error: _ErrorFrame) -> Iterator[TransportEvent]:
        """Yield what an error means for a channel; raise what it means for all of them."""
        row = ERRORS.get(error.code)
        if row is not None and row.retry:
            raise Drained(error.message)
        refused = Refused(error.message, code=error.code, status=None if row is None else row.status)
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


class _ErrorFrame(msgspec.Struct):
    code: str
    message: str
    ref: str | int | None = None


def _frames(
    codec: WebSocketConnection, session: V1Reader, join: Mapping[str, StartQuery], leave: Collection[str]
) -> Iterator[bytes]:
    """Yield the frames that leave channels, and attach others."""
    for channel in leave:
        session.leave(channel)
        yield codec.text(msgspec.json.encode({"type": "unsubscribe", "channel": channel}))
    for channel, start in join.items():
        session.join(channel)
        yield codec.text(_subscribe(channel, start))


def _subscribe(channel: str, start: StartQuery) -> bytes:
    """Return a subscribe frame. `last` and `since` are numbers in it."""
    value: str | int | float = start.value
    if start.name != "after":
        value = int(start.value) if start.name == "last" else float(start.value)
    return msgspec.json.encode({"type": "subscribe", "channel": channel, start.name: value, "ref": channel})

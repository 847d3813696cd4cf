"""The test subscribers of WebSocket: `oncecast.v1`, and raw sockets. See `subscriber.py`."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from ..message import Draft, Kind
from ..wire import http1_client, ws_handshake
from ..wire.ws_connection import CloseReceived, DataReceived, ProtocolFailed, Role, WebSocketConnection
from .subscriber import (
    MAX_MESSAGE_BYTES,
    CursorSeen,
    Cut,
    GapSeen,
    MessageSeen,
    RequestRefused,
    Seen,
    Subscriber,
    message_of,
    refused,
    shown_in_json,
)

__all__ = ["RawSubscriber", "V1Subscriber"]


class _SocketSubscriber(Subscriber):
    """The part that both kinds of WebSocket share: the handshake, the codec and the close."""

    writes = True
    protocols: ClassVar[tuple[str, ...]] = ()
    codec: WebSocketConnection

    def shows(self, draft: Draft) -> object:
        """Return the data of the message's JSON."""
        return shown_in_json(draft)

    async def handshake(self, target: str) -> bytes:
        """Open the WebSocket; return the bytes that came after the server's answer."""
        await self.open()
        self.codec = WebSocketConnection(Role.CLIENT, max_message_bytes=MAX_MESSAGE_BYTES)
        key = ws_handshake.new_key()
        self.send(ws_handshake.request_bytes(f"127.0.0.1:{self.port}", target, key, protocols=self.protocols))
        parser = http1_client.ResponseParser("GET")
        status, body = 0, bytearray()
        while True:
            for event in parser.receive(await self.read()):
                match event:
                    case http1_client.ResponseHead():
                        status = event.status
                        if status == 101:
                            ws_handshake.check_response(status, event.headers, key, self.protocols)
                    case http1_client.Body():
                        body += event.data
                    case end:
                        if status != 101:
                            self.cut()
                            raise refused(status, bytes(body))
                        return end.rest

    def write(self, data: bytes) -> None:
        """Send a text frame."""
        self.send(self.codec.text(data))

    def frames(self, data: bytes) -> list[DataReceived]:
        """Return the messages in these bytes, and send the codec's answers. Raises `Cut` at a Close."""
        messages: list[DataReceived] = []
        for event in self.codec.receive(data):
            match event:
                case DataReceived():
                    messages.append(event)
                case CloseReceived() if messages:
                    self._closed = Cut(event.code, event.reason)
                case CloseReceived():
                    self.send(self.codec.data_to_send())
                    self.cut()
                    raise Cut(event.code, event.reason)
                case ProtocolFailed():
                    raise AssertionError(f"the server broke the protocol: {event.code} {event.reason}")
                case _:
                    pass
        self.send(self.codec.data_to_send())
        return messages

    _closed: Cut | None = None
    _rest = b""

    async def next_frames(self) -> list[DataReceived]:
        """Return the messages of the next read; it may have only control frames. Raises `Cut`."""
        closed, self._closed = self._closed, None
        if closed is not None:
            self.cut()
            raise closed
        rest, self._rest = self._rest, b""
        return self.frames(rest or await self.read())


class V1Subscriber(_SocketSubscriber):
    """`oncecast.v1` from `/v1/connect`: subscribes to each channel at its own cursor."""

    name = "websocket_v1"
    protocols = ("oncecast.v1",)
    one_cursor = False

    async def connect(self) -> None:
        """Open the WebSocket and subscribe."""
        self._closed = None
        self._rest = await self.handshake(f"/v1/connect?{self.extra}".rstrip("?"))
        for number, channel in enumerate(self.channels):
            self.say({"type": "subscribe", "channel": channel, "ref": number, **self._where(channel)})

    def say(self, frame: dict[str, object]) -> None:
        """Send a frame."""
        self.write(msgspec.json.encode(frame))

    async def receive(self) -> list[Seen]:
        """Return the items of the next frames."""
        seen: list[Seen] = []
        while not seen:
            for frame in await self.next_frames():
                seen += self._frame(msgspec.json.decode(frame.data))
        return seen

    def _frame(self, frame: dict[str, Any]) -> list[Seen]:
        match frame["type"]:
            case "message":
                self.cursors[frame["channel"]] = frame["id"]
                return [message_of(frame)]
            case "gap":
                del frame["type"]
                self.cursors[frame["channel"]] = frame["cursor"]
                return [GapSeen(**frame)]
            case "subscribed":
                self.cursors[frame["channel"]] = frame["cursor"]
                return [CursorSeen(frame["cursor"])]
            case "cursor":
                self.seek(frame["cursor"])
                return [CursorSeen(frame["cursor"])]
            case "error":
                raise RequestRefused(0, frame["code"], frame["message"])
            case "drain":
                return []
            case other:
                raise AssertionError(f"unexpected frame: {other}")

    def _where(self, channel: str) -> dict[str, object]:
        if channel in self.cursors:
            return {"after": self.cursors[channel]}
        name, _, value = self.start.partition("=")
        return {name: value if name == "after" else msgspec.json.decode(value)}


class RawSubscriber(_SocketSubscriber):
    """A WebSocket without a subprotocol: it sees the data alone, has no cursor, and is closed at a gap."""

    name = "websocket_raw"
    resumes = False

    def shows(self, draft: Draft) -> object:
        """Return the data itself: text, or bytes."""
        return draft.data if draft.kind is Kind.BINARY else draft.data.decode()

    async def connect(self) -> None:
        """Open the WebSocket."""
        self._closed = None
        self._rest = await self.handshake(self.path(self.query()))

    async def receive(self) -> list[Seen]:
        """Return the next messages."""
        seen: list[Seen] = []
        while not seen:
            for frame in await self.next_frames():
                data: object = frame.data.decode() if frame.is_text else frame.data
                seen.append(MessageSeen(None, self.channels[0] if len(self.channels) == 1 else None, data, None))
        return seen

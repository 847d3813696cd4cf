"""The carrier of a WebSocket: frames, pings and pongs, compression, and the close handshake (RFC 6455).

The codec exists only while something is half read or a close is under way: an idle socket has none. A read that is
exactly one short message, as most are, needs none either.

To negotiate another extension, give its codec to `WebSocketConnection` in `_codec_now`.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from ...core.subscription import Format
from ...protocol.base import Carrier, Duplex, Encoder, TransportSettings
from ...wire.ws_connection import (
    DataReceived,
    PingReceived,
    PongReceived,
    Role,
    WebSocketConnection,
    WebSocketEvent,
    WebSocketState,
)
from ...wire.ws_deflate import Parameters
from ...wire.ws_frames import Opcode, encode_frame, whole_message
from .base import Link, NativeCarrier
from .formats import frame_blocks

__all__ = [
    "CLOSE_SECONDS",
    "DEFLATED_SLICE_BYTES",
    "MOVES",
    "SLICE_BYTES",
    "CarrierState",
    "DeflateCarrier",
    "WebSocketCarrier",
    "websocket_carrier",
]

CLOSE_SECONDS = 5.0  # for a peer to answer a Close (RFC 6455 §7.1.1 leaves it to us)
SLICE_BYTES = 8 << 10  # read in one call: a flood of frames of seven bytes takes about 8 ms
DEFLATED_SLICE_BYTES = 1 << 10  # the same where the peer may compress: deflate makes at most 1,032 bytes out of one

PING = encode_frame(Opcode.PING, b"")


class CarrierState(enum.Enum):
    """Where a WebSocket stands."""

    OPEN = "open"
    STOPPED = "stopped"  # nothing more is read; the session still has answers to send
    CLOSING = "closing"  # our Close is sent; the peer's Close is awaited
    CLOSED = "closed"


OPEN, STOPPED, CLOSING, CLOSED = CarrierState
_READ_NO_MORE = (STOPPED, CLOSED)
_CODEC_CLOSED = WebSocketState.CLOSED  # to look a member up on its class takes longer than to compare it

CarrierEvent: TypeAlias = Literal[
    "stop",
    "close",
    "silence",
    "closed",
    "peer's Close or fault",
    "woken",
]

MOVES: Mapping[CarrierState, Mapping[CarrierEvent, CarrierState]] = {
    OPEN: {
        "stop": STOPPED,  # by the session: the peer's Close, a fault, or a message that the session does not take
        "close": CLOSING,
        "silence": CLOSED,  # nothing has come since the last heartbeat
        "closed": CLOSED,
    },
    STOPPED: {
        "close": CLOSED,
        "closed": CLOSED,
    },
    CLOSING: {
        "peer's Close or fault": CLOSED,
        "woken": CLOSED,  # CLOSE_SECONDS are over
        "closed": CLOSED,
    },
    CLOSED: {},
}
"""Which event moves a WebSocket where; an event that is not named changes nothing."""


class WebSocketCarrier(NativeCarrier[Duplex]):
    """One WebSocket without an extension. `head` is the answer to its handshake."""

    __slots__ = ("_codec", "_heard", "_pinged", "_settings", "state")

    _deflate: Parameters | None = None  # what the handshake has negotiated: `DeflateCarrier` has it

    def __init__(
        self, link: Link, head: bytes, make: Callable[[Carrier], Duplex], *, settings: TransportSettings
    ) -> None:
        self._settings = settings
        self._codec: WebSocketConnection | None = None
        self._heard = True  # since the last heartbeat
        self._pinged = False  # and the pong has not come
        self.state = OPEN
        super().__init__(link, head, make)

    # -- the carrier of a session

    def format(self, encoder: Encoder, /) -> Format:
        """Return the hub's format for an encoder."""
        return frame_blocks(encoder, self._deflate)

    def send(self, payload: bytes, /) -> None:
        """Send one text message."""
        frame = encode_frame(Opcode.TEXT, payload)
        if self._out is None:
            self._link.write(frame)
        else:
            self._out.append(frame)

    def stop(self) -> None:
        """Read nothing more."""
        self._move("stop")

    def close(self, code: int, reason: str) -> None:
        """Send a Close, or the answer to the peer's; after `stop`, end without waiting for the peer's."""
        if self.state in (CLOSING, CLOSED):
            return
        codec = self._codec_now()
        if codec.state is _CODEC_CLOSED:
            self._move("stop")
        self._send(codec.close(code, reason))  # b"" where the codec has queued the answer to the peer's Close
        self._move("close")
        ended = codec.close_code  # by the peer's Close, or its fault
        self._link.closing(code if ended is None else ended, ours=ended is None)
        if self.state is CLOSED:
            self._send(codec.data_to_send())
            if self._out is None:
                self._link.end()
        else:
            self._link.wake_at(self._link.now() + CLOSE_SECONDS)

    # -- the listener of a connection

    @property
    def slice_bytes(self) -> int:
        """How many bytes to hand over in one call."""
        return SLICE_BYTES

    def received(self, data: bytes, /) -> None:
        """Read frames; what they are answered with goes out in one write."""
        self._heard = True
        if self.state in _READ_NO_MORE:
            return
        if self._codec is None and (message := whole_message(data, self._settings.message_bytes)) is not None:
            self._out = []
            self._session.received(*message)
            self._session.flush()
            self._write_out()
            return
        begun = self._codec is not None
        codec = self._codec_now()
        session = self._session
        self._out = []
        for event in codec.receive(data):
            if self.state is not OPEN:
                break  # what came before the peer's Close or fault counts, nothing after our own
            if isinstance(event, DataReceived):
                session.received(event.data, event.is_text)
            else:
                self._take_control(event)
        if codec.state is not _CODEC_CLOSED:
            if answers := codec.data_to_send():
                self._out.append(answers)
            session.flush()
        elif self.state is CLOSING:
            self._move("peer's Close or fault")
        elif self.state is OPEN:
            session.ended()
        else:
            session.flush()
        self._write_out()
        if codec.idle:
            self._codec = None
        if begun or self._codec is not None:
            self._link.hold(codec.held)

    def woken(self, now: float, /) -> None:
        """Send a ping and the session's heartbeat; cut off a peer that has not answered the last one, or our Close."""
        if self.state is STOPPED:
            self._session.woken(now)
        elif self.state is CLOSING or not (self._heard or self._link.full):
            self._move("silence" if self.state is OPEN else "woken")
            self._link.abort()
        else:
            self._heard = False
            self._out = []
            if not self._link.full:
                self._pinged = True
                self._out.append(PING)
            self._session.woken(now)
            self._write_out()

    def closed(self) -> None:
        """The connection is gone."""
        self._move("closed")
        self._session.closed()

    # -- helpers

    def _move(self, event: CarrierEvent) -> bool:
        """Move as the table says; return whether that changes anything."""
        state = MOVES[self.state].get(event)
        if state is None:
            return False
        self.state = state
        return True

    def _codec_now(self) -> WebSocketConnection:
        if self._codec is None:
            extension = None if self._deflate is None else self._deflate.server_codec()
            self._codec = WebSocketConnection(
                Role.SERVER, max_message_bytes=self._settings.message_bytes, extension=extension
            )
        return self._codec

    def _take_control(self, event: WebSocketEvent) -> None:
        if isinstance(event, PongReceived) and self._pinged:
            self._pinged = False  # the answer to our ping; further ones are counted
        elif isinstance(event, PingReceived | PongReceived):
            self._session.count_frame()

    def _send(self, frame: bytes) -> None:
        """Send a frame: with the others of this call, or at once."""
        if self._out is not None:
            self._out.append(frame)
        elif frame:
            self._link.write(frame)

    def _framed(self, out: list[bytes]) -> bytes:
        return out[0] if len(out) == 1 else b"".join(out)

    def _end_if_closed(self) -> None:
        if self.state is CLOSED:
            self._link.end()


class DeflateCarrier(WebSocketCarrier):
    """One WebSocket whose handshake has negotiated permessage-deflate.

    It is a class of its own as most sockets have negotiated nothing, and an idle one is to be small.
    """

    __slots__ = ("_deflate",)

    def __init__(
        self,
        link: Link,
        head: bytes,
        make: Callable[[Carrier], Duplex],
        *,
        settings: TransportSettings,
        deflate: Parameters,
    ) -> None:
        self._deflate = deflate
        super().__init__(link, head, make, settings=settings)

    @property
    def slice_bytes(self) -> int:
        """How many bytes to hand over in one call."""
        return DEFLATED_SLICE_BYTES


def websocket_carrier(
    link: Link,
    head: bytes,
    make: Callable[[Carrier], Duplex],
    *,
    settings: TransportSettings,
    deflate: Parameters | None = None,
) -> WebSocketCarrier:
    """Return the carrier for what a handshake has negotiated. `make` may raise `Refusal`."""
    if deflate is None:
        return WebSocketCarrier(link, head, make, settings=settings)
    return DeflateCarrier(link, head, make, settings=settings, deflate=deflate)

"""One WebSocket connection after its handshake: bytes in, events and bytes out (RFC 6455 §5 to §7).

Owns the life of a connection, what it sends, and the answers that wait to be sent; `ws_reader.py` has the reading side.
Invariants: `receive` never raises on anything that a peer sends; memory stays within `max_message_bytes` and
`MAX_ANSWERS`; nothing is read after a Close or a fault.

To add a state, add its row to `MOVES`.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, TypeAlias

import msgspec

from ..errors import UsageError
from .ws_frames import FrameFault, Opcode, close_payload, encode_frame
from .ws_reader import FIRST_PING, FIRST_PONG, Extension, MessageReader

__all__ = [
    "MAX_ANSWERS",
    "MOVES",
    "CloseReceived",
    "DataReceived",
    "PingReceived",
    "PongReceived",
    "ProtocolFailed",
    "Role",
    "WebSocketConnection",
    "WebSocketEvent",
    "WebSocketState",
]

MAX_ANSWERS = 64  # pongs that wait to be sent, 8 KiB; past it the oldest is dropped, as RFC 6455 §5.5.3 allows


class Role(enum.Enum):
    """Which end this is. A client masks what it sends, a server must not (RFC 6455 §5.1)."""

    SERVER = "server"
    CLIENT = "client"


class WebSocketState(enum.Enum):
    """OPEN; CLOSING: we sent a Close and wait for the peer's; CLOSED: nothing more is read or may be sent."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


EndEvent: TypeAlias = Literal[
    "our Close",
    "peer's Close",
    "peer's fault",
]

MOVES: Mapping[WebSocketState, Mapping[EndEvent, WebSocketState]] = {
    WebSocketState.OPEN: {
        "our Close": WebSocketState.CLOSING,
        "peer's Close": WebSocketState.CLOSED,
        "peer's fault": WebSocketState.CLOSED,
    },
    WebSocketState.CLOSING: {
        "peer's Close": WebSocketState.CLOSED,
        "peer's fault": WebSocketState.CLOSED,
    },
    WebSocketState.CLOSED: {},
}
"""Which event leads where: a Close (RFC 6455 §7.1.4) or a fault (§7.1.7)."""


class DataReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole message, its fragments joined. `data` is valid UTF-8 where `is_text`."""

    data: bytes
    is_text: bool


class PingReceived(msgspec.Struct, frozen=True, gc=False):
    """A Ping; its Pong is already among the bytes to send."""

    data: bytes


class PongReceived(msgspec.Struct, frozen=True, gc=False):
    """A Pong, asked for or not."""

    data: bytes


class CloseReceived(msgspec.Struct, frozen=True, gc=False):
    """The peer's Close; `code` is `None` where it gave none. Send `data_to_send()`, then close the transport."""

    code: int | None
    reason: str


class ProtocolFailed(msgspec.Struct, frozen=True, gc=False):
    """The peer broke the protocol: `code` is 1002, 1007 or 1009. Send `data_to_send()`, then close the transport."""

    code: int
    reason: str


WebSocketEvent = DataReceived | PingReceived | PongReceived | CloseReceived | ProtocolFailed


class WebSocketConnection(MessageReader):
    """The codec of one connection, for either `role`.

    `max_message_bytes` bounds a message, the sum of its fragments, inflated; more is answered with 1009. `mask_key`
    gives a client's masking keys, 4 bytes that a third party can't predict (RFC 6455 §10.3). `extension` is what the
    handshake agreed on.
    """

    __slots__ = ("_events", "_mask_key", "_outbox", "_sending", "_state", "close_code", "close_reason")

    def __init__(
        self,
        role: Role,
        *,
        max_message_bytes: int = 1 << 20,
        mask_key: Callable[[], bytes] = lambda: os.urandom(4),
        extension: Extension | None = None,
    ) -> None:
        self.close_code: int | None = None
        """What the connection ended with: the peer's code, or ours where the peer failed; `None` until then."""
        self.close_reason = ""
        self._state = WebSocketState.OPEN
        super().__init__(
            0x80 if role is Role.SERVER else 0,  # what the peer must send, RFC 6455 §5.1
            max_message_bytes,
            extension,
        )
        self._mask_key = mask_key if role is Role.CLIENT else None
        self._events: list[WebSocketEvent] = []  # of this call of `receive`
        self._outbox: list[bytes] = []
        self._sending = False  # between the first and the last of our own fragments

    @property
    def state(self) -> WebSocketState:
        """Where the connection stands; `MOVES` has what may follow."""
        return self._state

    @property
    def idle(self) -> bool:
        """Whether a new object could replace this one now: nothing is half read or unsent."""
        return (
            self._state is WebSocketState.OPEN
            and not self._half_read()
            and not self._outbox
            and not self._sending
            and (self._extension is None or self._extension.idle)
        )

    # -- out

    def text(self, data: bytes) -> bytes:
        """Return a text message in one frame. `data` must be UTF-8; it is not checked."""
        self._may_begin()
        return self._whole(Opcode.TEXT, data)

    def binary(self, data: bytes) -> bytes:
        """Return a binary message in one frame."""
        self._may_begin()
        return self._whole(Opcode.BINARY, data)

    def fragments(self, data: bytes, is_text: bool, size: int) -> Iterator[bytes]:
        """Yield a message in frames of at most `size` payload bytes.

        Until the last is taken, no other message may begin (RFC 6455 §5.4); pings and a close may come between.
        """
        if size < 1:
            raise UsageError(f"A fragment's size is at least 1 byte, not {size}.")
        return self._fragments_of(data, Opcode.TEXT if is_text else Opcode.BINARY, size)

    def ping(self, data: bytes = b"") -> bytes:
        """Return a Ping with at most 125 bytes of `data`."""
        self._must_be_open()
        return self._frame(Opcode.PING, data)

    def close(self, code: int = 1000, reason: str = "") -> bytes:
        """Return a Close and go on to CLOSING; `b""` if a Close was sent or received, or the peer failed."""
        if self._state is not WebSocketState.OPEN:
            return b""
        frame = self._frame(Opcode.CLOSE, close_payload(code, reason))
        self._move("our Close")
        return frame

    def data_to_send(self) -> bytes:
        """Return the answers to the peer (pongs, a Close) that have not been returned yet."""
        if not self._outbox:
            return b""
        data = b"".join(self._outbox)
        self._outbox.clear()
        return data

    def _whole(self, opcode: Opcode, data: bytes) -> bytes:
        if self._extension is not None and (payload := self._extension.deflate(data)) is not None:
            return self._frame(opcode, payload, rsv1=True)
        return self._frame(opcode, data)

    def _fragments_of(self, data: bytes, opcode: Opcode, size: int) -> Iterator[bytes]:
        self._may_begin()
        self._sending = True
        rsv1 = False  # RFC 7692 §6.1: on the first frame only
        if self._extension is not None and (payload := self._extension.deflate(data)) is not None:
            data, rsv1 = payload, True
        last = max(0, len(data) - 1) // size * size
        for start in range(0, last, size):
            yield self._frame(opcode, data[start : start + size], fin=False, rsv1=rsv1)
            self._must_be_open()
            opcode, rsv1 = Opcode.CONTINUATION, False
        self._sending = False
        yield self._frame(opcode, data[last:], rsv1=rsv1)

    def _must_be_open(self) -> None:
        if self._state is not WebSocketState.OPEN:
            raise UsageError("Nothing may be sent after a Close.")  # RFC 6455 §5.5.1

    def _may_begin(self) -> None:
        self._must_be_open()
        if self._sending:
            raise UsageError("Finish the fragmented message before another one begins.")

    def _frame(self, opcode: Opcode, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
        mask = None if self._mask_key is None else self._mask_key()
        return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=mask)

    # -- in

    def receive(self, data: bytes) -> list[WebSocketEvent]:
        """Read bytes and return their events, in order. Never raises on what a peer sends.

        A Close or a fault is the last event; all later bytes are ignored (RFC 6455 §1.4, §5.5.1, §7.1.7). The work
        is linear in `data`. A frame can be 2 bytes long and give an event of 50: bound `data` to bound the list.
        """
        if self._state is WebSocketState.CLOSED:
            return []
        events = self._events
        try:
            self._read(data)
        except FrameFault as fault:
            events.append(ProtocolFailed(fault.code, fault.reason))
            self._end("peer's fault", fault.code, fault.reason, close_payload(fault.code, fault.reason))
        self._events = []
        return events

    def _message_read(self, data: bytes, is_text: bool) -> None:
        self._events.append(DataReceived(data, is_text))

    def _control_read(self, first: int, payload: bytes, code: int | None, reason: str) -> bool:
        if first == FIRST_PING:
            self._events.append(PingReceived(payload))
            # RFC 6455 §5.5.2: also while we are CLOSING, as the peer's Close has not come.
            if len(self._outbox) == MAX_ANSWERS:
                del self._outbox[0]
            self._outbox.append(self._frame(Opcode.PONG, payload))
        elif first == FIRST_PONG:
            self._events.append(PongReceived(payload))
        else:
            self._events.append(CloseReceived(code, reason))
            self._end("peer's Close", code, reason, payload[:2])  # its code comes back, RFC 6455 §5.5.1
            return True
        return False

    # -- the end

    def _end(self, event: EndEvent, code: int | None, reason: str, answer: bytes) -> None:
        """Go to CLOSED, answer with a Close unless one was sent, and drop what was half read."""
        if self._state is WebSocketState.OPEN:  # RFC 6455 §5.5.1: one Close each
            self._outbox.append(self._frame(Opcode.CLOSE, answer))
        self._move(event)
        self.close_code, self.close_reason = code, reason
        self._forget()

    def _move(self, event: EndEvent) -> None:
        self._state = MOVES[self._state][event]

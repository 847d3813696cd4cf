"""One WebSocket connection after its handshake: bytes in, events and bytes out (RFC 6455 §5 to §7).

Owns the life of a connection and what lasts longer than a frame: the open message, its size, the answers that wait
to be sent. Invariants: `receive` never raises on anything that a peer sends, and judges it at the first byte that
shows a fault, however the bytes were cut; memory stays within `max_message_bytes` and `MAX_ANSWERS`; the frames that a
message may take are bounded by `SHORT_BYTES`; nothing is read after a Close or a fault.

To add a state, add its row to `MOVES`. An extension that compresses messages is any object that meets `Extension`: RSV1
marks its messages, and `_take_data` has it turn their bytes back before they are counted and checked as UTF-8.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

import msgspec

from ..errors import UsageError
from .ws_frames import (
    CONTROL_BYTES,
    FIRST_BETWEEN,
    FIRST_COMPRESSED,
    FIRST_INSIDE,
    FrameFault,
    Opcode,
    apply_mask,
    close_payload,
    encode_frame,
    first_fault,
    read_close,
    read_length,
    too_big,
    utf8_tail,
)

__all__ = [
    "MAX_ANSWERS",
    "MOVES",
    "SHORT_BYTES",
    "SHORT_ROOM",
    "CloseReceived",
    "DataReceived",
    "Event",
    "Extension",
    "PingReceived",
    "PongReceived",
    "ProtocolFailed",
    "Role",
    "State",
    "WebSocketConnection",
]

# A frame costs about as much work as this many bytes of payload. What a fragment is shorter is counted, and bounded for
# each message by the message's limit, or by SHORT_ROOM where that is more. So a message may come in fragments of
# SHORT_BYTES, whatever its size, and in 4,096 of any size; endless empty fragments end with 1009.
SHORT_BYTES = 16
SHORT_ROOM = 4096 * SHORT_BYTES
MAX_ANSWERS = 64  # pongs that wait to be sent, 8 KiB; past it the oldest is dropped, as RFC 6455 §5.5.3 allows


class Role(enum.Enum):
    """Which end this is. A client masks what it sends, a server must not (RFC 6455 §5.1)."""

    SERVER = "server"
    CLIENT = "client"


class State(enum.Enum):
    """OPEN; CLOSING: we sent a Close and wait for the peer's; CLOSED: nothing more is read or may be sent."""

    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


MOVES: Mapping[State, Mapping[str, State]] = {
    State.OPEN: {"our Close": State.CLOSING, "peer's Close": State.CLOSED, "peer's fault": State.CLOSED},
    State.CLOSING: {"peer's Close": State.CLOSED, "peer's fault": State.CLOSED},
    State.CLOSED: {},
}
"""Which event leads where: a Close (RFC 6455 §7.1.4) or a fault (§7.1.7)."""


class Extension(Protocol):
    """What compresses the messages of one connection; RSV1 marks those that are (RFC 7692 §6)."""

    @property
    def idle(self) -> bool:
        """Whether a new object could take over from this one."""
        ...

    def wire_bytes(self, message_bytes: int) -> int:
        """Return how many bytes a message of `message_bytes` may take on the wire."""
        ...

    def deflate(self, data: bytes) -> bytes | None:
        """Return the payload that a message is sent as, None to send it as it is."""
        ...

    def inflate(self, piece: bytes, *, last: bool) -> Iterator[bytes]:
        """Yield what a piece of a payload says, in slices of bounded size. Raises `FrameFault`."""
        ...


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


_CLOSE = 0x80 | Opcode.CLOSE  # the first bytes of the three control frames
_PING = 0x80 | Opcode.PING
_PONG = 0x80 | Opcode.PONG

Event = DataReceived | PingReceived | PongReceived | CloseReceived | ProtocolFailed


class WebSocketConnection:
    """The codec of one connection, for either `role`.

    `max_message_bytes` bounds a message, the sum of its fragments, inflated; more is answered with 1009. `mask_key`
    gives a client's masking keys, 4 bytes that a third party can't predict (RFC 6455 §10.3). `extension` is what the
    handshake agreed on.
    """

    __slots__ = (
        "_compressed",
        "_control",
        "_extension",
        "_first",
        "_head",
        "_is_text",
        "_key",
        "_left",
        "_mask_bit",
        "_mask_key",
        "_max",
        "_message",
        "_outbox",
        "_sending",
        "_short",
        "_short_room",
        "_size",
        "_state",
        "_tail",
        "close_code",
        "close_reason",
    )

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
        self._state = State.OPEN
        self._mask_key = mask_key if role is Role.CLIENT else None
        self._mask_bit = 0x80 if role is Role.SERVER else 0  # what the peer must send, RFC 6455 §5.1
        self._max = max_message_bytes
        self._short_room = max(max_message_bytes, SHORT_ROOM)
        self._extension = extension
        self._outbox: list[bytes] = []
        self._sending = False  # between the first and the last of our own fragments
        # The frame being read.
        self._head = b""  # the beginning of an incomplete head
        self._first = 0
        self._left = 0  # payload bytes still to come
        self._key = b""  # turned so that it fits the next payload byte
        self._control = b""  # the beginning of a control frame's payload
        # The message being read.
        self._message: bytearray | None = None  # not a list of pieces: a piece of one byte costs forty
        self._is_text = False
        self._compressed = False
        self._tail = b""  # the incomplete UTF-8 sequence that the message so far ends with
        self._size = 0  # as the heads of its frames announced it
        self._short = 0  # what its fragments are shorter than SHORT_BYTES

    @property
    def state(self) -> State:
        """Where the connection stands; `MOVES` has what may follow."""
        return self._state

    @property
    def idle(self) -> bool:
        """Whether a new object could take over from this one at the next byte: nothing is half read or unsent."""
        return (
            self._state is State.OPEN
            and not self._left
            and not self._head
            and self._message is None
            and not self._outbox
            and not self._sending
            and (self._extension is None or self._extension.idle)
        )

    @property
    def held(self) -> int:
        """How many bytes of an unfinished message are kept."""
        return 0 if self._message is None else len(self._message)

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
        if self._state is not State.OPEN:
            return b""
        frame = self._frame(Opcode.CLOSE, close_payload(code, reason))
        self._move("our Close")
        return frame

    def data_to_send(self) -> bytes:
        """Return the answers that the peer is owed (pongs, a Close), and forget them."""
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
        if self._state is not State.OPEN:
            raise UsageError("Nothing may be sent after a Close.")  # RFC 6455 §5.5.1

    def _may_begin(self) -> None:
        self._must_be_open()
        if self._sending:
            raise UsageError("Finish the fragmented message before another one begins.")

    def _frame(self, opcode: Opcode, payload: bytes, *, fin: bool = True, rsv1: bool = False) -> bytes:
        mask = None if self._mask_key is None else self._mask_key()
        return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=mask)

    # -- in

    def receive(self, data: bytes) -> list[Event]:
        """Read what arrived and return what it says, in order. Never raises on what a peer sends.

        A Close or a fault is the last event; all later bytes are ignored (RFC 6455 §1.4, §5.5.1, §7.1.7). The work
        is linear in `data`. A frame can be 2 bytes long and give an event of 50: bound `data` to bound the list.
        """
        events: list[Event] = []
        if self._state is State.CLOSED:
            return events
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        try:
            while at < end:
                if not self._left:
                    start = self._read_head(data, at)
                    if start is None:
                        self._head = data[at:]
                        break
                    at = start
                at = self._read_payload(data, at, events)
        except FrameFault as fault:
            events.append(ProtocolFailed(fault.code, fault.reason))
            self._end("peer's fault", fault.code, fault.reason, close_payload(fault.code, fault.reason))
        return events

    def _read_head(self, data: bytes, at: int) -> int | None:
        """Read the head at `at`; return where its payload begins, or `None` if it is incomplete."""
        end = len(data)
        first = data[at]
        if first not in self._legal_first():
            raise first_fault(first, inside=self._message is not None)
        is_control = first & 0x08
        if not is_control and self._short >= self._short_room:
            raise FrameFault(1009, "too many short fragments")
        if end - at < 2:
            return None
        second = data[at + 1]
        if second & 0x80 != self._mask_bit:
            # RFC 6455 §5.1
            raise FrameFault(1002, "masked frame from a server" if second & 0x80 else "unmasked frame from a client")
        length: int | None = second & 0x7F
        at += 2
        if is_control:
            if second & 0x7F > CONTROL_BYTES:
                raise FrameFault(1002, "long control frame")  # RFC 6455 §5.5
            if first == _CLOSE and length == 1:
                raise FrameFault(1002, "a close payload of 1 byte")  # RFC 6455 §5.5.1
        elif second & 0x7F > 125:
            width = 2 if length == 126 else 8
            length = read_length(data[at : at + width], width, self._room(first))
            at += width
        elif second & 0x7F > self._room(first):
            raise too_big()
        if length is None:
            return None
        if self._mask_bit:
            if end - at < 4:
                return None
            self._key = data[at : at + 4]
            at += 4
        self._first = first
        self._left = length
        if not is_control:
            if self._message is None:
                self._is_text = first & 0x0F == Opcode.TEXT
                self._compressed = bool(first & 0x40)
            self._size += length
            if length < SHORT_BYTES:
                self._short += SHORT_BYTES - length
        return at

    def _legal_first(self) -> frozenset[int]:
        if self._message is not None:
            return FIRST_INSIDE
        return FIRST_BETWEEN if self._extension is None else FIRST_COMPRESSED

    def _room(self, first: int) -> int:
        """Return how many payload bytes the message may still have; `first` begins its next frame."""
        limit = self._max
        if self._extension is not None and (first & 0x40 if self._message is None else self._compressed):
            limit = self._extension.wire_bytes(limit)
        return limit - self._size

    def _read_payload(self, data: bytes, at: int, events: list[Event]) -> int:
        """Read what `data` has, from `at` on, of the frame's payload; return where to go on."""
        piece = data[at : at + self._left]
        length = len(piece)
        if self._mask_bit and length:
            piece = apply_mask(piece, self._key)
        if length < self._left and (turn := length & 3):
            self._key = self._key[turn:] + self._key[:turn]  # RFC 6455 §5.3: the key runs through the payload
        self._left -= length
        if self._first & 0x08:
            self._take_control(piece, events)
        else:
            self._take_data(piece, events)
        return len(data) if self._state is State.CLOSED else at + length

    def _take_data(self, piece: bytes, events: list[Event]) -> None:
        ends = not self._left and bool(self._first & 0x80)
        if self._compressed:
            self._inflate(piece, ends)
            piece = b""
        else:
            self._check_text(piece)
        if not ends:
            if self._message is None:
                self._message = bytearray(piece)
            else:
                self._message += piece
            return
        if self._tail:
            raise FrameFault(1007, "the message ends inside a UTF-8 sequence")
        if self._message is not None:
            self._message += piece
            piece = bytes(self._message)
            self._message = None
        self._size = self._short = 0
        events.append(DataReceived(piece, self._is_text))

    def _inflate(self, piece: bytes, ends: bool) -> None:
        """Add to the message what a compressed piece says, as long as it stays within the limit."""
        assert self._extension is not None
        if self._message is None:
            self._message = bytearray()
        for part in self._extension.inflate(piece, last=ends):
            room = self._max - len(self._message)
            self._check_text(part[:room])
            if len(part) > room:
                raise too_big()
            self._message += part

    def _check_text(self, piece: bytes) -> None:
        if self._is_text and (self._tail or not piece.isascii()):
            self._tail = utf8_tail(self._tail + piece)

    def _take_control(self, piece: bytes, events: list[Event]) -> None:
        self._control += piece
        code, reason = None, ""
        if self._first == _CLOSE:
            code, reason = read_close(self._control, whole=not self._left)
        if self._left:
            return
        payload, self._control = self._control, b""
        if self._first == _PING:
            events.append(PingReceived(payload))
            # RFC 6455 §5.5.2: also while we are CLOSING, as the peer's Close has not come.
            if len(self._outbox) == MAX_ANSWERS:
                del self._outbox[0]
            self._outbox.append(self._frame(Opcode.PONG, payload))
        elif self._first == _PONG:
            events.append(PongReceived(payload))
        else:
            events.append(CloseReceived(code, reason))
            self._end("peer's Close", code, reason, payload[:2])  # its code comes back, RFC 6455 §5.5.1

    # -- the end

    def _end(self, event: str, code: int | None, reason: str, answer: bytes) -> None:
        """Go to CLOSED, answer with a Close unless one was sent, and let go of what was half read."""
        if self._state is State.OPEN:  # RFC 6455 §5.5.1: one Close each
            self._outbox.append(self._frame(Opcode.CLOSE, answer))
        self._move(event)
        self.close_code, self.close_reason = code, reason
        self._head = self._control = self._tail = b""
        self._message = None
        self._extension = None
        self._left = 0

    def _move(self, event: str) -> None:
        self._state = MOVES[self._state][event]

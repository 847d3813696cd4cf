"""The reading side of a WebSocket: bytes to whole messages and control frames (RFC 6455 §5, RFC 7692 §6).

Owns what is half read: the frame, the message, its size, its UTF-8. Invariants: a fault shows at the first byte that
makes it certain, however the bytes were cut; memory stays within the limit of a message; the frames that a message may
take are bounded by `SHORT_BYTES`.

An extension that compresses messages is any object that meets `Extension`: RSV1 marks its messages, and `_take_data`
has it turn their bytes back before they are counted and checked as UTF-8.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Protocol

from .ws_frames import (
    CONTROL_BYTES,
    FIRST_BETWEEN,
    FIRST_COMPRESSED,
    FIRST_INSIDE,
    FrameFault,
    Opcode,
    apply_mask,
    first_fault,
    read_close,
    read_length,
    too_big,
    utf8_tail,
)

__all__ = ["FIRST_CLOSE", "FIRST_PING", "FIRST_PONG", "SHORT_BYTES", "SHORT_ROOM", "Extension", "MessageReader"]

# A frame costs about as much work as this many bytes of payload. What a fragment is shorter is counted, and bounded for
# each message by the message's limit, or by SHORT_ROOM where that is more. So a message may come in fragments of
# SHORT_BYTES, whatever its size, and in 4,096 of any size; endless empty fragments end with 1009.
SHORT_BYTES = 16
SHORT_ROOM = 4096 * SHORT_BYTES

FIRST_CLOSE = 0x80 | Opcode.CLOSE  # the first bytes of the three control frames
FIRST_PING = 0x80 | Opcode.PING
FIRST_PONG = 0x80 | Opcode.PONG


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


class MessageReader(ABC):
    """The state of reading one connection. `mask_bit` is what the peer's heads must have in their second byte.

    This is a base class and not an object of its own, as a server makes one for each read of an idle connection.
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
        "_max",
        "_message",
        "_short",
        "_short_room",
        "_size",
        "_tail",
    )

    def __init__(self, mask_bit: int, max_message_bytes: int, extension: Extension | None) -> None:
        self._mask_bit = mask_bit
        self._max = max_message_bytes
        self._short_room = max(max_message_bytes, SHORT_ROOM)
        self._extension = extension
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

    # -- for the connection

    @abstractmethod
    def _message_read(self, data: bytes, is_text: bool) -> None:
        """Take a whole message; `data` is valid UTF-8 where `is_text`."""

    @abstractmethod
    def _control_read(self, first: int, payload: bytes, code: int | None, reason: str) -> bool:
        """Take a control frame, with the code and reason of a Close; return whether nothing after it is to be read."""

    @property
    def held(self) -> int:
        """How many bytes of an unfinished message are kept."""
        return 0 if self._message is None else len(self._message)

    def _half_read(self) -> bool:
        """Return whether a frame or a message has begun and not ended."""
        return bool(self._left or self._head) or self._message is not None

    def _forget(self) -> None:
        """Drop what is half read."""
        self._head = self._control = self._tail = b""
        self._message = None
        self._extension = None
        self._left = 0

    # -- frames

    def _read(self, data: bytes) -> None:
        """Read bytes. Raises `FrameFault`, after it has passed on what came before the fault."""
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        while at < end:
            if not self._left:
                start = self._read_head(data, at)
                if start is None:
                    self._head = data[at:]
                    return
                at = start
            at = self._read_payload(data, at)

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
            if first == FIRST_CLOSE and length == 1:
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

    def _read_payload(self, data: bytes, at: int) -> int:
        """Read what `data` has, from `at` on, of the frame's payload; return where to go on."""
        piece = data[at : at + self._left]
        length = len(piece)
        if self._mask_bit and length:
            piece = apply_mask(piece, self._key)
        if length < self._left and (turn := length & 3):
            self._key = self._key[turn:] + self._key[:turn]  # RFC 6455 §5.3: the key runs through the payload
        self._left -= length
        if self._first & 0x08:
            return len(data) if self._take_control(piece) else at + length
        self._take_data(piece)
        return at + length

    # -- messages

    def _take_data(self, piece: bytes) -> None:
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
        self._message_read(piece, self._is_text)

    def _inflate(self, piece: bytes, ends: bool) -> None:
        """Inflate a piece and add it to the message. Raises `FrameFault` past the limit."""
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

    def _take_control(self, piece: bytes) -> bool:
        self._control += piece
        code, reason = None, ""
        if self._first == FIRST_CLOSE:
            code, reason = read_close(self._control, whole=not self._left)
        if self._left:
            return False
        payload, self._control = self._control, b""
        return self._control_read(self._first, payload, code, reason)

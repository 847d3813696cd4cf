"""Frames of RFC 6455 as bytes: encoding, masking, close codes, and the rules that one frame is judged by.

Owns the rules that hold for a single frame, whatever came before it. Invariants: `encode_frame` returns legal frames
with the shortest head; on the reading side, a rule that a prefix of a frame breaks is reported for that prefix already.
`ws_reader.py` has what lasts longer than a frame.

To admit another extension's reserved bit on the reading side, add its first bytes to a set like `FIRST_COMPRESSED`.
"""

from __future__ import annotations

import codecs
import enum

from ..errors import OncecastError, UsageError

__all__ = [
    "CONTROL_BYTES",
    "FIRST_BETWEEN",
    "FIRST_COMPRESSED",
    "FIRST_INSIDE",
    "REASON_BYTES",
    "FrameFault",
    "Opcode",
    "apply_mask",
    "close_payload",
    "encode_frame",
    "first_fault",
    "is_close_code",
    "read_close",
    "read_length",
    "too_big",
    "utf8_tail",
]

CONTROL_BYTES = 125  # RFC 6455 §5.5: the longest payload of a control frame
REASON_BYTES = CONTROL_BYTES - 2  # of a Close's payload, behind the code
STRIDE_BYTES = 768  # from this length on, four `translate` passes are faster than one XOR of large integers
DECODE_BYTES = 1 << 16  # UTF-8 is checked in slices, as a decoded slice can take four times its bytes


class Opcode(enum.IntEnum):
    """RFC 6455 §5.2. The others are reserved; those from 8 on are control frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class FrameFault(OncecastError):
    """The peer broke the protocol. `code` is the close code to fail the connection with (RFC 6455 §7.1.7)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


_CONTROL = frozenset({0x80 | Opcode.CLOSE, 0x80 | Opcode.PING, 0x80 | Opcode.PONG})
FIRST_TEXT, FIRST_BINARY = 0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY  # of a message in one frame, uncompressed
_OPENING = frozenset(fin | opcode for fin in (0, 0x80) for opcode in (Opcode.TEXT, Opcode.BINARY))

FIRST_BETWEEN = _CONTROL | _OPENING
"""The legal first bytes of a frame where no message is open and no extension was negotiated."""

FIRST_COMPRESSED = FIRST_BETWEEN | {0x40 | first for first in _OPENING}
"""The same where permessage-deflate was negotiated: RSV1 stands only on a message's first frame (RFC 7692 §6)."""

FIRST_INSIDE = _CONTROL | {0x00, 0x80}
"""The legal first bytes of a frame inside a fragmented message (RFC 6455 §5.4)."""

# The two bytes that begin a short unmasked frame, by first byte and payload length.
_HEADS = {
    first: tuple(bytes((first, length)) for length in range(CONTROL_BYTES + 1))
    for first in FIRST_COMPRESSED | FIRST_INSIDE
}


def encode_frame(
    opcode: int, payload: bytes, *, fin: bool = True, rsv1: bool = False, mask: bytes | None = None
) -> bytes:
    """Return one frame with the shortest length field (RFC 6455 §5.2), masked with `mask` (4 bytes) if given.

    Raises `UsageError` for what may not be on the wire: a reserved opcode, a control frame that is fragmented, long
    or has RSV1, RSV1 on a continuation.
    """
    first = opcode | 0x80 if fin else opcode
    if rsv1:
        first |= 0x40
    heads = _HEADS.get(first)
    if heads is None or opcode > 0x0F:
        raise UsageError(f"No frame begins with opcode {opcode}, fin={fin}, rsv1={rsv1}.")
    length = len(payload)
    if length <= CONTROL_BYTES:
        if mask is None:
            return heads[length] + payload
        head = bytes((first, 0x80 | length))
    elif opcode & 0x08:
        raise UsageError(f"The payload of a control frame is at most {CONTROL_BYTES} bytes, not {length}.")
    else:
        masked = 0 if mask is None else 0x80
        if length < 1 << 16:
            head = bytes((first, masked | 126)) + length.to_bytes(2, "big")
        else:
            head = bytes((first, masked | 127)) + length.to_bytes(8, "big")
    if mask is None:
        return head + payload
    if len(mask) != 4:
        raise UsageError(f"A masking key is 4 bytes, not {len(mask)}.")
    return head + mask + apply_mask(payload, mask)


def apply_mask(data: bytes | bytearray | memoryview, key: bytes) -> bytes:
    """Return `data` XORed with `key` (4 bytes) over and over: it masks and unmasks (RFC 6455 §5.3)."""
    length = len(data)
    if length < STRIDE_BYTES:
        keys = (key * ((length + 3) >> 2))[:length]
        return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")
    result = bytearray(data)
    for start in range(4):
        result[start::4] = result[start::4].translate(_XORED[key[start]])
    return bytes(result)


_XORED = tuple(apply_mask(bytes(range(256)), bytes((value,)) * 4) for value in range(256))


def whole_message(data: bytes, most: int) -> tuple[bytes, bool] | None:
    """Return the payload of a client's message, and whether it is text, if `data` is exactly one frame with all of it.

    The frame is masked, uncompressed and legal, and its payload at most `most` bytes. None for all else: that, and its
    faults, are for a codec to read.
    """
    length = len(data) - 6
    if length < 0:
        return None
    first, second = data[0], data[1]
    if second != 0x80 | length or length > 125:
        length -= 2
        if second != 0xFE or not 126 <= length <= 0xFFFF or int.from_bytes(data[2:4], "big") != length:
            return None
    if length > most or (first != FIRST_TEXT and first != FIRST_BINARY):
        return None
    at = len(data) - length
    payload = apply_mask(data[at:], data[at - 4 : at])
    if first == FIRST_BINARY:
        return payload, False
    try:
        return None if not payload.isascii() and utf8_tail(payload) else (payload, True)
    except FrameFault:
        return None


def is_close_code(code: int) -> bool:
    """Return whether a Close frame may carry `code`.

    RFC 6455 §7.4 and IANA's registry, which added 1012 to 1014. Of those below 1015, 1004 has no meaning, and 1005 and
    1006 stand for "no code" and "no Close frame", as 1015 does for a failed TLS handshake. 3000 to 4999 are for
    libraries and applications.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


_CODE_HIGH_BYTES = frozenset(code >> 8 for code in range(5000) if is_close_code(code))


def close_payload(code: int, reason: str) -> bytes:
    """Return the payload of a Close frame; `reason` is cut to 123 bytes between two characters.

    Raises `UsageError` if `code` may not be on the wire.
    """
    if not is_close_code(code):
        raise UsageError(f"{code} is not a close code that a frame may carry: use 1000 or one in 4000-4999.")
    text = reason.encode("utf-8", "replace")  # a lone surrogate becomes "?"
    if len(text) > REASON_BYTES:
        text = text[:REASON_BYTES].decode("utf-8", "ignore").encode()
    return code.to_bytes(2, "big") + text


def read_close(payload: bytes, *, whole: bool) -> tuple[int | None, str]:
    """Return the code and reason of a Close frame's payload, the code `None` where it is empty.

    With `whole=False`, `payload` is a prefix, and the result says only that it shows no fault.
    Raises `FrameFault`: 1002 for a bad code, 1007 for a reason that is not UTF-8 (RFC 6455 §5.5.1, §7.4).
    """
    if not payload:
        return None, ""
    code = int.from_bytes(payload[:2], "big")
    if payload[0] not in _CODE_HIGH_BYTES or (len(payload) >= 2 and not is_close_code(code)):
        raise FrameFault(1002, "bad close code")
    reason = payload[2:]
    tail = utf8_tail(reason)
    if not whole:
        return None, ""
    if tail:
        raise FrameFault(1007, "the close reason ends inside a UTF-8 sequence")
    return code, reason.decode()


def utf8_tail(data: bytes) -> bytes:
    """Return the incomplete sequence (0 to 3 bytes) that `data` ends with; begin the next piece with it.

    Raises `FrameFault` (1007) as soon as no further byte can make `data` UTF-8 (RFC 3629, RFC 6455 §8.1).
    """
    try:
        start = 0
        while len(data) - start > DECODE_BYTES:
            start += codecs.utf_8_decode(data[start : start + DECODE_BYTES], "strict", False)[1]
        tail = data[start + codecs.utf_8_decode(data[start:], "strict", False)[1] :]
    except UnicodeDecodeError:
        raise FrameFault(1007, "invalid UTF-8") from None
    # A surrogate (ED A0 to ED BF) shows at its second byte; the decoder waits for the third.
    if len(tail) == 2 and tail[0] == 0xED and tail[1] >= 0xA0:
        raise FrameFault(1007, "invalid UTF-8")
    return tail


def first_fault(first: int, *, inside: bool) -> FrameFault:
    """Return the fault of a first byte that is not legal; `inside` says whether a fragmented message is open."""
    opcode = first & 0x0F
    if first & 0x70:
        reason = "a reserved bit is set"  # RFC 6455 §5.2
    elif opcode not in _OPCODES:
        reason = "reserved opcode"  # RFC 6455 §5.2
    elif opcode >= Opcode.CLOSE:
        reason = "fragmented control frame"  # RFC 6455 §5.5
    elif inside:
        reason = "new message inside a fragmented one"  # RFC 6455 §5.4
    else:
        reason = "continuation without a message"  # RFC 6455 §5.4
    return FrameFault(1002, reason)


_OPCODES = frozenset(Opcode)


def read_length(field: bytes, width: int, room: int) -> int | None:
    """Return the length in an extended length field of `width` (2 or 8) bytes, `None` where it is incomplete.

    `field` may be a prefix. Raises `FrameFault` as soon as it shows a fault: 1002 for a length that is
    not minimal or has its top bit set (RFC 6455 §5.2), 1009 for one that is above `room` bytes.
    """
    least = 126 if width == 2 else 1 << 16
    if least > room:
        raise too_big()
    if width == 8 and field and field[0] & 0x80:
        raise FrameFault(1002, "the top bit of a 64-bit length is set")
    missing = 8 * (width - len(field))
    low = int.from_bytes(field, "big") << missing
    if low + (1 << missing) <= least:  # whatever follows
        raise FrameFault(1002, "length not minimal")
    if low > room:
        raise too_big()
    return None if missing else low


def too_big() -> FrameFault:
    """Return the fault of a message above the limit (RFC 6455 §7.4.1)."""
    return FrameFault(1009, "message too big")

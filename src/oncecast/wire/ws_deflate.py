"""permessage-deflate: messages compressed one by one (RFC 7692). Its negotiation, at both ends, and its codec.

Owns the extension's parameters and the two streams of one connection. Invariants: an end uses only what both ends have
agreed on (§7.1); inflated data comes in slices of `SLICE_BYTES`, so that the caller can stop at its limit before more
memory is used; without context takeover, nothing is kept between two messages.

The result of `compress_message` depends only on its arguments, so that a broadcast is compressed once for all its
receivers. For that, `Deflate` answers with server_no_context_takeover. To add a parameter, add a field to `Parameters`
and a branch to `_read`, and use it in `Deflate.accept` and `Parameters.check`.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .ws_frames import FrameFault
from .ws_handshake import Extensions, HandshakeFailed

__all__ = [
    "LEVEL",
    "MAX_STREAMS",
    "NAME",
    "SLICE_BYTES",
    "THRESHOLD_BYTES",
    "Deflate",
    "Parameters",
    "PerMessageDeflate",
    "compress_message",
]

NAME = "permessage-deflate"
MAX_BITS = 15  # RFC 7692 §7.1.2: a window is 2**8 to 2**15 bytes
LEAST_SENT_BITS = 9  # zlib can't compress with a window of 2**8: it refuses, or silently uses 2**9
LEVEL = 1  # measured on JSON: 500 bytes to 231 in 6.6 µs (level 6: 225 in 7.3), 4,000 to 887 in 12 (825 in 21)
MEMORY_LEVEL = 5  # with zlib's default of 8, each object allocates 256 KiB: 23 µs instead of 6.6, same output
THRESHOLD_BYTES = 128  # JSON of 128 bytes becomes 109, of 64 becomes 58: below this no packet is saved
SLICE_BYTES = 1 << 16
SLACK_BYTES = 1 << 15  # for the flushes of 4,096 short fragments
MAX_STREAMS = 64  # in one message; a stream of two bytes costs a new inflater

_TAIL = b"\x00\x00\xff\xff"  # RFC 7692 §7.2.1: it ends every message, so it is not sent
_LAST_BLOCK = b"\x01\x00\x00\xff\xff"  # an empty last block: a stream ends with it only at the boundary of two blocks


def compress_message(data: bytes, *, window_bits: int = MAX_BITS, level: int = LEVEL) -> bytes:
    """Return the payload of a compressed message, which depends on nothing sent before (RFC 7692 §7.2.1).

    `window_bits` is 9 to 15, `level` 0 to 9. An empty message gives one byte (§7.2.3.6).
    """
    # A copy() of a primed object is no faster: it copies the window, 6.8 to 9.3 µs against 6.6 for 500 bytes.
    deflater = _new_deflater(window_bits, level)
    return (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _new_deflater(window_bits: int, level: int) -> zlib._Compress:
    return zlib.compressobj(level, zlib.DEFLATED, -window_bits, MEMORY_LEVEL)


# -- negotiation


@dataclass(frozen=True, slots=True)
class Parameters:
    """An offer, an answer, or what both ends have agreed on (RFC 7692 §7.1).

    A window that is not mentioned is None and means 15 bits. In an offer `client_max_window_bits` is the most that the
    client will use, and permits the server to answer with less.
    """

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: int | None = None
    client_max_window_bits: int | None = None

    def __str__(self) -> str:
        """Return the header's value."""
        items = [NAME]
        if self.server_no_context_takeover:
            items.append("server_no_context_takeover")
        if self.client_no_context_takeover:
            items.append("client_no_context_takeover")
        if self.server_max_window_bits is not None:
            items.append(f"server_max_window_bits={self.server_max_window_bits}")
        if self.client_max_window_bits is not None:
            items.append(f"client_max_window_bits={self.client_max_window_bits}")
        return "; ".join(items)

    def check(self, answer: Extensions) -> Parameters | None:
        """Check the answer to this offer and return what holds; None where the server declined.

        `answer` are the extensions of the answer's header. Raises `HandshakeFailed` (RFC 7692 §5.1, §7.1).
        """
        if not answer:
            return None
        if len(answer) > 1 or answer[0][0] != NAME:
            raise HandshakeFailed(101, "The server uses an extension that was not offered.")
        said = _read(answer[0][1], is_answer=True)
        if said is None:
            raise HandshakeFailed(101, f"The server's parameters for {NAME} are malformed.")
        if self.server_no_context_takeover and not said.server_no_context_takeover:
            raise HandshakeFailed(101, "The server does not answer server_no_context_takeover.")  # §7.1.1.1
        if self.server_max_window_bits is not None and (
            said.server_max_window_bits is None or said.server_max_window_bits > self.server_max_window_bits
        ):
            raise HandshakeFailed(101, "The server does not keep to the server_max_window_bits offered.")  # §7.1.2.1
        if said.client_max_window_bits is not None:
            # §7.1.2.2: only if the offer has it, and never more than the offer.
            if self.client_max_window_bits is None or said.client_max_window_bits > self.client_max_window_bits:
                raise HandshakeFailed(101, "The server answers with client_max_window_bits that were not offered.")
            if said.client_max_window_bits < LEAST_SENT_BITS:
                raise HandshakeFailed(101, f"A client_max_window_bits below {LEAST_SENT_BITS} is not supported.")
        return Parameters(
            said.server_no_context_takeover,
            said.client_no_context_takeover or self.client_no_context_takeover,  # §7.1.1.2: the offer binds the client
            said.server_max_window_bits,
            self.client_max_window_bits if said.client_max_window_bits is None else said.client_max_window_bits,
        )

    def server_codec(self, *, level: int = LEVEL, threshold: int = THRESHOLD_BYTES) -> PerMessageDeflate:
        """Return the server's codec for one connection."""
        return PerMessageDeflate(
            send_bits=_bits(self.server_max_window_bits),
            send_takeover=not self.server_no_context_takeover,
            receive_bits=_bits(self.client_max_window_bits),
            receive_takeover=not self.client_no_context_takeover,
            level=level,
            threshold=threshold,
        )

    def client_codec(self, *, level: int = LEVEL, threshold: int = THRESHOLD_BYTES) -> PerMessageDeflate:
        """Return the client's codec for one connection."""
        return PerMessageDeflate(
            send_bits=_bits(self.client_max_window_bits),
            send_takeover=not self.client_no_context_takeover,
            receive_bits=_bits(self.server_max_window_bits),
            receive_takeover=not self.server_no_context_takeover,
            level=level,
            threshold=threshold,
        )


@dataclass(frozen=True, slots=True)
class Deflate:
    """What a server agrees to.

    `server_bits` (9 to 15) and `client_bits` (8 to 15) are the largest windows. With a takeover, that side's next
    message refers to those before it: the server can't share what it sends then, or has to keep an inflater of up to
    40 KiB for each client.
    """

    server_bits: int = MAX_BITS
    client_bits: int = MAX_BITS
    server_takeover: bool = False
    client_takeover: bool = False

    def __post_init__(self) -> None:
        if not (LEAST_SENT_BITS <= self.server_bits <= MAX_BITS and 8 <= self.client_bits <= MAX_BITS):
            raise UsageError(f"A window has {LEAST_SENT_BITS} to {MAX_BITS} bits, a client's 8 to {MAX_BITS}.")

    def accept(self, offers: Extensions) -> Parameters | None:
        """Return the answer to the first offer that can be met, None if there is none. Its text is the header."""
        for name, items in offers:
            offer = _read(items, is_answer=False) if name == NAME else None
            if offer is not None and (answer := self._answer(offer)) is not None:
                return answer
        return None

    def _answer(self, offer: Parameters) -> Parameters | None:
        server_bits = min(_bits(offer.server_max_window_bits), self.server_bits)
        if server_bits < LEAST_SENT_BITS:
            return None
        client_bits = offer.client_max_window_bits
        if client_bits is not None:  # §7.1.2.2: if the offer lacks it, the server may not ask for less
            client_bits = min(client_bits, self.client_bits)
        return Parameters(
            server_no_context_takeover=offer.server_no_context_takeover or not self.server_takeover,
            client_no_context_takeover=offer.client_no_context_takeover or not self.client_takeover,
            # §7.1.2.1: it is required where the offer has it, and allowed where not.
            server_max_window_bits=None
            if offer.server_max_window_bits is None and server_bits == MAX_BITS
            else server_bits,
            client_max_window_bits=None if client_bits == MAX_BITS else client_bits,
        )


def _bits(window_bits: int | None) -> int:
    return MAX_BITS if window_bits is None else window_bits


_BITS = {str(bits): bits for bits in range(8, MAX_BITS + 1)}  # §7.1.2: decimal, without leading zeros


def _read(items: tuple[tuple[str, str | None], ...], *, is_answer: bool) -> Parameters | None:
    """Read an extension's parameters; None where one is unknown, stands twice or has a bad value (RFC 7692 §7.1)."""
    found: dict[str, Any] = {}
    for name, value in items:
        if name in found:
            return None
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if value is not None:
                return None
            found[name] = True
        elif name == "client_max_window_bits" and value is None and not is_answer:
            found[name] = MAX_BITS  # §7.1.2.2: the server may answer with any window
        elif name in ("server_max_window_bits", "client_max_window_bits") and value in _BITS:
            found[name] = _BITS[value]
        else:
            return None
    return Parameters(**found)


# -- the codec


class PerMessageDeflate:
    """The two streams of one connection, as `ws_reader.Extension` has them."""

    __slots__ = (
        "_deflater",
        "_inflater",
        "_level",
        "_receive_bits",
        "_receive_takeover",
        "_send_bits",
        "_send_takeover",
        "_streams",
        "_threshold",
    )

    def __init__(
        self,
        *,
        send_bits: int,
        send_takeover: bool,
        receive_bits: int,
        receive_takeover: bool,
        level: int = LEVEL,
        threshold: int = THRESHOLD_BYTES,
    ) -> None:
        self._send_bits = send_bits
        self._send_takeover = send_takeover
        self._receive_bits = receive_bits
        self._receive_takeover = receive_takeover
        self._level = level
        self._threshold = threshold
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        self._streams = 0  # that the message being read has begun

    @property
    def idle(self) -> bool:
        """Whether a new object could replace this one: no message is half read, no context is kept."""
        return self._deflater is None and self._inflater is None and not self._streams

    def wire_bytes(self, message_bytes: int) -> int:
        """Return how many bytes a message of `message_bytes` may take on the wire.

        What can't be compressed grows: at worst each byte takes 9 bits (RFC 1951 §3.2.6), and blocks have heads. Some
        senders flush each fragment, 5 bytes: a third of a fragment of 16 bytes. These bytes are not kept in memory.
        """
        return message_bytes + (message_bytes >> 1) + SLACK_BYTES

    def deflate(self, data: bytes) -> bytes | None:
        """Return the compressed payload, or None for a message that is better sent uncompressed (RFC 7692 §6.1)."""
        if len(data) < self._threshold:
            return None
        if not self._send_takeover:
            payload = compress_message(data, window_bits=self._send_bits, level=self._level)
            return payload if len(payload) < len(data) or not self._threshold else None
        if self._deflater is None:
            self._deflater = _new_deflater(self._send_bits, self._level)
        return (self._deflater.compress(data) + self._deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def inflate(self, piece: bytes, *, last: bool) -> Iterator[bytes]:
        """Inflate a piece of a compressed message's payload, in slices; `last` ends the message.

        Raises `FrameFault`: 1007 for what is no deflate data, as the message is not of its type then (RFC 6455 §7.4.1;
        RFC 7692 §6.2 names no code), 1009 past `MAX_STREAMS`. A fault may hide earlier output of the same piece.
        """
        try:
            for start in range(0, len(piece), SLICE_BYTES):  # zlib copies the unused input for each slice of output
                yield from self._feed(piece[start : start + SLICE_BYTES])
            if last:
                yield from self._finish()
        except zlib.error:
            raise _damaged() from None

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            inflater = self._begun()
            while True:
                out = inflater.decompress(data, SLICE_BYTES)
                if out:
                    yield out
                data = inflater.unconsumed_tail
                # At the stream's end zlib leaves what follows in the tail, and would do so at each further call.
                if inflater.eof or (not data and len(out) < SLICE_BYTES):
                    break
            if inflater.eof:
                # A block with BFINAL has ended the stream (RFC 7692 §7.2.3.4); the next byte begins another.
                data = inflater.unused_data
                self._inflater = None

    def _begun(self) -> zlib._Decompress:
        """Return the inflater of the open stream; begin one if there is none."""
        if self._inflater is None:
            if self._streams == MAX_STREAMS:
                raise FrameFault(1009, "too many deflate streams in a message")
            self._streams += 1
            self._inflater = zlib.decompressobj(-self._receive_bits)
        elif not self._streams:
            self._streams = 1  # the context of the message before is taken over
        return self._inflater

    def _finish(self) -> Iterator[bytes]:
        """End a message: its payload and the tail must be whole blocks (RFC 7692 §7.2.2)."""
        if not self._streams:
            raise _damaged()  # an empty message is one byte, compressed: RFC 7692 §7.2.3.6
        if self._inflater is not None:
            yield from self._feed(_TAIL)
        if self._inflater is not None:
            probe = self._inflater.copy() if self._receive_takeover else self._inflater
            if probe.decompress(_LAST_BLOCK, 1) or not probe.eof or probe.unused_data:
                raise _damaged()
        self._streams = 0
        if not self._receive_takeover:
            self._inflater = None


def _damaged() -> FrameFault:
    return FrameFault(1007, "damaged deflate data")

"""The messages of a WebSocket as bytes: in frames of `oncecast.v1` or bare, plain or compressed.

With permessage-deflate a message is compressed once for all whose window allows it, as no message refers to another.
"""

from __future__ import annotations

from functools import lru_cache

from ..message import Kind, Message
from ..wire import envelope
from ..wire.ws_deflate import Parameters
from ..wire.ws_frames import Opcode, encode_frame

SHARED_BITS = (15, 12, 9)  # the windows that messages are compressed for; a larger one allows what a smaller one does


class _Frames:
    """Frames, joined; compressed where `deflate` says what for."""

    __slots__ = ("_deflate",)

    def __init__(self, deflate: Parameters | None = None) -> None:
        self._deflate = None if deflate is None else deflate.server_codec().deflate

    def block(self, parts: list[bytes]) -> bytes:
        """Join frames."""
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _frame(self, opcode: Opcode, data: bytes) -> bytes:
        if self._deflate is not None and (payload := self._deflate(data)) is not None:
            return encode_frame(opcode, payload, rsv1=True)
        return encode_frame(opcode, data)


class V1Format(_Frames):
    """Messages in frames of `oncecast.v1`."""

    __slots__ = ()

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one text frame."""
        return self._frame(Opcode.TEXT, envelope.message_frame(message, epoch))


class RawFormat(_Frames):
    """Each frame is a message's data alone."""

    __slots__ = ()

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one text frame, or a binary one for binary data."""
        opcode = Opcode.BINARY if message.kind is Kind.BINARY else Opcode.TEXT
        return self._frame(opcode, message.data)


V1 = V1Format()
RAW = RawFormat()


def formats(deflate: Parameters | None) -> tuple[V1Format, RawFormat]:
    """Return the formats for a socket that has negotiated `deflate`: the same for all who can share their bytes."""
    if deflate is None:
        return V1, RAW
    window_bits = deflate.server_max_window_bits or SHARED_BITS[0]
    return _deflated(next(bits for bits in SHARED_BITS if bits <= window_bits))


@lru_cache(maxsize=len(SHARED_BITS))
def _deflated(window_bits: int) -> tuple[V1Format, RawFormat]:
    deflate = Parameters(server_no_context_takeover=True, server_max_window_bits=window_bits)
    return V1Format(deflate), RawFormat(deflate)

"""The messages of a WebSocket as blocks of frames, plain or compressed.

With permessage-deflate a message is compressed once for all sockets whose window allows it, as no message refers to
another. The bytes that two sockets may share have one format object.
"""

from __future__ import annotations

from functools import lru_cache

from ...message import Message
from ...protocol.base import Encoder
from ...wire.ws_deflate import Parameters
from ...wire.ws_frames import Opcode, encode_frame

__all__ = ["SHARED_BITS", "FrameBlocks", "frame_blocks"]

SHARED_BITS = (15, 12, 9)  # the windows that messages are compressed for; a larger window can read a smaller one


class FrameBlocks:
    """The hub's format of an encoder's messages in frames, compressed with `deflate` where that is given."""

    __slots__ = ("_deflate", "_encoder")

    def __init__(self, encoder: Encoder, deflate: Parameters | None = None) -> None:
        self._encoder = encoder
        self._deflate = None if deflate is None else deflate.server_codec().deflate

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one text or binary frame."""
        opcode = Opcode.TEXT if self._encoder.is_text(message) else Opcode.BINARY
        data = self._encoder.payload(message, epoch)
        if self._deflate is not None and (payload := self._deflate(data)) is not None:
            return encode_frame(opcode, payload, rsv1=True)
        return encode_frame(opcode, data)

    def block(self, parts: list[bytes]) -> bytes:
        """Join frames."""
        return parts[0] if len(parts) == 1 else b"".join(parts)


def frame_blocks(encoder: Encoder, deflate: Parameters | None) -> FrameBlocks:
    """Return the format of a socket that has negotiated `deflate`: the same for all that can share their bytes."""
    if deflate is None:
        return _blocks(encoder, None)
    window_bits = deflate.server_max_window_bits or SHARED_BITS[0]
    return _blocks(encoder, next(bits for bits in SHARED_BITS if bits <= window_bits))


@lru_cache(maxsize=16)  # two encoders, plain or with each of the shared windows
def _blocks(encoder: Encoder, window_bits: int | None) -> FrameBlocks:
    if window_bits is None:
        return FrameBlocks(encoder)
    return FrameBlocks(encoder, Parameters(server_no_context_takeover=True, server_max_window_bits=window_bits))

"""The carriers of sessions over ASGI: a session's messages as the events of `send`.

The hub writes blocks here as elsewhere. Those of an event stream are the body's bytes; ASGI has a call for each message
of a WebSocket, so its blocks are cut again, once for all sockets that get the same block.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

from ..core.subscription import Descriptor, Format
from ..errors import Refusal
from ..message import Message
from ..policy.identity import Identity
from ..protocol.base import Encoder, Verified
from ..server.framing.event_stream import event_blocks
from ..wire.ws_frames import REASON_BYTES

__all__ = ["CarriedBy", "EventsOverAsgi", "SocketOverAsgi"]

SHARED_BYTES = 64 << 10  # of a block that is remembered once cut; of longer ones the cutting is the smaller part

END_OF_BODY = {"type": "http.response.body", "body": b"", "more_body": False}


class CarriedBy(Protocol):
    """A connection, as its carrier sees it."""

    identity: Identity

    def verify(self, token: str, done: Verified, /) -> None:
        """Call `done` with the identity that a token stands for."""
        ...

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity. Raises `Refusal` where that user has too many connections."""
        ...

    @property
    def full(self) -> bool:
        """Whether the peer takes no more at the moment."""
        ...

    def put(self, item: Any, size: int, /) -> None:
        """Send an event of ASGI, a piece of a body, or a message."""
        ...

    def finish(self, last: dict[str, Any], code: int, /) -> None:
        """Send the last event, and end: with a code of a Close."""
        ...

    def stop_reading(self) -> None:
        """Drop what the peer sends from now on."""
        ...

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        ...

    def wake_at(self, when: float, /) -> None:
        """Call the session's `woken` at this time."""
        ...

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history."""
        ...


class _OverAsgi:
    """What both carriers share."""

    __slots__ = ("_connection",)

    def __init__(self, connection: CarriedBy) -> None:
        self._connection = connection

    @property
    def identity(self) -> Identity:
        """The peer."""
        return self._connection.identity

    def verify(self, token: str, done: Verified, /) -> None:
        """Call `done` with the identity that a token stands for."""
        self._connection.verify(token, done)

    def identify(self, identity: Identity, /) -> None:
        """Replace the identity."""
        self._connection.identify(identity)

    @property
    def descriptor(self) -> Descriptor | None:
        """None: the socket is the server's."""
        return None

    @property
    def full(self) -> bool:
        """Whether the peer takes no more at the moment."""
        return self._connection.full

    def now(self) -> float:
        """Return the monotonic clock's seconds."""
        return self._connection.now()

    def wake_at(self, when: float) -> None:
        """Call the session's `woken` at this time."""
        self._connection.wake_at(when)

    def may_read(self) -> Refusal | None:
        """Count a page of the broker's history."""
        return self._connection.may_read()

    def stop(self) -> None:
        """Read nothing more."""
        self._connection.stop_reading()


class EventsOverAsgi(_OverAsgi):
    """The carrier of an event stream."""

    __slots__ = ()

    def format(self, encoder: Encoder, /) -> Format:
        """Return the format whose blocks are pieces of the body."""
        return event_blocks(encoder, chunked=False)

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send a block."""
        return self._write

    def send(self, payload: bytes, /) -> None:
        """Send one event."""
        self._write(payload)

    def close(self, code: int, reason: str) -> None:
        """End the body; it has no place for the code."""
        self._connection.finish(END_OF_BODY, code)

    def _write(self, block: bytes) -> None:
        self._connection.put(block, len(block))


class SocketOverAsgi(_OverAsgi):
    """The carrier of a WebSocket."""

    __slots__ = ()

    def format(self, encoder: Encoder, /) -> Format:
        """Return the format whose blocks `cut` takes."""
        return _message_blocks(encoder)

    @property
    def write(self) -> Callable[[bytes], None]:
        """Send the messages of a block."""
        return self._write

    def send(self, payload: bytes, /) -> None:
        """Send one text message."""
        self._connection.put(payload.decode(), len(payload))

    def close(self, code: int, reason: str) -> None:
        """Close after what was sent. A long reason is cut (RFC 6455 §5.5)."""
        said = reason.encode()[:REASON_BYTES].decode(errors="ignore")
        self._connection.finish({"type": "websocket.close", "code": code, "reason": said}, code)

    def _write(self, block: bytes) -> None:
        for message in _cut(block) if len(block) <= SHARED_BYTES else cut(block):
            self._connection.put(message, len(message))


class MessageBlocks:
    """The hub's format of messages that stay apart: each after its kind, one byte, and its length, in 8 bytes."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one message."""
        payload = self._encoder.payload(message, epoch)
        return (b"t" if self._encoder.is_text(message) else b"b") + len(payload).to_bytes(8, "big") + payload

    def block(self, parts: list[bytes]) -> bytes:
        """Join messages."""
        return parts[0] if len(parts) == 1 else b"".join(parts)


@lru_cache(maxsize=8)  # two encoders
def _message_blocks(encoder: Encoder) -> MessageBlocks:
    return MessageBlocks(encoder)


def cut(block: bytes) -> tuple[str | bytes, ...]:
    """Return the messages of a block: texts, and bytes of binary ones."""
    messages: list[str | bytes] = []
    at = 0
    while at < len(block):
        begin = at + 9
        end = begin + int.from_bytes(block[at + 1 : begin], "big")
        payload = block[begin:end]
        messages.append(payload.decode() if block[at : at + 1] == b"t" else payload)
        at = end
    return tuple(messages)


_cut = lru_cache(maxsize=8)(cut)  # the blocks of a turn; the hash of a block is computed once

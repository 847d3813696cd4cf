"""The carrier of an event stream: events in chunks (RFC 9112 §7.1), or up to the close for an HTTP/1.0 client.

Two states: it is open until the session closes it, then the connection ends. A client has nothing to send on it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from ...core.subscription import Format
from ...message import Message
from ...protocol.base import Carrier, Encoder, Session
from ...wire import http1
from .base import Link, NativeCarrier

SLICE_BYTES = 64 << 10

__all__ = ["EventBlocks", "EventStreamCarrier", "event_blocks", "event_stream_carrier"]


class EventBlocks:
    """The hub's format of events: each block is one chunk, or as it is where the stream is not `chunked`."""

    __slots__ = ("_chunked", "_encoder")

    def __init__(self, encoder: Encoder, *, chunked: bool) -> None:
        self._encoder = encoder
        self._chunked = chunked

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one event."""
        return self._encoder.payload(message, epoch)

    def block(self, parts: list[bytes]) -> bytes:
        """Join events to one chunk."""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return http1.chunk(data) if self._chunked else data


@lru_cache(maxsize=16)  # two encoders, chunked or not
def event_blocks(encoder: Encoder, *, chunked: bool) -> EventBlocks:
    """Return the one format of a kind, so that all its streams share their bytes."""
    return EventBlocks(encoder, chunked=chunked)


class EventStreamCarrier(NativeCarrier[Session]):
    """One stream in chunks. `head` is the response's head, which announces them."""

    __slots__ = ("_closed",)

    _chunked = True

    def __init__(self, link: Link, head: bytes, make: Callable[[Carrier], Session]) -> None:
        self._closed = False
        super().__init__(link, head, make)

    # -- the carrier of a session

    def format(self, encoder: Encoder, /) -> Format:
        """Return the hub's format for an encoder."""
        return event_blocks(encoder, chunked=self._chunked)

    def send(self, payload: bytes, /) -> None:
        """Send one event."""
        if self._out is None:
            self._link.write(self._framed([payload]))
        else:
            self._out.append(payload)

    def stop(self) -> None:
        """Read nothing more: a stream never does."""

    def close(self, code: int, reason: str) -> None:
        """End the response in order; it has no place for the code."""
        if self._closed:
            return
        self._closed = True
        self._link.closing(code)
        if self._out is None:
            self._write_out()

    # -- the listener of a connection

    def received(self, data: bytes, /) -> None:
        """Ignore it: RFC 9112 §9.3.2 lets a client send its next request, but this response does not end."""

    @property
    def slice_bytes(self) -> int:
        """Any number of bytes: they are ignored."""
        return SLICE_BYTES

    def woken(self, now: float, /) -> None:
        """The time that the session asked for has come."""
        self._session.woken(now)

    # -- helpers

    def _framed(self, out: list[bytes]) -> bytes:
        data = b"".join(out)
        if not self._chunked:
            return data
        chunk = http1.chunk(data) if data else b""
        return chunk + http1.LAST_CHUNK if self._closed else chunk

    def _end_if_closed(self) -> None:
        if self._closed:
            self._link.end()


class UnchunkedCarrier(EventStreamCarrier):
    """One stream up to the close. It is a class of its own as few are, and an idle stream is to be small."""

    __slots__ = ()

    _chunked = False


def event_stream_carrier(
    link: Link, head: bytes, make: Callable[[Carrier], Session], *, chunked: bool
) -> EventStreamCarrier:
    """Return the carrier of a stream. `chunked` says whether its head announces chunks. `make` may raise `Refusal`."""
    return (EventStreamCarrier if chunked else UnchunkedCarrier)(link, head, make)

"""Server-Sent Events: one response that does not end, and what an `EventSource` makes of it.

HTML Living Standard §9.2. Every event carries its cursor in `id:`, so the browser itself sends it back in
`Last-Event-ID`. With one channel `data` is the message's data alone, with several (or `envelope=1`) its JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Callable

from ..core.node import Node
from ..core.place import Place, chain_gaps
from ..errors import Refusal
from ..message import GAP_EVENT, LATEST, Cursor, Gap, Kind, Message, Start
from ..wire import envelope, http1, sse
from .base import DRAIN_MS, HEARTBEAT_HEADER, Link, Query, Settings, after_cursor, check_count

RETRY_MS = 1000  # how long a client waits before it comes back; the jitter is the client's

HEADERS = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store"),
    ("X-Accel-Buffering", "no"),  # nginx and those that follow it would hold the stream back
)


def stream_headers(heartbeat_seconds: float) -> tuple[tuple[str, str], ...]:
    """Return the headers of a stream; they announce the interval of its heartbeats, in seconds."""
    return (*HEADERS, (HEARTBEAT_HEADER, f"{heartbeat_seconds:g}"))


class SseFormat:
    """A stream's bytes: `enveloped` in the message's JSON or bare, `chunked` (RFC 9112 §7.1) or up to the close."""

    __slots__ = ("chunked", "enveloped")

    def __init__(self, *, enveloped: bool, chunked: bool) -> None:
        self.enveloped = enveloped
        self.chunked = chunked

    def message(self, message: Message, epoch: str) -> bytes:
        """Return one event. Binary data goes as base64 (RFC 4648 §4): a stream of events is text."""
        if self.enveloped:
            data = envelope.message_json(message, epoch)
        elif message.kind is Kind.BINARY:
            data = base64.b64encode(message.data)
        else:
            data = message.data
        return sse.encode(data, id=f"{epoch}-{message.seq}", event=message.event)

    def block(self, parts: list[bytes]) -> bytes:
        """Join events to one chunk."""
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return http1.chunk(data) if self.chunked else data

    def gap(self, gap: Gap) -> bytes:
        """Return `event: gap`."""
        return self.block([sse.encode(envelope.gap_json(gap), id=str(gap.cursor), event=GAP_EVENT)])

    def heartbeat(self, cursor: Cursor) -> bytes:
        """Return a comment, for proxies that cut quiet connections, and an id without data, which fires no event."""
        return self.block([sse.comment("keep-alive"), sse.encode(None, id=str(cursor))])

    def opening(self, cursor: Cursor) -> bytes:
        """Return the beginning of a stream."""
        return self.block([sse.encode(None, id=str(cursor), retry_ms=RETRY_MS)])

    def parting(self) -> bytes:
        """Return the end of a stream whose server stops; it says when to come back."""
        end = self.block([sse.encode(None, retry_ms=DRAIN_MS)])
        return end + http1.LAST_CHUNK if self.chunked else end


_FORMATS = {
    (enveloped, chunked): SseFormat(enveloped=enveloped, chunked=chunked)
    for enveloped in (False, True)
    for chunked in (False, True)
}


def sse_format(*, enveloped: bool, chunked: bool) -> SseFormat:
    """Return the one format of a kind, so that all its streams share their bytes."""
    return _FORMATS[enveloped, chunked]


class SseStream:
    """One stream. `head` makes the response's head from its headers. Raises `Refusal` before anything is written."""

    __slots__ = ("_format", "_heartbeat", "_link", "_node", "_subscription", "write")

    def __init__(
        self,
        node: Node,
        settings: Settings,
        link: Link,
        channels: tuple[str, ...],
        query: Query,
        last_event_id: str | None,
        *,
        chunked: bool,
        head: Callable[[tuple[tuple[str, str], ...]], bytes],
    ) -> None:
        start = parse_stream(settings, channels, query, last_event_id)
        self._node = node
        self._link = link
        self._heartbeat = settings.heartbeat_seconds
        self._format = sse_format(enveloped=query.envelope or len(channels) > 1, chunked=chunked)
        self.write: Callable[[bytes], None] = link.write
        first = head(stream_headers(settings.heartbeat_seconds))

        def attached(place: Place) -> None:
            nonlocal first
            gaps = map(self._format.gap, chain_gaps(place.gaps, place.announced))
            link.write(first + self._format.opening(place.announced) + b"".join(gaps))
            first = b""

        self._subscription = node.subscribe(channels, start, self, self._format, attached, link.descriptor)
        if first:  # the start is being looked up: its place comes later
            link.write(first)
            first = b""
        link.wake_at(link.now() + self._heartbeat)

    def gap(self, gap: Gap, /) -> None:
        """Send `event: gap`."""
        self.write(self._format.gap(gap))

    def refuse(self, refusal: Refusal, /) -> None:
        """End the stream; the client comes back with its cursor."""
        self._node.hub.detach(self._subscription)
        if self._format.chunked:
            self._link.write(http1.LAST_CHUNK)
        self._link.end()

    def received(self, data: bytes, /) -> None:
        """A client has nothing to say on this connection any more (RFC 9112 §9.3.2 lets it pipeline; we don't)."""

    def blocked(self) -> None:
        """Stop writing; the place in the log is kept."""
        self._node.hub.block((self._subscription,))

    def drained(self) -> None:
        """Read on from the place in the log."""
        self._node.hub.unblock((self._subscription,))

    def woken(self, now: float, /) -> None:
        """Send a heartbeat, unless a backlog is on its way, which is sign of life enough."""
        cursor = self._node.hub.heartbeat_cursor((self._subscription,))
        if cursor is not None:
            self.write(self._format.heartbeat(cursor))
        self._link.wake_at(now + self._heartbeat)

    def drain(self) -> None:
        """Say when to come back, and end the stream: the client goes to another server."""
        self._node.hub.detach(self._subscription)
        self._link.write(self._format.parting())
        self._link.end()

    def closed(self) -> None:
        """The client is gone."""
        self._node.hub.detach(self._subscription)


def parse_stream(settings: Settings, channels: tuple[str, ...], query: Query, last_event_id: str | None) -> Start:
    """Check what a stream is asked for, and return where it starts. Raises `Refusal`."""
    check_count(channels, settings.channels_per_subscription)
    # A browser sends the header on each reconnect to the same URL: it must win over where that URL first began.
    if last_event_id:
        return after_cursor(Cursor.parse(last_event_id))
    return query.start or LATEST

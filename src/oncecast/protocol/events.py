"""Server-Sent Events: one response that does not end, as an `EventSource` reads it.

HTML Living Standard §9.2. Each event carries its cursor in `id:`, which the browser sends back in `Last-Event-ID`.
With one channel `data` is the message's data alone, with several (or `envelope=1`) its JSON.

An event stream has two states: it is open until `drain`, `refuse` or `closed`, and then it is closed.
"""

from __future__ import annotations

import base64
from math import ceil

from ..core.node import Node
from ..core.place import Place, chain_gaps
from ..errors import Refusal
from ..message import BINARY, ERROR_EVENT, EXPIRING_EVENT, GAP_EVENT, LATEST, Cursor, LogGap, Message, Start
from ..policy.access import Access
from ..policy.identity import Identity
from ..wire import envelope, sse
from .base import DRAIN_MS, HEARTBEAT_HEADER, Carrier, TransportSettings
from .query import Query, after_cursor, check_count

__all__ = [
    "BARE",
    "ENVELOPED",
    "RETRY_MS",
    "EventEncoder",
    "EventStream",
    "parse_stream",
    "retry_event",
    "stream_headers",
]

RETRY_MS = 1000  # a client waits for this before it comes back; the jitter is the client's
SERVICE_RESTART = 1012  # IANA's registry of close codes, for carriers that can say one

HEADERS = (
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-store, no-transform"),  # RFC 9111 §5.2.2.6: a proxy that compresses holds events back
    ("X-Accel-Buffering", "no"),  # without it nginx, and proxies that follow it, hold the stream back
)


def stream_headers(heartbeat_seconds: float) -> tuple[tuple[str, str], ...]:
    """Return the headers of a stream; they announce the interval of its heartbeats, in seconds."""
    return (*HEADERS, (HEARTBEAT_HEADER, f"{heartbeat_seconds:g}"))


class EventEncoder:
    """A message as an event: `enveloped` in the message's JSON, or its data alone."""

    __slots__ = ("enveloped",)

    def __init__(self, *, enveloped: bool) -> None:
        self.enveloped = enveloped

    def payload(self, message: Message, epoch: str, /) -> bytes:
        """Return one event. Binary data is base64 (RFC 4648 §4), as a stream of events is text."""
        if self.enveloped:
            data = envelope.message_json(message, epoch)
        elif message.kind is BINARY:
            data = base64.b64encode(message.data)
        else:
            data = message.data
        return sse.encode(data, id=f"{epoch}-{message.seq}", event=message.event)

    def is_text(self, message: Message, /) -> bool:
        """Return True."""
        return True


BARE, ENVELOPED = EventEncoder(enveloped=False), EventEncoder(enveloped=True)


def gap_event(gap: LogGap) -> bytes:
    """Return `event: gap`."""
    return sse.encode(envelope.gap_json(gap), id=str(gap.cursor), event=GAP_EVENT)


def error_event(refusal: Refusal) -> bytes:
    """Return `event: error`, with the error's JSON."""
    return sse.encode(envelope.error_json(refusal), id=None, event=ERROR_EVENT)


def retry_event(refusal: Refusal) -> bytes:
    """Return a `retry:`, in ms, for a stream that ends before it begins: as long as the refusal says, or RETRY_MS."""
    return sse.encode(None, retry_ms=RETRY_MS if refusal.retry_after is None else ceil(refusal.retry_after * 1000))


def expiring_event(seconds: float) -> bytes:
    """Return `event: expiring`."""
    return sse.encode(b'{"expires_in_ms":%d}' % (seconds * 1000), id=None, event=EXPIRING_EVENT)


def heartbeat_event(cursor: Cursor) -> bytes:
    """Return a comment, for proxies that cut quiet connections, and an id without data, which fires no event."""
    return sse.comment("keep-alive") + sse.encode(None, id=str(cursor))


class EventStream:
    """One stream. Raises `Refusal` before anything is sent."""

    __slots__ = ("_carrier", "_heartbeat", "_node", "_subscription")

    def __init__(
        self,
        node: Node,
        settings: TransportSettings,
        carrier: Carrier,
        channels: tuple[str, ...],
        query: Query,
        last_event_id: str | None,
    ) -> None:
        start = parse_stream(settings, channels, query, last_event_id)
        self._node = node
        self._carrier = carrier
        self._heartbeat = settings.heartbeat_seconds
        encoder = ENVELOPED if query.envelope or len(channels) > 1 else BARE
        self._subscription = node.subscribe(
            channels, start, self, carrier.format(encoder), self._attached, carrier.descriptor, carrier.may_read
        )
        carrier.wake_at(carrier.now() + self._heartbeat)

    def _attached(self, place: Place) -> None:
        """Send the place; it comes later than the response's head if it has to be looked up."""
        self._carrier.send(sse.encode(None, id=str(place.announced), retry_ms=RETRY_MS))
        self._node.count_gaps(place.gaps)
        for gap in chain_gaps(place.gaps, place.announced):
            self._carrier.send(gap_event(gap))

    @property
    def identity(self) -> Identity:
        """Who listens."""
        return self._carrier.identity

    # -- what the hub calls

    def write(self, data: bytes, /) -> None:
        """Send a block."""
        self._carrier.write(data)  # to keep the carrier's own method would take an object for each subscriber

    def gap(self, gap: LogGap, /) -> None:
        """Send `event: gap`."""
        self._carrier.send(gap_event(gap))

    def refuse(self, refusal: Refusal, /) -> None:
        """End the stream; the client comes back with its cursor. Say why where the same request would be refused."""
        self.closed()
        if not refusal.error.retry:
            self._carrier.send(error_event(refusal))
        self._carrier.close(refusal.error.close, refusal.message)

    # -- what the carrier calls

    def blocked(self) -> None:
        """Stop writing; the place in the log is kept."""
        self._node.hub.block((self._subscription,))

    def drained(self) -> None:
        """Read on from the place in the log."""
        self._node.hub.unblock((self._subscription,))

    def woken(self, now: float, /) -> None:
        """Send a heartbeat, unless a backlog is being sent, which shows as well that the stream is alive."""
        cursor = self._node.hub.heartbeat_cursor((self._subscription,))
        if cursor is not None:
            self._carrier.send(heartbeat_event(cursor))
        self._carrier.wake_at(now + self._heartbeat)

    def expiring(self, seconds: float, /) -> None:
        """Send `event: expiring`; a client that connects again with another token misses nothing."""
        self._carrier.send(expiring_event(seconds))

    def recheck(self, access: Access, identity: Identity, /) -> None:
        """End where other access rules refuse the stream."""
        try:
            access.subscribe(identity, self._subscription.channels)
        except Refusal as refusal:
            self.refuse(refusal)

    def drain(self) -> None:
        """Say when to come back, and end the stream: the client connects to another server."""
        self.closed()
        self._carrier.send(sse.encode(None, retry_ms=DRAIN_MS))
        self._carrier.close(SERVICE_RESTART, "restarting: reconnect and resume")

    def closed(self) -> None:
        """Forget the client."""
        self._node.hub.detach(self._subscription)


def parse_stream(
    settings: TransportSettings, channels: tuple[str, ...], query: Query, last_event_id: str | None
) -> Start:
    """Check what a stream is asked for, and return where it starts. Raises `Refusal`."""
    check_count(channels, settings)
    # A browser sends the header on each reconnect to the same URL: it must win over where that URL first began.
    if last_event_id:
        return after_cursor(Cursor.parse(last_event_id))
    return query.start or LATEST

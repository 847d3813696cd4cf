"""A subscription of the application itself: a sink of the hub that fills a `Feed`, as the connection of a client does.

Invariant: the feed has every message after its place once and in order, or a gap. Where the application is slow and the
feed is full, the sink leaves the hub; it comes back at the feed's place once the feed has drained. Each item of the
log's backlog that does not fit is read again from there, so nothing waits anywhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import msgspec

from ..client.base import CursorMoved, Received, StartQuery, common_start
from ..client.failures import Refused, Unavailable
from ..client.feed import Feed, FeedState
from ..client.reading import parse_message
from ..client.values import ClientMessage, Gap
from ..core.node import Node
from ..core.place import Place, chain_gaps
from ..core.subscription import Subscription
from ..errors import Refusal
from ..message import LATEST, LogGap, Message, Start
from ..protocol.query import parse_start
from ..wire import envelope

__all__ = ["LINES", "MessageLines", "OwnListener"]

RETRY_SECONDS = 0.5  # until it attaches again after a temporary refusal, such as that of a node that restarts


class MessageLines:
    """The format of a listener in the process: the JSON of each message, a line each."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return a message; its JSON has no line feed."""
        return envelope.message_json(message, epoch) + b"\n"

    def block(self, parts: list[bytes]) -> bytes:
        """Join messages."""
        return b"".join(parts)

    @staticmethod
    def parse(block: bytes) -> Iterator[ClientMessage]:
        """Yield the messages of a block, each parsed as it is asked for."""
        for line in block.split(b"\n"):
            if line:
                yield parse_message(line)


LINES = MessageLines()


class OwnListener:
    """One subscription of the application, on the running loop. `forget` is called with it at its end."""

    def __init__(self, node: Node, feed: Feed, forget: Callable[[OwnListener], None]) -> None:
        self._node = node
        self._feed = feed
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._subscription: Subscription | None = None
        feed.on_change = self._changed

    def start(self) -> None:
        """Attach at the feed's places."""
        if self._feed.ended or self._subscription is not None:
            return
        try:
            start = _start_of(common_start(self._feed.places.starts))
            self._subscription = self._node.subscribe(self._feed.channels, start, self, LINES, self._attached)
        except Refusal as refusal:
            self.refuse(refusal)

    def end(self, error: Exception) -> None:
        """End for good: the feed yields what it has, then raises."""
        self._detach()
        self._feed.fail(error)

    def _attached(self, place: Place) -> None:
        if not place.gaps:
            self._feed.take(CursorMoved(str(place.announced)))
        for gap in chain_gaps(place.gaps, place.announced):
            self.gap(gap)
        if place.gaps:
            self._feed.take(CursorMoved(str(place.announced)))

    # -- what the hub calls

    def write(self, block: bytes, /) -> None:
        """Buffer the messages that fit; leave with the first that does not."""
        for message in MessageLines.parse(block):
            if self._feed.state is not FeedState.ACTIVE:
                return
            if self._feed.full:
                self._detach()
                self._feed.park()
                return
            self._feed.take(Received(message))

    def gap(self, gap: LogGap, /) -> None:
        """Buffer a gap. A full feed takes it too, as no place before the gap could be resumed at."""
        if self._feed.state is FeedState.ACTIVE:
            self._feed.take(msgspec.json.decode(envelope.gap_json(gap), type=Gap))

    def refuse(self, refusal: Refusal, /) -> None:
        """Attach again after a temporary refusal, and end after another."""
        self._detach()
        if refusal.error.retry and self._node.failed is None:
            self._loop.call_later(RETRY_SECONDS, self.start)
        else:
            self._feed.fail(as_failure(refusal))

    # -- helpers

    def _changed(self) -> None:
        if self._feed.state is FeedState.ACTIVE:
            self._loop.call_soon(self.start)
        elif self._feed.ended:
            self._detach()
            self._forget(self)

    def _detach(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            self._node.hub.detach(subscription)


def _start_of(start: StartQuery) -> Start:
    """Return the start for a feed's places. Raises `Refusal` for an invalid cursor."""
    if start.name == "last":
        return parse_start(None, int(start.value), None) or LATEST
    if start.name == "since":
        return parse_start(None, None, float(start.value)) or LATEST
    return parse_start(start.value, None, None) or LATEST


def as_failure(refusal: Refusal) -> Refused | Unavailable:
    """Return the exception for a refusal: `Unavailable` if a retry can succeed, else `Refused`."""
    status = refusal.error.status
    if refusal.error.retry:
        return Unavailable(refusal.message, status=status, retry_after=refusal.retry_after)
    return Refused(refusal.message, code=refusal.code, status=status, retry_after=refusal.retry_after)

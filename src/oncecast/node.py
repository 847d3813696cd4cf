"""One node: it publishes through the broker, receives what the broker ordered, and serves polls and subscriptions.

Transports know the node and nothing below it. Time and the loop's turn are passed in, so that a test runs a node with
a fake clock and no loop at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from .brokers.base import Broker, Done
from .hub import Hub
from .log import Encoding, Entry, Log, Place, Retention, Start
from .message import Cursor, Draft, Gap, Message
from .subscription import Format, Lag, Sink, Subscription

logger = logging.getLogger("oncecast.node")

POLL_BYTES = 1 << 20  # the data in one poll's answer; whoever is behind by more asks again


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """What holds for one channel: how much is kept, and what becomes of a subscriber that lags."""

    retention: Retention = field(default_factory=Retention)
    lag: Lag = Lag.RESUME


class Poll(msgspec.Struct, frozen=True):
    """What a poll found: `entries`, the cursor after them, and the gaps before them."""

    entries: list[Entry]
    cursor: Cursor
    gaps: list[Gap]


class Node:
    """The core of a server, or of an app that embeds it.

    `policy` gives a channel's policy by its name, `max_bytes` bounds the log's memory, `monotonic` gives seconds,
    `schedule` runs a callable at the end of the loop's turn (`loop.call_soon`). Opens the broker.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        policy: Callable[[str], ChannelPolicy],
        max_bytes: int,
        monotonic: Callable[[], float],
        schedule: Callable[[Callable[[], None]], object],
    ) -> None:
        self.broker = broker
        self.log = Log(broker.epoch, lambda channel: policy(channel).retention, max_bytes=max_bytes)
        self.hub = Hub(self.log, schedule, _report)
        self._policy = policy
        self._monotonic = monotonic
        broker.open(self._receive)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Publish the drafts, in order; `done` is called once with a receipt or a refusal for each."""
        self.broker.publish(drafts, done)

    def poll(self, channels: tuple[str, ...], start: Start, limit: int) -> Poll:
        """Read what there is after a start: at most `limit` messages."""
        place = self.log.resolve(channels, start)
        entries = self.log.read_after(channels, place.seq, limit, POLL_BYTES)
        cut = bool(entries) and entries[-1].seq < self.log.newest(channels)
        # Where nothing is left behind, the cursor goes to the head: the fresher it is, the later it expires.
        seq = entries[-1].seq if cut else max(place.seq, self.log.head)
        return Poll(entries, self.log.cursor(seq), place.gaps)

    def subscribe(
        self,
        channels: tuple[str, ...],
        start: Start,
        sink: Sink,
        format: Format,  # noqa: A002 - the word of the domain
        descriptor: int | None = None,
    ) -> tuple[Subscription, Place]:
        """Attach a subscription at a start.

        Returns it with its place. The caller announces `place.told` and then `place.gaps`, before it returns to the
        loop; from then on the hub writes to the sink.
        """
        place = self.log.resolve(channels, start)
        subscription = Subscription(channels, format, sink, place, self._lag(channels), descriptor)
        self.hub.attach(subscription)
        return subscription, place

    def encode(self, entry: Entry, encoding: Encoding) -> bytes:
        """Return an entry's bytes in an encoding, from the log's cache."""
        return self.log.encode(entry, encoding)

    def trim(self) -> None:
        """Trim by age. Call it about once a second."""
        self.log.trim(self._monotonic())

    def _receive(self, messages: Sequence[Message]) -> None:
        self.hub.append(messages, self._monotonic())

    def _lag(self, channels: tuple[str, ...]) -> Lag:
        lags = {self._policy(channel).lag for channel in channels}
        if Lag.DISCONNECT in lags:
            return Lag.DISCONNECT
        return Lag.LATEST if lags == {Lag.LATEST} else Lag.RESUME  # one that must not skip holds for all


def _report(error: Exception) -> None:
    logger.error("a delivery failed; the subscriber is skipped, the others are not", exc_info=error)

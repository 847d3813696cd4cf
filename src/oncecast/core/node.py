"""One node: it publishes through the broker, receives what the broker ordered, and serves polls and subscriptions.

Transports know the node and nothing below it. Time and the loop's turn are passed in, so that a test runs a node with
a fake clock and no loop at all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from ..brokers.base import Broker, Done, History
from ..errors import Refusal
from ..message import Cursor, Draft, Gap, Message, Page, Reason, Retention, Start, StartKind
from .hub import Hub
from .log import Encoding, Entry, Log, Place, loose_entry
from .subscription import Format, Lag, Sink, State, Subscription

logger = logging.getLogger("oncecast.core.node")

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
        self.failed: str | None = None
        self.on_failure: Callable[[str], None] = _nowhere
        opening = broker.open(self)
        history = broker.history
        self.log = Log(
            broker.epoch,
            lambda channel: policy(channel).retention,
            max_bytes=max_bytes,
            history=history is not None,
            floor=opening.floor,
            marks=opening.marks,
            holes=opening.holes,
        )
        self._policy = policy
        self._monotonic = monotonic
        self._history = history
        for message in opening.recent:
            self.log.append(message, monotonic())
        self.log.head = max(self.log.head, opening.head)
        self.hub = Hub(self.log, schedule, _report, read=None if history is None else self._read_page)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Publish the drafts, in order; `done` is called once with a receipt or a refusal for each."""
        self.broker.publish(drafts, done)

    def poll(self, channels: tuple[str, ...], start: Start, limit: int, done: Callable[[Poll | Refusal], None]) -> None:
        """Read what there is after a start: at most `limit` messages.

        `done` is called once; at once where memory has it all.
        """
        place = self.log.locate(channels, start)
        if place is None:
            self._read_poll(channels, start, None, limit, done)
        elif self._history is None or self.log.covers(channels, place.seq):
            done(self._poll(channels, place, limit))
        else:
            self._read_poll(channels, Start(StartKind.CURSOR, self.log.cursor(place.seq)), place, limit, done)

    def subscribe(
        self,
        channels: tuple[str, ...],
        start: Start,
        sink: Sink,
        format: Format,  # noqa: A002 - the word of the domain
        attached: Callable[[Place], None],
        descriptor: int | None = None,
    ) -> Subscription:
        """Attach a subscription at a start, and return it.

        `attached` is called once, with its place, before the hub writes to the sink: it announces `place.told` and then
        `place.gaps`. That is before this returns, except where the start has to be looked up in the broker's history;
        and not at all if the subscription ends first, or the sink is told why it can't begin (`refuse`). Raises
        `Refusal` where that is known at once.
        """
        place = self.log.locate(channels, start)
        subscription = Subscription(channels, format, sink, place, self._lag(channels), descriptor)
        self.hub.attach(subscription)
        if place is not None:
            attached(place)
            return subscription
        early: list[Refusal] = []
        returned = False

        def found(page: Page | Refusal) -> None:
            if isinstance(page, Refusal) and not returned:
                early.append(page)
            else:
                self._found(subscription, start, attached, page)

        self._history_of(start).read(channels, start, 0, 0, found)
        returned = True
        if early:  # nothing has been said to the subscriber yet, so this can be the answer
            self.hub.detach(subscription)
            raise early[0]
        return subscription

    def change(self, max_bytes: int) -> None:
        """Ask the policy again, as it has changed. Readers that lag have the new one from their next subscription."""
        self.log.change(max_bytes)

    def encode(self, entry: Entry, encoding: Encoding) -> bytes:
        """Return an entry's bytes in an encoding, from the log's cache."""
        return self.log.encode(entry, encoding)

    def trim(self) -> None:
        """Trim by age. Call it about once a second."""
        self.log.trim(self._monotonic())

    # -- what the broker calls

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take the next messages of the shard."""
        self.hub.append(messages, self._monotonic())

    def skip(self, seq: int, /) -> None:
        """Go on after `seq`: what is before it is in the history."""
        self.hub.skip(seq)

    def fail(self, reason: str, /) -> None:
        """Be ready no longer; whoever runs this node is told by `on_failure`."""
        self.failed = reason
        logger.error("%s", reason)
        self.on_failure(reason)

    # -- helpers

    def _poll(self, channels: tuple[str, ...], place: Place, limit: int) -> Poll:
        entries = self.log.read_after(channels, place.seq, limit, POLL_BYTES)
        cut = bool(entries) and entries[-1].seq < self.log.newest(channels)
        # Where nothing is left behind, the cursor goes to the head: the fresher it is, the later it expires.
        seq = entries[-1].seq if cut else max(place.seq, self.log.head)
        return Poll(entries, self.log.cursor(seq), place.gaps)

    def _read_poll(
        self,
        channels: tuple[str, ...],
        start: Start,
        place: Place | None,
        limit: int,
        done: Callable[[Poll | Refusal], None],
    ) -> None:
        polled = partial(self._polled, channels, start, place, limit, done)
        self._history_of(start).read(channels, start, limit, POLL_BYTES, polled)

    def _polled(
        self,
        channels: tuple[str, ...],
        start: Start,
        place: Place | None,
        limit: int,
        done: Callable[[Poll | Refusal], None],
        page: Page | Refusal,
    ) -> None:
        if isinstance(page, Refusal):
            done(page)
            return
        if self.hub.is_ahead(page):
            self.hub.once_further(partial(self._read_poll, channels, start, place, limit, done))
            return
        self.log.heed(page)
        place = place or self.log.place_of(channels, start, page)
        gaps = place.gaps + self.log.gaps(channels, place, Reason.EXPIRED, page)
        entries = [loose_entry(message) for message in page.messages]
        done(Poll(entries, self.log.cursor(max(place.seq, page.upto)), gaps))

    def _found(
        self,
        subscription: Subscription,
        start: Start,
        attached: Callable[[Place], None],
        page: Page | Refusal,
    ) -> None:
        if subscription.state is State.CLOSED:
            return
        if isinstance(page, Refusal):
            self.hub.refuse(subscription, page)
            return
        place = self.log.place_of(subscription.channels, start, page)
        attached(place)
        self.hub.place(subscription, place)

    def _read_page(
        self, channels: tuple[str, ...], seq: int, limit: int, max_bytes: int, done: Callable[[Page | Refusal], None]
    ) -> None:
        start = Start(StartKind.CURSOR, self.log.cursor(seq))
        self._history_of(start).read(channels, start, limit, max_bytes, done)

    def _history_of(self, start: Start) -> History:
        if self._history is None:
            raise AssertionError(f"the log is all there is, and can't answer {start}")
        return self._history

    def _lag(self, channels: tuple[str, ...]) -> Lag:
        lags = {self._policy(channel).lag for channel in channels}
        if Lag.DISCONNECT in lags:
            return Lag.DISCONNECT
        return Lag.LATEST if lags == {Lag.LATEST} else Lag.RESUME  # one that must not skip holds for all


def _nowhere(reason: str) -> None:
    """Tell nobody."""


def _report(error: Exception) -> None:
    logger.error("a delivery failed; the subscriber is skipped, the others are not", exc_info=error)

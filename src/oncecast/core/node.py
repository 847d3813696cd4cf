"""One node: it publishes through the broker, receives what the broker ordered, and serves polls and subscriptions.

Transports know the node and nothing below it. Time and the loop's turn are passed in, so that a test runs a node with
a fake clock and no loop at all.

The order of calls: `await start()` once, which starts the broker; then `publish`, `poll`, `subscribe` and, about once a
second, `tick`; `await stop()` at the end. Before `start` has returned, and after `stop`, everything is refused with
`unavailable`. `unready` says why the node is not ready, which `/readyz` shows; `failed` says that it never will be.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from ..brokers.base import STARTING, STOPPING, Broker, Done, Opening
from ..errors import Refusal, UsageError
from ..message import LATEST, Draft, LogGap, Message, Page, Retention, Start, StartKind
from .bulk import Bulk
from .census import CensusTaker
from .delays import Delays
from .delivery import Send
from .entry import Encoding, Entry
from .history import BrokerHistory
from .hub import Hub
from .log import Log
from .place import Place, locate, place_of
from .polls import MayRead, Poll, Polls
from .subscription import Descriptor, Format, Lag, State, Subscription, SubscriptionSink
from .tracing import Tracing
from .waiting import HeldPublishes
from .wants import Wants

logger = logging.getLogger("oncecast.core.node")

AWAY_SECONDS = 5.0  # what a publisher is asked to wait while the broker is away

_FAILED = Refusal("unavailable", "The server's broker has failed, and the server stops: use another.", retry_after=5)


@dataclass(frozen=True, slots=True)
class ChannelPolicy:
    """What holds for one channel: how much is kept, and what becomes of a subscriber that lags."""

    retention: Retention = field(default_factory=Retention)
    lag: Lag = Lag.RESUME


class Node:
    """The core of a server, or of an app that embeds it.

    `policy` gives a channel's policy by its name, `max_bytes` bounds the log's memory, `monotonic` gives seconds,
    `schedule` runs a callable at the end of the loop's turn (`loop.call_soon`). While the broker is away a publish
    waits for at most `publish_wait_seconds`. `send` sends a block to the descriptor of a subscription. `delays` are
    measured once its `tick` is called. With `tracing`, what is published and delivered makes spans. Opens nothing:
    `start` does.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        policy: Callable[[str], ChannelPolicy],
        max_bytes: int,
        monotonic: Callable[[], float],
        schedule: Callable[[Callable[[], None]], object],
        publish_wait_seconds: float = 0.0,
        send: Send = os.write,
        delays: Delays | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.broker = broker
        self.delays = delays or Delays(monotonic)
        self.publishes = 0  # messages that this node was asked to publish
        self.unready: str | None = "the server is starting"
        self.failed: str | None = None
        self.on_failure: Callable[[str], None] = _ignore
        self.held = HeldPublishes(publish_wait_seconds)
        self.holes = 0  # reported by the broker since the start
        self.returns = 0  # of the broker, after it was away
        self._policy = policy
        self._monotonic = monotonic
        self._tracing = tracing
        self._schedule_raw = schedule
        self._refusal: Refusal | None = STARTING  # the refusal of every call, unless the node runs
        self._wants: Wants | None = None
        if broker.capabilities.only_wanted:
            self._wants = Wants(broker.want, broker.unwant, monotonic, self._schedule)
        self.log = Log(
            "",
            lambda channel: policy(channel).retention,
            max_bytes=max_bytes,
            history=broker.capabilities.history,
            only_wanted=broker.capabilities.only_wanted,
            lossy_holes=broker.capabilities.lossy_holes,
        )
        self._history = BrokerHistory(broker, self.log, monotonic) if broker.capabilities.history else None
        read = None if self._history is None else self._history.read_after
        self.hub = Hub(self.log, self._schedule, _report, send, read=read, listeners=self._wants, delays=self.delays)
        self._polls = Polls(self.log, self.hub, self._history)
        self.bulk = Bulk(monotonic, schedule)
        self.census = CensusTaker(self.log, self.hub, monotonic, schedule)

    # -- its life

    async def start(self) -> None:
        """Start the broker. Raises `ConfigurationError` where it can't be; then nothing is left open."""
        await self.broker.start(self)
        if not self.log.epoch:
            raise UsageError("The broker has started without calling `begin`.")

    async def stop(self) -> None:
        """Stop the broker. What waits is refused with `unavailable`."""
        self._refusal = STOPPING
        self.unready = "the server is stopping"
        self.held.refuse(STOPPING)
        await self.broker.stop()
        self._refuse_reads(STOPPING)

    def tick(self) -> None:
        """Trim by age, refuse what has waited too long, unwant channels without a listener. Call it once a second."""
        now = self._monotonic()
        self.log.trim(now)
        self.held.expire(now)
        if self._history is not None:
            self._history.reads.expire(now)
        self.hub.tick(now)
        if self._wants is not None:
            for channel in self._wants.expire(now):
                self.log.unwant(channel)

    def change(self, max_bytes: int, publish_wait_seconds: float) -> None:
        """Ask the policy again, as it has changed. Readers that lag have the new one from their next subscription."""
        self.log.change(max_bytes)
        self.held.seconds = publish_wait_seconds

    # -- what transports call

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Publish the drafts, in order; `done` is called once with a receipt or a refusal for each."""
        self.publishes += len(drafts)
        if self._tracing is not None:
            drafts, done = self._tracing.publish(drafts, done)
        if self.delays.due:
            done = self.delays.begin(done, self._is_pending)
        if self.unready is None:
            self.broker.publish(drafts, done)
        elif self._refusal is not None:
            done([self._refusal] * len(drafts))
        elif self.held.seconds > 0:
            self.held.put(drafts, done, self._monotonic())
        else:
            text = "The broker is away: publish again in a moment."
            done([Refusal("unavailable", text, retry_after=AWAY_SECONDS)] * len(drafts))

    def poll(
        self,
        channels: tuple[str, ...],
        start: Start,
        limit: int,
        done: Callable[[Poll | Refusal], None],
        may_read: MayRead | None = None,
    ) -> None:
        """Read what there is after a start: at most `limit` messages.

        `done` is called once; at once where memory has it all. Else `may_read` is asked before the history is.
        """
        if self._refusal is not None:
            done(self._refusal)
            return
        self._polls.poll(channels, start, limit, done, may_read)

    def subscribe(
        self,
        channels: tuple[str, ...],
        start: Start,
        sink: SubscriptionSink,
        format: Format,  # noqa: A002 - the word of the domain
        attached: Callable[[Place], None],
        descriptor: Descriptor | None = None,
        may_read: MayRead | None = None,
    ) -> Subscription:
        """Attach a subscription at a start, and return it. `may_read` is asked where the start is behind the window.

        `attached` is called once, with its place, before the hub writes to the sink: it sends `place.announced`, then
        `place.gaps`. That is before this returns, except where the start has to be looked up in the broker's history;
        and not at all if the subscription ends first, or the sink is refused (`refuse`). Raises
        `Refusal` where that is known at once.
        """
        if self._refusal is not None:
            raise self._refusal
        place = locate(self.log, channels, start)
        if may_read is not None and self._history is not None:
            behind = place is None or not self.log.covers(channels, place.seq, place.floors)
            if behind and (refusal := may_read()) is not None:
                raise refusal
        subscription = Subscription(channels, format, sink, place, self._lag(channels), descriptor)
        self.hub.attach(subscription)
        if place is not None:
            attached(place)
            return subscription
        early: list[Refusal] = []
        returned = False

        def refuse(refusal: Refusal) -> None:
            if returned:
                self.hub.refuse(subscription, refusal)
            else:
                early.append(refusal)

        self._look_up(subscription, start, attached, refuse)
        returned = True
        if early:  # nothing has been said to the subscriber yet, so this can be the answer
            self.hub.detach(subscription)
            raise early[0].copy()
        return subscription

    def resolve_start(self, channels: tuple[str, ...], start: Start, done: Callable[[Start | Refusal], None]) -> None:
        """Call `done` with a start that means the same place, even if a subscription begins at it later.

        `latest` moves on with the log: where this node does not know the newest number, it is looked up. `done` is
        called at once in every other case.
        """
        is_latest = start.kind is StartKind.LATEST or (start.kind is StartKind.LAST and start.number == 0)
        if is_latest and self.log.unwanted(channels):
            self.poll(channels, LATEST, 0, partial(_resolved, done))
        else:
            done(start)

    def after_delivery(self, call: Callable[[], None]) -> None:
        """Call this once everything received so far has been delivered: at once, or at the end of this turn."""
        if self._is_pending():
            self._schedule_raw(call)  # after the hub's own call, which is scheduled already
        else:
            call()

    def count_gaps(self, gaps: Iterable[LogGap]) -> None:
        """Count gaps that a subscription begins with, or that the answer to a poll has."""
        for gap in gaps:
            self.hub.counters.gaps[gap.reason] += 1

    def encode(self, entry: Entry, encoding: Encoding) -> bytes:
        """Return an entry's bytes in an encoding, from the log's cache."""
        return self.log.encode(entry, encoding)

    @property
    def pages(self) -> int:
        """How many pages of the broker's history were asked for."""
        return 0 if self._history is None else self._history.pages

    # -- what the broker calls: `brokers.base.Sink`

    def begin(self, opening: Opening, /) -> None:
        """Serve this log from here on."""
        if opening.epoch == self.log.epoch:
            raise UsageError(f"The log is {opening.epoch} already: for what it has lost, call `hole` or `skip`.")
        if self.log.epoch:
            logger.error(
                "the log %s is gone, and %s in its place: subscribers get a gap", self.log.epoch, opening.epoch
            )
        else:
            self._refusal = self.unready = None
        self.hub.begin(opening, self._monotonic())

    def receive(self, messages: Sequence[Message], /) -> None:
        """Take the next messages of the log."""
        self.hub.append(messages, self._monotonic())
        if self._tracing is not None and (written := self._tracing.receive(messages, self.hub.live)) is not None:
            self._schedule_raw(written)  # after the hub's own call

    def advance(self, seq: int, /) -> None:
        """Take the log's head to be `seq`."""
        self.hub.advance(seq)

    def skip(self, seq: int, /) -> None:
        """Go on after `seq`: what is before it is in the history."""
        self.hub.skip(seq)

    def hole(self, before: int, after: int, /) -> None:
        """Go on at `after`: what is between may be lost."""
        self.holes += 1
        logger.error("what was acknowledged between %d and %d may be lost: subscribers get a gap", before, after)
        self.hub.hole(before, after)

    def wanted(self, channels: Sequence[str], seq: int, /) -> None:
        """Rely on the broker for these channels, unless they are not wanted any more."""
        wants = self._wants
        self.hub.confirm([channel for channel in channels if wants is not None and channel in wants], seq)

    def away(self, reason: str, /) -> None:
        """Be not ready until `back`."""
        if self._refusal is None:
            if self.unready is None:
                logger.error("not ready: %s", reason)
            self.unready = reason

    def back(self) -> None:
        """Be ready, and publish what has waited."""
        if self._refusal is None and self.unready is not None:
            logger.warning("ready again: the broker is back")
            self.returns += 1
            self.held.publish(self.broker.publish)  # what is published meanwhile is held, and comes after it
            self.unready = None

    def fail(self, reason: str, /) -> None:
        """Be not ready any more, and call `on_failure`."""
        if self.failed is None:
            self.failed = self.unready = reason
            self._refusal = _FAILED
            logger.error("%s", reason)
            self.held.refuse(_FAILED)
            self._refuse_reads(_FAILED)
            self.on_failure(reason)

    # -- helpers

    def _schedule(self, call: Callable[[], None]) -> None:
        self._schedule_raw(partial(self._guard, call))

    def _is_pending(self) -> bool:
        """Whether something that was received has not been delivered yet."""
        return self.hub.flushed < self.log.head

    def _guard(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            logger.exception("the end of a turn has failed")
            self.fail(f"the delivery of messages has failed: {error!r}")

    def _refuse_reads(self, refusal: Refusal) -> None:
        if self._history is not None:
            self._history.reads.refuse(refusal)

    def _look_up(
        self,
        subscription: Subscription,
        start: Start,
        attached: Callable[[Place], None],
        refuse: Callable[[Refusal], None],
    ) -> None:
        """Ask the history for the place of a start."""
        assert self._history is not None
        found = partial(self._found, subscription, start, attached, refuse, self.log.life)
        self._history.read(subscription.channels, start, 0, 0, found)

    def _found(
        self,
        subscription: Subscription,
        start: Start,
        attached: Callable[[Place], None],
        refuse: Callable[[Refusal], None],
        life: int,
        page: Page | Refusal,
    ) -> None:
        if subscription.state is State.CLOSED:
            return
        if isinstance(page, Refusal):
            refuse(page)
            return
        place: Place | None
        if life == self.log.life:
            place = place_of(self.log, subscription.channels, start, page)
        elif (place := locate(self.log, subscription.channels, start)) is None:
            self._look_up(subscription, start, attached, refuse)
            return
        attached(place)
        self.hub.place(subscription, place)

    def _lag(self, channels: tuple[str, ...]) -> Lag:
        lags = {self._policy(channel).lag for channel in channels}
        if Lag.DISCONNECT in lags:
            return Lag.DISCONNECT
        return Lag.LATEST if lags == {Lag.LATEST} else Lag.RESUME  # one that must not skip holds for all


def _resolved(done: Callable[[Start | Refusal], None], found: Poll | Refusal) -> None:
    done(found if isinstance(found, Refusal) else Start(StartKind.CURSOR, found.cursor))


def _ignore(reason: str) -> None:
    """Do nothing."""


def _report(error: Exception) -> None:
    logger.error("a delivery failed; the subscriber is skipped, the others are not", exc_info=error)

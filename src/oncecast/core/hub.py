"""The subscriptions of one node, and the fan-out of each turn.

The way of a message: `append` puts it into the log and into this turn. At the end of the turn `flush` makes one block
of bytes for each channel and format and writes it to every live subscription. Then those that are behind read a page
each (`replay.py`).

There are no queues per subscriber. A live subscription has everything up to `flushed` and needs no place of its own.
One whose sink is full is BLOCKED: nothing is written to it, and it keeps its place in the log. When the sink has
drained it is CATCHING_UP from there until it comes to the head. So attaching, resuming, replay and backpressure are the
same code.

Invariants
* A subscription is in the audiences if and only if it is LIVE, and then it has been written everything <= `flushed`.
* It becomes LIVE only inside `flush`, after the turn has been delivered, and only while no further message waits for
  the next turn (a sink may publish from inside its `write`): nothing lies between log and audience then.
* A sink that fills up during a delivery is taken out after it, so that all its subscriptions stand at one place.
* A subscription whose start only the history knows has no place, and is served by nothing, until `place` gives it one.

No clock and no asyncio here: `schedule` runs a callable at the end of the loop's turn, and `tick` passes in the time.
`on_fault` is called with an exception that a sink raised, which is a defect of that sink.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple, Protocol

from ..brokers.base import Opening
from ..errors import Refusal
from ..message import Cursor, LogGap, Message, Page, Reason, Start, StartKind
from .audience import Audiences
from .delays import Delays
from .delivery import Delivery, DeliveryCounters, Send
from .entry import Entry
from .log import Log
from .pages import ReadHistory, newest_mark
from .place import Place, resolve
from .replay import Replay
from .subscription import (
    BLOCKED,
    CATCHING_UP,
    CLOSED,
    LIVE,
    Lag,
    Subscription,
)

SLOW = Refusal("slow", "You read too slowly for this channel: resume from your cursor.")


LOOKED_AT = 2000  # subscriptions whose place is looked at for `Behind.lag`: a millisecond


class Behind(NamedTuple):
    """The subscriptions that are not live: how many catch up, how many are blocked, and the most that one lags by.

    `lag` is in numbers of the log.
    """

    catching_up: int
    blocked: int
    lag: int


class Listeners(Protocol):
    """Counts the listeners of each channel, so that the broker can be asked for the channels that have some."""

    def add(self, channels: Sequence[str], /) -> None:
        """Count one more listener of each channel."""
        ...

    def remove(self, channels: Sequence[str], /) -> None:
        """Count one listener less of each channel."""
        ...


class Hub:
    """The subscriptions of one node. `read` reads a page of the broker's history, where it has one.

    `read` is given the channels, the place, the floors, the most messages and the most bytes, and calls back with a
    page. `listeners` counts the subscriptions of each channel, `delays` measures a turn now and then.
    """

    def __init__(
        self,
        log: Log,
        schedule: Callable[[Callable[[], None]], object],
        on_fault: Callable[[Exception], None],
        send: Send = os.write,
        read: ReadHistory | None = None,
        listeners: Listeners | None = None,
        delays: Delays | None = None,
    ) -> None:
        self.log = log
        self.flushed = log.head
        self.subscriptions = 0
        self._schedule = schedule
        self._scheduled = False
        self._turn: list[Entry] = []
        self._listeners = listeners
        self._delays = delays or Delays(float)
        self._audiences = Audiences()
        self._blocked: dict[Subscription, None] = {}
        self._delivery = Delivery(log, on_fault, send)
        self._replay = Replay(log, self._delivery, wake=self._wake, caught_up=self._caught_up, read=read)

    @property
    def counters(self) -> DeliveryCounters:
        """What has been done so far."""
        return self._delivery.counters

    # -- what the node calls

    def append(self, messages: Sequence[Message], now: float) -> None:
        """Append messages to the log and to this turn."""
        if not self._scheduled:
            self._wake()  # first: should one of them be refused, those before it are in the log and must go out
        append = self.log.append
        for message in messages:
            self._turn.append(append(message, now))

    def attach(self, subscription: Subscription) -> None:
        """Begin to serve a subscription from its place; without one, once `place` has given it."""
        self.subscriptions += 1
        if self._listeners is not None:
            self._listeners.add(subscription.channels)
        self._replay.queue(subscription)

    def place(self, subscription: Subscription, place: Place) -> None:
        """Give a subscription its place, unless it has ended meanwhile."""
        if subscription.state is not CLOSED:
            subscription.place = place
            self._replay.queue(subscription)

    def skip(self, seq: int) -> None:
        """Go on after `seq`, which the broker has not handed over in full: all subscriptions read the history."""
        if self._turn:
            self.flush()
        self.log.forget(seq)
        self._set_back()
        self.flushed = self.log.head
        self._replay.reach()

    def advance(self, seq: int) -> None:
        """Take the log's head to be `seq`: there is no message for this node up to there."""
        if seq > self.log.head:
            self.log.head = seq
            if not self._turn:
                self.flushed = seq
            if self._replay.is_waiting():
                self._wake()

    def begin(self, opening: Opening, now: float) -> None:
        """Serve another log. Each subscription with a place in the log before gets a gap, and reads this one."""
        if self._turn:
            self.flush()
        behind = self._set_back()
        before = self.log.epoch
        self.log.renew(opening, now)
        for subscription in behind:
            assert subscription.place is not None
            subscription.was_live = False
            start = Start(StartKind.CURSOR, Cursor(before, subscription.place.seq))
            place = subscription.place = resolve(self.log, subscription.channels, start)
            place.pending, place.gaps = place.gaps, []
        self._restart(behind)

    def hole(self, before: int, after: int) -> None:
        """Go on at `after`. Each subscription gets a gap: acknowledged messages after `before` may be lost."""
        if self._turn:
            self.flush()
        behind = self._set_back()
        self.log.add_hole(before, after)
        first, last = self.log.cursor(before + 1), self.log.cursor(after - 1)
        for subscription in behind:
            place = subscription.place
            assert place is not None
            subscription.was_live = False
            place.announced = self.log.cursor(place.seq)
            if place.seq <= before and self.log.next_hole(place.seq) is not None:
                continue  # it reads what is before the hole first, and gets the gap there
            place.advance(place.seq if place.seq <= before else max(place.seq, after))
            here = self.log.cursor(place.seq)
            gaps = [LogGap(name, Reason.UNKNOWN, first, last, here) for name in subscription.channels]
            place.pending = [*place.pending, *gaps]
        self._restart(behind)

    def confirm(self, channels: Sequence[str], seq: int) -> None:
        """Rely on the broker to hand over each message of these channels above `seq`."""
        for channel in channels:
            self.log.want(channel, seq)
            self._replay.confirm(channel)

    def refuse(self, subscription: Subscription, refusal: Refusal) -> None:
        """Tell a subscription why it can't go on, unless it has ended."""
        self._delivery.refuse(subscription, refusal)

    def is_ahead(self, page: Page) -> bool:
        """Return whether something is trimmed already that may still be handed over to this node.

        A gap would name messages that are then delivered. The page has to be read again: see `wait_for`.
        """
        return newest_mark(page) > self.log.head

    def wait_for(self, page: Page, go_on: Callable[[], None], refuse: Callable[[Refusal], None]) -> None:
        """Call `go_on` once the log has come to all that `page` says is trimmed, or `refuse` if that takes too long."""
        self._replay.wait_for(page, go_on, refuse)

    def tick(self, now: float) -> None:
        """Refuse those that have waited for too long, by a monotonic clock. Call it about once a second."""
        self._replay.tick(now)

    def behind(self) -> Behind:
        """Return how many subscriptions are not live, and by how much."""
        catching_up = self._replay.members()
        places = [each.place for each in self._longest(catching_up)]
        lags = [self.log.head - place.seq for place in places if place is not None]
        return Behind(len(catching_up), len(self._blocked), max([0, *lags]))

    def lagging(self) -> tuple[list[Subscription], bool]:
        """Return the subscriptions that are not live, and whether that is all of them: see `LOOKED_AT`."""
        catching_up = self._replay.members()
        found = self._longest(catching_up)
        return found, len(found) == len(catching_up) + len(self._blocked)

    def heard(self) -> list[str]:
        """Return the channels that have a live subscription."""
        return list(self._audiences.of)

    def live(self, channel: str) -> int:
        """Return how many live subscriptions a channel has."""
        return self._audiences.count(channel)

    def first_live(self, channel: str, most: int) -> list[Subscription]:
        """Return the live subscriptions of a channel, at most so many."""
        return self._audiences.first(channel, most)

    # -- what the transports call

    def gather(self, subscriptions: Iterable[Subscription]) -> None:
        """Write what a turn brings to all of these, which have one sink, in one block."""
        for subscription in subscriptions:
            if subscription.alone:
                live = subscription.state is LIVE
                if live:
                    self._audiences.leave(subscription)
                subscription.alone = False
                if live:
                    self._audiences.enter(subscription)

    def detach(self, subscription: Subscription) -> None:
        """End a subscription. Ending it twice is fine."""
        if subscription.state is CLOSED:
            return
        if subscription.state is LIVE:
            self._audiences.leave(subscription)
        else:
            self._replay.remove(subscription)
            self._blocked.pop(subscription, None)
        if self._listeners is not None:
            self._listeners.remove(subscription.channels)
        self._delivery.disturbed = True
        subscription.move("ended")
        subscription.place = None
        self.subscriptions -= 1

    def block(self, subscriptions: Sequence[Subscription]) -> None:
        """Write nothing more to these, whose sink is full, until `unblock`."""
        # A backlog fills a socket however fast its subscriber reads. That holds for each subscription of the socket.
        slow = not any(subscription.replaying() for subscription in subscriptions)
        if self._delivery.running:
            self._delivery.disturbed = True
            self._delivery.full.update(dict.fromkeys(subscriptions, slow))
        else:
            for subscription in subscriptions:
                self._block(subscription, slow)

    def unblock(self, subscriptions: Iterable[Subscription]) -> None:
        """Let these catch up, as their sink has drained."""
        for subscription in subscriptions:
            self._delivery.full.pop(subscription, None)  # it filled and drained inside one delivery
            if subscription.state is BLOCKED:
                subscription.move("drained")
                del self._blocked[subscription]
                if subscription.lag is Lag.LATEST and subscription.was_live:
                    self._replay.skip_to_newest(subscription)
                self._replay.queue(subscription)

    def heartbeat_cursor(self, subscriptions: Iterable[Subscription]) -> Cursor | None:
        """Return the cursor that holds for all of these, or None while one of them is not live."""
        if all(subscription.state is LIVE for subscription in subscriptions):
            return self.log.cursor(self.flushed)
        return None

    # -- the end of the turn

    def flush(self) -> None:
        """Deliver this turn's messages to the live, then let the others catch up."""
        self._scheduled = False
        if self._turn:
            turn, self._turn = self._turn, []
            upto = self.log.head  # which may be past the last message of the turn
            full = self._delivery.deliver(turn, self._audiences)
            self.flushed = upto
            if self._delays.look:
                self._delays.delivered(turn[0].message.time)
            for subscription, slow in full.items():
                self._block(subscription, slow)
        self._replay.reach()
        self._replay.run()

    # -- moves

    def _longest(self, catching_up: Sequence[Subscription]) -> list[Subscription]:
        # The first ones have been behind for longest. All of them, after a network has failed, would take too long.
        return [*catching_up[:LOOKED_AT], *islice(self._blocked, LOOKED_AT)]

    def _caught_up(self, subscription: Subscription) -> None:
        if self._turn:  # what has come since the turn began is in the log already, and will be delivered again
            self._replay.queue(subscription)
            return
        subscription.move("caught up")
        subscription.place = None
        subscription.was_live = True
        self._audiences.enter(subscription)

    def _set_back(self) -> list[Subscription]:
        """Move each live subscription to CATCHING_UP, from `flushed`. Returns all that have a place then."""
        for subscription in self._audiences.members():
            self._audiences.leave(subscription)
            subscription.place = Place(self.flushed, self.log.cursor(self.flushed))
            subscription.was_live = False  # it is behind because of the broker
            subscription.move("skipped")
            self._replay.queue(subscription)
        return [*self._replay.members(), *(each for each in self._blocked if each.place is not None)]

    def _restart(self, subscriptions: list[Subscription]) -> None:
        """Serve these from their new places. What was asked and found for the old ones is dropped."""
        self.flushed = self.log.head
        self._replay.restart()
        for subscription in subscriptions:
            self._replay.queue(subscription)

    def _block(self, subscription: Subscription, slow: bool) -> None:
        if subscription.state is LIVE:
            self._audiences.leave(subscription)
            subscription.place = Place(self.flushed, self.log.cursor(self.flushed))
        elif subscription.state is CATCHING_UP:
            self._replay.remove(subscription)
        else:
            return
        subscription.move("filled")
        self._blocked[subscription] = None
        subscription.was_live = subscription.was_live and slow
        self._delivery.counters.blocked += 1
        if subscription.was_live and subscription.lag is Lag.DISCONNECT:
            self.refuse(subscription, SLOW)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

"""What the hub does for subscriptions that are behind: a page each, turn by turn, until they have caught up.

Pages come from the window where it covers the place of the subscription, else from the history (`pages.py`).

Invariants
* A subscription that is behind stands in the queue, waits for the history, or waits for the log to come to its place
  (`ahead.py`). One that is not behind, because it is live, full or has ended, stands nowhere here.
* A turn serves at most `PAGES_PER_TURN` subscriptions, each once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from ..errors import Refusal
from ..message import MAX_SEQ, LogGap, Page, Reason
from .ahead import Ahead
from .delivery import Delivery
from .log import Log
from .pages import PAGE_BYTES, PAGE_MESSAGES, FoundPage, HistoryPages, ReadHistory, block_found, newest_mark
from .place import Place, chain_gaps, cut_page, hole_gaps, pass_gaps
from .subscription import Format, Subscription

PAGES_PER_TURN = 64  # bounds how long the backlogs of many subscribers delay the live ones

_WindowKey = tuple[tuple[str, ...], Format, int, tuple[int, ...]]
_WindowPage = tuple[bytes, int, int, bool]  # the block, its last number, its messages, and whether more is held


class Replay:
    """The subscriptions of one hub that are behind.

    `wake` asks for a call of `run` at the end of the turn. `caught_up` is called with a subscription that has read all
    that the log holds. `read` reads a page of the broker's history; None where the broker has none.
    """

    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        *,
        wake: Callable[[], None],
        caught_up: Callable[[Subscription], None],
        read: ReadHistory | None,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._wake = wake
        self._caught_up = caught_up
        self._queue: OrderedDict[Subscription, None] = OrderedDict()
        self._ahead = Ahead()
        self._unconfirmed: dict[str, dict[Subscription, None]] = {}  # by the channel that the broker is to confirm
        self._history = (
            None
            if read is None
            else HistoryPages(
                log,
                read,
                delivery.counters,
                wake=wake,
                ready=self.queue,
                ahead=self._wait_for,
                refuse=delivery.refuse,
            )
        )
        # When a server's clients all come back at once, most of them read the same pages.
        self._pages: dict[_WindowKey, _WindowPage] = {}
        self._pages_version = log.version

    # -- what the hub calls

    def queue(self, subscription: Subscription) -> None:
        """Serve a subscription in one of the next turns, if it is behind."""
        if subscription.behind() and subscription not in self._queue:
            self._queue[subscription] = None
            self._wake()

    def remove(self, subscription: Subscription) -> None:
        """Serve a subscription no longer: it has ended, or its sink is full."""
        self._queue.pop(subscription, None)
        self._ahead.remove(subscription)
        for channel in subscription.channels if self._unconfirmed else ():
            if (waiting := self._unconfirmed.get(channel)) is not None:
                waiting.pop(subscription, None)
                if not waiting:
                    del self._unconfirmed[channel]
        if self._history is not None:
            self._history.release(subscription)

    def run(self) -> None:
        """Serve a page each to the subscriptions at the front of the queue."""
        if self._history is not None:
            self._history.admit()
        for _ in range(min(PAGES_PER_TURN, len(self._queue))):
            if not self._queue:  # the write of another has ended them
                break
            subscription, _ = self._queue.popitem(last=False)
            self._serve(subscription)
        if self._queue or (self._history is not None and self._history.may_admit()):
            self._wake()
        else:
            self._pages.clear()

    def members(self) -> list[Subscription]:
        """Return the subscriptions that are behind, each once."""
        waiting = [owner for owner in self._ahead.owners() if isinstance(owner, Subscription)]
        history = [] if self._history is None else self._history.waiting()
        return list(dict.fromkeys([*self._queue, *waiting, *history]))

    def restart(self) -> None:
        """Drop what was asked for and waited for in another log, and let those go on that wait for it to grow."""
        self._unconfirmed.clear()
        if self._history is not None:
            self._history.clear()
        self._ahead.reach(MAX_SEQ)

    def confirm(self, channel: str) -> None:
        """Let those go on that wait for the broker to deliver a channel."""
        for subscription in list(self._unconfirmed.get(channel, ())):
            self.remove(subscription)
            self.queue(subscription)

    def is_waiting(self) -> bool:
        """Whether something waits for the log to come to a number."""
        return len(self._ahead) > 0

    def reach(self) -> None:
        """Let those go on that have waited for the log to come to where it is now."""
        self._ahead.reach(self._log.head)

    def wait_for(self, page: Page, go_on: Callable[[], None], refuse: Callable[[Refusal], None]) -> None:
        """Call `go_on` once the log has come to all that `page` says is trimmed, or `refuse` if that takes too long."""
        self._ahead.add(object(), newest_mark(page), go_on, refuse)

    def tick(self, now: float) -> None:
        """Refuse those that have waited for too long, by a monotonic clock. Call it about once a second."""
        self._ahead.expire(now)
        if self._history is not None:
            self._history.expire(now)

    def skip_to_newest(self, subscription: Subscription) -> None:
        """Move a subscription that was slow to right before its newest value, with a gap where that skips any.

        Several channels have one place, so it moves to before the oldest of their newest values. Where the window does
        not hold enough to tell what is skipped, nothing is.
        """
        place = subscription.place
        assert place is not None
        if not self._may_skip(subscription.channels, place):
            return
        log = self._log
        behind = log.cursor(place.seq)
        trimmed = {gap.channel: gap for gap in pass_gaps(log, subscription.channels, place, Reason.SLOW)}
        newest = self._oldest_newest(subscription.channels, place.seq)
        before = place.seq
        place.advance(max(place.seq, newest - 1))
        here = log.cursor(place.seq)
        gaps = []
        for channel in subscription.channels:
            gap = trimmed.get(channel)
            skipped = log.read_after((channel,), before, 1)
            if skipped and skipped[0].seq <= place.seq:
                first = gap.missed_from if gap else log.cursor(skipped[0].seq)
                gaps.append(LogGap(channel, Reason.SLOW, first, here, here))
            elif gap:
                gaps.append(msgspec.structs.replace(gap, cursor=here))
        for gap in chain_gaps(gaps, behind):
            self._delivery.gap(subscription, gap)

    # -- helpers

    def _serve(self, subscription: Subscription) -> None:
        place = subscription.place
        assert place is not None
        log = self._log
        if place.pending:
            pending, place.pending = place.pending, []
            for gap in chain_gaps(pending, place.announced):
                self._delivery.gap(subscription, gap)
            if not subscription.behind():
                return
        if place.seq > log.head:
            self._wait_for(subscription, place.seq)
            return
        hole = log.next_hole(place.seq)
        if hole is not None and hole[0] == place.seq:
            place.advance(hole[1])
            for gap in chain_gaps(hole_gaps(log, subscription.channels, hole), log.cursor(hole[0])):
                self._delivery.gap(subscription, gap)
            self.queue(subscription)
            return
        found = None
        if self._history is not None and not log.covers(subscription.channels, place.seq, place.floors):
            if unwanted := log.unwanted(subscription.channels):
                self._unconfirmed.setdefault(unwanted[0], {})[subscription] = None
                self._wait_for(subscription, MAX_SEQ)  # `confirm` ends the wait, or its deadline does
                return
            if place.seq == log.head:  # what was not handed over is still to come: see `Hub.advance`
                self._wait_for(subscription, place.seq + 1)
                return
            found = self._history.take(subscription)
            if found is None:
                return
            if hole is not None and found.page.upto > hole[0]:
                found = FoundPage(cut_page(found.page, hole))
        reason = Reason.SLOW if subscription.was_live else Reason.EXPIRED
        here = log.cursor(place.seq)
        page = None if found is None else found.page
        for gap in chain_gaps(pass_gaps(log, subscription.channels, place, reason, page), here):
            self._delivery.gap(subscription, gap)
        if not subscription.behind():
            return
        if found is not None:
            block = block_found(found, subscription.format, self._delivery.block_of)
            seq, count, more = found.page.upto, len(found.page.messages), True
        else:
            block, seq, count, more = self._window_page(subscription.channels, subscription.format, place)
        place.advance(seq)
        if count:
            self._delivery.counters.deliveries += count
            self._delivery.write(subscription, block)
        if not subscription.behind() or subscription in self._queue:  # that filled its sink, or ended it
            return
        if more:
            self.queue(subscription)
        else:
            self._caught_up(subscription)

    def _wait_for(self, subscription: Subscription, seq: int) -> None:
        self._ahead.add(
            subscription, seq, partial(self.queue, subscription), partial(self._delivery.refuse, subscription)
        )

    def _window_page(self, channels: tuple[str, ...], format_: Format, place: Place) -> _WindowPage:
        if self._pages_version != self._log.version:  # some of it may have been trimmed, and named in a gap
            self._pages_version = self._log.version
            self._pages.clear()
        key = (channels, format_, place.seq, place.floors)
        page = self._pages.get(key)
        if page is None:
            entries = self._log.read_after(channels, place.seq, PAGE_MESSAGES, PAGE_BYTES, place.floors)
            if not entries:
                return b"", place.seq, 0, False
            last = entries[-1].seq
            more = last < self._log.newest(channels)
            page = (self._delivery.block_of(entries, format_), last, len(entries), more)
            if len(self._pages) >= PAGES_PER_TURN:
                self._pages.clear()
            self._pages[key] = page
        return page

    def _may_skip(self, channels: tuple[str, ...], place: Place) -> bool:
        """Return whether the window holds enough to tell what is skipped, and all that is not skipped."""
        log = self._log
        if self._history is None:
            return True
        newest = self._oldest_newest(channels, place.seq)
        for channel in channels:
            mark = log.mark(channel).seq
            if mark > place.seq:
                skipped = log.read_after((channel,), place.seq, 1)
                some = log.dropped(channel) > place.seq or (bool(skipped) and skipped[0].seq < newest)
                if mark >= newest or not some:
                    return False
        return True

    def _oldest_newest(self, channels: tuple[str, ...], seq: int) -> int:
        """Return the oldest of the channels' newest values after `seq`, or 0."""
        return min((n for c in channels if (n := self._log.newest((c,))) > seq), default=0)

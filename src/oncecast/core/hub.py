"""Who listens to what: the fan-out of each turn, and the catching up of whoever is behind.

The message's way: `append` puts it into the log and into this turn; at the end of the turn `flush` makes one block of
bytes per channel and format and hands it to every live subscription of it; then those that are behind read a page each.

There are no queues per subscriber. A live subscription has everything up to `flushed` and needs no cursor of its own.
One whose sink is full is BLOCKED: it is not written to and keeps its place in the log; when the sink drains it is
CATCHING_UP from there until it meets the head. So attaching, resuming, replay and backpressure are the same code.
Where its place is behind the window that the log holds in memory, a page is asked of the broker's history, and served
when it comes.

Invariants
* A subscription is in the audiences if and only if it is LIVE, and then it has been written everything <= `flushed`.
* It becomes LIVE only inside `flush`, after the turn has been delivered, and only while no further message waits for
  the next turn (a sink may publish from inside its `write`): nothing lies between log and audience then.
* It stands in the catch-up queue at most once, whatever it does meanwhile.
* A sink that fills up during a delivery is taken out after it, so that all its subscriptions stand at one place.
* A subscription whose start only the history knows has no place yet, and is nowhere until `place` gives it one.

No clock and no asyncio here: `schedule` runs a callable at the end of the loop's turn. `on_fault` is told of an
exception that a sink raised, which is a defect of that sink.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import Protocol

import msgspec

from ..brokers.base import Opening
from ..errors import Refusal
from ..message import Cursor, Gap, Message, Page, Reason, Start, StartKind
from .log import Entry, Log, Place, hold_until_last, loose_entry
from .subscription import Audience, Format, Lag, Sink, State, Subscription

PAGE_MESSAGES = 256  # a page of backlog: enough to be written as one block,
PAGE_BYTES = 32 << 10  # small enough that a stalled reader holds little more than this
PAGES_FOUND = 64  # pages of the history that are asked for, or held for those who have asked: 2 MiB
PAGES_PER_TURN = 64  # a backlog that many read at once may not hold up the live ones for longer than this

LIVE = State.LIVE  # a name for the member: to look it up on its class costs more than the comparison

Write = Callable[[bytes], None]
Sending = tuple[Subscription, int, bytes]  # a block, the descriptor it goes to, and whose that is
Send = Callable[[int, bytes], int]  # `os.write`: how many bytes the descriptor took, or OSError
Key = tuple[tuple[str, ...], int]  # channels and a place: who shares it reads the same page
Read = Callable[[tuple[str, ...], int, int, int, Callable[[Page | Refusal], None]], None]


class Listeners(Protocol):
    """What is told which channels somebody listens to, so that the broker can be asked for them."""

    def add(self, channels: Sequence[str], /) -> None:
        """One more listens to these."""
        ...

    def remove(self, channels: Sequence[str], /) -> None:
        """One fewer does."""
        ...


class _Found:
    """A page of the history, its bytes in the formats that were asked for, and how many have not yet come for it."""

    __slots__ = ("blocks", "page", "waiting")

    def __init__(self, page: Page) -> None:
        self.page = page
        self.blocks: dict[Format, bytes] = {}
        self.waiting = 0


@dataclass(slots=True)
class Counters:
    """What the hub has done since it began."""

    messages: int = 0
    deliveries: int = 0
    gaps: int = 0
    blocked: int = 0
    pages: int = 0  # read from the history


class Hub:
    """The subscriptions of one node. `read` reads a page of the broker's history, where it has one.

    It is given the channels, the place, the most messages and the most bytes, and calls back with a page.
    """

    def __init__(
        self,
        log: Log,
        schedule: Callable[[Callable[[], None]], object],
        on_fault: Callable[[Exception], None],
        send: Send = os.write,
        read: Read | None = None,
        listeners: Listeners | None = None,
    ) -> None:
        self.log = log
        self.flushed = log.head
        self.counters = Counters()
        self.subscriptions = 0
        self._schedule = schedule
        self._on_fault = on_fault
        self._send = send
        self._scheduled = False
        self._delivering = False
        self._turn: list[Entry] = []
        # Where a channel has one listener, as that of a user has, it stands here itself: with many such channels each
        # object on the way to it would be one more that the processor's caches no longer hold.
        self._audiences: dict[str, Audience | Subscription] = {}
        self._behind: deque[Subscription] = deque()
        self._full: list[Subscription] = []
        self._pages: dict[tuple[tuple[str, ...], Format, int], tuple[bytes, int, int, bool]] = {}
        self._pages_version = log.version
        self._read = read
        self._listeners = listeners
        self._asked: dict[Key, list[Subscription]] = {}
        self._found: dict[Key, _Found] = {}
        self._kept: dict[Subscription, Key] = {}  # which page is kept for whom, who is in the queue then
        self._ahead: dict[Subscription, None] = {}  # what they are to read on from is still to come
        self._calls: list[Callable[[], None]] = []
        self._later: dict[Subscription, None] = {}  # they ask once fewer do
        self._blocked: dict[Subscription, None] = {}
        self._unconfirmed: dict[str, dict[Subscription, None]] = {}  # by the channel that they wait for
        self._further = False  # the log has gone on without a message: see `_let_go_on`

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
        self._queue(subscription)

    def place(self, subscription: Subscription, place: Place) -> None:
        """Give a subscription its place, unless it has ended meanwhile."""
        if subscription.state is not State.CLOSED:
            subscription.place = place
            if subscription.behind():
                self._queue(subscription)

    def skip(self, seq: int) -> None:
        """The broker has gone on to `seq` without handing all over: let everybody read the history from its place."""
        if self._turn:
            self.flush()
        self.log.forget(seq)
        self._set_back()
        self.flushed = self.log.head
        self._let_go_on()

    def advance(self, seq: int) -> None:
        """The log has come to `seq`, with no message for anybody here."""
        if seq > self.log.head:
            self.log.head = seq
            if not self._turn:
                self.flushed = seq
            if self._ahead or self._calls:
                self._further = True
                self._wake()

    def begin(self, opening: Opening, now: float) -> None:
        """Serve another log: whoever is at a place of the one before gets a gap, and reads this one."""
        if self._turn:
            self.flush()
        behind = self._set_back()
        before = self.log.epoch
        self.log.renew(opening, now)
        for subscription in behind:
            assert subscription.place is not None
            start = Start(StartKind.CURSOR, Cursor(before, subscription.place.seq))
            place = subscription.place = self.log.resolve(subscription.channels, start)
            place.untold, place.gaps = place.gaps, []
        self._restart(behind)

    def hole(self, before: int, after: int) -> None:
        """Go on at `after`: everybody gets a gap, as what was acknowledged after `before` may be lost."""
        if self._turn:
            self.flush()
        behind = self._set_back()
        self.log.add_hole(before, after)
        first, last = self.log.cursor(before + 1), self.log.cursor(after - 1)
        for subscription in behind:
            assert subscription.place is not None
            seq = subscription.place.seq
            here = seq if seq <= before else max(seq, after)
            gaps = [Gap(name, Reason.UNKNOWN, first, last, self.log.cursor(here)) for name in subscription.channels]
            untold = [*subscription.place.untold, *gaps]
            told = self.log.cursor(seq)
            subscription.place = msgspec.structs.replace(subscription.place, seq=here, told=told, untold=untold)
        self._restart(behind)

    def confirm(self, channels: Sequence[str], seq: int) -> None:
        """The broker hands over all of these channels that is above `seq`."""
        for channel in channels:
            self.log.want(channel, seq)
            for subscription in self._unconfirmed.pop(channel, ()):
                if subscription.behind():
                    self._queue(subscription)

    def refuse(self, subscription: Subscription, refusal: Refusal) -> None:
        """Tell a subscription why it can't go on, unless it has ended."""
        if subscription.state is State.CLOSED:
            return
        try:
            subscription.sink.refuse(refusal)
        except Exception as error:  # noqa: BLE001 - as in `_write_all`
            self._on_fault(error)

    def is_ahead(self, page: Page) -> bool:
        """Return whether something is trimmed already that may yet be on its way here.

        A gap would tell of what is then delivered, so whoever was to get the page asks again, `once_further`.
        """
        return any(mark.seq > self.log.head for mark in page.marks.values())

    def once_further(self, call: Callable[[], None]) -> None:
        """Call it once more of the log has been handed over."""
        self._calls.append(call)

    # -- what the transports call

    def gather(self, subscriptions: Iterable[Subscription]) -> None:
        """These have one sink: let it get what a turn brings to all of them in one write."""
        for subscription in subscriptions:
            if subscription.alone:
                if subscription.state is State.LIVE:
                    self._leave(subscription)
                    subscription.alone = False
                    self._enter(subscription)
                subscription.alone = False

    def detach(self, subscription: Subscription) -> None:
        """End a subscription. Ending it twice is fine."""
        if subscription.state is State.CLOSED:
            return
        if subscription.state is State.LIVE:
            self._leave(subscription)
        subscription.move(State.CLOSED)
        subscription.place = None
        self._ahead.pop(subscription, None)
        self._later.pop(subscription, None)
        self._blocked.pop(subscription, None)
        if self._listeners is not None:
            self._listeners.remove(subscription.channels)
            for channel in subscription.channels:
                if channel in self._unconfirmed:
                    self._unconfirmed[channel].pop(subscription, None)
                    if not self._unconfirmed[channel]:
                        del self._unconfirmed[channel]
        self.subscriptions -= 1

    def block(self, subscriptions: Iterable[Subscription]) -> None:
        """Their sink is full: write nothing more to them until `unblock`."""
        if self._delivering:
            self._full.extend(subscriptions)
        else:
            for subscription in subscriptions:
                self._block(subscription)

    def unblock(self, subscriptions: Iterable[Subscription]) -> None:
        """Their sink has drained: let them catch up."""
        if self._delivering:  # it filled and drained inside one delivery
            drained = set(subscriptions)
            self._full = [subscription for subscription in self._full if subscription not in drained]
        for subscription in subscriptions:
            if subscription.state is State.BLOCKED:
                subscription.move(State.CATCHING_UP)
                self._blocked.pop(subscription, None)
                if subscription.place is None:
                    continue
                latest = subscription.lag is Lag.LATEST and not subscription.place.untold
                if latest and self._may_skip(subscription.channels, subscription.place):
                    self._skip(subscription)
                self._queue(subscription)

    def heartbeat_cursor(self, subscriptions: Iterable[Subscription]) -> Cursor | None:
        """Return the cursor that holds for all of these, or None while one of them is not live."""
        if all(subscription.state is State.LIVE for subscription in subscriptions):
            return self.log.cursor(self.flushed)
        return None

    # -- the end of the turn

    def flush(self) -> None:
        """Deliver this turn's messages to the live, then let the others catch up."""
        self._scheduled = False
        if self._turn:
            turn, self._turn = self._turn, []
            upto = self.log.head
            self._delivering = True
            self._deliver(turn)
            self._delivering = False
            self.flushed = upto
            full, self._full = self._full, []
            for subscription in full:
                self._block(subscription)
            self._further = True
        if self._further:
            self._let_go_on()
        self._catch_up()

    def _deliver(self, turn: list[Entry]) -> None:
        self.counters.messages += len(turn)
        by_channel: dict[str, list[Entry]] = {}
        for entry in turn:
            entries = by_channel.get(entry.message.channel)
            if entries is None:
                by_channel[entry.message.channel] = [entry]
            else:
                entries.append(entry)
        # First all blocks are made, then all are sent: either is faster by itself than in turns with the other, which
        # would push its code and data out of the processor's caches, once for each channel.
        sends: list[Sending] = []
        groups: list[Iterable[Sending]] = []
        writes: list[tuple[Subscription, bytes]] = []
        gathered: dict[Sink, tuple[Subscription, tuple[str, ...]]] = {}
        for channel, entries in by_channel.items():
            audience = self._audiences.get(channel)
            if audience is None:
                continue
            others: Iterable[Subscription]
            if not isinstance(audience, Subscription):
                for format_, group in audience.alone.items():
                    self.counters.deliveries += len(group) * len(entries)
                    block = self._block_of(entries, format_)
                    # Lists, as a write may end a subscription.
                    groups.append(zip(list(group.descriptors), list(group.descriptors.values()), repeat(block)))
                    writes.extend(zip(group.sinks, repeat(block)))
                others = audience.gathered
            elif audience.alone:
                self._add(audience, self._block_of(entries, audience.format), len(entries), sends, writes)
                continue
            else:
                others = (audience,)
            only = (channel,)
            for subscription in others:
                sink = subscription.sink
                known = gathered.get(sink)
                gathered[sink] = (subscription, only) if known is None else (known[0], known[1] + only)
        if gathered:
            self._add_gathered(gathered.values(), by_channel, sends, writes)
        if sends:  # of which another's write may have ended one
            self._send_all(sending for sending in sends if sending[0].state is LIVE)
        for group_sends in groups:
            self._send_all(group_sends)
        if writes:
            self._write_all((who.sink.write, block) for who, block in writes if who.state is LIVE)

    def _add_gathered(
        self,
        gathered: Iterable[tuple[Subscription, tuple[str, ...]]],
        by_channel: dict[str, list[Entry]],
        sends: list[Sending],
        writes: list[tuple[Subscription, bytes]],
    ) -> None:
        # A subscription of several channels has one cursor, so it gets them in the log's order, not by channel. Those
        # that have the same channels in this turn share the block.
        blocks: dict[tuple[Format, tuple[str, ...]], tuple[bytes, int]] = {}
        for subscription, channels in gathered:
            key = (subscription.format, channels)
            made = blocks.get(key)
            if made is None:
                entries = sorted((e for c in channels for e in by_channel[c]), key=lambda entry: entry.seq)
                made = blocks[key] = (self._block_of(entries, subscription.format), len(entries))
            self._add(subscription, made[0], made[1], sends, writes)

    def _add(
        self,
        subscription: Subscription,
        block: bytes,
        messages: int,
        sends: list[Sending],
        writes: list[tuple[Subscription, bytes]],
    ) -> None:
        self.counters.deliveries += messages
        if subscription.descriptor is not None:
            sends.append((subscription, subscription.descriptor, block))
        else:
            writes.append((subscription, block))

    def _send_all(self, sends: Iterable[Sending]) -> None:
        # The loop that all of the fan-out's time is spent in: a system call, and as little else as can be.
        send = self._send
        rest = iter(sends)
        while True:
            try:
                for subscription, descriptor, block in rest:
                    sent = send(descriptor, block)
                    if sent != len(block):
                        self._write(subscription, block[sent:])
                return
            except OSError:  # full, or broken: its sink finds out which
                self._write(subscription, block)

    def _write_all(self, writes: Iterable[tuple[Write, bytes]]) -> None:
        rest = iter(writes)
        while True:
            try:
                for write, block in rest:
                    write(block)
                return
            except Exception as error:  # noqa: BLE001 - a fault in one sink may not keep the message from the others
                self._on_fault(error)

    def _write(self, subscription: Subscription, block: bytes) -> None:
        self._write_all(((subscription.sink.write, block),))

    def _block_of(self, entries: list[Entry], format_: Format) -> bytes:
        encode = self.log.encode
        try:
            return format_.block([encode(entry, format_) for entry in entries])
        except Exception as error:  # noqa: BLE001 - one damaged message may not keep the others from anybody
            if len(entries) == 1:
                self._on_fault(error)
                return b""
        return b"".join(self._block_of([entry], format_) for entry in entries)

    # -- catching up

    def _catch_up(self) -> None:
        for _ in range(min(len(self._later), self._may_ask())):
            subscription = next(iter(self._later))
            del self._later[subscription]
            if subscription.behind():
                self._queue(subscription)
        for _ in range(min(PAGES_PER_TURN, len(self._behind))):
            subscription = self._behind.popleft()
            subscription.queued = False
            kept = self._kept.pop(subscription, None)
            if subscription.behind():
                self._turn_page(subscription)
            self._let_go(kept)
        if self._behind or (self._later and self._may_ask() > 0):
            self._wake()
        else:
            self._pages.clear()

    def _turn_page(self, subscription: Subscription) -> None:
        place = subscription.place
        assert place is not None
        if place.untold:
            untold, place.untold = place.untold, []
            for gap in hold_until_last(untold, place.told):
                self._tell(subscription, gap)
            if not subscription.behind():
                return
        if place.seq > self.log.head:
            self._ahead[subscription] = None
            return
        found = None
        if not self._covered(subscription.channels, place.seq):
            if unwanted := self.log.unwanted(subscription.channels):
                self._unconfirmed.setdefault(unwanted[0], {})[subscription] = None
                return
            if place.seq == self.log.head:  # what is not handed over is still to be told of: `advance`
                self._ahead[subscription] = None
                return
            found = self._found.get((subscription.channels, place.seq))
            if found is None:
                self._ask(subscription, place.seq)
                return
        reason = Reason.SLOW if subscription.lagging else Reason.EXPIRED
        here = self.log.cursor(place.seq)
        page = None if found is None else found.page
        for gap in hold_until_last(self.log.gaps(subscription.channels, place, reason, page), here):
            self._tell(subscription, gap)
        if not subscription.behind():
            return
        if found is not None:
            block, seq, count, more = self._block_found(found, subscription.format)
        else:
            block, seq, count, more = self._page(subscription.channels, subscription.format, place.seq)
        place.seq = seq
        if count:
            self.counters.deliveries += count
            self._write(subscription, block)
        if not subscription.behind():  # that filled its sink, or ended it
            return
        if more or self._turn:  # what has come since the turn began is in the log already, and will be delivered again
            self._queue(subscription)
        else:
            self._join(subscription)

    def _set_back(self) -> list[Subscription]:
        """Take the live ones out of the audiences; return everybody who has a place then."""
        place = self.flushed
        live: list[Subscription] = []
        for audience in list(self._audiences.values()):
            for subscription in [audience] if isinstance(audience, Subscription) else audience.members():
                if subscription.state is State.LIVE:
                    self._leave(subscription)
                    subscription.place = Place(place, self.log.cursor(place))
                    subscription.lagging = False  # it is not the one that was slow
                    subscription.move(State.BLOCKED)
                    subscription.move(State.CATCHING_UP)
                    self._queue(subscription)
                    live.append(subscription)
        waiting = chain(
            live,
            self._behind,
            self._ahead,
            self._later,
            self._blocked,
            *self._asked.values(),
            *self._unconfirmed.values(),
        )
        return [subscription for subscription in dict.fromkeys(waiting) if subscription.place is not None]

    def _restart(self, subscriptions: list[Subscription]) -> None:
        """Let these read on from their new places: what was asked and found for the old ones counts no more."""
        self.flushed = self.log.head
        for waiting in (self._asked, self._found, self._kept, self._ahead, self._later, self._unconfirmed):
            waiting.clear()
        self._pages.clear()
        for subscription in subscriptions:
            if subscription.behind():
                self._queue(subscription)
        self._let_go_on()

    def _let_go_on(self) -> None:
        """Those whose cursor, of another node, was ahead of this one may have been met by now."""
        self._further = False
        calls, self._calls = self._calls, []
        for call in calls:
            call()
        ahead, self._ahead = self._ahead, {}
        for subscription in ahead:
            if subscription.behind():
                self._queue(subscription)

    def _covered(self, channels: tuple[str, ...], seq: int) -> bool:
        return self._read is None or self.log.covers(channels, seq)

    def _may_skip(self, channels: tuple[str, ...], place: Place) -> bool:
        """Return whether the window holds enough to tell what `_skip` would skip, and all that is not skipped."""
        if self._covered(channels, place.seq):
            return True
        newest = self._oldest_newest(channels, place.seq)
        for channel in channels:
            mark = self.log.mark(channel).seq
            if mark > place.seq:
                skipped = self.log.read_after((channel,), place.seq, 1)
                some = self.log.dropped(channel) > place.seq or (bool(skipped) and skipped[0].seq < newest)
                if mark >= newest or not some:
                    return False
        return not place.anew

    def _oldest_newest(self, channels: tuple[str, ...], seq: int) -> int:
        """Return the oldest of the channels' newest values after `seq`, or 0."""
        return min((n for c in channels if (n := self.log.newest((c,))) > seq), default=0)

    def _ask(self, subscription: Subscription, seq: int) -> None:
        """Let it wait for a page of the history; those who stand at the same place wait for the same."""
        key = (subscription.channels, seq)
        waiting = self._asked.get(key)
        if waiting is not None:
            waiting.append(subscription)
            return
        if self._may_ask() <= 0:
            self._later[subscription] = None
            return
        self._asked[key] = [subscription]
        assert self._read is not None
        self._read(subscription.channels, seq, PAGE_MESSAGES, PAGE_BYTES, partial(self._answered, key, self.log.life))

    def _answered(self, key: Key, life: int, answer: Page | Refusal) -> None:
        if life != self.log.life:  # it is of another log, and those who asked read this one
            return
        waiting = self._asked.pop(key)
        if self._later:
            self._wake()
        if isinstance(answer, Refusal):
            for subscription in waiting:
                self.refuse(subscription, answer)
            return
        self.counters.pages += 1
        if self.is_ahead(answer):
            self._ahead.update(dict.fromkeys(waiting))
            return
        self.log.heed(answer)
        head = self.log.head
        if answer.upto > head:  # what has not been handed over yet will be, and goes out when it is
            messages = [message for message in answer.messages if message.seq <= head]
            answer = msgspec.structs.replace(answer, messages=messages, upto=head)
        found = _Found(answer)
        for subscription in dict.fromkeys(waiting):
            if subscription.behind():
                self._let_go(self._kept.pop(subscription, None))
                self._found[key] = found
                found.waiting += 1
                self._kept[subscription] = key
                self._queue(subscription)

    def _may_ask(self) -> int:
        """Return for how many pages more there is room."""
        return PAGES_FOUND - len(self._asked) - len(self._found)

    def _let_go(self, key: Key | None) -> None:
        """Let go of a page that was kept for a subscription, if one was."""
        if key is not None:
            found = self._found[key]
            found.waiting -= 1
            if not found.waiting:
                del self._found[key]

    def _block_found(self, found: _Found, format_: Format) -> tuple[bytes, int, int, bool]:
        page = found.page
        block = found.blocks.get(format_)
        if block is None:
            entries = [loose_entry(message) for message in page.messages]
            block = found.blocks[format_] = self._block_of(entries, format_) if entries else b""
        return block, page.upto, len(page.messages), True

    def _page(self, channels: tuple[str, ...], format_: Format, seq: int) -> tuple[bytes, int, int, bool]:
        # When a server's clients all come back at once, most of them read the same page.
        if self._pages_version != self.log.version:  # some of it may have been trimmed, and told as a gap
            self._pages_version = self.log.version
            self._pages.clear()
        key = (channels, format_, seq)
        page = self._pages.get(key)
        if page is None:
            entries = self.log.read_after(channels, seq, PAGE_MESSAGES, PAGE_BYTES)
            if not entries:
                return b"", seq, 0, False
            last = entries[-1].seq
            page = (self._block_of(entries, format_), last, len(entries), last < self.log.newest(channels))
            if len(self._pages) >= PAGES_PER_TURN:
                self._pages.clear()
            self._pages[key] = page
        return page

    def _tell(self, subscription: Subscription, gap: Gap) -> None:
        if subscription.state is State.CLOSED:  # by an earlier gap of several
            return
        self.counters.gaps += 1
        try:
            subscription.sink.gap(gap)
        except Exception as error:  # noqa: BLE001 - as in `_write_all`
            self._on_fault(error)

    # -- moves

    def _queue(self, subscription: Subscription) -> None:
        if not subscription.queued and subscription.place is not None:
            subscription.queued = True
            self._behind.append(subscription)
            self._wake()

    def _join(self, subscription: Subscription) -> None:
        subscription.move(State.LIVE)
        subscription.place = None
        subscription.lagging = True
        self._enter(subscription)

    def _enter(self, subscription: Subscription) -> None:
        for channel in subscription.channels:
            audience = self._audiences.setdefault(channel, subscription)
            if audience is subscription:
                continue
            if isinstance(audience, Subscription):
                first, audience = audience, Audience()
                audience.add(first)
                self._audiences[channel] = audience
            audience.add(subscription)

    def _leave(self, subscription: Subscription) -> None:
        for channel in subscription.channels:
            audience = self._audiences[channel]
            if isinstance(audience, Audience):
                audience.remove(subscription)
                if audience:
                    continue
            del self._audiences[channel]

    def _block(self, subscription: Subscription) -> None:
        if subscription.state is State.LIVE:
            self._leave(subscription)
            subscription.place = Place(self.flushed, self.log.cursor(self.flushed))
        elif subscription.state is not State.CATCHING_UP:
            return
        subscription.move(State.BLOCKED)
        self._blocked[subscription] = None
        subscription.lagging = True
        self.counters.blocked += 1
        if subscription.lag is Lag.DISCONNECT:
            refusal = Refusal("slow", "You read too slowly for this channel: resume from your cursor.")
            self.refuse(subscription, refusal)

    def _skip(self, subscription: Subscription) -> None:
        """Move a subscription that lagged to just before its newest value, with a gap where that skips any.

        Several channels have one place, so it moves to before the oldest of their newest values.
        """
        place = subscription.place
        assert place is not None
        behind = self.log.cursor(place.seq)
        trimmed = {gap.channel: gap for gap in self.log.gaps(subscription.channels, place, Reason.SLOW)}
        newest = self._oldest_newest(subscription.channels, place.seq)
        before, place.seq = place.seq, max(place.seq, newest - 1)
        here = self.log.cursor(place.seq)
        gaps = []
        for channel in subscription.channels:
            gap = trimmed.get(channel)
            skipped = self.log.read_after((channel,), before, 1)
            if skipped and skipped[0].seq <= place.seq:
                first = gap.missed_from if gap else self.log.cursor(skipped[0].seq)
                gaps.append(Gap(channel, Reason.SLOW, first, here, here))
            elif gap:
                gaps.append(msgspec.structs.replace(gap, cursor=here))
        for gap in hold_until_last(gaps, behind):
            self._tell(subscription, gap)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._schedule(self.flush)

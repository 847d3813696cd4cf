"""The window of recent messages: append, read after a place, trim.

Where the broker keeps nothing the window is the whole log. Where it has a history the window is the end of it: what is
trimmed here is there still, and whoever is behind the window is served in pages of the history (`covers`, `Page`).

Invariants
* Entries stand in the order of their sequence numbers, within a channel and across the whole log.
* For each channel the log knows the last `seq` that it trimmed. A reader behind that has missed a message, and only
  then: this is what a gap is made of, by the window's marks where it is the whole log, else by those of a page.
* The bytes held, encodings included, stay under `max_bytes`: past it the oldest message of the whole log goes.

Time is passed in: `now` is a monotonic clock's seconds, for retention by age; `Message.time` is the wall clock's, for
`since`. To add a way to start reading, add it to `Start` and to `Log.resolve`.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left, bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Protocol, assert_never

import msgspec

from ..brokers.base import Opening
from ..message import MAX_SEQ, Cursor, Gap, Kind, Mark, Message, Page, Reason, Retention, Start, StartKind

ENTRY_BYTES = 400  # what the objects around one message weigh, measured with tracemalloc; counted against max_bytes
MARKS = 100_000  # channels with nothing left whose trimmed mark is kept apart; older ones share one mark
PASSED = 64  # places in the log's order that may be passed before it is looked at
SWEEP_CHANNELS = 2_000  # channels looked at in one sweep, so that a sweep stays well under a millisecond or two


class Encoding(Protocol):
    """One wire format of a message; also the key under which the log keeps the bytes."""

    def message(self, message: Message, epoch: str) -> bytes:
        """Return the message's bytes in this format."""
        ...


class Entry(msgspec.Struct, gc=False, eq=False):
    """A message in the window, its `seq` again, and the bytes it has been encoded to so far.

    The first encoding stands in the entry itself: most messages are wanted in no more than one, and a dictionary weighs
    more than they do. `held` is False once the window has dropped it.
    """

    message: Message
    seq: int
    appended: float
    held: bool = True
    encoding: Encoding | None = None
    encoded: bytes = b""
    others: dict[Encoding, bytes] | None = None


class Place(msgspec.Struct):
    """Where a subscription stands: it has everything of its channels up to and including `seq`.

    `told` is the cursor to announce before `gaps` are delivered: a holder that is cut off in between comes back with
    it and hears of the gaps again. `forgiven` holds, per channel, the trimmed mark up to which it has been told of a
    gap, or never asked. `anew` says that it asks for what there is when it is first read, whatever was trimmed before.
    `untold` are gaps of a hole or of another log, which the hub tells before it serves the place: it still stands at
    `told` then.
    """

    seq: int
    told: Cursor
    gaps: list[Gap] = msgspec.field(default_factory=list)
    forgiven: dict[str, int] = msgspec.field(default_factory=dict)
    anew: bool = False
    untold: list[Gap] = msgspec.field(default_factory=list)


def hold_until_last(gaps: list[Gap], here: Cursor) -> list[Gap]:
    """Let only the last of several gaps move its holder on from `here`.

    They stand one after the other in a stream that has one cursor: who is cut off in between comes back with `here` and
    hears of all of them, where a cursor past the first would leave the others unsaid.
    """
    return [msgspec.structs.replace(gap, cursor=here) for gap in gaps[:-1]] + gaps[-1:]


def loose_entry(message: Message) -> Entry:
    """Return an entry for a message of the history. It is in no window, so what it is encoded to is not counted."""
    return Entry(message, message.seq, -math.inf, held=False)


_UNWANTED = Mark(MAX_SEQ, math.inf)  # of a channel that the broker does not deliver: all of it is in the history
_GONE = Entry(Message(0, "", b"", Kind.BINARY, None, 0.0), 0, -math.inf, held=False)  # in the place of a dropped one
_seq_of = attrgetter("seq")
_time_of = attrgetter("message.time")


class _Window:
    """The retained entries of one channel. `first` counts entries at the front of the list that are already gone.

    What an append touches stands in here and not in objects of its own: with many channels, each of them is one more
    that the processor's caches no longer hold. `passed` counts the places in the log's order whose entries are gone.
    """

    __slots__ = ("began", "entries", "first", "marked", "marked_time", "name", "passed", "retained", "retained_seconds")

    def __init__(self, name: str, retention: Retention, mark: Mark) -> None:
        self.name = name
        self.retain(retention)
        self.marked = mark.seq
        self.marked_time = mark.time
        self.began = mark.seq  # until it has dropped a message of its own, its mark may be shared by many channels
        self.entries: list[Entry] = []
        self.first = 0
        self.passed = 0

    def retain(self, retention: Retention) -> None:
        self.retained = retention.messages
        self.retained_seconds = retention.seconds

    def __len__(self) -> int:
        return len(self.entries) - self.first

    def after(self, seq: int, limit: int) -> list[Entry]:
        at = bisect_right(self.entries, seq, self.first, key=_seq_of)
        return self.entries[at : at + limit]

    def newest(self, count: int) -> list[Entry]:
        return self.entries[max(self.first, len(self.entries) - count) :]

    def mark(self) -> Mark:
        return Mark(self.marked, self.marked_time)


class Log:
    """The recent messages of every channel of one shard.

    `retention` gives a channel's retention by its name. `head` is the last `seq` appended, `version` changes whenever
    the answer to a read may have changed, `life` whenever a place or a page from before may be wrong. `history` says
    that the broker has what the window does not hold, `only_wanted` that it delivers a channel only after `want`.
    `floor` is the last message before the window, and `holes` are ranges of numbers that were never given, as in
    `brokers.base.Opening`.
    """

    def __init__(
        self,
        epoch: str,
        retention: Callable[[str], Retention],
        *,
        max_bytes: int = 256 << 20,
        history: bool = False,
        only_wanted: bool = False,
        floor: Mark = Mark(),  # noqa: B008 - frozen
        marks: Mapping[str, Mark] | None = None,
        holes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.epoch = epoch
        self.history = history
        self.head = floor.seq
        self.version = 0
        self.life = 0
        self.bytes = 0
        self.count = 0
        self._retention = retention
        self._max_bytes = max_bytes
        self._windows: dict[str, _Window] = {}
        self._order: deque[_Window] = deque()  # the window of each entry by age, of those already trimmed too
        self._marks: OrderedDict[str, Mark] = OrderedDict(marks or {})
        self._oldest_mark = floor  # stands for every channel forgotten beyond MARKS, too
        self._holes = tuple(holes)
        self._sweep: deque[_Window] = deque()
        # By channel, the number above which the broker hands over all of it; None where it does so for every channel.
        self._wanted: dict[str, int] | None = {} if only_wanted else None

    # -- writing

    def append(self, message: Message, now: float) -> Entry:
        """Append a message; its `seq` must be above `head`. Returns the entry that readers share."""
        if message.seq <= self.head:
            raise ValueError(f"seq {message.seq} is not above the head {self.head}")
        entry = Entry(message, message.seq, now)
        window = self._windows.get(message.channel)
        if window is None:
            window = self._open(message.channel)
        entries = window.entries
        entries.append(entry)
        self.head = message.seq
        self.version += 1
        self.count += 1
        self.bytes += ENTRY_BYTES + len(message.data)
        self._order.append(window)
        first = window.first
        if len(entries) - first > window.retained or entries[first].appended < now - window.retained_seconds:
            self._trim_window(window, now)
        if self.bytes > self._max_bytes:
            self._trim_bytes()
        if len(self._order) > self.count + PASSED:
            self._tidy_order()
        return entry

    def encode(self, entry: Entry, encoding: Encoding) -> bytes:
        """Return the entry's bytes in a format: made once, kept as long as the entry."""
        if entry.encoding is encoding:
            return entry.encoded
        if entry.others is not None and (data := entry.others.get(encoding)) is not None:
            return data
        data = encoding.message(entry.message, self.epoch)
        if entry.encoding is None:
            entry.encoding, entry.encoded = encoding, data
        elif entry.others is None:
            entry.others = {encoding: data}
        else:
            entry.others[encoding] = data
        if entry.held:
            self.bytes += len(data)
        return data

    def change(self, max_bytes: int) -> None:
        """Ask again how much is kept of each channel: the next appends and trims go by it. What is gone stays gone."""
        self._max_bytes = max_bytes
        for window in self._windows.values():
            window.retain(self._retention(window.name))

    def trim(self, now: float) -> None:
        """Trim by age, a slice of the channels at a time, and by bytes; call it about once a second."""
        for _ in range(min(SWEEP_CHANNELS, len(self._sweep))):
            window = self._sweep.popleft()
            self._trim_window(window, now)
            if len(window):
                self._sweep.append(window)
            else:
                self._close(window)
        self._trim_bytes()  # encodings were made since the last append

    # -- reading

    def read_after(self, channels: Sequence[str], seq: int, limit: int, max_bytes: int = 1 << 62) -> list[Entry]:
        """Return the next entries of the channels after `seq`, in order: at most `limit`, and only as many as fit in
        `max_bytes` of data, but at least one. Fewer than there are only where a bound was met."""
        if len(channels) == 1:
            window = self._windows.get(channels[0])
            entries = window.after(seq, limit) if window else []
        else:
            pages = [w.after(seq, limit) for name in channels if (w := self._windows.get(name))]
            entries = list(heapq.merge(*pages, key=_seq_of))[:limit]
        total = 0
        for index, entry in enumerate(entries):
            total += len(entry.message.data)
            if total > max_bytes and index:
                return entries[:index]
        return entries

    def mark(self, channel: str) -> Mark:
        """Return the last message trimmed from a channel."""
        window = self._windows.get(channel)
        # Not `if window`: an empty one is false, and its mark is the one that counts.
        mark = self._marks.get(channel, self._oldest_mark) if window is None else window.mark()
        if self._wanted is not None:
            seq = self._wanted.get(channel)
            if seq is None:
                return _UNWANTED
            if seq > mark.seq:
                return Mark(seq, math.inf)  # what was not handed over may be as new as anything
        return mark

    def dropped(self, channel: str) -> int:
        """Return the last message of a channel that its window has dropped, or 0 where that is not known."""
        window = self._windows.get(channel)
        return 0 if window is None or window.marked == window.began else window.marked

    def newest(self, channels: Iterable[str]) -> int:
        """Return the `seq` of the newest message held of the channels, or 0."""
        return max((w.entries[-1].seq for name in channels if (w := self._windows.get(name)) and len(w)), default=0)

    def cursor(self, seq: int) -> Cursor:
        """Return the cursor for a place in this log."""
        return Cursor(self.epoch, seq)

    def covers(self, channels: Iterable[str], seq: int) -> bool:
        """Return whether the window holds all messages of the channels after `seq` that there are."""
        return all(self.mark(name).seq <= seq for name in channels)

    def resolve(self, channels: Sequence[str], start: Start) -> Place:
        """Turn a start into a place, with the gaps that it implies, where the window is the whole log."""
        place = self.locate(channels, start)
        assert place is not None
        return place

    def locate(self, channels: Sequence[str], start: Start) -> Place | None:
        """Turn a start into a place, with the gaps that it implies. None where only the broker's history knows it."""
        match start.kind:
            case StartKind.LATEST:
                return Place(self.head, self.cursor(self.head))
            case StartKind.CURSOR:
                assert start.cursor is not None
                return self._resume(channels, start.cursor)
            case StartKind.SINCE:
                return self._since(channels, start.number)
            case StartKind.EARLIEST:
                seq = self._before_first(channels, 0)
                known = self.covers(channels, 0)
            case StartKind.LAST:
                seq = self._before_last(channels, int(start.number))
                known = start.number <= 0 or self.covers(channels, 0) or self._holds(channels, seq, start.number)
            case kind:
                assert_never(kind)
        if self.history and not known:
            return None
        return Place(seq, self.cursor(seq), forgiven={name: self.mark(name).seq for name in channels})

    def gaps(self, channels: Sequence[str], place: Place, reason: Reason, page: Page | None = None) -> list[Gap]:
        """Return what was trimmed ahead of a place and not told yet, and move the place past it.

        By the marks of `page`, which begins at the place; without one by the window's, which must be the whole log or
        cover the place.
        """
        marks = {name: (self.mark(name) if page is None else page.marks[name]).seq for name in channels}
        if place.anew:
            place.anew = False
            place.forgiven = marks
        seq = place.seq
        missed = [(name, mark) for name, mark in marks.items() if mark > seq and mark > place.forgiven.get(name, 0)]
        if not missed:
            return []
        # With several channels the others may still hold messages inside the range that this one has missed.
        if page is None:
            place.seq = self._before_first(channels, seq)
        else:
            place.seq = max(seq, page.messages[0].seq - 1 if page.messages else page.upto)
        gaps = []
        for name, last in missed:
            first = max(seq, place.forgiven.get(name, 0)) + 1
            place.forgiven[name] = last
            gaps.append(Gap(name, reason, self.cursor(first), self.cursor(last), self.cursor(place.seq)))
        return gaps

    def place_of(self, channels: Sequence[str], start: Start, page: Page) -> Place:
        """Turn a start into a place, by what the history answered."""
        place = Place(page.after, self.cursor(page.after))
        if start.cursor is not None and page.after < start.cursor.seq:
            return self._unknown(channels, start.cursor, page.after)
        if start.kind is StartKind.SINCE:
            # What was trimmed before the time that is asked for is not missed.
            place.forgiven = {name: mark.seq for name, mark in page.marks.items() if mark.time < start.number}
        elif start.kind is not StartKind.CURSOR:
            place.forgiven = {name: mark.seq for name, mark in page.marks.items()}
        return place

    def heed(self, page: Page) -> None:
        """Let go of what the broker has trimmed: nobody may be given what it has been told is missing."""
        for name, mark in page.marks.items():
            window = self._windows.get(name)
            while window is not None and len(window) and window.entries[window.first].seq <= mark.seq:
                self._drop(window)

    def forget(self, seq: int) -> None:
        """Empty the window: what comes next is above `seq`, and what is before it is in the history alone."""
        for window in self._windows.values():
            for entry in window.entries:
                entry.held = False  # a turn may still have it to deliver
        self._windows.clear()
        self._order.clear()
        self._marks.clear()
        self._sweep.clear()
        self._oldest_mark = Mark(seq, math.inf)  # of what was never seen the time is not known
        self.head = max(self.head, seq)
        self.bytes = self.count = 0
        self.version += 1

    def renew(self, opening: Opening, now: float) -> None:
        """Hold another log from here on. What was wanted is to be confirmed again."""
        self.forget(0)
        self.epoch = opening.epoch
        self.head = opening.floor.seq
        self.life += 1
        self._oldest_mark = opening.floor
        self._marks = OrderedDict(opening.marks)
        self._holes = tuple(opening.holes)
        if self._wanted is not None:
            self._wanted.clear()
        for message in opening.recent:
            self.append(message, now)
        self.head = max(self.head, opening.head)

    def add_hole(self, before: int, after: int) -> None:
        """Go on at `after`: the numbers between may have been of messages that are lost."""
        self.forget(after)
        self.life += 1
        self._holes = (*self._holes, (before, after))

    def want(self, channel: str, seq: int) -> None:
        """Hold what comes of a channel after `seq`, as the broker hands over all of it from there."""
        if self._wanted is None:
            return
        window = self._windows.get(channel)
        while window is not None and len(window) and window.entries[window.first].seq <= seq:
            self._drop(window)  # it came while the channel was not delivered in whole
        self._wanted[channel] = seq
        self.version += 1

    def unwant(self, channel: str) -> None:
        """Hold nothing of a channel: the broker delivers it no longer."""
        if self._wanted is None:
            return
        self._wanted.pop(channel, None)
        window = self._windows.get(channel)
        while window is not None and len(window):
            self._drop(window)
        self.version += 1

    def unwanted(self, channels: Iterable[str]) -> list[str]:
        """Return those of the channels that the broker does not deliver yet."""
        return [] if self._wanted is None else [name for name in channels if name not in self._wanted]

    # -- helpers

    def _resume(self, channels: Sequence[str], cursor: Cursor) -> Place | None:
        if cursor.epoch != self.epoch:
            seq = 0 if self.history else self._before_first(channels, 0)
            missed_from = Cursor(cursor.epoch, min(cursor.seq + 1, MAX_SEQ))
            gaps = [Gap(name, Reason.EPOCH, missed_from, None, self.cursor(seq)) for name in channels]
            if self.history:
                return Place(seq, cursor, gaps, anew=True)
            return Place(seq, cursor, gaps, {name: self.mark(name).seq for name in channels})
        if self.history and cursor.seq > self.head:
            return None  # another node has handed it out, perhaps, and this one is a moment behind
        last = self._last_given(cursor.seq)
        if cursor.seq > last:
            return self._unknown(channels, cursor, last)
        place = Place(cursor.seq, cursor)
        if not self.history:
            place.gaps = self.gaps(channels, place, Reason.EXPIRED)
        return place

    def _unknown(self, channels: Sequence[str], cursor: Cursor, last: int) -> Place:
        missed_from, here = self.cursor(last + 1), self.cursor(last)
        return Place(last, cursor, [Gap(name, Reason.UNKNOWN, missed_from, cursor, here) for name in channels])

    def _last_given(self, seq: int) -> int:
        """Return the last number at or before `seq` that was ever given."""
        for before, after in self._holes:
            if before < seq < after:
                return before
        return min(seq, self.head)

    def _since(self, channels: Sequence[str], time: float) -> Place | None:
        if self.history and any((mark := self.mark(name)).seq and mark.time >= time for name in channels):
            return None
        seq = self.head
        forgiven = {}
        for name in channels:
            if window := self._windows.get(name):
                at = bisect_left(window.entries, time, window.first, key=_time_of)
                if at < len(window.entries):
                    seq = min(seq, window.entries[at].seq - 1)
            mark = self.mark(name)
            if mark.seq and mark.time >= time:
                seq = min(seq, mark.seq - 1)
            else:
                forgiven[name] = mark.seq  # what was trimmed is older than what is asked for
        place = Place(seq, self.cursor(seq), forgiven=forgiven)
        if not self.history:
            place.gaps = self.gaps(channels, place, Reason.EXPIRED)
        return place

    def _before_first(self, channels: Sequence[str], seq: int) -> int:
        """Return the place just before the first entry held after `seq`; past all trimmed where there is none."""
        firsts = [page[0].seq for n in channels if (w := self._windows.get(n)) and (page := w.after(seq, 1))]
        if firsts:
            return max(seq, min(firsts) - 1)
        return max(seq, *(self.mark(name).seq for name in channels))

    def _before_last(self, channels: Sequence[str], count: int) -> int:
        if count <= 0:
            return self.head
        newest = [w.newest(count) for name in channels if (w := self._windows.get(name))]
        held = list(heapq.merge(*newest, key=_seq_of))[-count:]
        return held[0].seq - 1 if held else self.head

    def _holds(self, channels: Sequence[str], seq: int, count: float) -> bool:
        """Return whether the window holds as many messages after `seq`, and all that there are."""
        held = sum(len(window.after(seq, int(count))) for name in channels if (window := self._windows.get(name)))
        return held >= count and self.covers(channels, seq)

    def _open(self, channel: str) -> _Window:
        mark = self._marks.pop(channel, self._oldest_mark)
        window = self._windows[channel] = _Window(channel, self._retention(channel), mark)
        self._sweep.append(window)
        return window

    def _close(self, window: _Window) -> None:
        del self._windows[window.name]
        if window.marked > self._oldest_mark.seq:
            self._marks[window.name] = window.mark()
        if len(self._marks) > MARKS:
            _, mark = self._marks.popitem(last=False)
            self._oldest_mark = max(self._oldest_mark, mark, key=_seq_of)

    def _drop(self, window: _Window) -> None:
        """Drop a window's oldest entry. Its place in the log's order stays, as one that is passed."""
        first, entries = window.first, window.entries
        entry = entries[first]
        entries[first] = _GONE  # so that its memory is free now: half a window's at once takes a tenth of a second
        first += 1
        entry.held = False
        window.marked = entry.seq
        window.marked_time = entry.message.time
        window.passed += 1
        # Give the front back once it is as long as what is left: amortised O(1), and at most twice the memory.
        if first * 2 >= len(entries):
            del entries[:first]
            first = 0
        window.first = first
        self.bytes -= ENTRY_BYTES + len(entry.message.data) + len(entry.encoded)
        if entry.others:
            self.bytes -= sum(map(len, entry.others.values()))
        self.count -= 1
        self.version += 1

    def _trim_window(self, window: _Window, now: float) -> None:
        entries, most = window.entries, window.retained
        oldest = now - window.retained_seconds
        while held := len(entries) - window.first:
            if held <= most and entries[window.first].appended >= oldest:
                return
            self._drop(window)

    def _trim_bytes(self) -> None:
        while self.bytes > self._max_bytes and self.count > 1:
            window = self._order.popleft()
            if not window.passed:
                self._drop(window)
            window.passed -= 1

    def _tidy_order(self) -> None:
        """Take what has been passed out of the log's order: at its front at once, behind that in one go."""
        order = self._order
        while order and (window := order[0]).passed:
            window.passed -= 1
            order.popleft()
        if len(order) > 2 * self.count + 1024:
            kept: deque[_Window] = deque()
            for window in order:
                if window.passed:
                    window.passed -= 1
                else:
                    kept.append(window)
            self._order = kept

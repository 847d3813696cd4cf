"""The window of recent messages of all channels: append, read, trim, and the mark of what was trimmed.

A broker without a history keeps nothing, so the window is the whole log. With a history the window is the end of the
log: the history has what is trimmed here too, and a subscription behind the window reads pages of it (`covers`).

Invariants
* Entries stand in the order of their sequence numbers, within a channel and across all channels.
* The log has the trimmed mark of each channel: the last `seq` that it trimmed there. A reader has missed a message if
  and only if the mark is above its place. Gaps are made from that (`place.py`).
* The bytes held, encodings included, stay under `max_bytes`: above it the oldest entry of all channels is dropped. An
  internal channel has `INTERNAL_BYTES` of its own instead, as a client that may not publish causes records there too.

Time is passed in: `now` is in seconds of a monotonic clock, for retention by age. `Message.time` is wall-clock time.
"""

from __future__ import annotations

import bisect
import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter

from ..brokers.base import Opening
from ..message import INTERNAL, MAX_SEQ, Cursor, Mark, Message, Page, RetentionPolicy
from .entry import DROPPED, ENTRY_BYTES, TRACE_MEMORY, Encoding, Entry
from .window import PASSED, Budget, Window

MARKS = 100_000  # marks that are kept of channels without an entry; all older ones share one mark
INTERNAL_BYTES = 16 << 20  # of an internal channel: some 20,000 records, where each is of use for a minute
SWEEP_CHANNELS = 2_000  # channels that one `trim` looks at, which takes a millisecond or two

_UNWANTED = Mark(MAX_SEQ, math.inf)  # of a channel that the broker does not deliver: all of it is in the history
_seq_of = attrgetter("seq")


class Log:
    """The recent messages of every channel of one shard.

    `retention` gives a channel's retention by its name. `head` is the last `seq` appended, `version` changes whenever
    the answer to a read may have changed, `life` whenever a place or a page from before may be wrong. `history` says
    that the broker has what the window does not hold, `only_wanted` that it delivers a channel only after `want`.
    `floor` is the last message before the window. `holes` are ranges of numbers that were never given, as in
    `brokers.base.Opening`.
    """

    def __init__(
        self,
        epoch: str,
        retention: RetentionPolicy,
        *,
        max_bytes: int = 256 << 20,
        history: bool = False,
        only_wanted: bool = False,
        lossy_holes: bool = False,
        floor: Mark = Mark(),  # noqa: B008 - frozen
        marks: Mapping[str, Mark] | None = None,
        holes: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.epoch = epoch
        self.history = history
        self.head = floor.seq
        self.version = 0
        self.life = 0
        self._retention = retention
        self._budget = Budget(max_bytes)
        self._own_budgets = {name: Budget(INTERNAL_BYTES) for name in INTERNAL}
        self._windows: dict[str, Window] = {}
        self._marks: OrderedDict[str, Mark] = OrderedDict(marks or {})
        self._oldest_mark = floor  # the mark of each channel that has none of its own
        self._holes = _merged(holes)
        self._lossy_holes = lossy_holes
        self._sweep: deque[Window] = deque()
        # By channel, the number above which the broker hands over all of it. None where it does so for every channel.
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
        budget = window.budget
        budget.count += 1
        budget.bytes += ENTRY_BYTES + len(message.data) + (0 if message.trace is None else TRACE_MEMORY)
        budget.order.append(window)
        first = window.first
        if len(entries) - first > window.retained or entries[first].appended < now - window.retained_seconds:
            self._trim_window(window, now)
        if budget.bytes > budget.max_bytes:
            budget.trim(self._drop)
        if len(budget.order) > budget.count + PASSED:
            budget.tidy()
        return entry

    def encode(self, entry: Entry, encoding: Encoding) -> bytes:
        """Return the entry's bytes in a format. They are made once, and kept as long as the entry."""
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
            self._budget_of(entry.message.channel).bytes += len(data)
        return data

    def change(self, max_bytes: int) -> None:
        """Ask `retention` again for each channel. The next appends and trims apply it; what is trimmed stays so."""
        self._budget.max_bytes = max_bytes
        for window in self._windows.values():
            window.retain(self._retention(window.name))

    def trim(self, now: float) -> None:
        """Trim the next `SWEEP_CHANNELS` channels by age, and all of the log by bytes. Call it about once a second."""
        for _ in range(min(SWEEP_CHANNELS, len(self._sweep))):
            window = self._sweep.popleft()
            self._trim_window(window, now)
            if len(window):
                self._sweep.append(window)
            else:
                self._close(window)
        for budget in (self._budget, *self._own_budgets.values()):
            budget.trim(self._drop)  # encodings were added since the last append

    def drop_trimmed(self, page: Page) -> None:
        """Drop what the history has trimmed: no reader may be sent a message that a gap has named."""
        for name, mark in page.marks.items():
            window = self._windows.get(name)
            while window is not None and len(window) and window.entries[window.first].seq <= mark.seq:
                self._drop(window)

    def forget(self, seq: int) -> None:
        """Empty the window. The next message is above `seq`, and what is before it is in the history alone."""
        for window in self._windows.values():
            for entry in window.entries:
                entry.held = False  # a turn may still deliver it
        self._windows.clear()
        self._marks.clear()
        self._sweep.clear()
        self._oldest_mark = Mark(seq, math.inf)  # the time of a message that was never here is not known
        self.head = max(self.head, seq)
        for budget in (self._budget, *self._own_budgets.values()):
            budget.clear()
        self.version += 1

    def renew(self, opening: Opening, now: float) -> None:
        """Hold another log. What was wanted has to be confirmed again."""
        self.forget(0)
        self.epoch = opening.epoch
        self.head = opening.floor.seq
        self.life += 1
        self._oldest_mark = opening.floor
        self._marks = OrderedDict(opening.marks)
        self._holes = _merged(opening.holes)
        if self._wanted is not None:
            self._wanted.clear()
        for message in opening.recent:
            self.append(message, now)
        self.head = max(self.head, opening.head)

    def add_hole(self, before: int, after: int) -> None:
        """Go on at `after`: the numbers between may have been given to messages that are lost."""
        self.forget(after)
        self.life += 1
        self._holes = _merged((*self._holes, (before, after)))

    def want(self, channel: str, seq: int) -> None:
        """Hold what comes of a channel after `seq`: the broker hands over all of it from there."""
        if self._wanted is None:
            return
        window = self._windows.get(channel)
        while window is not None and len(window) and window.entries[window.first].seq <= seq:
            self._drop(window)  # it came while only a part of the channel was delivered
        self._wanted[channel] = seq
        self.version += 1

    def unwant(self, channel: str) -> None:
        """Hold nothing of a channel: the broker no longer delivers it."""
        if self._wanted is None:
            return
        self._wanted.pop(channel, None)
        window = self._windows.get(channel)
        while window is not None and len(window):
            self._drop(window)
        self.version += 1

    # -- reading. Of each channel only messages above its floor are read; `floors` is in the order of the channels, or
    # -- empty where all floors are 0.

    def read_after(
        self, channels: Sequence[str], seq: int, limit: int, max_bytes: int = 1 << 62, floors: Sequence[int] = ()
    ) -> list[Entry]:
        """Return the next entries of the channels after `seq`, in order.

        At most `limit`, and only as many as fit in `max_bytes` of data, but at least one. A list shorter than both
        bounds allow is all that there is.
        """
        if len(channels) == 1:
            window = self._windows.get(channels[0])
            entries = window.after(max(seq, *floors) if floors else seq, limit) if window else []
        else:
            pages = [
                w.after(after, limit) for name, after in _starts(channels, seq, floors) if (w := self.window(name))
            ]
            entries = list(heapq.merge(*pages, key=_seq_of))[:limit]
        total = 0
        for index, entry in enumerate(entries):
            total += len(entry.message.data)
            if total > max_bytes and index:
                return entries[:index]
        return entries

    @property
    def bytes(self) -> int:
        """The bytes held, encodings included."""
        return self._budget.bytes + sum(each.bytes for each in self._own_budgets.values())

    @property
    def count(self) -> int:
        """The entries held."""
        return self._budget.count + sum(each.count for each in self._own_budgets.values())

    def window(self, channel: str) -> Window | None:
        """Return the window of a channel that has entries."""
        return self._windows.get(channel) or None

    def windows(self) -> list[Window]:
        """Return the window of each channel that has entries, or had some lately."""
        return list(self._windows.values())

    def before_first(self, channels: Sequence[str], seq: int, floors: Sequence[int] = ()) -> int:
        """Return the place right before the first entry held after `seq`; without one, past all that was trimmed."""
        starts = _starts(channels, seq, floors)
        firsts = [page[0].seq for n, after in starts if (w := self.window(n)) and (page := w.after(after, 1))]
        if firsts:
            return max(seq, min(firsts) - 1)
        return max(seq, *(self.mark(name).seq for name in channels))

    def mark(self, channel: str) -> Mark:
        """Return the last message trimmed from a channel."""
        window = self._windows.get(channel)
        # Not `if window`: a window without entries is false, and has the mark.
        mark = self._marks.get(channel, self._oldest_mark) if window is None else window.mark()
        if self._wanted is not None:
            seq = self._wanted.get(channel)
            if seq is None:
                return _UNWANTED
            if seq > mark.seq:
                return Mark(seq, math.inf)  # the time of what was not handed over is not known
        return mark

    def dropped(self, channel: str) -> int:
        """Return the last message of a channel that its window has dropped, or 0 where that is not known."""
        window = self._windows.get(channel)
        return 0 if window is None or window.marked == window.began else window.marked

    def newest(self, channels: Iterable[str]) -> int:
        """Return the `seq` of the newest message held of the channels, or 0."""
        return max((w.entries[-1].seq for name in channels if (w := self.window(name))), default=0)

    def cursor(self, seq: int) -> Cursor:
        """Return the cursor for a place in this log."""
        return Cursor(self.epoch, seq)

    def covers(self, channels: Sequence[str], seq: int, floors: Sequence[int] = ()) -> bool:
        """Return whether the window holds each message of the channels after `seq`."""
        return all(self.mark(name).seq <= after for name, after in _starts(channels, seq, floors))

    def unwanted(self, channels: Iterable[str]) -> list[str]:
        """Return those of the channels that the broker does not deliver yet."""
        return [] if self._wanted is None else [name for name in channels if name not in self._wanted]

    def next_hole(self, seq: int) -> tuple[int, int] | None:
        """Return the next hole at or after a number that may have held acknowledged messages."""
        if not self._lossy_holes or not self._holes:
            return None
        at = bisect.bisect_left(self._holes, (seq, 0))
        return self._holes[at] if at < len(self._holes) else None

    def last_given(self, seq: int) -> int:
        """Return the last number at or before `seq` that was given to a message."""
        for before, after in self._holes:
            if before < seq < after:
                return before
        return min(seq, self.head)

    # -- helpers

    def _budget_of(self, channel: str) -> Budget:
        return self._own_budgets.get(channel, self._budget)

    def _open(self, channel: str) -> Window:
        mark = self._marks.pop(channel, self._oldest_mark)
        window = self._windows[channel] = Window(channel, self._retention(channel), mark, self._budget_of(channel))
        self._sweep.append(window)
        return window

    def _close(self, window: Window) -> None:
        del self._windows[window.name]
        if window.marked > self._oldest_mark.seq:
            self._marks[window.name] = window.mark()
        if len(self._marks) > MARKS:
            _, mark = self._marks.popitem(last=False)
            self._oldest_mark = max(self._oldest_mark, mark, key=_seq_of)

    def _drop(self, window: Window) -> None:
        """Drop a window's oldest entry. Its place in the log's order stays, counted in `passed`."""
        first, entries = window.first, window.entries
        entry = entries[first]
        entries[first] = DROPPED  # releases memory entry by entry: half a window at once takes 100 ms
        first += 1
        entry.held = False
        window.marked = entry.seq
        window.marked_time = entry.message.time
        window.passed += 1
        # Cut the front off once it is as long as the rest: amortised O(1), and at most twice the memory.
        if first * 2 >= len(entries):
            del entries[:first]
            first = 0
        window.first = first
        message = entry.message
        traced = 0 if message.trace is None else TRACE_MEMORY
        budget = window.budget
        budget.bytes -= ENTRY_BYTES + len(message.data) + traced + len(entry.encoded)
        if entry.others:
            budget.bytes -= sum(map(len, entry.others.values()))
        budget.count -= 1
        self.version += 1

    def _trim_window(self, window: Window, now: float) -> None:
        entries, most = window.entries, window.retained
        oldest = now - window.retained_seconds
        while held := len(entries) - window.first:
            if held <= most and entries[window.first].appended >= oldest:
                return
            self._drop(window)


def _merged(holes: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Return the holes in order, without overlaps: a log that is put back twice to one copy has holes in a hole."""
    merged: list[tuple[int, int]] = []
    for before, after in sorted(holes):
        if merged and before < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], after))
        else:
            merged.append((before, after))
    return tuple(merged)


def _starts(channels: Sequence[str], seq: int, floors: Sequence[int]) -> Iterable[tuple[str, int]]:
    """Return each channel and the number after which it is read."""
    if floors:
        return [(name, max(seq, floor)) for name, floor in zip(channels, floors, strict=True)]
    return [(name, seq) for name in channels]

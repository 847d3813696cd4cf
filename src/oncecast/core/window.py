"""The entries of one channel that the log holds in memory, and the budget of bytes that it has, with others or alone.

Invariants: entries stand in the order of their sequence numbers, and `marked` is the number of the newest message that
was dropped in front of them. The order of a budget has a place for each entry of its channels by age; those of entries
that other retention has dropped stay in it, counted in the `passed` of their windows, until it is tidied.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from operator import attrgetter

from ..message import Mark, Retention
from .entry import Entry

_seq_of = attrgetter("seq")
_time_of = attrgetter("message.time")
_appended_of = attrgetter("appended")

LEAST_SECONDS = 0.1  # that a pace is of: two messages of one turn are no million a second
PASSED = 64  # places in the order of a budget whose entries are dropped, before it is tidied


class Window:
    """The retained entries of one channel. `first` is the index of the oldest; those in front of it are dropped.

    What an append reads stands in slots here rather than in objects of its own: with many channels each further object
    is one more cache miss. `passed` counts the places of this channel in the order of its budget
    whose entries are dropped.
    """

    __slots__ = (
        "began",
        "budget",
        "entries",
        "first",
        "marked",
        "marked_time",
        "name",
        "passed",
        "retained",
        "retained_seconds",
    )

    def __init__(self, name: str, retention: Retention, mark: Mark, budget: Budget) -> None:
        self.name = name
        self.budget = budget
        self.retain(retention)
        self.marked = mark.seq
        self.marked_time = mark.time
        self.began = mark.seq  # the mark before this window has dropped an entry: it may be shared by many channels
        self.entries: list[Entry] = []
        self.first = 0
        self.passed = 0

    def retain(self, retention: Retention) -> None:
        """Set how much is kept."""
        self.retained = retention.messages
        self.retained_seconds = retention.seconds

    def __len__(self) -> int:
        return len(self.entries) - self.first

    def after(self, seq: int, limit: int) -> list[Entry]:
        """Return the next entries after `seq`, at most `limit`."""
        at = bisect_right(self.entries, seq, self.first, key=_seq_of)
        return self.entries[at : at + limit]

    def since(self, time: float) -> Entry | None:
        """Return the first entry that is not older than `time`, in Unix seconds."""
        at = bisect_left(self.entries, time, self.first, key=_time_of)
        return self.entries[at] if at < len(self.entries) else None

    def before_newest(self, count: int) -> int | None:
        """Return the place right before the `count` newest entries, which is 1 or more; None where there are none."""
        if not len(self):
            return None
        return self.entries[max(self.first, len(self.entries) - count)].seq - 1

    def pace(self, now: float, seconds: float) -> float:
        """Return how many messages a second have come in the last `seconds` before `now`, of the log's clock.

        Where the window holds less than that, it is the pace of what it holds.
        """
        entries = self.entries
        at = bisect_left(entries, now - seconds, self.first, key=_appended_of)
        count = len(entries) - at
        if count and at == self.first and self.marked != self.began:
            seconds = min(seconds, max(LEAST_SECONDS, now - entries[at].appended))
        return count / seconds

    def mark(self) -> Mark:
        """Return the newest message that was dropped."""
        return Mark(self.marked, self.marked_time)


class Budget:
    """What the entries of some channels take together: `bytes` of at most `max_bytes`, and their `count`.

    `order` has the window of each entry by age.
    """

    __slots__ = ("bytes", "count", "max_bytes", "order")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self.count = 0
        self.order: deque[Window] = deque()

    def clear(self) -> None:
        """Count nothing."""
        self.bytes = self.count = 0
        self.order.clear()

    def trim(self, drop: Callable[[Window], None]) -> None:
        """Drop the oldest entries above `max_bytes`, but for one, by `drop`: it drops a window's oldest entry."""
        while self.bytes > self.max_bytes and self.count > 1:
            window = self.order.popleft()
            if not window.passed:
                drop(window)
            window.passed -= 1

    def tidy(self) -> None:
        """Remove the places of dropped entries: from the front at once, from the rest when they are half of it."""
        order = self.order
        while order and (window := order[0]).passed:
            window.passed -= 1
            order.popleft()
        if len(order) > 2 * self.count + 1024:
            kept: deque[Window] = deque()
            for window in order:
                if window.passed:
                    window.passed -= 1
                else:
                    kept.append(window)
            self.order = kept

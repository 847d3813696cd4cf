"""The entries of one channel that the log holds in memory.

Invariant: entries stand in the order of their sequence numbers, and `marked` is the number of the newest message that
was dropped in front of them.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter

from ..message import Mark, Retention
from .entry import Entry

_seq_of = attrgetter("seq")
_time_of = attrgetter("message.time")
_appended_of = attrgetter("appended")

LEAST_SECONDS = 0.1  # that a pace is of: two messages of one turn are no million a second


class Window:
    """The retained entries of one channel. `first` is the index of the oldest; those in front of it are dropped.

    What an append reads stands in slots here rather than in objects of its own: with many channels each further object
    is one more cache miss. `passed` counts the places of this channel in the log's order whose entries are dropped.
    """

    __slots__ = ("began", "entries", "first", "marked", "marked_time", "name", "passed", "retained", "retained_seconds")

    def __init__(self, name: str, retention: Retention, mark: Mark) -> None:
        self.name = name
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

"""Deadlines and heartbeats of every connection, on one wheel: no timer object each.

Invariant: an item with a deadline stands in exactly one bucket, the one of its deadline or an earlier one. Moving a
deadline later only changes a number on the item, which is noticed when its old bucket comes round: so a keep-alive
connection costs nothing per request.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

RESOLUTION = 0.05  # seconds: how late a deadline may be noticed


class Item(Protocol):
    """Something with a deadline: `deadline` in seconds, 0 for none; `tick` is the wheel's own, 0 at first."""

    deadline: float
    tick: int


T = TypeVar("T", bound=Item)


class Wheel(Generic[T]):
    """The items that have a deadline. Time is passed in, in seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, set[T]] = {}
        self._done = _tick(now)  # every bucket up to this one has been looked at

    def set(self, item: T, when: float) -> None:
        """Let `item` be returned by the first `expire` at or after `when`; this replaces an earlier deadline."""
        item.deadline = when
        tick = max(_tick(when) + 1, self._done + 1)
        if item.tick == 0 or tick < item.tick:
            self._take_out(item)
            self._put(item, tick)

    def clear(self, item: T) -> None:
        """Forget the item."""
        item.deadline = 0
        self._take_out(item)

    def expire(self, now: float) -> list[T]:
        """Return the items whose deadline has come; they have none from then on."""
        due = []
        tick_now = _tick(now)
        for tick in range(self._done + 1, tick_now + 1):
            for item in self._buckets.pop(tick, ()):
                item.tick = 0
                if item.deadline <= now:
                    item.deadline = 0
                    due.append(item)
                else:
                    self._put(item, max(_tick(item.deadline) + 1, tick_now + 1))
        self._done = max(self._done, tick_now)
        return due

    def _put(self, item: T, tick: int) -> None:
        item.tick = tick
        self._buckets.setdefault(tick, set()).add(item)

    def _take_out(self, item: T) -> None:
        if item.tick:
            bucket = self._buckets[item.tick]
            bucket.discard(item)
            if not bucket:
                del self._buckets[item.tick]
            item.tick = 0


def _tick(seconds: float) -> int:
    return int(seconds / RESOLUTION)

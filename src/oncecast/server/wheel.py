"""Deadlines and heartbeats of every connection, on one wheel: no timer object each.

Invariant: an item with a deadline is in exactly one bucket, that of its deadline or an earlier one. To move a deadline
later changes a number on the item, and no bucket, until its old bucket is due: so a keep-alive connection costs nothing
for each request.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

RESOLUTION = 0.05  # seconds: how late a deadline may be noticed
FAR = 1e12  # seconds: a deadline beyond this is never due, and its bucket's number stays small


class Item(Protocol):
    """Something with a deadline: `deadline` in seconds, 0 for none; `tick` is the wheel's own, 0 at first."""

    deadline: float
    tick: int


T = TypeVar("T", bound=Item)


class Wheel(Generic[T]):
    """The items that have a deadline. Time is passed in, in seconds of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self._buckets: dict[int, tuple[int, set[T]]] = {}  # each with its number, an object that its items share
        self._done = _tick(now)  # every bucket up to this one has been looked at
        self._when = 0.0  # the last deadline: an object that those share who are woken together

    def set(self, item: T, when: float) -> None:
        """Let `item` be returned by the first `expire` at or after `when`; this replaces an earlier deadline.

        Raises `ValueError` for what is no number (NaN); the deadline stays as it was.
        """
        tick = max(_tick(when) + 1, self._done + 1)
        if when != self._when:
            self._when = when
        item.deadline = self._when
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
        for tick in self._ticks_until(tick_now):
            _, items = self._buckets.pop(tick, (tick, ()))
            for item in items:
                item.tick = 0
                if item.deadline <= now:
                    item.deadline = 0
                    due.append(item)
                else:
                    self._put(item, max(_tick(item.deadline) + 1, tick_now + 1))
        self._done = max(self._done, tick_now)
        return due

    def _ticks_until(self, last: int) -> Iterable[int]:
        """Return the ticks after `_done`, but no more than there are buckets: a clock may have stepped by years."""
        if last - self._done <= len(self._buckets):
            return range(self._done + 1, last + 1)
        return sorted(tick for tick in self._buckets if tick <= last)

    def _put(self, item: T, tick: int) -> None:
        number, items = self._buckets.setdefault(tick, (tick, set()))
        item.tick = number
        items.add(item)

    def _take_out(self, item: T) -> None:
        if item.tick:
            _, items = self._buckets[item.tick]
            items.discard(item)
            if not items:
                del self._buckets[item.tick]
            item.tick = 0


def _tick(seconds: float) -> int:
    return int(min(max(seconds, -FAR), FAR) / RESOLUTION)

"""The rate at which a server that stops sends its connections away: evenly, and bounded per second.

Connections that leave together reconnect together, to a successor that has just started. So a few leave at once, and
many are spread over time.

Invariant: `due` returns at most `per_second` connections in any one second (one, where that is less), however late or
irregular its calls are. A connection that closes by itself does not count. In the second in which the rate changes, the
greater of the two holds. Time is passed in; a clock that steps back costs time and breaks nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from ..wheel import RESOLUTION

__all__ = ["Drain"]

T = TypeVar("T")


class Drain(Generic[T]):
    """The connections that still have to leave. `per_second` may be a fraction: a worker's share.

    `now` is in seconds of a monotonic clock. `due` is called every `wheel.RESOLUTION` seconds, so those of one
    such step leave together. As a second can hold both ends of a step, the rate is lowered by one step's worth: fewer
    than `_together + _rate` leave in a second, which is one more than `per_second`.
    """

    def __init__(self, peers: Iterable[T], per_second: float, now: float) -> None:
        self._waiting: dict[T, None] = dict.fromkeys(peers)
        self._set(per_second)
        self._credit = self._together
        self._stamp = now

    def _set(self, per_second: float) -> None:
        self._together = 1 + per_second * RESOLUTION
        self._rate = per_second * (1 - RESOLUTION)

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, peer: T) -> bool:
        return peer in self._waiting

    @property
    def seconds(self) -> float:
        """Return for how long the last has to wait from now."""
        return max(0.0, (len(self._waiting) - int(self._credit)) / self._rate)

    def add(self, peer: T) -> None:
        """Append a connection that was opened late."""
        self._waiting[peer] = None

    def discard(self, peer: T) -> None:
        """Forget a connection that has closed."""
        self._waiting.pop(peer, None)

    def change(self, per_second: float, now: float) -> None:
        """Continue at another rate."""
        self._accrue(now)
        self._set(per_second)
        self._credit = min(self._together, self._credit)

    def due(self, now: float) -> list[T]:
        """Return the connections to tell now, in order; they are forgotten."""
        self._accrue(now)
        due = list(islice(self._waiting, int(self._credit)))
        self._credit -= len(due)
        for peer in due:
            del self._waiting[peer]
        return due

    def _accrue(self, now: float) -> None:
        self._credit = min(self._together, self._credit + max(0.0, now - self._stamp) * self._rate)
        self._stamp = now

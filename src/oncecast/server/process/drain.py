"""How a server that stops lets its connections go: each is told at its own moment, so many a second and no more.

All of them told at once would all come back at once, to a successor that has just begun. So who is few leaves at once,
and many are spread evenly.

Invariant: within any one second no more than `per_second` are told (one, where that is less), however late or bunched
the calls of `due` are; whoever leaves by itself costs nobody else a moment. In the second in which it changes, the
greater of the two holds. Time is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Generic, TypeVar

from ..wheel import RESOLUTION

__all__ = ["Drain"]

T = TypeVar("T")


class Drain(Generic[T]):
    """Who is still to be told. `per_second` may be a fraction: a worker's share. `now` is a monotonic clock's seconds.

    `due` is asked every `wheel.RESOLUTION` seconds, so as many as fall into one such step are told together. That
    many are taken off the rate, as a second can hold both: less than `_together + _rate`, which is one more than
    `per_second`.
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
        """How long it takes from now until the last is told."""
        return max(0.0, (len(self._waiting) - int(self._credit)) / self._rate)

    def add(self, peer: T) -> None:
        """Let somebody who has only just come wait at the end."""
        self._waiting[peer] = None

    def discard(self, peer: T) -> None:
        """Forget somebody who has gone."""
        self._waiting.pop(peer, None)

    def change(self, per_second: float, now: float) -> None:
        """Go on at another rate."""
        self._accrue(now)
        self._set(per_second)
        self._credit = min(self._together, self._credit)

    def due(self, now: float) -> list[T]:
        """Return who is to be told now, first come first served; they are not waiting from then on."""
        self._accrue(now)
        told = list(islice(self._waiting, int(self._credit)))
        self._credit -= len(told)
        for peer in told:
            del self._waiting[peer]
        return told

    def _accrue(self, now: float) -> None:
        self._credit = min(self._together, self._credit + (now - self._stamp) * self._rate)
        self._stamp = now

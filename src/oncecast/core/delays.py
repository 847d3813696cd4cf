"""How long publishes and deliveries take, as histograms for `/metrics`.

Invariant: between two calls of `tick` one publish and one turn are measured, so a busy server pays nothing for it.
`due` and `look` are all that the way of a message asks. Time is passed in.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import partial

from ..brokers.base import Done, Outcome
from ..message import Receipt

__all__ = ["BOUNDS", "Delays", "Histogram"]

# Seconds, the highest values of the buckets: from a publish in memory to a client that gives up.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram:
    """Values in seconds, counted in the buckets of `BOUNDS` and one for what is above them; `total` is their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count a value. One below 0, as clocks of two machines may give it, is 0."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Delays:
    """The delays of one node. `monotonic` and `wall` return seconds; without `wall` no message's age is measured.

    `due` says that the next publish is to be measured, `look` that the turn is.
    """

    __slots__ = ("_begun", "_monotonic", "_wall", "acknowledged", "ages", "due", "look", "written")

    def __init__(self, monotonic: Callable[[], float], wall: Callable[[], float] | None = None) -> None:
        self.acknowledged = Histogram()  # from a publish on this node to its acknowledgement
        self.written = Histogram()  # from a publish on this node to its write to the live subscriptions
        self.ages = Histogram()  # from the time in a message, of any node, to its write
        self.due = self.look = False
        self._begun: float | None = None  # of a publish that is acknowledged and not written yet
        self._monotonic = monotonic
        self._wall = wall

    def tick(self) -> None:
        """Measure the next publish, and the next turn. Call it several times a second; without it nothing is."""
        self.due = self.look = True

    def begin(self, done: Done, pending: Callable[[], bool]) -> Done:
        """Return what to call instead of `done`. `pending` says whether what has been received is still to be written.

        A publish that is refused is not measured.
        """
        self.due = False
        return partial(self._acknowledged, self._monotonic(), pending, done)

    def delivered(self, time: float) -> None:
        """A turn has been written, the oldest message of which has this time."""
        self.look = False
        if self._begun is not None:
            self.written.observe(self._monotonic() - self._begun)
            self._begun = None
        if self._wall is not None:
            self.ages.observe(self._wall() - time)

    def _acknowledged(self, begun: float, pending: Callable[[], bool], done: Done, outcomes: Sequence[Outcome]) -> None:
        if outcomes and isinstance(outcomes[0], Receipt):
            seconds = self._monotonic() - begun
            self.acknowledged.observe(seconds)
            if pending():  # the end of this turn writes it
                self._begun, self.look = begun, True
            else:
                self.written.observe(seconds)
        done(outcomes)

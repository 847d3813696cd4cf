"""A clock and an event loop's turns, controlled by a test: `FakeClock` and `Turns`.

The core takes both as parameters. So a test decides when time passes and when a turn ends, and never sleeps. Invariant:
the clock moves, and callables run, only by calls of the test.
"""

from __future__ import annotations

from collections.abc import Callable

EPOCH_SECONDS = 1_764_000_000.0  # start of the wall clock: a float has its milliseconds
MAX_TURNS = 10_000  # consecutive turns after which `run_all` raises


class FakeClock:
    """A monotonic clock and a wall clock that move only by `advance`; `jump` sets the wall clock alone.

    `monotonic` gives seconds from 0, `wall` gives Unix seconds.
    """

    __slots__ = ("_monotonic", "_wall")

    def __init__(self, *, monotonic: float = 0.0, wall: float = EPOCH_SECONDS) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Return the monotonic clock's seconds."""
        return self._monotonic

    def wall(self) -> float:
        """Return the wall clock's Unix seconds."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        if seconds < 0:
            raise ValueError("Time does not go back: to set the wall clock, use jump.")
        self._monotonic += seconds
        self._wall += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or NTP does. The monotonic clock is unchanged."""
        self._wall += seconds


class Turns:
    """The ends of a loop's turns: `schedule` adds a callable, `run` calls those that were added before it."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """Return the number of callables scheduled for the end of this turn."""
        return len(self._waiting)

    def schedule(self, call: Callable[[], None]) -> None:
        """Schedule a callable for the end of the turn, like `loop.call_soon`."""
        self._waiting.append(call)

    def run(self) -> int:
        """End one turn. Returns the number of calls. Callables that they schedule run in the next turn."""
        now, self._waiting = self._waiting, []
        for call in now:
            call()
        return len(now)

    def run_all(self) -> int:
        """End turns until nothing is scheduled. Returns their number. Raises `RuntimeError` after MAX_TURNS."""
        for turns in range(MAX_TURNS):
            if not self.run():
                return turns
        raise RuntimeError(f"A callable schedules itself again in each turn: {MAX_TURNS} turns did not end it.")


__all__ = ["FakeClock", "Turns"]

"""Time and the loop's turn, held by a test: `FakeClock` and `Turns`.

Both stand in for what the core takes as parameters, so a test says when a second passes and when a turn ends, and never
sleeps to be right. Invariant: nothing moves or runs unless the test says so.
"""

from __future__ import annotations

from collections.abc import Callable

EPOCH_SECONDS = 1_764_000_000.0  # where the wall clock starts: a time whose milliseconds a float holds exactly enough
MAX_TURNS = 10_000  # turns that may follow from one another before `run_all` says that they never end


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
        """Set the wall clock forward or back, as an operator or NTP does; the monotonic clock takes no notice."""
        self._wall += seconds


class Turns:
    """The ends of a loop's turns: `schedule` collects callables, `run` calls those that were there when it began."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """Return how many callables wait for the end of this turn."""
        return len(self._waiting)

    def schedule(self, call: Callable[[], None]) -> None:
        """Call it at the end of the turn, as `loop.call_soon` would."""
        self._waiting.append(call)

    def run(self) -> int:
        """End one turn. Returns how many callables ran; what they schedule waits for the next turn."""
        now, self._waiting = self._waiting, []
        for call in now:
            call()
        return len(now)

    def run_all(self) -> int:
        """End turns until nothing waits. Returns how many that took; `RuntimeError` where it never ends."""
        for turns in range(MAX_TURNS):
            if not self.run():
                return turns
        raise RuntimeError(f"Something schedules itself again each turn: {MAX_TURNS} turns did not end it.")


__all__ = ["FakeClock", "Turns"]

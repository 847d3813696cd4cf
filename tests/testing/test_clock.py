"""The fake clock and the fake turn: nothing moves by itself."""

from __future__ import annotations

import pytest

from oncecast.testing import clock
from oncecast.testing.clock import EPOCH_SECONDS, FakeClock, Turns


def test_a_clock_stands_until_it_is_advanced() -> None:
    """Both clocks start at what they are given, and show the same until the test moves them."""
    time = FakeClock(monotonic=5.0)
    assert (5.0, EPOCH_SECONDS) == (time.monotonic(), time.wall())
    assert (5.0, EPOCH_SECONDS) == (time.monotonic(), time.wall())


def test_time_passes_on_both_clocks() -> None:
    """Advancing moves the monotonic and the wall clock by as much."""
    time = FakeClock(wall=100.0)
    time.advance(2.5)
    assert (2.5, 102.5) == (time.monotonic(), time.wall())


def test_time_does_not_go_back() -> None:
    """A monotonic clock that goes back would be no clock that any code is written for."""
    with pytest.raises(ValueError, match="does not go back"):
        FakeClock().advance(-1)


def test_the_wall_clock_jumps_alone() -> None:
    """A clock that is set back moves the wall clock, and no interval."""
    time = FakeClock(wall=100.0)
    time.jump(-3600.0)
    assert (0.0, -3500.0) == (time.monotonic(), time.wall())


def test_a_call_waits_for_the_end_of_the_turn_and_runs_once() -> None:
    """Scheduled calls run in order at the end of the turn, and once."""
    turns = Turns()
    ran: list[int] = []
    turns.schedule(lambda: ran.append(1))
    turns.schedule(lambda: ran.append(2))
    assert (2, []) == (len(turns), ran)
    assert 2 == turns.run()
    assert (0, [1, 2]) == (turns.run(), ran)


def test_what_is_scheduled_during_the_end_of_a_turn_waits_for_the_next() -> None:
    """A call that schedules another does not make its own turn longer, as on a real loop."""
    turns = Turns()
    ran: list[int] = []
    turns.schedule(lambda: turns.schedule(lambda: ran.append(1)))
    turns.run()
    assert (1, []) == (len(turns), ran)
    assert (1, [1]) == (turns.run_all(), ran)


def test_turns_that_never_end_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A callable that schedules itself each time fails the test that runs it, rather than hang it."""
    monkeypatch.setattr(clock, "MAX_TURNS", 10)
    turns = Turns()

    def again() -> None:
        turns.schedule(again)

    again()
    with pytest.raises(RuntimeError, match="10 turns"):
        turns.run_all()

"""The wheel: which deadlines it wakes, when, and that it keeps nothing."""

from __future__ import annotations

import math
import time

import pytest

from oncecast.server.wheel import RESOLUTION, Wheel


class Thing:
    """Something with a deadline."""

    def __init__(self) -> None:
        self.deadline = 0.0
        self.tick = 0


def test_an_item_is_due_at_its_deadline_and_once() -> None:
    """A deadline is noticed within one resolution, and not again."""
    wheel: Wheel[Thing] = Wheel(10.0)
    thing = Thing()
    wheel.set(thing, 11.0)
    assert [] == wheel.expire(10.9)
    assert [thing] == wheel.expire(11.0 + 2 * RESOLUTION)
    assert 0 == thing.deadline
    assert [] == wheel.expire(20.0)


def test_never_early() -> None:
    """An item is never returned before its deadline, however the ticks fall."""
    for number in range(1, 200):
        wheel: Wheel[Thing] = Wheel(0.0)
        thing = Thing()
        when = number * 0.0137
        wheel.set(thing, when)
        assert [] == wheel.expire(when - 1e-6)
        assert [thing] == wheel.expire(when + 2 * RESOLUTION)


def test_a_deadline_in_the_past_is_due_at_the_next_look() -> None:
    """A bucket that has been looked at already is not used again."""
    wheel: Wheel[Thing] = Wheel(10.0)
    thing = Thing()
    wheel.set(thing, 3.0)
    assert [thing] == wheel.expire(10.0 + 2 * RESOLUTION)


def test_moving_a_deadline_later_costs_nothing_until_its_bucket_comes() -> None:
    """The item stays in its old bucket, and is put where it belongs when that comes round."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing = Thing()
    wheel.set(thing, 1.0)
    tick = thing.tick
    wheel.set(thing, 5.0)
    assert tick == thing.tick
    assert [] == wheel.expire(2.0)
    assert tick < thing.tick
    assert [thing] == wheel.expire(5.0 + 2 * RESOLUTION)


def test_moving_a_deadline_earlier_takes_effect() -> None:
    """An earlier deadline replaces a later one, and the later one does not fire."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing, other = Thing(), Thing()
    wheel.set(thing, 5.0)
    wheel.set(other, 5.0)
    wheel.set(thing, 1.0)
    assert [thing] == wheel.expire(1.0 + 2 * RESOLUTION)
    assert [other] == wheel.expire(5.0 + 2 * RESOLUTION)


def test_a_cleared_item_is_forgotten() -> None:
    """After `clear` an item is not returned, and clearing it twice is fine."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing = Thing()
    wheel.set(thing, 1.0)
    wheel.clear(thing)
    wheel.clear(thing)
    assert (0, 0) == (thing.deadline, thing.tick)
    assert [] == wheel.expire(2.0)


def test_a_clock_that_stands_still_or_goes_back_wakes_nobody_twice() -> None:
    """Looking again at the same or an earlier time returns nothing."""
    wheel: Wheel[Thing] = Wheel(0.0)
    thing = Thing()
    wheel.set(thing, 1.0)
    assert [thing] == wheel.expire(1.2)
    wheel.set(thing, 1.1)
    assert [] == wheel.expire(1.2)
    assert [] == wheel.expire(0.5)
    assert [thing] == wheel.expire(1.2 + 2 * RESOLUTION)


def test_deadlines_that_no_clock_reaches() -> None:
    """Absurd times stand in their bucket and harm nobody; what is no number is refused."""
    wheel: Wheel[Thing] = Wheel(10.0)
    things = [Thing() for _ in range(4)]
    for thing, when in zip(things, (1e308, math.inf, -1e308, -math.inf), strict=True):
        wheel.set(thing, when)
    assert set(things[2:]) == set(wheel.expire(11.0))
    things[0].deadline = math.inf  # as a connection moves it later
    assert [] == wheel.expire(1e15 * 0.9 / 1e6)
    with pytest.raises(ValueError, match="NaN"):
        wheel.set(things[2], math.nan)
    assert 0 == things[2].deadline
    wheel.clear(things[0])
    wheel.clear(things[1])
    assert 0 == things[0].tick == things[1].tick


def test_a_clock_that_steps_by_years_is_followed_at_once() -> None:
    """The work is bounded by the items, not by the time that has passed; a step back loses nothing."""
    wheel: Wheel[Thing] = Wheel(0.0)
    soon, later, far = Thing(), Thing(), Thing()
    for thing, when in ((soon, 1.0), (later, 5e8), (far, 3e9)):
        wheel.set(thing, when)
    soon.deadline = 6e8
    began = time.thread_time()
    assert [later] == wheel.expire(5.5e8)
    assert [] == wheel.expire(10.0)
    assert [soon] == wheel.expire(1e9)
    assert [far] == wheel.expire(4e9)
    assert time.thread_time() - began < 0.5


def test_equal_deadlines_are_one_object() -> None:
    """Connections that get their next heartbeat at one time share its number: each idle one is 32 bytes smaller."""
    wheel: Wheel[Thing] = Wheel(10.0)
    first, second = Thing(), Thing()
    wheel.set(first, float("12.5"))
    wheel.set(second, float("12.5"))
    assert first.deadline is second.deadline

"""The wheel: who is woken, when, and that nothing stays behind."""

from __future__ import annotations

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

"""The schedules: their moments are repeatable, in order, and within the length."""

from __future__ import annotations

from random import Random

import pytest

from oncecast.compare.schedule import SCHEDULES, steady


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("seconds", [1.0, 7.3, 60.0])
def test_moments(name: str, seconds: float) -> None:
    """Each schedule has a message at least, all in order and within the length, and the same ones again."""
    moments = SCHEDULES[name].moments(seconds, Random(1))
    assert moments == SCHEDULES[name].moments(seconds, Random(1))
    assert moments == sorted(moments)
    assert 0 <= moments[0] <= moments[-1] <= seconds


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_rate_is_the_average(name: str) -> None:
    """Over an hour a schedule has about as many messages as its rate says."""
    schedule = SCHEDULES[name]
    assert schedule.rate == pytest.approx(len(schedule.moments(3600.0, Random(1))) / 3600, rel=0.1)


def test_a_steady_schedule_is_in_step_with_nothing() -> None:
    """There is one message in each slot, and not at the same place in it."""
    moments = steady(2.0)(10.0, Random(1))
    assert list(range(20)) == [int(moment * 2) for moment in moments]
    assert 15 < len({round(moment % 0.5, 3) for moment in moments})

"""The pace of goodbyes: few at once, many evenly, never more in a second than is set."""

from __future__ import annotations

import random

import pytest

from oncecast.server.process.drain import Drain
from oncecast.server.wheel import RESOLUTION


def test_few_leave_at_once() -> None:
    """As many as fit into one step of the wheel leave at the beginning, first come first served."""
    drain = Drain(range(50), 1000, 7.0)
    assert list(range(50)) == drain.due(7.0)
    assert (0, []) == (len(drain), drain.due(8.0))


@pytest.mark.parametrize("per_second", [0.5, 1, 3, 10, 25, 100, 1000, 12_345])
def test_no_second_has_more_than_is_set(per_second: float) -> None:
    """However unevenly the loop turns, in any one second no more are sent away, and in the long run hardly fewer."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    drain = Drain(range(1_000_000), per_second, 0.0)
    now, sent = 0.0, []
    while now < 20 / min(per_second, 1):
        sent.append((now, len(drain.due(now))))
        now += RESOLUTION * rng.choice((1, 1, 1, 1.3, 2, 7, 25))
    for first, (begin, _) in enumerate(sent):
        count = sum(n for at, n in sent[first:] if at < begin + 1)
        assert count <= max(1, per_second), f"seed {seed}"


def test_the_rate_may_change_meanwhile() -> None:
    """No second has more than the greatest rate that was set in it, and once it is set a rate is kept."""
    seed = random.randrange(1 << 32)
    rng = random.Random(seed)
    rate = 100.0
    drain = Drain(range(1_000_000), rate, 0.0)
    now = 0.0
    sent: list[tuple[float, int, float]] = []
    for _ in range(600):
        sent.append((now, len(drain.due(now)), rate))
        now += RESOLUTION * rng.choice((1, 1, 2, 9))
        if rng.random() < 0.05:
            rate = rng.choice((1.0, 10.0, 50.0, 100.0))
            drain.change(rate, now)
    for first, (begin, _, before) in enumerate(sent):
        second = [(count, most) for at, count, most in sent[first:] if at < begin + 1]
        assert sum(count for count, _ in second) <= max(before, *(most for _, most in second)), f"seed {seed}"
    drain.change(1000, now)
    drain.due(now)
    assert 900 <= sum(len(drain.due(now + (step + 1) * RESOLUTION)) for step in range(int(1 / RESOLUTION))) <= 1000


@pytest.mark.parametrize("per_second", [1, 10, 100, 1000])
def test_many_are_spread_evenly(per_second: int) -> None:
    """With a steady wheel it takes the time that `seconds` says, a tenth more than the rate itself at the most."""
    count = 5 * per_second
    drain = Drain(range(count), per_second, 0.0)
    expected = drain.seconds
    step, sent = 0, 0
    while len(drain):
        sent += len(drain.due(step * RESOLUTION))
        step += 1
    assert count == sent
    assert expected == pytest.approx((step - 1) * RESOLUTION, abs=5 * RESOLUTION)
    assert 3.9 <= expected <= 5.5


def test_connections_that_end_or_begin_meanwhile() -> None:
    """A connection that has ended takes no slot. A new one gets the last slot."""
    drain = Drain("abcd", 1, 0.0)
    assert ["a"] == drain.due(0.0)
    drain.discard("b")
    drain.discard("a")
    drain.add("e")
    assert ("a" in drain, "c" in drain, len(drain)) == (False, True, 3)
    assert ["c"] == drain.due(1.1)
    assert ["d"] == drain.due(2.2)
    assert ["e"] == drain.due(3.3)
    assert 0.0 == drain.seconds

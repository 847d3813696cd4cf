"""What a comparison may be asked for: each number within its bounds, and the products of several too."""

from __future__ import annotations

import math
from typing import Any

import pytest

from oncecast.compare.plan import BOUNDS, ComparePlan
from oncecast.errors import UsageError

FIELDS = {
    "rate": "rate",
    "size": "size",
    "listeners": "listeners",
    "seconds": "seconds",
    "poll-interval": "poll_interval",
    "rtt": "rtt_ms",
}


def _with(name: str, value: float, **others: Any) -> ComparePlan:
    return ComparePlan(**{**others, FIELDS[name]: value})


@pytest.mark.parametrize("name", BOUNDS)
@pytest.mark.parametrize("value", [-1, math.inf, -math.inf, math.nan, 1e30, 10**30])
def test_absurd_numbers(name: str, value: float) -> None:
    """A number past its bounds is refused in a line that names the option and the bounds."""
    with pytest.raises(UsageError, match=f"^--{name}: give from ") as caught:
        _with(name, value)
    assert 120 > len(str(caught.value))


@pytest.mark.parametrize("name", BOUNDS)
def test_the_bounds_themselves_are_allowed(name: str) -> None:
    """The least and the most of each number are within."""
    for value in BOUNDS[name][:2]:
        _with(name, value, rate=0.01, listeners=1, seconds=1, size=24)


@pytest.mark.parametrize(
    "fields, says",
    [
        ({"rate": 200, "listeners": 100}, "20000 deliveries a second on each transport are more than 1000"),
        ({"rate": 10, "listeners": 50, "size": 60_000}, "more than 8 MiB a second on each transport"),
        ({"rate": 100, "listeners": 10, "seconds": 3600}, "more than 200000 deliveries on each transport"),
        ({"schedule": "gossip"}, "--schedule: take one of chat, ticker, notifications, quiet, burst"),
    ],
)
def test_too_much_together(fields: dict[str, Any], says: str) -> None:
    """Numbers that are each within their bounds are refused where their product is too much for one process."""
    with pytest.raises(UsageError, match=f"^{says}"):
        ComparePlan(**fields)


def test_rate_and_size_of_the_schedule() -> None:
    """A plan has the schedule's rate and size, or those that are given."""
    assert (20.0, 60) == (ComparePlan(schedule="ticker").mean_rate, ComparePlan(schedule="ticker").bytes)
    given = ComparePlan(schedule="ticker", rate=3, size=100, seconds=2)
    assert (3, 100, 6) == (given.mean_rate, given.bytes, len(given.moments()))
    assert "3 a second: 6 messages of 100 bytes in 2 s, to 5 listeners on each transport" == given.describe()

"""Crashes and restarts of a real deployment, in short; `make proof` runs them at length."""

from __future__ import annotations

import pytest

from . import crashes
from .client_oracle import Wrong
from .deployment import Stored

WORKERS, SUBSCRIBERS = 2, 8


async def test_killed_workers_lose_nothing() -> None:
    """Their clients reconnect and continue; each acknowledged message is in the log once."""
    report = await crashes.kills(3, seed=1, workers=WORKERS, subscribers=SUBSCRIBERS)
    assert 3 == report.times
    assert report.published > 10
    assert report.delivered > report.published


async def test_a_worker_that_stood_still_goes_on() -> None:
    """A paused worker is a slow one: nothing is lost."""
    report = await crashes.pauses(2, seed=2, workers=WORKERS, subscribers=SUBSCRIBERS)
    assert 2 == report.times


async def test_everything_may_be_killed() -> None:
    """A restart finds each acknowledged message, and cursors stay valid."""
    report = await crashes.wipes(1, seed=3, workers=WORKERS, subscribers=SUBSCRIBERS)
    assert report.outages


async def test_a_rolling_restart_is_no_error_to_anybody() -> None:
    """Every worker is replaced under load, and a client that opens a connection for each request is always answered."""
    report = await crashes.rolls(1, seed=4, workers=WORKERS, subscribers=SUBSCRIBERS)
    assert 1 == report.times


def test_the_judge_of_the_log_sees_each_fault() -> None:
    """Lost, repeated, and out of order."""
    stored = [Stored("e-1", "a", b"1 1"), Stored("e-2", "a", b"1 2")]
    crashes.judge_log(stored, {"e-1": b"1 1"})
    for wrong, acknowledged in (
        (stored, {"e-3": b"1 3"}),
        (stored, {"e-1": b"1 2"}),
        ([*stored, Stored("e-3", "a", b"1 2")], {}),
        (stored[::-1], {}),
    ):
        with pytest.raises(Wrong):
            crashes.judge_log(wrong, acknowledged)


def test_the_judge_of_a_listener_sees_each_fault() -> None:
    """A message that never came, one that came twice, and two in the wrong order."""
    first, second = Stored("e-1", "a", b"1"), Stored("e-2", "a", b"2")
    crashes.judge_seen("sse", "a", [first, second], [first, second])
    for seen in ([first], [second], [second, first], [first, first, second], [first, second, second]):
        with pytest.raises(Wrong, match="sse, a"):
            crashes.judge_seen("sse", "a", seen, [first, second])


def test_the_report_says_what_was_met() -> None:
    """The line that a run ends with, and its percentiles."""
    report = crashes.Report("kills", times=2, published=3, delivered=4, outages=[0.1, 0.3, 0.2], seconds=5)
    assert (0.2, 0.3) == (report.outage(50), report.outage(99))
    assert 0.0 == crashes.Report("none").outage(99)
    assert str(report).startswith("kills: 2 times in 5 s; 3 messages, 4 deliveries")

"""A fault that lasts: said once, then now and then, and its end."""

from __future__ import annotations

import pytest

from oncecast.brokers.complaints import REMIND_SECONDS, Complaints
from oncecast.testing.clock import FakeClock


def test_a_fault_is_said_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    """A disk that fails a thousand times a second writes no thousand lines, and its end is said once."""
    clock = FakeClock()
    complaints = Complaints("log.db", clock.monotonic)
    complaints.recover("is fine")
    for seconds in (0, 1, REMIND_SECONDS - 1, 1):
        clock.advance(seconds)
        complaints.complain("is full")
    complaints.recover("is fine")
    complaints.recover("is fine")
    complaints.complain("is full")
    assert ["log.db is full", "log.db is full", "log.db is fine", "log.db is full"] == caplog.messages

"""What the server says about a record: the time is the same, however it is written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.brokers.nats.asking import moment_of, seconds_of

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-28T01:00:00Z", 1795827600.0),
        ("2026-11-28T01:00:00.5Z", 1795827600.5),
        ("2026-11-28T01:00:00.0004Z", 1795827600.0),
        ("2026-11-28T01:00:00.000499999Z", 1795827600.0),
        ("2026-11-28T01:00:00.0005Z", 1795827600.001),
        ("2026-11-28T01:00:00.9995Z", 1795827601.0),
    ],
)
def test_a_time_is_in_whole_milliseconds(text: str, seconds: float) -> None:
    """It is rounded as its digits say."""
    assert seconds == moment_of(text)


@given(st.integers(0, 10**9), st.integers(0, 999), st.integers(-300, 300))
def test_a_time_is_the_same_in_a_header_and_in_a_subject(second: int, millisecond: int, beside: int) -> None:
    """A message that is delivered, and read later, has one time, also beside the middle of a millisecond."""
    fraction = millisecond * 1_000_000 + 500_000 + beside
    moment = BEGAN + timedelta(seconds=second)
    text = f"{moment:%Y-%m-%dT%H:%M:%S}.{f'{fraction:09}'.rstrip('0')}Z"
    assert moment_of(text) == seconds_of(int(moment.timestamp()) * 10**9 + fraction)

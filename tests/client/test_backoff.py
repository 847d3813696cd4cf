"""The pause between two attempts."""

from __future__ import annotations

import pytest

from oncecast.client.backoff import Backoff


async def no_sleep(seconds: float) -> None:
    """Wait for nothing."""


def test_backoff_doubles_its_ceiling() -> None:
    """Each failure doubles the ceiling until the cap, and a reset begins again."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep, base=0.5, cap=3.0)
    assert [0.5, 1.0, 2.0, 3.0, 3.0] == [backoff.next_delay() for _ in range(5)]
    backoff.reset()
    assert 0.5 == backoff.next_delay()


def test_backoff_is_full_jitter() -> None:
    """The random number scales the whole delay, so clients that were cut together come back spread out."""
    backoff = Backoff(rng=iter([0.0, 0.25]).__next__, sleep=no_sleep, base=4.0)
    assert [0.0, 2.0] == [backoff.next_delay() for _ in range(2)]


def test_backoff_from_what_is_unreachable() -> None:
    """A delay can have a lower cap of its own; the failures are counted all the same."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep, base=2.0)
    assert [2.0, 4.0, 5.0, 16.0] == [backoff.next_delay(cap=5.0) for _ in range(3)] + [backoff.next_delay()]


@pytest.mark.parametrize("asked, expected", [(7.0, 7.5), (1e9, 3600.5), (-5.0, 0.5)])
def test_backoff_obeys_retry_after(asked: float, expected: float) -> None:
    """The delay is never below Retry-After, within reason."""
    assert expected == Backoff(rng=lambda: 1.0, sleep=no_sleep, base=0.5).next_delay(asked)


def test_backoff_survives_a_long_outage() -> None:
    """Thousands of failures do not overflow."""
    backoff = Backoff(rng=lambda: 1.0, sleep=no_sleep)
    assert {30.0} == {backoff.next_delay() for _ in range(3000)} - {0.5, 1.0, 2.0, 4.0, 8.0, 16.0}

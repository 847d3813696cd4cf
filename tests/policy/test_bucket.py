"""The token bucket: its burst, its rate, and its debt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.policy.bucket import Bucket, PublishBuckets


def test_a_burst_is_allowed_at_once_and_no_more() -> None:
    """A full bucket allows its burst without time passing, and the next call has to wait."""
    bucket = Bucket(2.0, 3.0, now=10.0)
    assert [0.0, 0.0, 0.0, 0.5] == [bucket.take(10.0) for _ in range(4)]


def test_credit_comes_back_at_the_rate() -> None:
    """After the time that the refusal named, one is allowed."""
    bucket = Bucket(2.0, 1.0, now=0.0)
    bucket.take(0.0)
    wait = bucket.take(0.0)
    assert (0.5, 0.0) == (wait, bucket.take(wait))


def test_credit_never_exceeds_the_burst() -> None:
    """A long quiet time buys no more than one burst."""
    bucket = Bucket(100.0, 2.0, now=0.0)
    assert [True, True, False] == [bucket.take(1e6) == 0 for _ in range(3)]


def test_a_batch_larger_than_the_burst_is_a_debt() -> None:
    """A batch above the burst is taken while there is any credit, and its debt delays the next one."""
    bucket = Bucket(10.0, 5.0, now=0.0)
    assert 0.0 == bucket.take(0.0, 25)
    assert pytest.approx(2.1) == bucket.take(0.0)
    assert pytest.approx(1.1) == bucket.take(1.0)
    assert 0.0 == bucket.take(2.1)


def test_a_refusal_costs_nothing() -> None:
    """A refused `take` does not delay the next one that is allowed."""
    bucket = Bucket(1.0, 1.0, now=0.0)
    bucket.take(0.0)
    assert [pytest.approx(1.0)] * 50 == [bucket.take(0.0) for _ in range(50)]
    assert 0.0 == bucket.take(1.0)


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9)), max_size=60),
)
def test_in_the_long_run_the_rate_holds(rate: int, burst: int, asked: list[tuple[int, int]]) -> None:
    """Whatever is asked whenever, what is granted stays under the burst, the rate, and one batch of debt."""
    bucket = Bucket(rate, burst, now=0.0)
    now, granted, largest = 0.0, 0, 0
    for wait, count in asked:
        now += wait / 8  # exact in binary, so that the sum below is too
        if bucket.take(now, count) == 0:
            granted += count
            largest = max(largest, count)
        assert granted <= burst + now * rate + largest


@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.tuples(st.integers(0, 20), st.integers(1, 9), st.integers(0, 99)), max_size=60),
)
def test_the_buckets_of_publishes_are_two_buckets(rate: int, size_rate: int, asked: list[tuple[int, int, int]]) -> None:
    """Whatever is asked whenever, they say what a bucket of messages and one of bytes say, the messages first."""
    both = PublishBuckets(rate, size_rate, now=0.0)
    messages, size_bucket = Bucket.steady(rate, 0.0), Bucket.steady(size_rate, 0.0)
    now = 0.0
    for wait, count, size in asked:
        now += wait / 8  # exact in binary, so that both count alike
        expected = ("", 0.0)
        if seconds := messages.take(now, count):
            expected = ("publishes_per_second", seconds)
        elif seconds := size_bucket.take(now, size):
            expected = ("bytes_per_second", seconds)
        assert expected == both.take(now, count, size)

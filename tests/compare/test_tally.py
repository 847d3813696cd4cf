"""What is counted of a listener: each message once, and its delay by one clock."""

from __future__ import annotations

import pytest

from oncecast.compare.tally import PublishTimes, Tally, percentile, sequence_of, text_of


def test_a_message_is_counted_once() -> None:
    """A second arrival at the same listener is a repeat; at another one it is a message."""
    times = PublishTimes("abcdef", 3)
    times.sent[1] = 10.0
    tally = Tally(times)
    first, second = tally.listener(), tally.listener()
    for seen, now in ((first, 10.5), (first, 10.6), (second, 11.0)):
        tally.arrive(seen, text_of("abcdef", 1, 40), now)
    assert (1, [0.5, 1.0], 2) == (tally.repeated, list(tally.delays), tally.received(0, 3))
    assert 0 == tally.received(2, 3)


@pytest.mark.parametrize("data", ["other 1 x", "abcdef", "abcdef x x", "", b"abcdef 1", None, {"a": 1}, "abcdef 3 x"])
def test_what_others_publish_is_left_out(data: object) -> None:
    """A message that is not of this run, or past its numbers, is no arrival."""
    tally = Tally(PublishTimes("abcdef", 3))
    tally.arrive(tally.listener(), data, 1.0)
    assert [] == list(tally.arrived)


@pytest.mark.parametrize("size", [24, 120, 65_536])
def test_a_text_has_its_size(size: int) -> None:
    """The data has as many bytes as asked for, and its number can be read."""
    text = text_of("abcdef", 199_999, size)
    assert (size, 199_999) == (len(text.encode()), sequence_of("abcdef", text))


@pytest.mark.parametrize("percent, expected", [(0, 1), (1, 1), (50, 5), (51, 6), (99, 10), (100, 10)])
def test_percentile(percent: float, expected: int) -> None:
    """It is the nearest rank."""
    assert expected == percentile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], percent)

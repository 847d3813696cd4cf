"""Which channels may hold too much: found by counting, with a bound on what is counted."""

from __future__ import annotations

import pytest

from oncecast.brokers import surplus as surplus_module
from oncecast.brokers.surplus import COUNT_MESSAGES, Surplus
from oncecast.message import Kind, Message, Retention


def messages(channels: str) -> list[Message]:
    """A message for each letter."""
    return [Message(n + 1, channel, b"", Kind.BINARY, None, 0.0) for n, channel in enumerate(channels)]


def test_a_channel_is_named_once_it_may_hold_well_over() -> None:
    """It is named again each time as many messages have come again."""
    surplus = Surplus(lambda channel: Retention(messages=80))
    most = 80 // 8 + COUNT_MESSAGES
    assert [[], [("a", 80)], [], [("a", 80)]] == [surplus.count(messages("a" * count)) for count in (most, 1, most, 1)]


def test_what_is_counted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the counts are dropped, and every channel is to be looked at."""
    monkeypatch.setattr(surplus_module, "COUNTED_CHANNELS", 2)
    surplus = Surplus(lambda channel: Retention())
    assert surplus.dropped
    surplus.dropped = False
    surplus.count(messages("ab"))
    assert not surplus.dropped
    surplus.count(messages("c"))
    assert (True, {}) == (surplus.dropped, surplus._appended)

"""The buffer of one subscription: where its application stands, when it is full, how it ends."""

from __future__ import annotations

import pytest

from oncecast import ClientMessage, Gap, Refused
from oncecast.client.base import CursorMoved, Received, StartQuery
from oncecast.client.feed import FEED_MOVES, Feed, FeedState


def got(number: int, channel: str = "c") -> Received:
    """A message."""
    return Received(ClientMessage(id=f"e-{number}", channel=channel, data=number, time=0.0))


def test_cursors_stand_before_what_waits() -> None:
    """A channel's cursor is where its application is, not where its buffer is."""
    mine = Feed(("x", "y"), StartQuery("after", "latest"), limit=10)
    assert {} == mine.cursors
    mine.take(CursorMoved("e-1", "x"))
    assert {"x": "e-1"} == mine.cursors
    mine.take(got(2, "x"))
    assert {"x": "e-1"} == mine.cursors
    mine.take(got(3, "y"))
    mine.take(Gap(channel="x", reason="slow", cursor="e-4"))
    assert {"x": "e-1"} == mine.cursors
    mine.pop(1)
    assert {"x": "e-2"} == mine.cursors
    mine.pop(9)
    assert {"x": "e-4", "y": "e-3"} == mine.cursors


async def test_full_and_drained() -> None:
    """A feed is parked when it is full, and active again once half of it has been taken out."""
    changes: list[int] = []
    mine = Feed(("c",), StartQuery("after", "e-0"), limit=4, on_change=lambda: changes.append(mine.turn))
    for number in range(1, 5):
        assert not mine.full
        mine.take(got(number))
    assert mine.full
    mine.park()
    mine.pop(1)
    states = [mine.state]
    await mine.room()
    mine.pop(1)
    states.append(mine.state)
    assert ([FeedState.PARKED, FeedState.ACTIVE], [0, 1]) == (states, changes)


async def test_the_end() -> None:
    """A feed that ends gives out what it holds and then its error, if any, and ends a wait."""
    mine, other = (Feed(("c",), StartQuery("after", "e-0"), limit=4) for _ in range(2))
    mine.take(got(1))
    mine.fail(Refused("no"))
    other.end()
    other.end()
    await mine.attached()  # there is something to take out first
    await mine.wait()
    assert [1] == [item.data for item in mine.pop(9) if isinstance(item, ClientMessage)]
    for _ in range(2):
        with pytest.raises(Refused, match="no"):
            mine.pop(9)
    await other.wait()
    assert ([], FeedState.ENDED) == (other.pop(9), other.state)


def test_the_table_is_whole() -> None:
    """Each state has its moves."""
    assert set(FeedState) == set(FEED_MOVES)

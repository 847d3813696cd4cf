"""A subscription as its application sees it: iterating, events, batches, and waits that are cancelled."""

from __future__ import annotations

import asyncio
import logging

import pytest

from oncecast import ClientMessage, Gap, GapError, Messages
from oncecast.client.base import Received, StartQuery
from oncecast.client.feed import Feed
from oncecast.client.gaps import GapWatch, OnGap

GAP = Gap(channel="c", reason="expired", missed_from="e-1", missed_to="e-4", cursor="e-4")


def got(number: int) -> Received:
    """A message."""
    return Received(ClientMessage(id=f"e-{number}", channel="c", data=number, time=0.0))


@pytest.fixture
async def feed() -> Feed:
    """What a connection fills."""
    return Feed(("c",), StartQuery("after", "e-0"), limit=10)


def messages_of(feed: Feed, on_gap: OnGap = None) -> Messages:
    """What an application has."""
    return Messages(feed, GapWatch(lambda gap: None, lambda: False, on_gap))


async def test_an_iteration_warns_of_a_gap(feed: Feed, caplog: pytest.LogCaptureFixture) -> None:
    """Once, and goes on behind it; the subscription says how many there were."""
    mine = messages_of(feed)
    feed.take(GAP)
    feed.take(got(5))
    assert 5 == (await anext(mine)).data
    assert [logging.WARNING] == [record.levelno for record in caplog.records]
    assert (1, GAP, None) == (mine.gap_count, mine.last_gap, mine.on_gap)


async def test_an_iteration_raises_a_gap(feed: Feed) -> None:
    """Once, where that is asked for; the next step is the message behind it."""
    mine = messages_of(feed, "raise")
    feed.take(GAP)
    feed.take(got(5))
    with pytest.raises(GapError):
        await anext(mine)
    assert {"c": "e-4"} == mine.cursors
    assert 5 == (await anext(mine)).data


@pytest.mark.parametrize("by_batch", [True, False])
async def test_events_and_batches_are_no_silence(feed: Feed, caplog: pytest.LogCaptureFixture, by_batch: bool) -> None:
    """An application that takes gaps out gets no warning, and no exception."""
    mine = messages_of(feed, "raise")
    feed.take(GAP)
    feed.take(got(5))
    events = mine.events()
    found = await mine.batch() if by_batch else [await anext(events), await anext(events)]
    assert [GAP, got(5).message] == found
    assert [] == caplog.records


async def test_a_cancelled_wait_ends_nothing(feed: Feed) -> None:
    """The same iterator goes on with the next event, and ends only with the subscription."""
    mine = messages_of(feed)
    events = mine.events()
    for _ in range(2):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await anext(events)
    feed.take(got(1))
    assert got(1).message == await anext(events)
    await mine.close()
    assert [] == [item async for item in events]


async def test_several_tasks(feed: Feed) -> None:
    """Each item goes to one of them, and one that finds nothing waits on instead of ending."""
    mine = messages_of(feed)
    seen: list[int] = []

    async def iterate() -> None:
        async for message in mine:
            seen.append(message.data)

    tasks = [asyncio.create_task(iterate()) for _ in range(3)]
    await asyncio.sleep(0)
    for number in range(1, 9):
        feed.take(got(number))
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
    await mine.close()
    await asyncio.wait_for(asyncio.gather(*tasks), 5)
    assert list(range(1, 9)) == sorted(seen)


async def test_what_has_arrived(feed: Feed) -> None:
    """Messages that have arrived are taken without waiting, with the cursors from before them."""
    mine = messages_of(feed)
    assert ({"c": "e-0"}, []) == mine.waiting()
    feed.take(got(1))
    assert ({"c": "e-0"}, [got(1).message]) == mine.waiting()
    ended = [mine.ended]
    await mine.close()
    assert [False, True] == [*ended, mine.ended]
    assert ({"c": "e-1"}, []) == await mine.batch_from()

"""Short polling: when it asks again at once, and when it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncecast.client import poll
from oncecast.client.base import Broken, CursorMoved, Received, Start, Timing
from oncecast.client.short_poll import ShortPoll

if TYPE_CHECKING:
    from tests.client.conftest import Drain, Log, Peer, Sleep, Talk


async def test_pages_and_pauses(
    peer: Peer,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    delays: list[float],
    sleep: Sleep,
    drain: Drain,
) -> None:
    """A full page is followed at once by the next, any other by a pause; the peer's close ends it."""

    async def script(talk: Talk) -> None:
        for start in ("latest", "e-3"):
            assert f"after={start}&" in (await talk.request())[0]
            await talk.send(log.page(start))

    monkeypatch.setattr(poll, "POLL_LIMIT", 3)
    peer.scripts = [script]
    transport = ShortPoll(peer.server, timing=Timing(interval=7), sleep=sleep)
    events, end = await drain(transport, {"c": Start("after", "latest")})
    assert Broken is type(end)
    assert ["e-1", "e-2", "e-3"] == [event.message.id for event in events if isinstance(event, Received)]
    assert [CursorMoved("e-3")] * 2 == [event for event in events if isinstance(event, CursorMoved)]
    assert [7] == delays


async def test_a_server_that_stops_says_how_long_to_stay_away(
    peer: Peer, log: Log, delays: list[float], sleep: Sleep, drain: Drain
) -> None:
    """Its answer counts, and the next request comes when it says."""

    async def script(talk: Talk) -> None:
        for after in ({}, {"Retry_After": "30"}, {"Retry_After": "-1"}):
            await talk.request()
            await talk.answer(200, {"messages": log.after("e-1"), "cursor": "e-3"}, **after)

    peer.scripts = [script]
    transport = ShortPoll(peer.server, timing=Timing(wait=9, interval=7), sleep=sleep)
    events, end = await drain(transport, {"c": Start("after", "e-1")})
    assert Broken is type(end)
    assert ["e-2", "e-3"] * 3 == [event.message.id for event in events if isinstance(event, Received)]
    assert [7, 30, 7] == delays

"""Short polling: when it asks again at once, and when it waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncecast import Broken, Timing
from oncecast.client import poll
from oncecast.client.base import CursorMoved, Received, StartQuery
from oncecast.client.short_poll import ShortPollTransport

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
    transport = ShortPollTransport(peer.endpoint, timing=Timing(interval=7), sleep=sleep)
    events, end = await drain(transport, {"c": StartQuery("after", "latest")})
    assert Broken is type(end)
    assert ["e-1", "e-2", "e-3"] == [event.message.id for event in events if isinstance(event, Received)]
    assert [CursorMoved("e-3")] * 2 == [event for event in events if isinstance(event, CursorMoved)]
    assert [7] == delays


async def test_a_full_page_that_is_repeated(
    peer: Peer,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    delays: list[float],
    sleep: Sleep,
    drain: Drain,
) -> None:
    """A cache that answers every query alike is not asked again at once."""

    async def script(talk: Talk) -> None:
        for _ in range(3):
            await talk.request()
            await talk.send(log.page("latest"))

    monkeypatch.setattr(poll, "POLL_LIMIT", 3)
    peer.scripts = [script]
    transport = ShortPollTransport(peer.endpoint, timing=Timing(interval=7), sleep=sleep)
    _, end = await drain(transport, {"c": StartQuery("after", "latest")})
    assert (Broken, [7, 7]) == (type(end), delays)

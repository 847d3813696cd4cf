"""Long polling: the first request fetches a cursor, later ones wait, and a server that won't wait is not flooded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from oncecast import Broken, Timing
from oncecast.client import poll
from oncecast.client.base import Received, StartQuery
from oncecast.client.long_poll import LongPollTransport

if TYPE_CHECKING:
    from tests.client.conftest import Drain, Log, Peer, Sleep, Talk


async def test_waits(
    peer: Peer,
    log: Log,
    monkeypatch: pytest.MonkeyPatch,
    delays: list[float],
    sleep: Sleep,
    drain: Drain,
) -> None:
    """After the first page and after a full one it asks without a wait, else with; an early empty answer pauses it."""
    asked = []

    async def script(talk: Talk) -> None:
        for start in ("e-3", "e-1", "e-3", "e-0", "e-3"):
            first, _, _ = await talk.request()
            asked.append(first.partition("?")[2].replace("&limit=3", ""))
            await talk.send(log.page(start))

    monkeypatch.setattr(poll, "POLL_LIMIT", 3)
    peer.scripts = [script]
    transport = LongPollTransport(peer.endpoint, timing=Timing(wait=9, interval=7), sleep=sleep)
    events, end = await drain(transport, {"c": StartQuery("after", "latest")})
    assert Broken is type(end)
    assert ["after=latest", *["after=e-3&wait=9"] * 3, "after=e-3"] == asked
    assert ["e-2", "e-3", "e-1", "e-2", "e-3"] == [event.message.id for event in events if isinstance(event, Received)]
    assert [7] * 3 == delays


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
    transport = LongPollTransport(peer.endpoint, timing=Timing(interval=7), sleep=sleep)
    _, end = await drain(transport, {"c": StartQuery("after", "latest")})
    assert (Broken, [7, 7]) == (type(end), delays)

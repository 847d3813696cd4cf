"""A page of messages: what is asked, and what the answer means, for both ways of polling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from oncecast import Broken, ClientMessage, Gap, Refused, Timing, Unavailable
from oncecast.client import poll
from oncecast.client.base import CursorMoved, Received, StartQuery
from oncecast.client.failures import Unsuited
from oncecast.client.long_poll import LongPollTransport
from oncecast.client.poll import PageReader
from oncecast.client.short_poll import ShortPollTransport

if TYPE_CHECKING:
    from oncecast.client.http import HttpConnection
    from tests.client.conftest import Drain, Log, Peer, Sleep, Talk

LATEST = StartQuery("after", "latest")
GAP = {"channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": "e-2", "cursor": "e-2"}


async def test_a_page(peer: Peer, connection: HttpConnection, log: Log) -> None:
    """Messages come first, then the cursor, from which the next page is asked for."""
    asked = []

    async def script(talk: Talk) -> None:
        asked.append((await talk.request())[0])
        await talk.send(log.page("e-1"))
        asked.append((await talk.request())[0])
        await talk.send(log.page("e-3"))

    peer.scripts = [script]
    pages = PageReader(connection, {"d": LATEST, "c": LATEST})
    first = await pages.page()
    second = await pages.page(wait=2.5)
    message = ClientMessage(id="e-2", channel="c", data="2é", event="gap", time=2.0)
    assert [Received(message), CursorMoved("e-3")] == [first[0], first[2]]
    assert [CursorMoved("e-3")] == second
    assert [
        "GET /v1/channels/c,d?after=latest&limit=100",
        "GET /v1/channels/c,d?after=e-3&limit=100&wait=2.5",
    ] == asked


@pytest.mark.parametrize("fields", [{"gap": GAP}, {"gap": GAP, "gaps": [GAP]}])
async def test_gaps_come_first(peer: Peer, connection: HttpConnection, fields: dict[str, Any]) -> None:
    """A page's gaps, one or several, precede its messages."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, {"messages": [], "cursor": "e-2", **fields})

    peer.scripts = [script]
    pages = PageReader(connection, {"c": StartQuery("last", "3")})
    gap = Gap(channel="c", reason="expired", missed_from="e-1", missed_to="e-2", cursor="e-2")
    assert [gap, CursorMoved("e-2")] == await pages.page()


async def test_etag(peer: Peer, connection: HttpConnection) -> None:
    """A page that left the cursor where it was is asked for again with its ETag, but for a wait without it."""
    tags = []

    async def script(talk: Talk) -> None:
        for status in (200, 200, 304, 200):
            tags.append((await talk.request())[1].get("if-none-match"))
            await talk.answer(status, b"" if status == 304 else {"messages": [], "cursor": "e-7"}, ETag='"7"')
        await talk.hold()

    peer.scripts = [script]
    pages = PageReader(connection, {"c": LATEST})
    moved = [CursorMoved("e-7")]
    assert [moved, moved, [], moved] == [
        await pages.page(),
        await pages.page(),
        await pages.page(),
        await pages.page(wait=1),
    ]
    assert [None, None, '"7"', None] == tags


async def test_full(peer: Peer, connection: HttpConnection, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page with as many messages as fit says that there may be more."""

    async def script(talk: Talk) -> None:
        for start in ("latest", "e-1"):
            await talk.request()
            await talk.send(log.page(start))

    monkeypatch.setattr(poll, "POLL_LIMIT", 3)
    peer.scripts = [script]
    pages = PageReader(connection, {"c": LATEST})
    assert [(4, True), (3, False)] == [(len(await pages.page()), pages.full) for _ in range(2)]


@pytest.mark.parametrize(
    "status, body, headers, expected, wait",
    [
        (400, {"error": {"code": "cursor_invalid", "message": "no cursor"}}, {}, Refused, None),
        (404, b"", {}, Unsuited, None),
        (429, b"", {"Retry_After": "3"}, Unavailable, 3.0),
        (200, b"<html>", {}, Broken, None),
        (200, {"messages": [{"id": "e-1"}], "cursor": "e-1"}, {}, Broken, None),
    ],
)
async def test_a_bad_answer(
    peer: Peer,
    connection: HttpConnection,
    status: int,
    body: object,
    headers: dict[str, str],
    expected: type[Exception],
    wait: float | None,
) -> None:
    """An answer that is no page is a refusal, or breaks the connection."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(status, body, **headers)

    peer.scripts = [script]
    with pytest.raises((Broken, Refused)) as caught:
        await PageReader(connection, {"c": LATEST}).page()
    assert expected is type(caught.value)
    assert wait == getattr(caught.value, "retry_after", None)


@pytest.mark.parametrize("way, expected", [(ShortPollTransport, [7, 30, 7]), (LongPollTransport, [30, 7])])
async def test_a_server_that_stops_says_how_long_to_stay_away(
    peer: Peer,
    log: Log,
    delays: list[float],
    sleep: Sleep,
    drain: Drain,
    way: type[ShortPollTransport | LongPollTransport],
    expected: list[float],
) -> None:
    """The next request is made after the answer's `Retry-After`."""

    async def script(talk: Talk) -> None:
        for after in ({}, {"Retry_After": "30"}, {"Retry_After": "-1"}):
            await talk.request()
            await talk.answer(200, {"messages": log.after("e-1"), "cursor": "e-3"}, **after)

    peer.scripts = [script]
    events, end = await drain(
        way(peer.endpoint, timing=Timing(wait=9, interval=7), sleep=sleep), {"c": StartQuery("after", "e-1")}
    )
    assert Broken is type(end)
    assert ["e-2", "e-3"] * 3 == [event.message.id for event in events if isinstance(event, Received)]
    assert expected == delays

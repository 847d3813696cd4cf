"""A server that sends anything at all: each transport takes it for a broken connection, and goes on from its place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from oncecast import AsyncClient, Refused, Timing
from oncecast.client.transports import TRANSPORTS

if TYPE_CHECKING:
    from tests.client.conftest import Log, Peer, Sleep, Talk

SECONDS = 5.0
DEEP = b"[" * 100_000 + b"]" * 100_000
BAD = {
    "no JSON": b"{",
    "nested too deeply": DEEP,
    "nested too deeply in a field": b'{"type": "gap", "messages": %b, "cursor": "e-1", "channel": %b}' % (DEEP, DEEP),
    "nothing": b"null",
    "a list": b"[1]",
    "numbers for everything": b'{"type": "message", "id": 1, "channel": 2, "data": 3, "cursor": 4, "messages": 5}',
    "no place": b'{"type": "subscribed", "messages": [], "channel": "c", "cursor": "e 1\\r\\n"}',
    "no id": b'{"type": "message", "messages": [], "channel": "c", "cursor": "", "data": 1, "id": "e 1", "time": 1}',
    "no UTF-8": b'{"type": "\xff"}',
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("what", BAD)
@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_what_is_no_answer(
    peer: Peer, log: Log, transport: str, what: str, sleep: Sleep, delays: list[float]
) -> None:
    """The client comes back after a pause, to the place where it was, and its application sees nothing of it."""

    async def bad(talk: Talk) -> None:
        if transport == "websocket":
            await talk.upgrade()
            await talk.frame()
            await talk.send(talk.codec.text(BAD[what]))
            await talk.hold()
            return
        await talk.request()
        if transport == "sse":
            await talk.send(HEAD + b"data: " + BAD[what] + b"\n\n")
        else:
            await talk.answer(200, BAD[what])
        await talk.hold()

    async def good(talk: Talk) -> None:
        await log.play(transport, talk, None)
        await talk.hold()

    peer.scripts = [bad, bad, good]
    timing = Timing(interval=0, wait=1)
    async with (
        asyncio.timeout(SECONDS),
        AsyncClient(
            f"http://127.0.0.1:{peer.port}", transports=(transport,), timing=timing, sleep=sleep, rng=lambda: 1.0
        ) as client,
    ):
        messages = client.subscribe("c", after="e-0")
        assert ["1é", "2é", "3é"] == [(await anext(messages)).data for _ in range(3)]
    assert [True, True] == [delay >= 0.5 for delay in delays[:2]]


@pytest.mark.parametrize("status", [200, 400])
async def test_what_is_no_acknowledgement(peer: Peer, status: int) -> None:
    """A publish that is answered with anything at all is refused."""

    async def bad(talk: Talk) -> None:
        await talk.request()
        await talk.answer(status, DEEP)

    peer.scripts = [bad]
    async with asyncio.timeout(SECONDS), AsyncClient(f"http://127.0.0.1:{peer.port}") as client:
        with pytest.raises(Refused):
            await client.publish("c", 1)

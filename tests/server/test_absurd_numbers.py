"""Absurd numbers in each field of each frame and query: a coded answer, soon, and little memory for it."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 60.0
COST_BYTES = 2 << 20
NUMBERS = ("9" * 18, "9" * 40, "-" + "9" * 40, "1e999", "9" * 100_000)
FIELDS = {
    "subscribe": ("channel", "after", "last", "since", "ref"),
    "unsubscribe": ("channel", "ref"),
    "publish": ("channel", "data", "data64", "event", "key", "ref"),
    "auth": ("token", "ref"),
}
QUERY = ("after", "last", "since", "wait", "limit", "envelope")


@pytest.mark.parametrize("kind, field", [(kind, field) for kind, fields in FIELDS.items() for field in fields])
async def test_in_a_frame(open_site: Open, kind: str, field: str) -> None:
    """Each frame is answered, the socket goes on, and the memory of it all is bounded."""
    site = await open_site()
    peer = await site.websocket("/v1/connect")
    tracemalloc.start()
    try:
        for number in NUMBERS:
            rest = "" if field == "channel" else ',"channel":"a"'
            text = f'{{"type":"{kind}"{rest},"{field}":{number}}}'.encode()
            await peer.send(encode_frame(Opcode.TEXT, text, mask=b"mask"))
            answer = await asyncio.wait_for(peer.frame(), SECONDS)
            assert answer["type"] in ("error", "subscribed", "gap", "published", "unsubscribed", "message"), answer
        assert tracemalloc.get_traced_memory()[1] < COST_BYTES
    finally:
        tracemalloc.stop()
    await peer.say(type="publish", channel="b", data=1, ref="after")
    while (await asyncio.wait_for(peer.frame(), SECONDS)).get("ref") != "after":
        pass


@pytest.mark.parametrize("field", QUERY)
async def test_in_a_query(open_site: Open, field: str) -> None:
    """Each request is answered with 200, or 400 or 414 and a code, within a moment of the loop's time."""
    site = await open_site()
    for number in NUMBERS:
        peer = await site.connect(f"GET /v1/channels/a?{field}={number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        began = time.thread_time()
        answer = await asyncio.wait_for(peer.answer(), SECONDS)
        assert answer.status in (200, 400, 414), answer
        assert time.thread_time() - began < 0.5

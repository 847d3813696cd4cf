"""Deflate bombs at a running server: 1009, within 2 MiB and 50 ms of the loop's time; nobody else is harmed."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

import pytest

from oncecast.server.settings import Settings
from oncecast.wire.ws_connection import CloseReceived
from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.server.cost import STALL_SECONDS, measuring

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Open

SECONDS = 60.0
COST_BYTES = int(2.25 * (1 << 20))  # 2 MiB, and what the test's own end of the socket takes


def ended(size: int) -> bytes:
    """Return a stream that ends (BFINAL) before the message does."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    return stream.compress(bytes(size)) + stream.flush()


BOMBS = {
    "one stream": compress_message(bytes(64 << 20), level=9),
    "a stream that ends early": ended(64 << 20),
    "many streams that end early": ended(64 << 10) * 500,
}


@pytest.mark.parametrize("measured", ["stall", "memory"])
@pytest.mark.parametrize("name", BOMBS)
async def test_a_bomb(
    open_site: Open, upgrade: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch, name: str, measured: str
) -> None:
    """The socket is closed with 1009 and the server takes the next one."""
    site = await open_site(Settings(port=0, deflate=True))
    opening = upgrade("/v1/connect").replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    peer = await site.connect(opening)
    assert b"permessage-deflate" in await peer.until(b"\r\n\r\n")
    wire = bytearray(encode_frame(Opcode.TEXT, BOMBS[name], mask=b"mask"))
    wire[0] |= 0x40  # RSV1
    with measuring(measured, monkeypatch) as cost:
        peer.writer.write(bytes(wire))
        event = await asyncio.wait_for(peer.event(), SECONDS)
    assert isinstance(event, CloseReceived)
    assert event.code == 1009
    assert cost.seconds < STALL_SECONDS
    assert cost.peak < COST_BYTES
    await site.websocket("/v1/connect")

"""Deflate bombs at a running server: 1009, within 2 MiB and 50 ms of the loop's time; nobody else is harmed."""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
import zlib
from typing import TYPE_CHECKING, Any

import pytest

from oncecast.server.settings import Settings
from oncecast.wire.ws_connection import CloseReceived
from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.server.conftest import Open

SECONDS = 60.0
STALL_SECONDS = 0.05 * (6 if sys.gettrace() else 1)  # under coverage each line costs several times as much
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
    me, times, run = asyncio.current_task(), [0.0], asyncio.Handle._run

    def timed(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        callback: Any = getattr(handle, "_callback", None)
        if getattr(callback, "__self__", None) is not me:
            times.append(time.thread_time() - began)

    if measured == "memory":
        tracemalloc.start()
    else:
        gc.freeze()  # a full collection of what other tests left would count as a callback's time
        monkeypatch.setattr(asyncio.Handle, "_run", timed)
    try:
        peer.writer.write(bytes(wire))
        event = await asyncio.wait_for(peer.event(), SECONDS)
        peak = tracemalloc.get_traced_memory()[1] if measured == "memory" else 0
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    assert isinstance(event, CloseReceived)
    assert event.code == 1009
    assert max(times) < STALL_SECONDS
    assert peak < COST_BYTES
    await site.websocket("/v1/connect")

"""Deadlines over real sockets: a slow connection is cut at its deadline, and the others go on.

The times are short, not waited for by the clock: each test waits for the server to act.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from msgspec.structs import replace

from oncecast.server import responder
from oncecast.server.framing import websocket as websocket_module
from oncecast.server.settings import Limits, Settings
from oncecast.wire.ws_connection import CloseReceived, PingReceived
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from tests.server.conftest import Open, Site

SECONDS = 60.0
SHORT = 0.3
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest_asyncio.fixture
async def site(open_site: Open) -> AsyncIterator[Site]:
    """A server with short deadlines, and a subscriber that must hear everything."""
    limits = Limits(head_seconds=SHORT, body_seconds=SHORT, keep_alive_seconds=SHORT)
    site = await open_site(Settings(port=0, limits=limits))
    site.server.app.settings = replace(site.server.app.settings, answer_seconds=SHORT)
    witness = await site.sse("w")
    yield site
    site.publish("w", b"still here")
    await asyncio.wait_for(witness.until(b"data: still here\n"), SECONDS)


async def test_a_head_that_dribbles_in(site: Site) -> None:
    """A byte from time to time does not keep a connection open: the head has one deadline."""
    peer = await site.connect()

    async def dribble() -> None:
        for byte in b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 10_000:
            await peer.send(bytes([byte]))
            await asyncio.sleep(SHORT / 10)

    dribbling = asyncio.create_task(dribble())
    answer = await asyncio.wait_for(peer.answer(), SECONDS)
    assert (408, "timeout", "close") == (answer.status, answer.code, answer.headers["connection"])
    assert b"" == await asyncio.wait_for(peer.all(), SECONDS)
    dribbling.cancel()
    await asyncio.wait({dribbling})


@pytest.mark.parametrize("framing", [b"Content-Length: 10000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_never_ends(site: Site, framing: bytes) -> None:
    """A body has one deadline too, however it is framed."""
    peer = await site.connect(b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n" + framing + b"\r\n\r\n")

    async def dribble() -> None:
        for _ in range(10_000):
            await peer.send(b"1\r\nx\r\n" if framing.startswith(b"T") else b"x")
            await asyncio.sleep(SHORT / 10)

    dribbling = asyncio.create_task(dribble())
    answer = await asyncio.wait_for(peer.answer(), SECONDS)
    assert (408, "timeout", "close") == (answer.status, answer.code, answer.headers["connection"])
    dribbling.cancel()
    await asyncio.wait({dribbling})


@pytest.mark.parametrize("data", [b"", HEALTH])
async def test_a_connection_that_is_idle(site: Site, data: bytes) -> None:
    """A connection with nothing to say is closed without a word, before its first request or after its last."""
    peer = await site.connect(data)
    got = await asyncio.wait_for(peer.all(), SECONDS)
    assert (b"HTTP/1.1 200 OK" if data else b"") == got.partition(b"\r\n")[0]
    assert got.endswith(b"\r\n\r\nok\n" if data else b"")


async def test_an_answer_that_is_never_read(site: Site) -> None:
    """A client that does not take its answers is cut off."""
    for number in range(60):
        site.publish("a", b"%06d" % number * 5000)
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", site.server.port))
    before = len(site.server.app.connections)
    peer.sendall(b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20)
    await site.until(lambda: len(site.server.app.connections) > before)
    await site.until(lambda: len(site.server.app.connections) == before)
    peer.close()


async def test_a_peer_that_does_not_close(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """After our end a peer has a moment to close its own; then it is cut off."""
    monkeypatch.setattr(responder, "LINGER_SECONDS", SHORT)
    before = len(site.server.app.connections)
    peer = await site.connect(b"nonsense\r\n\r\n")
    assert b"HTTP/1.1 400 " in await asyncio.wait_for(peer.all(), SECONDS)
    await site.until(lambda: len(site.server.app.connections) == before)


@pytest.mark.parametrize("protocol", ["oncecast.v1", None])
async def test_a_close_that_is_never_answered(
    site: Site, monkeypatch: pytest.MonkeyPatch, protocol: str | None
) -> None:
    """A WebSocket that does not answer our Close is cut off."""
    monkeypatch.setattr(websocket_module, "CLOSE_SECONDS", SHORT)
    peer = await site.websocket("/v1/channels/a", protocol=protocol)
    await peer.send(encode_frame(Opcode.PING, b"", mask=b"mask") * 1000)
    event = await asyncio.wait_for(peer.event(), SECONDS)
    while not isinstance(event, CloseReceived):
        event = await asyncio.wait_for(peer.event(), SECONDS)
    assert 4429 == event.code
    assert b"" == await asyncio.wait_for(peer.all(), SECONDS)


async def test_a_peer_that_never_answers_a_heartbeat(open_site: Open) -> None:
    """A WebSocket that says nothing through two heartbeats is taken for gone; one that answers stays."""
    site = await open_site(Settings(port=0, limits=Limits(heartbeat_seconds=SHORT)))
    silent = await site.websocket("/v1/channels/a", protocol=None)
    alive = await site.websocket("/v1/channels/a", protocol=None)

    async def answer() -> None:
        while True:
            if isinstance(await alive.event(), PingReceived):
                await alive.send(alive.codec.data_to_send())

    answering = asyncio.create_task(answer())
    await asyncio.wait_for(silent.all(), SECONDS)
    await site.until(lambda: len(site.server.app.connections) == 1)
    assert not answering.done()
    answering.cancel()
    await asyncio.wait({answering})

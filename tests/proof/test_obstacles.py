"""The proxy that stands in the way: each obstacle does what it says, and the open way changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

import pytest

from oncecast.server.server import Server
from oncecast.server.settings import Limits, Settings

from .obstacles import MATRIX, Kind, Obstacle, Obstacles, kind_of, scaled

UPGRADE = (
    b"GET /v1/connect HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Protocol: oncecast.v1\r\n\r\n"
)
STREAM = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
POLL = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT = b"GET /v1/channels/a?after=latest&wait=9 HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"


@pytest.fixture
async def proxy() -> AsyncIterator[Obstacles]:
    """A proxy before a real server."""
    server = Server(Settings(port=0, limits=Limits(heartbeat_seconds=0.1)))
    await server.start()
    async with Obstacles(("127.0.0.1", server.port)) as made:
        yield made
    await server.stop(0.1)


async def ask(proxy: Obstacles, request: bytes, seconds: float = 0.3) -> tuple[bytes, bool]:
    """Return what comes within some seconds, and whether that is all."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(request)
    got = b""
    try:
        async with asyncio.timeout(seconds):
            while data := await reader.read(65536):
                got += data
        return got, True
    except TimeoutError:
        return got, False
    finally:
        writer.close()


@pytest.mark.parametrize(
    "request_, kind",
    [
        (UPGRADE, Kind.WEBSOCKET),
        (STREAM, Kind.SSE),
        (WAIT, Kind.LONG_POLL),
        (POLL, Kind.SHORT_POLL),
        (POST, Kind.PUBLISH),
        (POLL.replace(b"/a", b"/a?wait=0"), Kind.SHORT_POLL),
    ],
)
async def test_the_open_way(proxy: Obstacles, request_: bytes, kind: Kind) -> None:
    """A request is classified by what it asks for, forwarded, and answered by the server."""
    assert kind is kind_of(request_)
    answer, _ = await ask(proxy, request_, seconds=0.2)
    expected = {Kind.WEBSOCKET: b"101", Kind.PUBLISH: b"201", Kind.LONG_POLL: b""}.get(kind, b"200")
    assert expected == answer[9:12]
    assert {kind: 1} == proxy.seen


async def test_all_that_is_open_is_cut(proxy: Obstacles) -> None:
    """What is open is cut at once, also what a client waits on; the next connection is served."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(UPGRADE)
    await reader.readuntil(b"\r\n\r\n")
    await proxy.cut()
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65536):
                pass
    writer.close()
    assert (await ask(proxy, POLL))[0].startswith(b"HTTP/1.1 200 ")


async def test_a_refusal(proxy: Obstacles) -> None:
    """The proxy answers by itself, unlike the server, until it is unblocked."""
    proxy.rules = {Kind.WEBSOCKET: Obstacle(status=403)}
    answer, ended = await ask(proxy, UPGRADE)
    assert (b"HTTP/1.1 403 No", True) == (answer.partition(b"\r\n")[0], ended)
    assert b"text/html" in answer
    proxy.unblock()
    assert (await ask(proxy, UPGRADE))[0].startswith(b"HTTP/1.1 101 ")


async def test_silence(proxy: Obstacles) -> None:
    """Nothing is answered, and nothing is closed."""
    proxy.rules = {Kind.SSE: Obstacle(silent=True)}
    assert (b"", False) == await ask(proxy, STREAM)


async def test_a_stripped_upgrade(proxy: Obstacles) -> None:
    """The server sees no handshake."""
    proxy.rules = {Kind.WEBSOCKET: Obstacle(strips_upgrade=True)}
    answer, _ = await ask(proxy, UPGRADE)
    assert answer[9:10] == b"4"


async def test_buffering(proxy: Obstacles) -> None:
    """An answer that ends comes whole, one that does not never comes."""
    proxy.rules = dict.fromkeys(Kind, Obstacle(buffered=True))
    assert (b"", False) == await ask(proxy, STREAM)
    answer, ended = await ask(proxy, POLL)
    assert (b"HTTP/1.1 200 ", True) == (answer[:13], ended)


async def test_a_cut(proxy: Obstacles) -> None:
    """The connection ends after a time, with what has come so far."""
    proxy.rules = {Kind.SSE: Obstacle(cut_after=0.1)}
    answer, ended = await ask(proxy, STREAM, seconds=5)
    assert (b"HTTP/1.1 200 ", True) == (answer[:13], ended)


async def test_a_server_that_is_gone() -> None:
    """The client is left without an answer."""
    async with Obstacles(("127.0.0.1", 1)) as proxy:
        assert (b"", True) == await ask(proxy, POLL)


def test_rows_are_scaled() -> None:
    """Only the times are; a row without any is the same."""
    assert {Kind.WEBSOCKET: Obstacle(cut_after=0.2)} == scaled(MATRIX["websocket-cut"], 0.1)
    assert MATRIX["all-silent"] == scaled(MATRIX["all-silent"], 0.1)


async def test_the_command(proxy: Obstacles) -> None:
    """Another process prints its port, and takes the names of rows."""
    command = [sys.executable, "-m", "tests.proof.obstacles", "--target", str(proxy.port), "--row", "all-silent"]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    other = Obstacles(("", 0))
    other.port = int(await process.stdout.readline())
    assert (b"", False) == await ask(other, STREAM)
    process.stdin.write(b"none\n")
    for _ in range(50):
        answer, _ = await ask(other, UPGRADE, seconds=0.1)
        if answer:
            break
    assert answer.startswith(b"HTTP/1.1 101 ")
    process.stdin.close()
    assert 0 == await process.wait()

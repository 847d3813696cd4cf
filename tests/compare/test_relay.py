"""The pipe that counts: its counts are what another pipe saw, its delay is that of each direction."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncecast.client.async_client import AsyncClient
from oncecast.client.base import anonymous
from oncecast.client.dialing import Endpoint
from oncecast.client.failures import Broken
from oncecast.client.http import HttpConnection
from oncecast.client.timing import Timing
from oncecast.client.transports import TRANSPORTS
from oncecast.client.url import ServerUrl
from oncecast.compare.listener import ComparedListener
from oncecast.compare.relay import Relay, Traffic
from oncecast.compare.tally import PublishTimes, Tally, text_of
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate
from tests.compare.conftest import until, url_of
from tests.compare.recorder import Recorder

MESSAGES = 5


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("tls", [False, True])
async def test_bytes_are_those_that_a_recording_pipe_saw(transport: str, tls: bool, tmp_path: Path) -> None:
    """Heads, answers, frames and TLS's records are counted, both ways, and nothing else is."""
    settings = Settings(port=0, broker="memory://", dev=tls, tls=tls)
    settings = with_certificate(settings, {"XDG_STATE_HOME": str(tmp_path)})
    server = Server(settings, demo=False)
    await server.start()
    trusted = ssl.create_default_context(cafile=settings.tls_cert[0]) if tls else None
    scheme = "https" if tls else "http"
    try:
        async with Recorder(server.port) as recorder:
            relay = Relay(url_of(recorder))
            await relay.start()
            times = PublishTimes("abcdef", MESSAGES)
            tally = Tally(times)
            url = ServerUrl(scheme, "localhost", server.port, "")
            listener = ComparedListener(
                transport,
                Endpoint(url, ssl_context=trusted, proxy=relay.proxy),
                "c",
                tally,
                timing=Timing(interval=0.05),
                authorize=anonymous,
            )
            task = asyncio.create_task(listener.run())
            await asyncio.wait_for(listener.attached.wait(), 60)
            async with AsyncClient(str(url), ssl_context=trusted) as client:
                for number in range(MESSAGES):
                    await client.publish("c", text_of("abcdef", number, 500))
            await until(lambda: tally.received(0, MESSAGES) == MESSAGES)
            task.cancel()
            await asyncio.wait({task})
            await until(lambda: relay.traffic.open == 0)
            await until(lambda: relay.traffic.down == len(recorder.down))
            assert (len(recorder.up), len(recorder.down)) == (relay.traffic.up, relay.traffic.down)
            assert (b"\x16" if tls else b"G") == bytes(recorder.up[:1])  # a handshake's record (RFC 8446 §5.1), or GET
            assert MESSAGES * 500 < relay.traffic.down
            await relay.close()
    finally:
        await server.stop(0.1)


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server that sends back what it gets, until the end of it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def _tunnel(relay: Relay) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection(relay.proxy.host, relay.proxy.port)
    writer.write(b"CONNECT any:1 HTTP/1.1\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def test_a_round_trip_takes_its_time(echo: int) -> None:
    """An answer comes no sooner than a whole round trip after its question, and opening takes another one."""
    relay = Relay(ServerUrl("http", "127.0.0.1", echo, ""), rtt=0.2)
    await relay.start()
    began = time.perf_counter()
    reader, writer = await _tunnel(relay)
    opened = time.perf_counter()
    assert 0.2 <= opened - began
    writer.write(b"a")
    assert b"a" == await asyncio.wait_for(reader.readexactly(1), 60)
    assert 0.198 <= time.perf_counter() - opened  # a timer may be early by its clock's resolution, each way
    writer.close()
    await relay.close()


@pytest.mark.parametrize("rtt", [0.0, 0.01])
async def test_much_arrives_whole_and_in_order(echo: int, rtt: float) -> None:
    """Bytes that are more than every buffer come through in their order, and the end after them."""
    relay = Relay(ServerUrl("http", "127.0.0.1", echo, ""), rtt=rtt)
    await relay.start()
    reader, writer = await _tunnel(relay)
    sent = b"".join(n.to_bytes(4, "big") for n in range(500_000))

    async def send() -> None:
        for start in range(0, len(sent), 100_000):
            writer.write(sent[start : start + 100_000])
            await writer.drain()
        writer.write_eof()

    sending = asyncio.create_task(send())
    async with asyncio.timeout(60):
        assert sent == await reader.read(-1)
        await sending
    assert (len(sent), len(sent)) == (relay.traffic.up, relay.traffic.down)
    writer.close()
    await relay.close()


async def test_a_server_that_is_away_is_named() -> None:
    """The listener behind the pipe sees an answer of a proxy, and the pipe knows why."""
    relay = Relay(ServerUrl("http", "127.0.0.1", 1, ""))
    await relay.start()
    connection = HttpConnection(
        Endpoint(ServerUrl("http", "127.0.0.1", 1, ""), proxy=relay.proxy), timing=Timing(connect=60)
    )
    with pytest.raises(Broken, match="answers 502"):
        await connection.request("GET", "/")
    assert "no server answers at http://127.0.0.1:1: connection refused" == relay.failure
    assert 0 == relay.traffic.opened
    await relay.close()


def test_connections_held() -> None:
    """The seconds of all connections add up, those that are open included."""
    traffic = Traffic(now=0.0)
    traffic.change(1.0, 1)
    traffic.change(2.0, 1)
    traffic.change(4.0, -1)
    assert (2, 1, 7.0) == (traffic.opened, traffic.open, traffic.at(6.0).held_seconds)

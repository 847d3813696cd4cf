"""The probes against peers that answer what no server of ours does: what they have seen is returned, and not raised."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from oncecast.client.dialing import Endpoint
from oncecast.client.failures import Broken
from oncecast.client.http import HttpConnection
from oncecast.client.url import ServerUrl
from oncecast.doctor.observations import EventDelays, Reading
from oncecast.doctor.probes import Examinee
from oncecast.wire.ws_connection import WebSocketConnection
from oncecast.wire.ws_handshake import accept_key

PING, PONG = b"\x89\x00", 0x8A
POLL = b'{"messages":[],"cursor":"e-1","gap":null}'
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nid: e-1\n\n"
SECONDS = 60.0


@asynccontextmanager
async def peer(answer: Callable[[bytes], bytes], opened: asyncio.Event | None = None) -> AsyncIterator[Examinee]:
    """Examine a peer that answers each head, pings once a socket is `opened`, and closes once the other side does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = answer(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answered)
        if opened is not None and answered.startswith(b"HTTP/1.1 101"):
            await opened.wait()
            writer.write(PING)
        while await reader.read(65536):
            pass
        writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        port = listening.sockets[0].getsockname()[1]
        yield Examinee(Endpoint(ServerUrl("http", "127.0.0.1", port, "")), "doctor", spread=0.0)
    finally:
        listening.close()


def whole(status: bytes, body: bytes) -> bytes:
    """Return an answer."""
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (status, len(body), body)


def as_another(head: bytes) -> bytes:
    """Answer as Oncecast but for publishes, which another server takes."""
    if head.startswith(b"POST"):
        return whole(b"201 Created", b"<p>Created.")
    return STREAM if b"event-stream" in head else whole(b"200 OK", POLL)


async def test_a_publish_that_another_server_takes() -> None:
    """Its answer has no id, so no message is looked for: not on a stream, and not by polls."""
    async with asyncio.timeout(SECONDS), peer(as_another) as examinee:
        assert EventDelays((), "a publish is answered 201") == await examinee.delays()
        assert [Reading("e-1")] * 2 == await examinee.readings(2, publish=True)


async def test_a_socket_that_breaks_at_its_pong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is cut while something is written on it is one that was cut."""
    write = HttpConnection.write

    async def breaking(self: HttpConnection, data: bytes) -> None:
        if data[:1] == bytes([PONG]):
            raise Broken("the connection broke: reset")
        await write(self, data)

    open_socket, opened = Examinee._open, asyncio.Event()

    async def opening(self: Examinee, connection: HttpConnection) -> WebSocketConnection:
        codec = await open_socket(self, connection)
        opened.set()
        return codec

    monkeypatch.setattr(HttpConnection, "write", breaking)
    monkeypatch.setattr(Examinee, "_open", opening)

    def answer(head: bytes) -> bytes:
        key = re.search(rb"(?i)sec-websocket-key: (\S+)", head)
        if key is None:
            return STREAM if b"event-stream" in head else whole(b"200 OK", POLL)
        accepted = accept_key(key[1].decode()).encode()
        upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Protocol: oncecast.v1"
        return b"HTTP/1.1 101 Switching\r\n%b\r\nSec-WebSocket-Accept: %b\r\n\r\n" % (upgrade, accepted)

    async with asyncio.timeout(SECONDS), peer(answer, opened) as examinee:
        socket, *_ = await examinee.quiet(0.5)
    assert ("WebSocket", "the connection broke: reset") == (socket.transport, socket.end)

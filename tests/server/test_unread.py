"""Peers that send and never read: each kind of connection meets a bound, over real sockets, plain and with TLS.

The server stops reading from such a peer (it can send no more), holds a bounded number of bytes for it, and closes it
without the kernel's help. To add a kind, add a row to `KINDS`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from oncecast.server import server as server_module
from oncecast.server.connection import Connection
from oncecast.server.settings import Limits, Settings
from oncecast.wire.ws_frames import Opcode, encode_frame

if TYPE_CHECKING:
    from tests.server.conftest import Bench, Open, Site

SECONDS = 60.0
HEARTBEAT = 0.2
HELD_BYTES = 512 << 10  # in the process: what one read is answered with, or one block
LIMITS = Limits(
    heartbeat_seconds=HEARTBEAT,
    answer_seconds=HEARTBEAT,
    frames_per_second=1_000_000,
    publishes_per_second=10_000_000,
    bytes_per_second=1 << 40,
)
HOST = b"Host: localhost\r\n"
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
V1 = b"GET /v1/connect HTTP/1.1\r\n" + HOST + UPGRADE + b"Sec-WebSocket-Protocol: oncecast.v1\r\n\r\n"
RAW = b"GET /v1/channels/a HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n"
EVENTS = b"GET /v1/channels/a HTTP/1.1\r\n" + HOST + b"Accept: text/event-stream\r\n\r\n"
POLL = b"GET /v1/channels/a?limit=5 HTTP/1.1\r\n" + HOST + b"\r\n"
LONG_POLL = b"GET /v1/channels/a?after=latest&wait=9 HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST /v1/channels/b HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\n1"


def text(data: bytes) -> bytes:
    """Return a masked text frame."""
    return encode_frame(Opcode.TEXT, data, mask=b"mask")


@dataclass(frozen=True)
class Kind:
    """What the peer opens with, and what it sends from then on, for as long as the server takes it.

    `published_to`: messages are published to its channel.
    """

    opening: bytes
    flood: bytes = b""
    published_to: bool = False


KINDS = {
    "acknowledgements": Kind(V1, text(b'{"type":"publish","channel":"b","data":1,"ref":"r"}') * 100),
    "errors": Kind(V1, text(b'{"type":"publish","channel":"","data":1}') * 100),
    "pongs": Kind(V1, encode_frame(Opcode.PING, b"x" * 125, mask=b"mask") * 100),
    "its own messages": Kind(RAW, text(b"x" * 100) * 100),
    "messages on a raw socket": Kind(RAW, published_to=True),
    "messages while it sends pongs": Kind(RAW, encode_frame(Opcode.PONG, b"", mask=b"mask"), published_to=True),
    "events": Kind(EVENTS, published_to=True),
    "events while it sends": Kind(EVENTS, b"x", published_to=True),
    "short polls": Kind(b"", POLL * 50),
    "long polls": Kind(b"", LONG_POLL * 50, published_to=True),
    "receipts": Kind(b"", POST * 50),
}


class Deaf:
    """The peer, in a thread: it sends, and reads nothing but the handshake of TLS."""

    def __init__(self, port: int, kind: Kind, tls: ssl.SSLContext | None) -> None:
        self._kind = kind
        self.over = False
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.settimeout(SECONDS)
        plain.connect(("127.0.0.1", port))
        self._socket = plain if tls is None else tls.wrap_socket(plain, server_hostname="127.0.0.1")
        self._socket.setblocking(False)

    def run(self) -> None:
        """Send until the connection fails, or the test says that it is over."""
        rest = self._kind.opening
        with self._socket:
            while not self.over:
                rest = rest or self._kind.flood
                try:
                    rest = rest[self._socket.send(rest) :] if rest else b""
                except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                    time.sleep(0.01)
                except OSError:
                    return
                if len(self._kind.flood) < len(POLL):  # a trickle, which the kernel takes for ever
                    time.sleep(0.001)


async def watch(site: Site, kind: Kind) -> tuple[int, bool]:
    """Wait until the server has closed; return the most bytes that it held unsent, and whether it read while full."""
    app, held, read = site.server.app, 0, False
    await site.until(lambda: bool(app.connections))
    async with asyncio.timeout(SECONDS):
        while app.connections:
            if kind.published_to:
                site.publish("a", b"z" * 20_000)
            for each in app.connections:
                assert isinstance(each, Connection)
                if each._transport is not None:
                    held = max(held, each._transport.get_write_buffer_size())
                read |= each._full and not each._paused
            await asyncio.sleep(0.005)
    return held, read


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("name", KINDS)
async def test_a_peer_that_reads_nothing(
    open_site: Open, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch, name: str, encrypted: bool
) -> None:
    """Nothing more is read from it once its socket is full, little is held for it, and it is closed.

    The kernel's own timeout is off: a peer that sends can put it off.
    """
    monkeypatch.setattr(server_module, "set_send_timeout", lambda *_: None)
    settings = Settings(port=0, limits=LIMITS)
    if encrypted:
        settings = replace(settings, tls_cert=(certificate[0],), tls_key=(certificate[1],))
    site = await open_site(settings)
    for _ in range(5):
        site.publish("a", b"y" * 20_000)
    tls = ssl.create_default_context(cafile=certificate[0]) if encrypted else None
    deaf = await asyncio.to_thread(Deaf, site.server.port, KINDS[name], tls)
    sending = asyncio.create_task(asyncio.to_thread(deaf.run))
    try:
        held, read = await watch(site, KINDS[name])
    finally:
        deaf.over = True
        await sending
    assert held < HELD_BYTES
    assert not read


@pytest.mark.parametrize("kind", ["events", "messages while it sends pongs"])
def test_a_peer_that_reads_a_little_stays(bench: Bench, kind: str) -> None:
    """A byte in each two heartbeats is enough; two whole ones without are not."""
    connection, transport = bench.connect(room=400)
    connection.receive(KINDS[kind].opening)
    bench.turn()
    bench.publish("a", b"1" * 1000)
    assert transport.paused
    for _ in range(10):
        bench.pass_time(15.0)
        bench.pass_time(15.0)
        transport.sent += transport.unsent[:1]
        del transport.unsent[:1]
        assert not transport.aborted
    passed = 0
    while not transport.aborted and passed < 9:
        bench.pass_time(15.0)
        passed += 1
    assert 3 == passed  # the first look finds the byte that was taken

"""A TLS connection beside a client that sends each byte itself: how it reads, how it is full, and how it ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from oncecast.server.read_budget import TURN_SECONDS, ReadBudget
from oncecast.server.settings import Limits, Settings
from oncecast.server.tls.channel import SLICE_BYTES
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.proof.tls_exchange import trusting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.server.conftest import Open, Site
    from tests.server.tls.conftest import Dial

SECONDS = 30.0
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\n1"
SSE = b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
POLL = b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
LONG = b"GET /v1/channels/a?after=latest&wait=20 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def settings(certificate: tuple[str, str], **limits: Any) -> Settings:
    """Return the settings of a server with TLS."""
    return Settings(port=0, tls_cert=(certificate[0],), tls_key=(certificate[1],), limits=Limits(**limits))


async def gone(site: Site) -> None:
    """Wait until the server has no connection."""
    await site.until(lambda: not site.server.app.connections)


class KeyUpdates:
    """Seals KeyUpdates that ask for one of the server's (RFC 8446 §4.6.3, §5.2, §7.2), which Python's `ssl` can't send.

    `sent` is how many records the client has sent under its first key; it can send nothing by `ssl` after these.
    """

    def __init__(self, log: Path, sent: int) -> None:
        named = {line.split()[0]: line.split()[2] for line in log.read_text().splitlines() if line[0] != "#"}
        self.secret = bytes.fromhex(named["CLIENT_TRAFFIC_SECRET_0"])
        self.sent = sent

    def expand(self, label: bytes, size: int) -> bytes:
        kind = hashes.SHA384() if len(self.secret) == 48 else hashes.SHA256()
        info = size.to_bytes(2) + bytes([6 + len(label)]) + b"tls13 " + label + b"\0"
        return HKDFExpand(kind, size, info).derive(self.secret)

    def __next__(self) -> bytes:
        inner = b"\x18\0\0\x01\x01" + b"\x16"
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2)
        mask = int.from_bytes(self.expand(b"iv", 12)) ^ self.sent
        key = self.expand(b"key", 32 if len(self.secret) == 48 else 16)
        record = head + AESGCM(key).encrypt(mask.to_bytes(12), inner, head)
        self.secret, self.sent = self.expand(b"traffic upd", len(self.secret)), 0
        return record


class Busy:
    """A connection that has read for a turn's time in each turn, so that what the others read has to wait."""

    def __init__(self, budget: ReadBudget) -> None:
        self.budget = budget
        self.over = False

    def go_on(self) -> None:
        self.budget.seconds = TURN_SECONDS
        if not self.over:
            self.budget.wait(self)

    def abort(self) -> None:
        raise AssertionError("it did not fail")


@contextlib.contextmanager
def busy(site: Site) -> Iterator[None]:
    """Leave no connection of a server any time to read in the turn in which it becomes readable."""
    others = [Busy(site.server.app.reading) for _ in range(2)]  # so that what is held waits for two turns at least
    for other in others:
        other.go_on()
    try:
        yield
    finally:
        for other in others:
            other.over = True


# -- reading


async def test_one_byte_at_a_time(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """A handshake and a request may be cut anywhere."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port, shake=False)
    client.step = 1
    await asyncio.wait_for(client.shake(), SECONDS)
    await client.send(HEALTH)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_a_request_that_comes_with_the_end_of_the_handshake(
    open_site: Open, certificate: tuple[str, str], dial: Dial
) -> None:
    """A request in the last bytes of the handshake is answered though the socket does not become readable again."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port, shake=False)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.do_handshake()
    await client.flush()
    await client.more()
    client.tls.do_handshake()
    client.tls.write(HEALTH)
    await client.flush()
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("record", [1, 1000, 1 << 14])
async def test_a_large_body(open_site: Open, certificate: tuple[str, str], dial: Dial, record: int) -> None:
    """A body of many records comes whole, whatever their size."""
    site = await open_site(settings(certificate, message_bytes=1 << 20, body_bytes=1 << 20))
    client = await dial(site.server.port)
    body = bytes(range(256)) * (record * 16 if record > 1 else 10)
    body = body[: 1 << 20]
    head = b"POST /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n"
    await client.send(head + b"Content-Length: %d\r\n\r\n" % len(body))
    for at in range(0, len(body), record):
        client.tls.write(body[at : at + record])
        if client.outgoing.pending > 1 << 16:
            await client.flush()
    await client.flush()
    assert (await client.until(b"}")).startswith(b"HTTP/1.1 201 ")
    await client.send(b"GET /v1/channels/a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert base64.b64encode(body) in await client.all()


# -- writing


@pytest.mark.parametrize("size, count", [(1_000, 800), (20_000, 40)], ids=["sent by the hub", "sent in pieces"])
async def test_a_reader_that_stops(
    open_site: Open, certificate: tuple[str, str], dial: Dial, size: int, count: int
) -> None:
    """A connection whose reader stops keeps a piece and the rest of one block, and the log keeps the other messages."""
    site = await open_site(settings(certificate, message_bytes=1 << 16))
    client = await dial(site.server.port)
    await client.send(SSE)
    await client.until(b"retry: 1000\n\n")
    (connection,) = site.server.app.connections
    channel = connection._transport  # type: ignore[attr-defined]
    channel.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    most = 0
    for number in range(count):
        site.publish("a", b"%06d" % number + b"x" * size)
        await asyncio.sleep(0)
        most = max(most, channel.get_write_buffer_size())
    assert 0 < most < 36_000  # twice 16 KiB, with what TLS adds; all the messages are 800,000 bytes
    heard = await client.until(b"%06d" % (count - 1) + b"x" * size)
    assert list(range(count)) == [int(each[:6]) for each in heard.split(b"data: ")[1:]]
    assert site.server.node.hub.counters.blocked
    await site.until(lambda: channel.get_write_buffer_size() == 0)


async def test_a_client_that_resets_while_it_is_written_to(
    open_site: Open, certificate: tuple[str, str], dial: Dial
) -> None:
    """The connection is forgotten, and the others get what is published."""
    site = await open_site(settings(certificate))
    clients = [await dial(site.server.port) for _ in range(2)]
    for client in clients:
        await client.send(SSE)
        await client.until(b"retry: 1000\n\n")
    clients[0].sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    clients[0].sock.close()
    for _ in range(3):
        site.publish("a", b"on")
        await asyncio.sleep(0)
    heard = b""
    while heard.count(b"data: on\n") < 3:
        heard += await clients[1].until(b"\n\n")
    await site.until(lambda: len(site.server.app.connections) == 1)


@pytest.mark.parametrize("close", [b"close", b"keep-alive"])
async def test_key_updates_of_a_client_that_reads_nothing(
    open_site: Open, certificate: tuple[str, str], dial: Dial, close: bytes, tmp_path: Path
) -> None:
    """The server keeps at most 64 KiB of the KeyUpdates that it is asked for, and the answer before comes whole."""
    site = await open_site(settings(certificate, message_bytes=1 << 20))
    site.publish("a", b"x" * (1 << 20))
    trust = trusting()
    trust.keylog_filename = str(tmp_path / "keys")
    client = await dial(site.server.port, trust, receive_bytes=1 << 14)
    await site.until(lambda: len(site.server.app.connections) == 1)
    (connection,) = site.server.app.connections
    channel = connection._transport  # type: ignore[attr-defined]
    channel.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    await client.send(POLL.replace(b"Host", b"Connection: " + close + b"\r\nHost"))
    await site.until(lambda: channel._sealed)
    answer = channel.get_write_buffer_size()
    updates = KeyUpdates(tmp_path / "keys", sent=1)
    flood = b"".join(next(updates) for _ in range(8_000))  # 216,000 bytes
    sending = asyncio.create_task(asyncio.get_running_loop().sock_sendall(client.sock, flood))
    most = 0
    for _ in range(200):
        await asyncio.sleep(0)
        most = max(most, channel.get_write_buffer_size())
    assert most <= answer + (64 << 10)
    assert b"x" * (1 << 20) in await client.until(b'x"')
    await sending


# -- the end


async def test_the_server_ends_with_close_notify(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """After the last answer come a close_notify and the end of the stream, so nobody can cut it short unseen."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.all()).startswith(b"HTTP/1.1 400 ")
    await client.send(b"what comes now is discarded")
    await client.say_goodbye()
    client.sock.close()
    await gone(site)


async def test_what_comes_behind_the_goodbye_is_discarded(
    open_site: Open, certificate: tuple[str, str], dial: Dial, tmp_path: Path
) -> None:
    """Neither a KeyUpdate nor what is no record resets an answer that may still be read, and none of it is kept."""
    site = await open_site(settings(certificate))
    trust = trusting()
    trust.keylog_filename = str(tmp_path / "keys")
    client = await dial(site.server.port, trust)
    await client.send(b"nonsense\r\n\r\n")
    assert (await client.all()).startswith(b"HTTP/1.1 400 ")
    (connection,) = site.server.app.connections
    channel = connection._transport  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client.sock, next(KeyUpdates(tmp_path / "keys", sent=1)))
    await loop.sock_sendall(client.sock, b"x" * 64)
    await site.until(lambda: channel._fault is not None)
    assert not channel.is_closing()
    sending = asyncio.create_task(loop.sock_sendall(client.sock, b"x" * (1 << 22)))
    while not sending.done():
        assert channel._incoming.pending <= SLICE_BYTES
        await asyncio.sleep(0)
    await sending
    client.sock.shutdown(socket.SHUT_WR)
    await gone(site)


async def test_a_close_frame_is_answered_with_the_same_code(
    open_site: Open, certificate: tuple[str, str], dial: Dial
) -> None:
    """An idle connection ends by a close_notify from either side."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await client.send(HEALTH)
    await client.until(b"\r\n\r\n")
    await client.say_goodbye()
    assert await client.all() in (b"", b'{"status":"ok"}')
    await gone(site)


@pytest.mark.parametrize("how", ["goodbye", "end", "goodbye and end", "fault"])
@pytest.mark.parametrize("kind", ["request", "frames"])
@pytest.mark.parametrize("waits", [False, True], ids=["idle", "busy"])
async def test_what_comes_before_the_end_is_handled(
    open_site: Open,
    certificate: tuple[str, str],
    dial: Dial,
    upgrade: Callable[..., bytes],
    kind: str,
    how: str,
    waits: bool,
) -> None:
    """What a client publishes just before it ends, or breaks TLS, is published, also where its turn comes later."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await site.until(lambda: len(site.server.app.connections) == 1)
    if kind == "frames":
        await client.send(upgrade("/v1/channels/a", protocol=None))
        await client.until(b"\r\n\r\n")
    count = 1 if kind == "request" else 2_000  # more frames than are handled in one slice
    client.tls.write(POST if kind == "request" else encode_frame(Opcode.TEXT, b"1", mask=b"mask") * count)
    if how.startswith("goodbye"):
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
    elif how == "fault":
        client.outgoing.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with busy(site) if waits else contextlib.nullcontext():
        await client.flush()
        if how.endswith("end"):
            client.sock.shutdown(socket.SHUT_WR)
        if kind == "request" and how != "fault":
            assert (await client.all()).startswith(b"HTTP/1.1 201 ")
        await gone(site)
    assert count == site.server.node.log.head


async def test_a_server_that_stops_while_an_end_waits(
    open_site: Open, certificate: tuple[str, str], dial: Dial
) -> None:
    """The end of a client whose last request waits for its turn does not keep a server from stopping."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await site.until(lambda: len(site.server.app.connections) == 1)
    (connection,) = site.server.app.connections
    client.tls.write(POST)
    with pytest.raises(ssl.SSLWantReadError):
        client.tls.unwrap()
    with busy(site):
        await client.flush()
        await site.until(lambda: connection._held is not None or not site.server.app.connections)  # type: ignore[attr-defined]
        await asyncio.wait_for(site.server.stop(SECONDS), SECONDS)
    assert (1, 0) == (site.server.node.log.head, len(site.server.app.connections))
    assert (await client.all()).startswith(b"HTTP/1.1 201 ")


@pytest.mark.parametrize("request_", [POLL, SSE], ids=["answer", "stream"])
@pytest.mark.parametrize("resets", [False, True], ids=["late", "reset"])
async def test_an_end_that_waits_for_room_has_a_deadline(
    open_site: Open, certificate: tuple[str, str], dial: Dial, request_: bytes, resets: bool
) -> None:
    """A client that ends and takes nothing of what is written is cut off in time, or at once if it resets."""
    late = {} if resets else {"answer_seconds": 0.2, "heartbeat_seconds": 0.2}
    site = await open_site(settings(certificate, message_bytes=1 << 20, **late))
    client = await dial(site.server.port)
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    if request_ is SSE:
        await client.send(SSE)
        await client.until(b"retry: 1000\n\n")
    for _ in range(8):
        site.publish("a", b"x" * (1 << 20))
    if request_ is not SSE:
        await client.send(request_)
    await site.until(lambda: any(c._full for c in site.server.app.connections))  # type: ignore[attr-defined]
    with contextlib.suppress(ssl.SSLError):
        client.tls.unwrap()
    await client.flush()
    if resets:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        client.sock.close()
    await gone(site)


async def test_an_end_without_a_goodbye_ends_one_direction(
    open_site: Open, certificate: tuple[str, str], dial: Dial
) -> None:
    """RFC 9112 §9.8: a server is prepared for an end without close_notify. The answer that is due is given."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await client.send(LONG)
    await site.until(lambda: any(c.phase.name == "WAITING" for c in site.server.app.connections))  # type: ignore[attr-defined]
    client.sock.shutdown(socket.SHUT_WR)
    assert b'{"messages":[]' in await client.all()
    await gone(site)


async def test_a_half_closed_client_gets_its_answer(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """RFC 8446 §6.1: a close_notify ends one direction. A long poll is then answered at once."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await client.send(LONG)
    await site.until(lambda: any(c.phase.name == "WAITING" for c in site.server.app.connections))  # type: ignore[attr-defined]
    await client.say_goodbye()
    assert b'{"messages":[]' in await client.all()
    await gone(site)


@pytest.mark.parametrize("request_", [b"", HEALTH[:9], SSE, LONG], ids=["silent", "in a head", "stream", "long poll"])
@pytest.mark.parametrize("how", ["goodbye", "end", "reset"])
async def test_a_client_that_goes(
    open_site: Open, certificate: tuple[str, str], dial: Dial, request_: bytes, how: str
) -> None:
    """However and whenever a client leaves, nothing of it stays, and no callback raises."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    if request_:
        await client.send(request_)
    if request_ is SSE:
        await client.until(b"retry: 1000\n\n")
    await site.until(lambda: len(site.server.app.connections) == 1)
    if how == "goodbye":
        await client.say_goodbye()
    elif how == "end":
        client.sock.shutdown(socket.SHUT_WR)
    else:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    if how == "reset":
        client.sock.close()
    await gone(site)
    site.publish("a", b"late")


async def test_bytes_that_are_no_record(open_site: Open, certificate: tuple[str, str], dial: Dial) -> None:
    """A damaged record ends the connection with the alert bad_record_mac (RFC 8446 §5.2), and no other connection."""
    site = await open_site(settings(certificate))
    client, other = await dial(site.server.port), await dial(site.server.port)
    client.tls.write(HEALTH)
    damaged = bytearray(client.outgoing.read())
    damaged[-1] ^= 1
    await asyncio.get_running_loop().sock_sendall(client.sock, damaged)
    with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
        await client.read()
    await other.send(HEALTH)
    assert (await other.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    await site.until(lambda: len(site.server.app.connections) == 1)


async def test_a_defect_at_the_beginning_closes_the_connection(
    open_site: Open, certificate: tuple[str, str], dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect at the start of a connection is logged and closes it, and the next connection is served."""
    site = await open_site(settings(certificate))

    def fail(connection: object) -> bool:
        raise ZeroDivisionError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(site.server.app, "admit", fail)
        client = await dial(site.server.port)
        with contextlib.suppress(ConnectionError), pytest.raises(ssl.SSLEOFError):
            await client.read()
    client = await dial(site.server.port)
    await client.send(HEALTH)
    assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_defect_of_the_reader_closes_the_connection(
    open_site: Open, certificate: tuple[str, str], dial: Dial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect of the reader is reported to the loop, and closes the socket."""
    site = await open_site(settings(certificate))
    client = await dial(site.server.port)
    await site.until(lambda: len(site.server.app.connections) == 1)
    (connection,) = site.server.app.connections

    def fail(self: object, data: bytes) -> None:
        raise ZeroDivisionError("a defect")

    reported: list[object] = []
    loop = asyncio.get_running_loop()
    with monkeypatch.context() as patch:
        patch.setattr(type(connection), "take", fail)
        patch.setattr(loop, "call_exception_handler", lambda context: reported.append(context["exception"]))
        await client.send(HEALTH)
        with contextlib.suppress(ConnectionError), pytest.raises(ssl.SSLEOFError):
            await client.read()
    assert ["ZeroDivisionError('a defect')"] == [repr(each) for each in reported]
    await gone(site)

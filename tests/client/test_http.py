"""The HTTP connection: URLs, reuse, time limits, and every way in which a network lets one down."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from typing import TYPE_CHECKING

import pytest

from oncecast import Broken, Refused, Timing, Unreachable
from oncecast.client import http
from oncecast.client.dialing import Endpoint
from oncecast.client.http import HttpConnection, Response
from oncecast.client.url import ServerUrl

if TYPE_CHECKING:
    from tests.client.conftest import Certificate, Peer, Talk

QUICK = Timing(connect=5, answer=5, idle=5)
HASTY = Timing(connect=5, answer=0.02, idle=0.02)


async def test_keep_alive(peer: Peer) -> None:
    """Requests go one after another on one connection, with the prefix in front of their paths."""
    seen = []

    async def script(talk: Talk) -> None:
        for n in range(2):
            seen.append(await talk.request())
            await talk.answer(200, b"%d" % n, X_N=str(n))
        await talk.hold()

    peer.scripts = [script]
    server = Endpoint(ServerUrl("http", "127.0.0.1", peer.port, "/p"))
    connection = HttpConnection(server, timing=QUICK)
    first = await connection.request("GET", "/a", [("X", "y")])
    second = await connection.request("POST", "/b", body=b"data")
    await connection.close()
    assert (Response(200, first.headers, b"0"), b"1", "1") == (first, second.body, second.headers["x-n"])
    assert ["GET /p/a", "POST /p/b"] == [request[0] for request in seen]
    assert ("y", server.url.authority, b"data") == (seen[0][1]["x"], seen[0][1]["host"], seen[1][2])


async def test_connection_close_is_obeyed(peer: Peer) -> None:
    """After `Connection: close` the next request opens a connection of its own."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"", Connection="close")

    peer.scripts = [script, script]
    connection = HttpConnection(peer.endpoint, timing=QUICK)
    assert [200, 200] == [(await connection.request("GET", "/")).status for _ in range(2)]
    assert [] == peer.scripts


@pytest.mark.parametrize("late", [False, True])
async def test_stale_connection_is_replaced(peer: Peer, late: bool) -> None:
    """A server that closed the idle connection, before or just as the next request is sent, costs no failure."""
    closed = asyncio.Event()

    async def leaves(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"")
        if late:
            await talk.request()
        else:
            talk.writer.close()
            await talk.writer.wait_closed()
        closed.set()

    async def stays(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"new")
        await talk.hold()

    peer.scripts = [leaves, stays]
    connection = HttpConnection(peer.endpoint, timing=QUICK)
    await connection.request("GET", "/")
    if not late:
        await closed.wait()
    assert b"new" == (await connection.request("GET", "/")).body
    await connection.close()


async def test_an_unread_answer_is_abandoned(peer: Peer) -> None:
    """A connection whose answer was not read to its end is not used again."""

    async def endless(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123")
        await talk.hold()

    async def next_one(talk: Talk) -> None:
        await talk.request()
        await talk.answer(204, b"")

    peer.scripts = [endless, next_one]
    connection = HttpConnection(peer.endpoint, timing=QUICK)
    assert 200 == (await connection.stream("GET", "/")).status
    assert 204 == (await connection.request("GET", "/")).status
    await connection.close()


@pytest.mark.parametrize(
    "sent, expected",
    [
        (b"", "the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "the server closed the connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n123", "the server closed the connection"),
        (b"SSH-2.0-x\r\n\r\n", "malformed response: its first line is not `HTTP/1.1 status reason`"),
    ],
)
async def test_a_broken_answer(peer: Peer, sent: bytes, expected: str) -> None:
    """An answer that is cut or is none breaks the connection, and never passes for a whole one."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(sent)

    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=QUICK)
    with pytest.raises(Broken) as caught:
        await connection.request("GET", "/")
    assert expected == str(caught.value)


async def test_a_silent_server(peer: Peer) -> None:
    """A server that never answers is given up after its time."""

    async def script(talk: Talk) -> None:
        await talk.hold()

    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=HASTY)
    with pytest.raises(Broken, match=r"the server sent nothing for 0\.02 s"):
        await connection.request("GET", "/")


async def test_a_reset(peer: Peer) -> None:
    """The error of a reset says so."""

    async def script(talk: Talk) -> None:
        await talk.reader.read(1)
        talk.writer.transport.abort()

    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=QUICK)
    with pytest.raises(Broken, match=r"the connection broke: connection reset|the server closed the connection"):
        await connection.request("POST", "/", body=bytes(1 << 20))


async def test_a_server_that_does_not_read(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that can't be sent is given up after its time, and does not hold up the close."""
    monkeypatch.setattr(http, "CLOSE_SECONDS", 0.02)
    release = asyncio.Event()

    async def script(talk: Talk) -> None:
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()

    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=HASTY)
    with pytest.raises(Broken, match="the connection broke: it took too long"):
        await connection.request("POST", "/", body=bytes(64 << 20))
    release.set()


async def test_an_answer_too_large(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer past the bound is not kept in memory."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, bytes(11))
        await talk.hold()

    monkeypatch.setattr(http, "ANSWER_BYTES", 10)
    peer.scripts = [script]
    with pytest.raises(Broken, match="larger than 10 bytes"):
        await HttpConnection(peer.endpoint, timing=QUICK).request("GET", "/")


async def test_unreachable() -> None:
    """A port without a listener has another error than a connection that breaks."""
    listener = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    connection = HttpConnection(Endpoint(ServerUrl("http", "127.0.0.1", port, "")), timing=QUICK)
    with pytest.raises(Unreachable) as caught:
        await connection.request("GET", "/")
    assert f"no server answers at http://127.0.0.1:{port}: connection refused" == str(caught.value)


@pytest.mark.parametrize(
    "error, expected",
    [
        (TimeoutError(), "it took too long"),
        (OSError(113, "No route to host"), "No route to host"),
        (OSError("odd"), "odd"),
    ],
)
async def test_why_it_is_unreachable(monkeypatch: pytest.MonkeyPatch, error: OSError, expected: str) -> None:
    """The reason is said in words."""

    async def fail(*_args: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr(asyncio, "open_connection", fail)
    with pytest.raises(Unreachable, match=f": {expected}$"):
        await HttpConnection(Endpoint(ServerUrl("http", "a.example", 80, "")), timing=QUICK).request("GET", "/")


async def test_read_and_write_need_a_connection() -> None:
    """Nothing is read from or written to what is closed."""
    connection = HttpConnection(Endpoint(ServerUrl("http", "a.example", 80, "")), timing=QUICK)
    with pytest.raises(Broken, match="closed"):
        await connection.read(1)
    with pytest.raises(Broken, match="closed"):
        await connection.write(b"x")


@pytest.mark.parametrize("trusted", [True, False])
async def test_tls(peer: Peer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, trusted: bool) -> None:
    """Over https a trusted certificate lets the request through; another is refused for good, by name."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(200, b"safe")
        await talk.hold()

    cert, key = certificate()
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    peer.scripts = [script]
    server = await asyncio.start_server(peer.talk, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    connection = HttpConnection(Endpoint(ServerUrl("https", "127.0.0.1", port, "")), timing=QUICK)
    if trusted:
        assert b"safe" == (await connection.request("GET", "/")).body
    else:
        with pytest.raises(Refused, match=f"the certificate of https://127.0.0.1:{port} is not trusted: self-signed"):
            await connection.request("GET", "/")
    await connection.close()
    server.close()


@pytest.mark.parametrize("cancelled", [True, False])
async def test_a_close_by_tls_that_is_not_answered(
    peer: Peer, certificate: Certificate, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """The socket is closed all the same, after a second, or as the close is cancelled."""

    async def script(talk: Talk) -> None:
        await talk.request()
        talk.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await talk.answer(200, b"safe")
        await closed.wait()
        talk.writer.transport.abort()

    closed = asyncio.Event()
    cert, key = certificate()
    monkeypatch.setenv("SSL_CERT_FILE", str(cert))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    peer.scripts = [script]
    server = await asyncio.start_server(peer.talk, "127.0.0.1", 0, ssl=context)
    connection = HttpConnection(
        Endpoint(ServerUrl("https", "127.0.0.1", server.sockets[0].getsockname()[1], "")), timing=QUICK
    )
    assert b"safe" == (await connection.request("GET", "/")).body
    assert connection._streams is not None
    sock = connection._streams[1].get_extra_info("socket")
    closing = asyncio.create_task(connection.close())
    await asyncio.sleep(0.05)
    waits = sock.fileno() != -1
    if cancelled:
        closing.cancel()
    await asyncio.wait((closing,))
    await asyncio.sleep(0)  # for the transport to let go of its socket
    ends = sock.fileno() == -1
    closed.set()
    server.close()
    assert waits
    assert ends


async def test_time_in_which_the_application_holds_the_loop_is_not_the_networks(peer: Peer) -> None:
    """An answer that arrived meanwhile is read, however late the deadline is looked at."""

    async def script(talk: Talk) -> None:
        await talk.request()
        asked.set()
        await release.wait()
        await talk.answer(200, b"late")
        await talk.hold()

    asked, release = asyncio.Event(), asyncio.Event()
    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=Timing(connect=5, answer=0.5, idle=5))
    request = asyncio.create_task(connection.request("GET", "/"))
    await asked.wait()
    release.set()
    await asyncio.sleep(0)
    time.sleep(1.5)  # noqa: ASYNC251 - the application's work, past the deadline
    assert b"late" == (await request).body
    await connection.close()


async def test_an_answer_that_does_not_end(peer: Peer) -> None:
    """Bytes that drip in keep an answer from being idle, not from having a deadline."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while True:
                await talk.send(b"x")
                await asyncio.sleep(0.005)

    peer.scripts = [script]
    connection = HttpConnection(peer.endpoint, timing=Timing(body=0.1))
    with pytest.raises(Broken, match=r"the server's answer has not ended within 0\.1 s"):
        await connection.request("GET", "/")


async def test_a_head_that_does_not_end(peer: Peer) -> None:
    """All of a head has the time for an answer: bytes that drip in, and interim responses, give it no more."""

    async def drip(talk: Talk) -> None:
        await talk.request()
        await talk.send(b"HTTP/1.1 200 OK\r\nX: ")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                await talk.send(b"x")
                await asyncio.sleep(0.02)

    async def hint(talk: Talk) -> None:
        await talk.request()
        with contextlib.suppress(ConnectionError):
            for _ in range(10):
                await talk.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                await asyncio.sleep(0.06)

    for script in (drip, hint):
        peer.scripts = [script]
        connection = HttpConnection(peer.endpoint, timing=Timing(answer=0.1))
        with pytest.raises(Broken, match=r"the server sent no whole head for 0\.1 s"):
            await connection.request("GET", "/")


@pytest.mark.slow
async def test_a_slow_upload_is_no_failure(peer: Peer) -> None:
    """Each piece of a body has the time of an answer: a line that moves is not given up."""

    async def script(talk: Talk) -> None:
        left = await talk.upload(pause=0.1)
        assert 0 == left
        await talk.answer(200, b"taken")
        await talk.hold()

    peer.scripts = [script]
    connection = HttpConnection(
        peer.endpoint, timing=Timing(answer=3)
    )  # a piece a tenth of a second: a busy machine has room
    body = bytes(12 << 20)
    began = time.monotonic()
    assert b"taken" == (await connection.request("POST", "/", body=body)).body
    assert time.monotonic() - began > 3.6
    await connection.close()

"""Connections that the server and the application give to each other, on real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncecast.asgi.oncecast import Oncecast
from oncecast.policy.limits import Limits
from oncecast.server.settings import Settings
from oncecast.server.tls.development import with_certificate
from tests.asgi.hosting.conftest import SECONDS, Beside, Dial, OwnApp, ask
from tests.proof.tls_exchange import trusting
from tests.server.conftest import handshake, parse_answer

APP = b"app GET /own 127.0.0.1 http"
POLL = b"GET /v1/channels/a?after=earliest HTTP/1.1\r\nHost: localhost\r\n\r\n"
OWN = b"GET /own HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_one_connection_serves_both_in_any_order(beside: Beside) -> None:
    """On one connection each request is answered by whose it is, again and again, also with bodies."""
    app = OwnApp()
    site = await beside(app)
    peer = await site.connect()
    for _ in range(3):
        assert APP == (await ask(peer, "/own")).body
        assert 201 == (await ask(peer, "/v1/channels/a", "Content-Type: text/plain", method="POST", body=b"x")).status
        answer = await ask(peer, "/up", method="POST", body=b"y" * 100_000)
        assert b"app POST /up 127.0.0.1 http" == answer.body
        assert "messages" in (await ask(peer, "/v1/channels/a?after=earliest")).json
        assert 200 == (await ask(peer, "/oncecast.js")).status
        assert b"app GET /v1/users 127.0.0.1 http" == (await ask(peer, "/v1/users")).body
    assert [b"y" * 100_000] * 3 == [body for body in app.bodies if body]
    assert 1 == len(site.server.app.connections)


async def test_pipelined_requests_are_answered_in_order(beside: Beside) -> None:
    """Requests of both that come at once are answered in their order."""
    site = await beside(OwnApp())
    peer = await site.connect(POLL + OWN + POLL + OWN + OWN + POLL)
    async with asyncio.timeout(SECONDS):
        answers = [await peer.answer() for _ in range(6)]
    assert [False, True, False, True, True, False] == [answer.body == APP for answer in answers]
    assert all(answer.status == 200 for answer in answers)


@pytest.mark.parametrize("first, second", [(POLL, OWN), (OWN, POLL)])
async def test_requests_may_come_byte_by_byte(beside: Beside, first: bytes, second: bytes) -> None:
    """However a request is cut on its way, it is answered by whose it is."""
    site = await beside(OwnApp())
    peer = await site.connect()
    async with asyncio.timeout(SECONDS):
        for request in (first, second, first):
            for at in range(len(request)):
                await peer.send(request[at : at + 1])
                await asyncio.sleep(0)
            assert (request == OWN) == ((await peer.answer()).body == APP)


async def test_a_body_that_looks_like_a_request_is_a_body(beside: Beside) -> None:
    """What comes behind an answer that was early is still the body of its request, and goes to nobody else."""
    site = await beside(OwnApp())
    peer = await site.connect()
    head = f"POST /early HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(POLL)}\r\n\r\n".encode()
    await peer.send(head)
    async with asyncio.timeout(SECONDS):
        assert b"app POST /early 127.0.0.1 http" == (await peer.answer()).body
    await peer.send(POLL)
    assert APP == (await ask(peer, "/own")).body
    assert "messages" in (await ask(peer, "/v1/channels/a?after=earliest")).json


async def test_another_way_to_write_a_path_changes_nothing(beside: Beside) -> None:
    """An encoded path of the server's, and one in absolute form, are answered by the server's rules."""
    site = await beside(OwnApp(Oncecast("memory://")))
    for path in ("/v1/channels/a", "/%761/channels/a", "http://localhost/v1/channels/a", "/v1/channels/a?x=/"):
        peer = await site.connect()
        assert 403 == (await ask(peer, path)).status
        assert 200 == (await ask(peer, "/own")).status
        assert 403 == (await ask(peer, path)).status


async def test_sockets_of_both_work(beside: Beside) -> None:
    """A WebSocket of the application and one of the server, each on a connection that was used before."""
    site = await beside(OwnApp())
    one, other = await site.connect(), await site.connect()
    for peer in (one, other):
        assert APP == (await ask(peer, "/own")).body
    async with asyncio.timeout(SECONDS):
        await one.send(handshake("/echo", protocol=None))
        assert (await one.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await one.say(type="hello")
        assert {"type": "hello"} == await one.frame()
        await other.send(handshake("/v1/connect"))
        assert (await other.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await other.say(type="subscribe", channel="a")
        assert "subscribed" == (await other.frame())["type"]
        one.close()
        await site.until(lambda: len(site.server.app.connections) == 1)


async def test_draining_lets_an_answer_be_made(beside: Beside) -> None:
    """At the stop an idle connection of the application's ends, an answer comes, a socket ends, then its life does."""
    app = OwnApp()
    site = await beside(app)
    idle, late, socket = await site.connect(), await site.connect(), await site.websocket("/echo", protocol=None)
    assert APP == (await ask(idle, "/own")).body
    await late.send(OWN.replace(b"/own", b"/late"))
    async with asyncio.timeout(SECONDS):
        await app.asked.wait()
        stopping = asyncio.create_task(site.server.stop(SECONDS))
        assert b"" == await idle.all()
        await socket.all()
        assert ["lifespan.startup"] == app.life
        app.go.set()
        answer = parse_answer(await late.all())
        await stopping
    assert b"app GET /late 127.0.0.1 http" == answer.body
    assert ["lifespan.startup", "lifespan.shutdown"] == app.life


async def test_a_head_that_never_ends_is_cut(beside: Beside) -> None:
    """The server's limits hold for a head of the application's: its size, and its time."""
    limits = Limits(header_bytes=4096, head_seconds=1)
    site = await beside(OwnApp(), Settings(port=0, app="own:app", limits=limits))
    large, slow = await site.connect(), await site.connect()
    for peer in (large, slow):
        assert APP == (await ask(peer, "/own")).body
    await slow.send(b"GET /own HTTP/1.1\r\nX: ")
    async with asyncio.timeout(SECONDS):
        for _ in range(8):
            await large.send(b"GET /own HTTP/1.1\r\nX: " + b"x" * 1000)
            await asyncio.sleep(0)
        assert (await large.all())[:12] in (b"HTTP/1.1 400", b"")  # a reset may take the answer with it
        assert b"" == await slow.all()
        await site.until(lambda: not site.server.app.connections)


async def test_a_full_server_answers_503(beside: Beside) -> None:
    """Past the limit of connections, a request of the application's is refused as the server's own are."""
    limits = Limits(connections=1)
    site = await beside(OwnApp(), Settings(port=0, app="own:app", limits=limits))
    first, second = await site.connect(), await site.connect()
    assert APP == (await ask(first, "/own")).body
    answer = await ask(second, "/own")
    assert (503, "unavailable") == (answer.status, answer.code)
    assert APP == (await ask(first, "/own")).body


async def test_a_trusted_proxy_says_whose_a_request_is(
    beside: Beside, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Client and scheme are those that a trusted proxy names, and TLS makes the scheme https by itself."""
    settings = Settings(port=0, app="own:app", trusted_proxies=("127.0.0.1",))
    site = await beside(OwnApp(), settings)
    peer = await site.connect()
    answer = await ask(peer, "/own", "X-Forwarded-For: 192.0.2.7", "X-Forwarded-Proto: https")
    assert b"app GET /own 192.0.2.7 https" == answer.body
    assert b"app GET /own 127.0.0.1 http" == (await ask(peer, "/own")).body


async def test_tls_serves_both(beside: Beside, tmp_path: Path) -> None:
    """Over TLS too one connection serves both, and the application sees https."""
    settings = with_certificate(Settings(port=0, app="own:app", dev=True, tls=True), {"XDG_STATE_HOME": str(tmp_path)})
    site = await beside(OwnApp(), settings, tls=trusting())
    peer = await site.connect()
    for _ in range(2):
        assert b"app GET /own 127.0.0.1 https" == (await ask(peer, "/own")).body
        assert "messages" in (await ask(peer, "/v1/channels/a?after=earliest")).json
    large = await ask(peer, "/up", method="POST", body=b"y" * 300_000)
    assert b"app POST /up 127.0.0.1 https" == large.body
    await peer.send(handshake("/echo", protocol=None))
    async with asyncio.timeout(SECONDS):
        await peer.until(b"\r\n\r\n")
        await peer.say(type="hello")
        assert {"type": "hello"} == await peer.frame()


async def test_a_body_that_comes_with_the_end_over_tls(beside: Beside, dial: Dial, tmp_path: Path) -> None:
    """An application that has not read a body yet still gets it whole, as over TCP, where its client has ended."""
    settings = with_certificate(Settings(port=0, app="own:app", dev=True, tls=True), {"XDG_STATE_HOME": str(tmp_path)})
    app = OwnApp()
    site = await beside(app, settings)
    client = await dial(site.server.port)
    await site.until(lambda: len(site.server.app.connections) == 1)
    (connection,) = site.server.app.connections
    channel = connection._transport  # type: ignore[attr-defined]
    body = b"y" * 65_700  # uvicorn pauses past 64 KiB: at the last read of the channel's, which has the end as well
    client.tls.write(b"POST /slow HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    await client.say_goodbye()
    await site.until(lambda: channel._ended)
    app.go.set()
    await site.until(lambda: len(app.bodies) == 1)
    assert [body] == app.bodies
    await site.until(lambda: not site.server.app.connections)


@pytest.mark.parametrize(
    "header, address",
    [
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", "192.0.2.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x09\x0a\x00\x00\x01\x00\x01\x00\x02", "192.0.2.9"),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    ],
    ids=["v1", "v2", "unknown"],
)
async def test_the_proxy_protocol_says_whose_connection_it_is(beside: Beside, header: bytes, address: str) -> None:
    """The application sees the address of the header, with each request; the limit is that one's."""
    limits = Limits(connections_per_address=1)
    settings = Settings(port=0, app="own:app", proxy_protocol=True, trusted_proxies=("127.0.0.1",), limits=limits)
    site = await beside(OwnApp(), settings)
    peer = await site.connect(header + OWN)
    async with asyncio.timeout(SECONDS):
        assert f"app GET /own {address} http".encode() == (await peer.answer()).body
    assert "messages" in (await ask(peer, "/v1/channels/a?after=earliest")).json
    assert f"app GET /own {address} http".encode() == (await ask(peer, "/own")).body
    second = await site.connect(header + OWN)
    async with asyncio.timeout(SECONDS):
        status = 200 if address == "127.0.0.1" else 429  # loopback has no limit
        assert status == (await second.answer()).status

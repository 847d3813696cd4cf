"""The access log and the audit log of a server: a line for each request, stream and socket, and for each refusal."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from oncecast.policy.limits import Limits
from oncecast.server.connection import Connection
from oncecast.server.exposition import render
from oncecast.server.logs import Logs
from oncecast.server.measures import measure
from oncecast.server.server import Server
from oncecast.server.settings import AuthSettings, ChannelRule, Settings
from oncecast.wire.ws_connection import Role, WebSocketConnection
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.token_rig import SECRET, claims, token

if TYPE_CHECKING:
    from tests.server.conftest import Site

MASK = b"\x01\x02\x03\x04"


class Logged:
    """A server whose logs are read from a pipe."""

    def __init__(self, server: Server, read: int) -> None:
        self.server = server
        self._read = read
        self.rest = b""

    async def ask(self, data: bytes, *, until: bytes = b"") -> bytes:
        """Send bytes on a new connection, and read up to a mark or the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(data)
        got = await (reader.readuntil(until) if until else reader.read())
        writer.close()
        return got

    async def lines(self, count: int, log: str = "access") -> list[dict[str, Any]]:
        """Wait for that number of lines of a log, and return them without their times."""
        got: list[dict[str, Any]] = []
        async with asyncio.timeout(60):
            while len(got) < count:
                try:
                    self.rest += os.read(self._read, 1 << 16)
                except BlockingIOError:
                    await asyncio.sleep(0.01)
                    continue
                *whole, self.rest = self.rest.split(b"\n")
                found = map(json.loads, whole)
                got += [line for line in found if line.pop("log") == log and line.pop("time")]
        return got


Begin = Callable[..., Awaitable[Logged]]


@pytest_asyncio.fixture
async def begin() -> AsyncIterator[Begin]:
    """Start servers with an access log and an audit log of JSON."""
    running: list[Server] = []
    ends: list[int] = []

    async def begin(**settings: Any) -> Logged:
        read, write = os.pipe()
        os.set_blocking(read, False)
        ends.extend((read, write))
        wanted = Settings(**{"port": 0, "access_log": "json", "audit_log": "json", **settings})
        server = Server(wanted, logs=Logs(write, None, time.monotonic))
        await server.start()
        running.append(server)
        return Logged(server, read)

    yield begin
    for server in running:
        await server.stop(1.0)
    for end in ends:
        os.close(end)


def get(path: str, *headers: str, close: bool = True) -> bytes:
    """Return a GET."""
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, *(["Connection: close"] if close else [])]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def upgrade(path: str, protocol: str = "oncecast.v1") -> bytes:
    """Return the handshake of a WebSocket."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    names = [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
    return get(path, "Upgrade: websocket", "Connection: Upgrade", key, "Sec-WebSocket-Version: 13", *names, close=False)


async def test_the_metrics_count_what_has_no_line(begin: Begin) -> None:
    """The refusals that the audit log has had, and the lines that were lost: of these there are none here."""
    logged = await begin(origins=("https://app.example",))
    for _ in range(3):
        await logged.ask(get("/v1/channels/a", "Origin: https://foreign.example"))
    found = render(measure(logged.server.app)).decode()
    assert "oncecast_audited_total 3.0\n" in found
    assert "oncecast_log_lines_dropped_total 0.0\n" in found


async def test_a_request_has_one_line(begin: Begin) -> None:
    """Each request has one line with identity and answer, also a remembered answer and an unreadable request."""
    logged = await begin()
    await logged.ask(get("/v1/channels/a?last=1&token=x", close=False) * 3 + get("/healthz"))
    await logged.ask(b"GET / HTTP/1.1\r\nbad\r\n\r\n")
    *polls, probe, fault = await logged.lines(5)
    assert [("GET", "/v1/channels/a?last=1&...", 200)] * 3 == [(p["method"], p["path"], p["status"]) for p in polls]
    assert {"address": "127.0.0.1", "method": "GET", "path": "/healthz", "status": 200} == {
        key: probe[key] for key in ("address", "method", "path", "status")
    }
    assert probe["bytes"] > 100
    assert probe["seconds"] >= 0
    unread = {"address": "127.0.0.1", "method": "-", "path": "-", "status": 400, "code": "request_invalid"}
    assert unread == fault


async def test_a_client_that_leaves_before_its_answer(begin: Begin) -> None:
    """The line of a client that leaves before its answer has no status."""
    logged = await begin()
    _, writer = await asyncio.open_connection("127.0.0.1", logged.server.port)
    writer.write(get("/v1/channels/a?after=latest&wait=20", close=False))
    app = logged.server.app
    async with asyncio.timeout(60):
        while not any(isinstance(c, Connection) and c.phase.value == "waiting" for c in app.connections):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    reset = struct.pack("ii", 1, 0)  # a client that only half closes is answered
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    writer.transport.abort()
    (line,) = await logged.lines(1)
    assert ("/v1/channels/a?after=latest&wait=20", False) == (line["path"], "status" in line)


async def test_a_stream_has_its_line_at_its_end(begin: Begin) -> None:
    """With how long it was, and the bytes of it alone."""
    logged = await begin()
    started = logged.server.app.monotonic()
    poll = get("/v1/channels/a", close=False)
    stream = get("/v1/channels/a", "Accept: text/event-stream", close=False)
    await logged.ask(poll + stream, until=b"retry: 1000\n\n\r\n")
    _, line = await logged.lines(2)
    assert ("events", 200, "/v1/channels/a") == (line["as"], line["status"], line["path"])
    assert 200 < line["bytes"] < 500
    assert 0 <= line["seconds"] <= logged.server.app.monotonic() - started + 0.01
    assert "close" not in line


async def test_how_a_socket_ended(begin: Begin) -> None:
    """The peer's code, ours at a fault of the protocol, or 1006 where it just went."""
    logged = await begin()
    answers = {"peer": 4001, "fault": 1002, "gone": 1006}
    for name, code in answers.items():
        frame = {
            "peer": WebSocketConnection(Role.CLIENT, max_message_bytes=100).close(4001, "bye"),
            "fault": b"\xff\x80" + MASK,
            "gone": b"",
        }[name]
        reader, writer = await asyncio.open_connection("127.0.0.1", logged.server.port)
        writer.write(upgrade("/v1/channels/a"))
        await reader.readuntil(b'"ref":null}')
        writer.write(frame)
        if frame:
            await reader.read()
        writer.close()
        (line,) = await logged.lines(1)
        assert ("socket", 101, code) == (line["as"], line["status"], line["close"]), name
        assert line["bytes"] > 100


async def test_a_server_that_stops(begin: Begin) -> None:
    """A request that is open when the server stops has its line, with the code of the goodbye."""
    logged = await begin()
    reader, writer = await asyncio.open_connection("127.0.0.1", logged.server.port)
    writer.write(upgrade("/v1/channels/a"))
    await reader.readuntil(b'"ref":null}')
    await logged.server.stop(0.1)
    writer.close()
    (line,) = await logged.lines(1)
    assert 1012 == line["close"]


async def test_who_asked(begin: Begin) -> None:
    """The subject of a token; not that of the request before, where this one is refused before it is known."""
    rules = {"*": ChannelRule(subscribe="token", publish="server")}
    logged = await begin(auth=AuthSettings(secret=SECRET), channels=rules, trusted_proxies=("127.0.0.1",))
    now = int(time.time())
    bearer = f"Authorization: Bearer {token(claims(iat=now, exp=now + 60))}"
    origin = "Origin: https://evil.example"
    client = "X-Forwarded-For: 192.0.2.7"
    one = get("/v1/channels/a", bearer, client, close=False)
    await logged.ask(one + get("/v1/channels/a", bearer, origin, client, close=False) + get("/v1/channels/a", client))
    lines = await logged.lines(3)
    assert [("192.0.2.7", "ann", 200), ("192.0.2.7", None, 403), ("192.0.2.7", None, 401)] == [
        (line["address"], line.get("subject"), line["status"]) for line in lines
    ]


async def test_a_connection_that_gives_way_has_a_line(begin: Begin) -> None:
    """One that has not said whose it is ends for a newer one, past the number of those that may be under way."""
    limits = Limits(handshakes=8)
    logged = await begin(proxy_protocol=True, trusted_proxies=("127.0.0.1",), limits=limits, access_log="off")
    sockets = [await asyncio.open_connection("127.0.0.1", logged.server.port) for _ in range(9)]
    assert b"" == await sockets[0][0].read()
    assert [{"code": "handshake_cut", "by": "connect", "address": "127.0.0.1"}] == await logged.lines(1, "audit")
    for _, writer in sockets:
        writer.close()


async def test_refusals_have_a_line(begin: Begin) -> None:
    """Each way to be refused: an answer, a line of a batch, a frame, a close."""
    rules = {"*": ChannelRule(subscribe="public", publish="server")}
    logged = await begin(auth=AuthSettings(secret=SECRET), channels=rules, access_log="off")
    now = int(time.time())
    ann = token(claims(iat=now, exp=now + 60))
    body = b'{"channel":"b","data":1}'
    post = f"POST /v1/publish HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ann}\r\nConnection: close\r\n"
    await logged.ask(get("/v1/channels/a", "Origin: https://evil.example"))
    await logged.ask(get("/v1/channels/a?token=bad"))
    await logged.ask(b"GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n")
    await logged.ask(post.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
    frame = encode_frame(Opcode.TEXT, b'{"type":"publish","channel":"c","data":1}', mask=MASK)
    await logged.ask(upgrade("/v1/channels/a") + frame, until=b"forbidden")
    await logged.ask(
        upgrade("/v1/channels/d", "") + encode_frame(Opcode.TEXT, b"hello", mask=MASK), until=b"may publish"
    )
    address = {"address": "127.0.0.1"}
    assert [
        {"code": "origin_refused", "by": "http", "status": 403, **address, "channel": "a"},
        {"code": "unauthorized", "by": "http", "status": 401, **address, "channel": "a"},
        {"code": "host_refused", "by": "http", "status": 421, **address},
        {"code": "forbidden", "by": "line", "status": 403, **address, "subject": "ann", "channel": "b"},
        {"code": "forbidden", "by": "frame", "status": 403, **address, "channel": "c"},
        {"code": "forbidden", "by": "close", "status": 4403, **address},
    ] == await logged.lines(6, "audit")


async def test_a_reload_turns_the_logs_on_and_off(begin: Begin) -> None:
    """For what begins from then on."""
    logged = await begin(access_log="off", audit_log="off")
    await logged.ask(get("/healthz"))
    await logged.ask(get("/", "Host: evil.example"))
    logged.server.reload(Settings(port=0, access_log="json"))
    await logged.ask(get("/readyz"))
    (line,) = await logged.lines(1)
    assert "/readyz" == line["path"]
    logged.server.reload(Settings(port=0))
    await logged.ask(get("/healthz"))
    assert not any(type(connection) is not Connection for connection in logged.server.app.connections)


async def test_off_is_the_plain_connection(open_site: Callable[..., Awaitable[Site]]) -> None:
    """Without an access log nothing is done for one; a server in another program has no logs at all."""
    site = await open_site(Settings(port=0, access_log="text"))
    peer = await site.connect()
    await site.until(lambda: len(site.server.app.connections) == 1)
    (connection,) = site.server.app.connections
    assert Connection is type(connection)
    assert site.server.app.logs is None
    peer.close()

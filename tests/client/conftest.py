"""A scripted peer: a server on loopback that plays one script per connection, and can cut it anywhere.

A script is a coroutine function that is given a `Talk`. Invariant: what no script was written for is closed at once and
counted in `Peer.unexpected`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from oncecast import Broken, Messages, Refused, Timing
from oncecast.client.base import StartQuery, Transport, TransportEvent
from oncecast.client.dialing import Endpoint
from oncecast.client.http import HttpConnection
from oncecast.client.url import ServerUrl
from oncecast.errors import OncecastError
from oncecast.server.server import Server as Node
from oncecast.server.settings import Limits, Settings
from oncecast.wire.ws_connection import DataReceived, Role, WebSocketConnection
from oncecast.wire.ws_handshake import accept_response, parse_upgrade

Certificate = Callable[[], tuple[Path, Path]]
Script = Callable[["Talk"], Awaitable[None]]
Items = Callable[[Messages, int], Awaitable[list[Any]]]
Until = Callable[[Callable[[], bool]], Awaitable[None]]
Sleep = Callable[[float], Awaitable[None]]
Drain = Callable[[Transport, Mapping[str, StartQuery]], Awaitable[tuple[list[TransportEvent], OncecastError]]]


class Talk:
    """One connection, from the peer's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = WebSocketConnection(Role.SERVER)
        self._frames: list[dict[str, Any]] = []

    async def request(self) -> tuple[str, dict[str, str], bytes]:
        """Read a request: its first line without the version, its headers, its body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")[:-2]
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return first.removesuffix(" HTTP/1.1"), headers, body

    async def upload(self, pause: float) -> int:
        """Read a request's body slowly, a pause before each 256 KiB; return what is missing at its end."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        left = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
        while left:
            await asyncio.sleep(pause)
            left -= len(await self.reader.readexactly(min(left, 1 << 18)))
        return left

    async def send(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, status: int, body: object = None, **headers: str) -> None:
        """Send a whole answer, its body in JSON unless it is bytes."""
        await self.send(response(status, body, **headers))

    async def hold(self) -> None:
        """Wait until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    async def upgrade(
        self, protocol: str | None = "oncecast.v1", cut: int | None = None, heartbeat: str | None = None
    ) -> int:
        """Answer a WebSocket handshake, or as many bytes of it as `cut`; return how long the whole answer is."""
        _, asked, _ = await self.request()
        head = accept_response(
            parse_upgrade("GET", (1, 1), asked),
            protocol,
            () if heartbeat is None else (("Oncecast-Heartbeat", heartbeat),),
        )
        await self.send(head[:cut])
        return len(head)

    async def frame(self) -> dict[str, Any]:
        """Read the client's next frame."""
        while not self._frames:
            for event in self.codec.receive(await self.reader.read(65536)):
                assert isinstance(event, DataReceived)
                self._frames.append(json.loads(event.data))
        return self._frames.pop(0)

    async def say(self, **fields: object) -> None:
        """Send a frame."""
        await self.send(self.codec.text(json.dumps(fields).encode()))


class Peer:
    """The server. Append scripts before the client needs them."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.failures: list[BaseException] = []
        self.unexpected = 0
        self._playing: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, for a client."""
        return Endpoint(ServerUrl.parse(f"http://127.0.0.1:{self.port}"))

    async def finish(self) -> None:
        """Wait until every script has been played to its end."""
        while self._playing:
            await asyncio.wait(self._playing)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Play the next script."""
        task = asyncio.current_task()
        assert task is not None
        self._playing.add(task)
        task.add_done_callback(self._playing.discard)
        try:
            if self.scripts:
                await self.scripts.pop(0)(Talk(reader, writer))
            else:
                self.unexpected += 1
        except (AssertionError, asyncio.IncompleteReadError) as error:
            self.failures.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """A peer that listens; a script that failed fails the test."""
    made = Peer()
    server = await asyncio.start_server(made.talk, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(30):
        yield made
        server.close()
        await made.finish()
    assert [] == made.failures


@pytest.fixture
async def connection(peer: Peer) -> AsyncIterator[HttpConnection]:
    """A connection to the peer."""
    made = HttpConnection(peer.endpoint, timing=Timing())
    yield made
    await made.close()


@pytest.fixture
def delays() -> list[float]:
    """What was slept, in seconds."""
    return []


@pytest.fixture
def sleep(delays: list[float]) -> Sleep:
    """A sleep that takes no time and is written down."""

    async def record(seconds: float) -> None:
        delays.append(seconds)
        await asyncio.sleep(0)

    return record


def response(status: int, body: object = None, **headers: str) -> bytes:
    """Return an answer with a Content-Length. Underscores in the headers' names stand for hyphens."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\n{lines}Content-Length: {len(content)}\r\n\r\n".encode() + content


async def drain(transport: Transport, starts: Mapping[str, StartQuery]) -> tuple[list[TransportEvent], OncecastError]:
    """Return all events of a transport, and what it ended with."""
    events = []
    try:
        async with contextlib.aclosing(transport(starts)) as stream:
            async for event in stream:
                events.append(event)
    except (Broken, Refused) as end:
        return events, end
    raise AssertionError("a transport never ends without saying why")


@pytest.fixture(name="drain")
def _drain() -> Drain:
    """The function `drain`."""
    return drain


class Log:
    """A server's log of one channel: what each transport answers to a start, in bytes."""

    def __init__(self, count: int) -> None:
        self.messages = [
            {"id": f"e-{n}", "channel": "c", "data": f"{n}é", "event": "gap" if n == 2 else None, "time": float(n)}
            for n in range(1, count + 1)
        ]

    def after(self, start: str) -> list[dict[str, Any]]:
        """Return the messages after a cursor; `latest` stands before the first, for then nothing was published."""
        seq = 0 if start == "latest" else int(start.removeprefix("e-"))
        return self.messages[seq:]

    def page(self, start: str) -> bytes:
        """Answer a poll."""
        messages = self.after(start)
        here = "e-0" if start == "latest" else start
        cursor = messages[-1]["id"] if messages else here
        return response(200, {"messages": messages, "cursor": cursor, "gap": None})

    def stream(self, start: str) -> bytes:
        """Answer an SSE request."""
        here = "e-0" if start == "latest" else start
        events = [f"retry: 0\nid: {here}\n\n"]
        for message in self.after(start):
            event = f"event: {message['event']}\n" if message["event"] else ""
            events.append(f"id: {message['id']}\n{event}data: {json.dumps(message, ensure_ascii=False)}\n\n")
            events.append(f": keep-alive\nid: {message['id']}\n\n")
        chunks = [event.encode() for event in events]
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)

    def frames(self, start: str) -> bytes:
        """Answer a subscribe frame."""
        codec = WebSocketConnection(Role.SERVER)
        here = "e-0" if start == "latest" else start
        frames: list[dict[str, Any]] = [{"type": "subscribed", "channel": "c", "cursor": here, "ref": "c"}]
        frames += [{"type": "message", **message} for message in self.after(start)]
        return b"".join(codec.text(json.dumps(frame, ensure_ascii=False).encode()) for frame in frames)

    async def play(self, transport: str, talk: Talk, cut: int | None) -> bool:
        """Answer as the transport asks, at most `cut` bytes; say whether the answer was longer."""
        if transport == "websocket":
            head = await talk.upgrade(cut=cut)
            if cut is not None:
                cut -= head
                if cut < 0:
                    return True
            answer = self.frames((await talk.frame())["after"])
        else:
            first, _, _ = await talk.request()
            found = re.search(r"after=([\w-]+)", first)
            assert found is not None
            answer = self.stream(found[1]) if transport == "sse" else self.page(found[1])
        await talk.send(answer[:cut])
        return cut is not None and cut < len(answer)


@pytest.fixture
def log() -> Log:
    """A log with three messages."""
    return Log(3)


@pytest.fixture
async def real() -> AsyncIterator[Node]:
    """A real server, with short heartbeats."""
    made = Node(Settings(port=0, limits=Limits(heartbeat_seconds=0.2)))
    await made.start()
    yield made
    await made.stop(0.2)


async def items(messages: Messages, count: int) -> list[Any]:
    """Take out the data of `count` messages."""
    async with asyncio.timeout(10):
        return [(await anext(messages)).data for _ in range(count)]


@pytest.fixture(name="items")
def _items() -> Items:
    """The function `items`."""
    return items


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds; ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it is about what no event tells
            await asyncio.sleep(0.005)


@pytest.fixture(name="until")
def _until() -> Until:
    """The function `until`."""
    return until


def write_certificate(directory: Path) -> tuple[Path, Path]:
    """Write a self-signed certificate for 127.0.0.1, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_file, key_file


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    """Make a certificate and its key."""
    return lambda: write_certificate(tmp_path)

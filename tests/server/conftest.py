"""What the tests of the server share: a connection on a transport that is not there, and a real server on loopback.

`Bench` runs connections on a clock that the test moves: nothing sleeps and no loop is needed. `Site` runs a server in
this process, with `Peer` at the other end of a real socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio

from oncecast.brokers.base import Done
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.node import ChannelPolicy, Node
from oncecast.http.service import Asset, Rules
from oncecast.message import Draft, Kind
from oncecast.policy.hosts import Hosts
from oncecast.policy.origin import Origins
from oncecast.protocol.base import TransportSettings
from oncecast.server.app import App
from oncecast.server.capacity import Capacity
from oncecast.server.connection import Connection
from oncecast.server.exposition import render
from oncecast.server.guest import Guest
from oncecast.server.measures import measure
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.driver import run_now
from oncecast.testing.history_broker import HistoryBroker
from oncecast.wire.ws_connection import (
    CloseReceived,
    DataReceived,
    ProtocolFailed,
    Role,
    WebSocketConnection,
    WebSocketEvent,
)
from oncecast.wire.ws_frames import Opcode, encode_frame

EPOCH = "e0"
WALL = 1_764_000_000.0


# -- no sockets


class FakeTransport(asyncio.Transport):
    """Keeps what is written. `room` is how many bytes the socket takes before the rest is unsent."""

    def __init__(
        self, protocol: Connection, *, room: int | None = None, tls: bool = False, sock: socket.socket | None = None
    ) -> None:
        super().__init__({"sslcontext": object() if tls else None, "socket": sock})
        self.protocol = protocol
        self.sent = bytearray()
        self.unsent = bytearray()
        self.room = room
        self.reading = True
        self.eof_written = False
        self.closing = False
        self.aborted = False
        self.shutdown_error: OSError | None = None
        self.paused = False
        self.limits: tuple[int | None, int | None] = (None, None)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limits = (high, low)

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.eof_written, "a write after the end"
        free = len(data) if self.room is None else max(0, self.room - len(self.sent))
        self.sent += data[:free]
        self.unsent += data[free:]
        if self.unsent and not self.paused:
            self.paused = True
            self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self.shutdown_error is not None:
            raise self.shutdown_error
        self.eof_written = True

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closing or self.aborted

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading, "resumed twice"
        self.reading = True

    # -- what the peer does

    def drain(self) -> None:
        """Take all that is unsent, and from now on whatever comes."""
        self.room = None
        self.sent += self.unsent
        self.unsent.clear()
        if self.paused:
            self.paused = False
            self.protocol.resume_writing()

    def take(self) -> bytes:
        """Return what has been sent, and forget it."""
        data = bytes(self.sent)
        if self.room is not None:
            self.room -= len(data)
        self.sent.clear()
        return data


class SlowBroker(MemoryBroker):
    """Numbers a publish only when the test says `answer`."""

    def __init__(self, epoch: str, wall: Callable[[], float]) -> None:
        super().__init__(epoch, wall)
        self.slow = False
        self._held: list[tuple[Sequence[Draft], Done]] = []

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        if self.slow:
            self._held.append((drafts, done))
        else:
            super().publish(drafts, done)

    def answer(self) -> None:
        """Publish the oldest that waits."""
        super().publish(*self._held.pop(0))


@dataclass
class Bench:
    """An app on a clock that only the test moves. `turn` runs what is due at the end of the loop's turn."""

    seconds: float = 1000.0
    step: float = 0.0  # how far the clock goes at each look: work that takes time
    scheduled: list[Callable[[], None]] = field(default_factory=list)
    app: App = field(init=False)
    broker: SlowBroker = field(init=False)

    def __post_init__(self) -> None:
        self.broker = SlowBroker(EPOCH, lambda: WALL)
        node = Node(
            self.broker,
            policy=lambda channel: ChannelPolicy(),
            max_bytes=1 << 24,
            monotonic=self.now,
            schedule=self.scheduled.append,
        )
        run_now(node.start())
        self.app = App(
            node,
            rules=Rules(
                settings=TransportSettings(),
                hosts=Hosts(),
                origins=Origins(frozenset({"https://friend.example"})),
            ),
            pages={"/": Asset("text/html; charset=utf-8", b"<!doctype html>", '"tag"')},
            monotonic=self.now,
            schedule=self.scheduled.append,
            capacity=Capacity(100, 8),
            wall=lambda: WALL,
            collect=lambda done: done(render(measure(self.app))),
        )

    def now(self) -> float:
        self.seconds += self.step
        return self.seconds

    def connect(
        self, *, room: int | None = None, tls: bool = False, sock: socket.socket | None = None
    ) -> tuple[Connection, FakeTransport]:
        """Return a new connection and its transport; `sock` is what streams write to past the transport."""
        connection = Connection(self.app, None if sock is None or tls else sock.fileno())
        transport = FakeTransport(connection, room=room, tls=tls, sock=sock)
        connection.connection_made(transport)
        return connection, transport

    def ask(self, data: bytes, *, tls: bool = False) -> bytes:
        """Send bytes on a new connection and return what comes back at once."""
        connection, transport = self.connect(tls=tls)
        connection.receive(data)
        self.turn()
        return transport.take()

    def publish(self, channel: str, data: bytes, kind: Kind = Kind.JSON) -> None:
        """Publish behind the server's back, and deliver it."""
        MemoryBroker.publish(self.broker, (Draft(channel, data, kind),), lambda outcomes: None)
        self.turn()

    def answer_all(self, broker: HistoryBroker) -> None:
        """Answer all that the node asks its broker, and deliver every channel, until nothing is left to do."""
        self.turn()
        while broker.reads or broker.wanted:
            while broker.reads:
                broker.answer()
                self.turn()
            broker.confirm(*broker.wanted)
            broker.wanted.clear()
            self.turn()
        broker.hand_over()
        self.turn()

    def turn(self) -> None:
        """End the loop's turn."""
        while self.scheduled:
            self.scheduled.pop(0)()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the wheel notice."""
        self.seconds += seconds + 0.2
        self.app.tick()
        self.turn()


@pytest.fixture
def bench() -> Bench:
    """An app without a loop."""
    return Bench()


# -- answers


@dataclass(frozen=True)
class Answer:
    """A parsed answer; `rest` is what came after it."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(self.json["error"]["code"])


@pytest.fixture
def history_broker(bench: Bench) -> HistoryBroker:
    """The broker of the bench's app from now on: it answers when the test says so, and has one message on `a`."""
    broker = HistoryBroker("e0", lambda: WALL, at_once=False, only_wanted=True)
    broker.append(Draft("a", b"old", Kind.TEXT))
    bench.app.node = Node(
        broker,
        policy=lambda channel: ChannelPolicy(),
        max_bytes=1 << 24,
        monotonic=bench.now,
        schedule=bench.scheduled.append,
    )
    run_now(bench.app.node.start())
    return broker


def parse_answer(data: bytes, *, head_only: bool = False) -> Answer:
    """Read one whole answer."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    assert separator, f"no whole answer: {data[:200]!r}"
    first, *lines = head.decode("latin-1").split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", first)
    assert match, first
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name.lower() not in headers, f"{name} stands twice"
        headers[name.lower()] = value
    length = 0 if head_only else int(headers.get("content-length", "0"))
    assert len(rest) >= length, "the body is cut off"
    return Answer(int(match[1]), headers, rest[:length], rest[length:])


def parse_answers(data: bytes) -> list[Answer]:
    """Read every answer in `data`."""
    answers = []
    while data:
        answers.append(parse_answer(data))
        data = answers[-1].rest
    return answers


@pytest.fixture
def parse() -> Callable[..., Answer]:
    """Read one answer."""
    return parse_answer


@pytest.fixture
def parse_all() -> Callable[[bytes], list[Answer]]:
    """Read every answer."""
    return parse_answers


# -- real sockets


class Peer:
    """The client's end of a real connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.codec = WebSocketConnection(Role.CLIENT, mask_key=lambda: b"mask")
        self._events: list[WebSocketEvent] = []

    async def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed already is no error here."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> Answer:
        """Read one answer."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        match = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        body = await self.reader.readexactly(int(match[1])) if match else b""
        return parse_answer(head + body)

    async def all(self) -> bytes:
        """Read until the server closes; a reset ends it too."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await self.reader.read(1 << 16):
                data += piece
        return data

    async def until(self, mark: bytes) -> bytes:
        """Read up to and including `mark`."""
        return await self.reader.readuntil(mark)

    async def event(self) -> WebSocketEvent:
        """Read the next event of a WebSocket."""
        while not self._events:
            data = await self.reader.read(1 << 16)
            assert data, "the server closed without a word"
            self._events += self.codec.receive(data)
        return self._events.pop(0)

    async def frame(self) -> dict[str, Any]:
        """Read the next text frame's JSON; pings are passed over."""
        while True:
            event = await self.event()
            if isinstance(event, DataReceived):
                frame: dict[str, Any] = json.loads(event.data)
                return frame
            assert not isinstance(event, CloseReceived | ProtocolFailed), event

    async def say(self, **fields: Any) -> None:
        """Send a frame of `oncecast.v1`."""
        await self.send(encode_frame(Opcode.TEXT, json.dumps(fields).encode(), mask=b"mask"))

    def close(self) -> None:
        """Cut the connection."""
        self.writer.transport.abort()


def handshake(path: str, *, protocol: str | None = "oncecast.v1") -> bytes:
    """Return a request for a WebSocket."""
    offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


@dataclass
class Site:
    """A server in this process, and the peers that a test has connected to it."""

    server: Server
    tls: ssl.SSLContext | None = None
    peers: list[Peer] = field(default_factory=list)

    async def connect(self, data: bytes = b"") -> Peer:
        """Open a connection and send some bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port, limit=1 << 22, ssl=self.tls)
        peer = Peer(reader, writer)
        self.peers.append(peer)
        if data:
            await peer.send(data)
        return peer

    async def sse(self, channel: str) -> Peer:
        """Open a stream of events and read its beginning."""
        peer = await self.connect(
            f"GET /v1/channels/{channel} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        await peer.until(b"retry: 1000\n\n\r\n")
        return peer

    async def websocket(self, path: str, *, protocol: str | None = "oncecast.v1") -> Peer:
        """Open a WebSocket."""
        peer = await self.connect(handshake(path, protocol=protocol))
        assert (await peer.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return peer

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so; for at most 20 seconds."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never came to that")

    def publish(self, channel: str, data: bytes, kind: Kind = Kind.TEXT) -> None:
        """Publish on the node."""
        self.server.node.publish((Draft(channel, data, kind),), lambda outcomes: None)


Open = Callable[..., Awaitable[Site]]


@pytest_asyncio.fixture
async def open_site() -> AsyncIterator[Open]:
    """Start servers with the settings that a test gives; they are stopped at its end. No callback may have raised."""
    sites: list[Site] = []
    faults: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: faults.append(context))

    async def start(
        settings: Settings | None = None, *, tls: ssl.SSLContext | None = None, guest: Guest | None = None
    ) -> Site:
        server = Server(settings or Settings(port=0), guest=guest)
        await server.start()
        sites.append(Site(server, tls))
        return sites[-1]

    yield start
    for site in sites:
        for peer in site.peers:
            peer.close()
        await site.server.stop(1.0)
    assert [] == faults


@pytest.fixture
def upgrade() -> Callable[..., bytes]:
    """Make a request for a WebSocket."""
    return handshake


@pytest.fixture
def make_site() -> Callable[[Server, ssl.SSLContext | None], Site]:
    """Wrap a server that the test itself runs, on another loop than pytest's."""
    return Site


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for the loopback, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return str(cert), str(key)

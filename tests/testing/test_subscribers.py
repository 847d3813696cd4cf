"""The test subscribers: what they make of a server that stops, refuses, or talks nonsense."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.testing.subscriber import Cut, MessageSeen, RequestRefused, Seen, Subscriber
from oncecast.testing.subscribers import (
    SUBSCRIBERS,
    LongPollSubscriber,
    RawSubscriber,
    ShortPollSubscriber,
    SseSubscriber,
    V1Subscriber,
)
from oncecast.wire.ws_connection import Role, WebSocketConnection
from oncecast.wire.ws_frames import Opcode, encode_frame
from oncecast.wire.ws_handshake import accept_key

Answer = Callable[[bytes], bytes]


@pytest.fixture
async def scripted() -> AsyncIterator[Callable[[Answer], asyncio.Future[int]]]:
    """Serve one answer, made from the request's head, to every request; then close."""
    servers: list[asyncio.Server] = []
    talks: list[asyncio.Task[None]] = []

    async def start(answer: Answer) -> int:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            talks.append(task)
            with contextlib.suppress(ConnectionError):
                writer.write(answer(await reader.readuntil(b"\r\n\r\n")))
                writer.write_eof()
                await reader.read()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async with asyncio.timeout(20):
        yield lambda answer: asyncio.ensure_future(start(answer))
        for server in servers:
            server.close()
        await asyncio.gather(*talks)


def websocket(*frames: bytes) -> Answer:
    """Return an answer that opens a WebSocket and sends frames."""

    def answer(request: bytes) -> bytes:
        key = request.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0].decode()
        protocol = b"Sec-WebSocket-Protocol: oncecast.v1\r\n" if b"Protocol" in request else b""
        head = b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        return head + protocol + f"Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode() + b"".join(frames)

    return answer


async def everything(subscriber: Subscriber) -> tuple[list[Seen], Cut]:
    """Connect and receive to the end."""
    try:
        await subscriber.connect()
    except Cut as cut:
        return [], cut
    return await to_the_end(subscriber)


async def to_the_end(subscriber: Subscriber) -> tuple[list[Seen], Cut]:
    """Receive to the end; return what was seen, and the end."""
    seen: list[Seen] = []
    try:
        while True:
            seen += await subscriber.receive()
    except Cut as cut:
        assert not subscriber.connected
        return seen, cut
    finally:
        subscriber.cut()


@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_nobody_there_is_a_cut(kind: type[Subscriber]) -> None:
    """A port that refuses is one more reason to come back later."""
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert [] == (await everything(kind(port, ("c",))))[0]


@pytest.mark.parametrize("kind, code", [(SseSubscriber, None), (V1Subscriber, 1012), (RawSubscriber, 1012)])
async def test_a_server_that_stops_is_a_cut(kind: type[Subscriber], code: int | None) -> None:
    """The goodbye of each transport ends the connection, with a WebSocket's code."""
    server = Server(Settings(port=0))
    await server.start()
    subscriber = kind(server.port, ("c",))
    await subscriber.connect()
    if subscriber.resumes:
        await subscriber.receive()
    stopping = asyncio.create_task(server.stop(5))
    _, cut = await to_the_end(subscriber)
    assert code == cut.code
    await stopping


@pytest.mark.parametrize("kind", [ShortPollSubscriber, LongPollSubscriber])
async def test_an_answer_that_closes_is_taken_and_closes(
    kind: type[Subscriber], scripted: Callable[..., asyncio.Future[int]]
) -> None:
    """The answer counts; the next request needs a new connection."""
    body = b'{"messages":[],"cursor":"e-1","gap":null}'
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    subscriber = kind(await scripted(lambda request: head + body), ("c",))
    await subscriber.connect()
    await subscriber.receive()
    assert ("e-1", False) == (subscriber.cursor, subscriber.connected)
    with pytest.raises(Cut):
        await subscriber.receive()


@pytest.mark.parametrize("kind", SUBSCRIBERS, ids=lambda kind: kind.name)
async def test_a_refusal_without_a_body(kind: type[Subscriber], scripted: Callable[..., asyncio.Future[int]]) -> None:
    """A proxy's answer has a status and no code."""
    subscriber = kind(await scripted(lambda request: b"HTTP/1.1 502 X\r\nContent-Length: 0\r\n\r\n"), ("c",))
    with pytest.raises(RequestRefused) as refused:
        await everything(subscriber)
    assert (502, "") == (refused.value.status, refused.value.code)


async def test_a_malformed_stream_is_a_cut(scripted: Callable[..., asyncio.Future[int]]) -> None:
    """A stream that is no chunk ends the connection."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    subscriber = SseSubscriber(await scripted(lambda request: head + b"zz\r\n"), ("c",))
    assert [] == (await everything(subscriber))[0]


async def test_a_stream_that_ends_keeps_what_came_before(scripted: Callable[..., asyncio.Future[int]]) -> None:
    """Events in the same bytes as the end are returned first; an event named gap that is none is a message."""
    events = b"id: e-1\ndata: 1\n\nid: e-2\nevent: gap\ndata: 2\n\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(events)
    subscriber = SseSubscriber(await scripted(lambda request: head + events), ("c",))
    seen, _ = await everything(subscriber)
    assert [MessageSeen("e-1", "c", "1", None), MessageSeen("e-2", "c", "2", "gap")] == seen
    assert "e-2" == subscriber.cursor


async def test_a_close_right_after_a_message_comes_second(scripted: Callable[..., asyncio.Future[int]]) -> None:
    """A message right before the Close is received before it."""
    codec = WebSocketConnection(Role.SERVER)
    port = await scripted(websocket(codec.text(b"1"), codec.ping(), codec.close(4410, "gap")))
    seen, cut = await everything(RawSubscriber(port, ("c",)))
    assert [MessageSeen(None, "c", "1", None)] == seen
    assert (4410, "gap") == (cut.code, cut.reason)


async def test_a_server_that_breaks_the_protocol_fails_the_test(scripted: Callable[..., asyncio.Future[int]]) -> None:
    """A masked frame from a server, or a frame of no known type, is a defect and not a cut."""
    masked = encode_frame(Opcode.TEXT, b"1", mask=b"abcd")
    with pytest.raises(AssertionError, match="1002"):
        await everything(RawSubscriber(await scripted(websocket(masked)), ("c",)))
    unknown = encode_frame(Opcode.TEXT, b'{"type":"published"}')
    with pytest.raises(AssertionError, match="published"):
        await everything(V1Subscriber(await scripted(websocket(unknown)), ("c",)))


async def test_only_sockets_write() -> None:
    """A subscriber of the other transports has nothing to write on, and nothing happens without a connection."""
    with pytest.raises(NotImplementedError):
        SseSubscriber(1, ("c",)).write(b"x")
    RawSubscriber(1, ("c",)).send(b"x")
    with pytest.raises(Cut):
        await RawSubscriber(1, ("c",)).read()

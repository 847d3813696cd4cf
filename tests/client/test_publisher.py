"""Publishing: what is sent, and that it is sent again with the same key until it is acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest

from oncecast import Ack, Broken, Refused, Timing, Unreachable
from oncecast.client.backoff import Backoff
from oncecast.client.dialing import Endpoint
from oncecast.client.encoding import Content
from oncecast.client.publisher import Publisher
from oncecast.client.url import ServerUrl
from oncecast.message import Kind

if TYPE_CHECKING:
    from tests.client.conftest import Peer, Sleep, Talk

BINARY = Content(Kind.BINARY, b"\x00")
EMPTY = Content(Kind.TEXT, b"")
ACK = {"id": "e-1", "durability": "memory"}


@pytest.fixture
def clock() -> Iterator[float]:
    """A clock that is one second later each time it is read."""
    return count(0.0)


@pytest.fixture
async def publisher(peer: Peer, sleep: Sleep, clock: Iterator[float]) -> AsyncIterator[Publisher]:
    """A publisher to the peer whose keys are k0, k1 …, with ten seconds of patience."""
    keys = count()
    made = Publisher(
        peer.server,
        timing=Timing(),
        backoff=Backoff(rng=lambda: 0.0, sleep=sleep),
        patience=10.0,
        clock=clock.__next__,
        new_key=lambda: f"k{next(keys)}",
    )
    yield made
    await made.close()


async def test_publishes(peer: Peer, publisher: Publisher) -> None:
    """Data, type, event and key are sent; messages share a connection and have keys of their own."""
    seen = []

    async def script(talk: Talk) -> None:
        for _ in range(2):
            seen.append(await talk.request())
            await talk.answer(201, ACK)
        await talk.hold()

    peer.scripts = [script]
    assert Ack("e-1", "memory") == await publisher.publish("c", BINARY, event="tick")
    await publisher.publish("c", Content(Kind.JSON, b"{}"))
    first, headers, body = seen[0]
    assert ("POST /v1/channels/c", b"\x00") == (first, body)
    assert ("application/octet-stream", "tick", "k0") == tuple(
        headers[name] for name in ("content-type", "oncecast-event", "idempotency-key")
    )
    assert ("k1", None) == (seen[1][1]["idempotency-key"], seen[1][1].get("oncecast-event"))


async def test_repeats_with_the_same_key(peer: Peer, publisher: Publisher, delays: list[float]) -> None:
    """A lost acknowledgement, a 503 and a 429 are followed by the same message with the same key, when they allow."""
    keys = []

    async def lost(talk: Talk) -> None:
        keys.append((await talk.request())[1]["idempotency-key"])

    async def busy(talk: Talk) -> None:
        for status, wait in ((503, "2"), (429, "3"), (201, "0")):
            keys.append((await talk.request())[1]["idempotency-key"])
            await talk.answer(status, ACK, Retry_After=wait)

    peer.scripts = [lost, busy]
    assert "e-1" == (await publisher.publish("c", EMPTY, key="mine")).id
    assert ["mine"] * 4 == keys
    assert [0.0, 2.0, 3.0] == delays


async def test_patience_ends(peer: Peer, publisher: Publisher) -> None:
    """Past its patience the failure is raised."""

    async def lost(talk: Talk) -> None:
        await talk.request()

    peer.scripts = [lost] * 20
    with pytest.raises(Broken, match="the server closed the connection"):
        await publisher.publish("c", EMPTY)
    assert 8 == len(peer.scripts)  # ten attempts, a reconnect, and one look whether the server answers anything


@pytest.mark.parametrize("reached", [False, True])
async def test_unreachable(sleep: Sleep, reached: bool) -> None:
    """A server that was never there is not waited for; one that was, is."""
    answered = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b'HTTP/1.1 201 X\r\nConnection: close\r\nContent-Length: 34\r\n\r\n{"id":"e-1","durability":"memory"}'
        )
        writer.close()
        await writer.wait_closed()
        answered.set()

    listener = await asyncio.start_server(answer, "127.0.0.1", 0)
    server = Endpoint(ServerUrl("http", "127.0.0.1", listener.sockets[0].getsockname()[1], ""))
    slept = []

    async def pause(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise Refused("enough")

    publisher = Publisher(server, timing=Timing(), backoff=Backoff(rng=lambda: 0.0, sleep=pause))
    if reached:
        await publisher.publish("c", EMPTY)
        await answered.wait()
    listener.close()
    await listener.wait_closed()
    with pytest.raises(Refused if reached else Unreachable):
        await publisher.publish("c", EMPTY)
    assert (3 if reached else 0) == len(slept)


@pytest.mark.parametrize(
    "status, body, expected",
    [
        (403, {"error": {"code": "forbidden", "message": "not you"}}, "not you"),
        (404, b"<html>", "the server answers 404"),
        (200, b"<html>", "the answer is not an acknowledgement: is this an Oncecast server?"),
    ],
)
async def test_refused(peer: Peer, publisher: Publisher, status: int, body: object, expected: str) -> None:
    """A refusal is raised and not repeated."""

    async def script(talk: Talk) -> None:
        await talk.request()
        await talk.answer(status, body)

    peer.scripts = [script]
    with pytest.raises(Refused) as caught:
        await publisher.publish("c", EMPTY)
    assert (expected, 0) == (str(caught.value), peer.unexpected)


@pytest.mark.parametrize(
    "options",
    [{"channel": "a b"}, {"event": "a\nb"}, {"key": ""}, {"key": "a" * 256}, {"event": "gap"}, {"event": "\ud800"}],
)
async def test_what_can_not_be_sent(publisher: Publisher, options: dict[str, str]) -> None:
    """A name or key that would not stay in its place is refused before anything is sent."""
    with pytest.raises(Refused):
        await publisher.publish(options.pop("channel", "c"), EMPTY, **options)

"""The client of the `websockets` library: both protocols, fragments, pings, closes, and the largest message."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

if TYPE_CHECKING:
    from tests.peers.conftest import Site, Story

V1 = [Subprotocol("oncecast.v1")]
MIB = 1 << 20
SECONDS = 60.0  # for anything to happen: generous, as the machine may be busy


async def heard(socket: ClientConnection) -> Any:
    """Return the next frame of `oncecast.v1`."""
    async with asyncio.timeout(SECONDS):
        return json.loads(await socket.recv())


async def close_code(socket: ClientConnection) -> int | None:
    """Wait until the server has closed, and return its code."""
    async with asyncio.timeout(SECONDS):
        await socket.wait_closed()
    return socket.close_code


async def test_resumes_after_cuts(story: Story) -> None:
    """Cut off again and again, a client that subscribes after its last id hears all, once, in order."""
    numbers: list[int] = []
    query = ""
    async with asyncio.timeout(SECONDS):
        while len(numbers) < story.messages:
            try:
                async with connect(story.url(scheme="ws", query=query), subprotocols=V1) as socket:
                    async for text in socket:
                        frame = json.loads(text)
                        query = f"?after={frame['id'] if frame['type'] == 'message' else frame['cursor']}"
                        story.begin()
                        if frame["type"] == "message":
                            numbers.append(frame["data"])
                        if len(numbers) == story.messages:
                            break
            except (OSError, EOFError, WebSocketException):
                continue
    story.check(numbers)


async def test_subscribes_and_publishes(site: Site) -> None:
    """Frames of `oncecast.v1` do what they say on a connection that starts without a channel."""
    async with connect(f"ws://127.0.0.1:{site.port}/v1/connect", subprotocols=V1) as socket:
        assert "oncecast.v1" == socket.subprotocol
        await socket.send(json.dumps({"type": "subscribe", "channel": "news", "ref": "s"}))
        subscribed = await heard(socket)
        assert ["subscribed", "news", "s"] == [subscribed["type"], subscribed["channel"], subscribed["ref"]]
        await socket.send(json.dumps({"type": "publish", "channel": "news", "data": {"t": 1}, "ref": 1}))
        frames = {frame["type"]: frame for frame in [await heard(socket), await heard(socket)]}
        assert frames["published"]["id"] == frames["message"]["id"]
        assert {"t": 1} == frames["message"]["data"]
        await socket.send(json.dumps({"type": "unsubscribe", "channel": "news", "ref": 2}))
        assert {"type": "unsubscribed", "channel": "news", "ref": 2} == await heard(socket)
        await site.publish("unheard")
        await socket.send(json.dumps({"type": "shout", "ref": 3}))
        error = await heard(socket)
        assert ["error", "frame_invalid"] == [error["type"], error["code"]]


async def test_no_extension_is_negotiated(site: Site) -> None:
    """The client offers permessage-deflate, and the server leaves it out."""
    async with connect(site.url(scheme="ws")) as socket:
        assert socket.request is not None
        assert socket.response is not None
        assert "permessage-deflate" in socket.request.headers["Sec-WebSocket-Extensions"]
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        assert socket.subprotocol is None


async def test_fragments(site: Site) -> None:
    """A message in fragments, of text or bytes, also cut inside a character, and with a ping between, is one."""
    async with connect(site.url(scheme="ws")) as socket:
        await socket.send(["frag", "", "mént", "ed"])
        assert "fragménted" == await socket.recv()
        await socket.send([bytes([n]) for n in range(256)])
        assert bytes(range(256)) == await socket.recv()

        async def pieces() -> Any:
            yield "one "
            await socket.ping()
            yield "two"

        await socket.send(pieces())
        assert "one two" == await socket.recv()


async def test_pings(site: Site) -> None:
    """Each ping is answered with its own data, before what is sent after it."""
    async with connect(site.url(scheme="ws")) as socket, asyncio.timeout(SECONDS):
        pongs = [await socket.ping(data) for data in (b"", b"a", b"\xff" * 125)]
        for pong in pongs:
            assert await pong >= 0


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, MIB - 1, MIB])
async def test_sizes(site: Site, size: int) -> None:
    """Data of every length of header, up to the limit, comes back as it was, as bytes and as text."""
    async with connect(site.url(scheme="ws")) as socket, asyncio.timeout(SECONDS):
        await socket.send(b"\xfe" * size)
        await socket.send("y" * size)
        assert b"\xfe" * size == await socket.recv()
        assert "y" * size == await socket.recv()


@pytest.mark.parametrize("fragments", [1, 16])
async def test_over_the_limit(site: Site, fragments: int) -> None:
    """One byte more than allowed, whole or over fragments, closes with 1009, and nothing is published."""
    async with connect(site.url(scheme="ws")) as socket:
        size = MIB // fragments
        pieces = [b"x" * size] * (fragments - 1) + [b"x" * (size + 1)]
        with contextlib.suppress(ConnectionClosed):  # the server need not wait for the rest
            await socket.send(pieces if fragments > 1 else pieces[0])
        assert 1009 == await close_code(socket)
    assert 0 == site.server.node.log.head


@pytest.mark.parametrize("code, reason", [(1000, ""), (1001, "going"), (3000, "ü" * 61), (4999, "bye")])
async def test_a_close_is_answered(site: Site, code: int, reason: str) -> None:
    """The client's code comes back to it."""
    async with connect(site.url(scheme="ws")) as socket:
        await socket.close(code, reason)
        assert code == socket.close_code
        assert socket.protocol.close_rcvd is not None
        assert code == socket.protocol.close_rcvd.code


async def test_closes_of_the_server(site: Site) -> None:
    """A gap on a raw socket closes with 4410, binary on `oncecast.v1` with 1003, and the server's stop with 1012."""
    async with connect(site.url(scheme="ws", query="?after=old-7")) as socket:
        assert 4410 == await close_code(socket)
        assert "gap (epoch) on news; go on from " in (socket.close_reason or "")
    async with connect(site.url(scheme="ws"), subprotocols=V1) as socket:
        await socket.send(b"\x00")
        assert 1003 == await close_code(socket)
    async with connect(site.url(scheme="ws"), subprotocols=V1) as socket:
        assert "subscribed" == (await heard(socket))["type"]
        await site.server.stop()
        assert {"type": "drain", "retry_after_ms": 1000} == await heard(socket)
        assert 1012 == await close_code(socket)


async def test_refused_handshakes(site: Site) -> None:
    """A subprotocol that is not ours, a malformed cursor and a foreign page are refused with a status."""
    for url, options, status in (
        (site.url(scheme="ws"), {"subprotocols": [Subprotocol("mqtt")]}, 400),
        (site.url(scheme="ws", query="?after=yesterday"), {}, 400),
        (site.url(scheme="ws"), {"origin": "https://elsewhere.example"}, 403),
        (f"ws://127.0.0.1:{site.port}/nowhere", {}, 404),
    ):
        with pytest.raises(InvalidStatus) as caught:
            await connect(url, **options)
        assert status == caught.value.response.status_code

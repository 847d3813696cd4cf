"""New access rules while connections are open: each ends where it may no longer read, and obeys them from then on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from oncecast.server.server import Server
from oncecast.server.settings import ChannelRule, Settings

if TYPE_CHECKING:
    from tests.server.conftest import Open, Peer

OPEN = ChannelRule(subscribe="public", publish="public")
CLOSED = ChannelRule(subscribe="server", publish="server")
BEFORE = {"a": OPEN, "b": OPEN}
AFTER = {"a": CLOSED, "b": ChannelRule(subscribe="public", publish="server")}
WORDS = "Only a server's key may subscribe to a."
POLL = b"GET /v1/channels/%s?after=latest&wait=30 HTTP/1.1\r\nHost: localhost\r\n\r\n"


def frame(**fields: Any) -> bytes:
    """Return a masked text frame with JSON."""
    text = json.dumps(fields).encode()
    return bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text


async def rest(peer: Peer) -> bytes:
    """Return what comes until the connection ends."""
    return await asyncio.wait_for(peer.reader.read(), 30)


async def close_of(peer: Peer) -> bytes:
    """Return the Close frame that comes next. It is answered, as the server waits some seconds for that."""
    first = await asyncio.wait_for(peer.reader.readexactly(2), 30)
    payload = await asyncio.wait_for(peer.reader.readexactly(first[1]), 30)
    await peer.send(bytes([0x88, 0x82, 0, 0, 0, 0]) + payload[:2])
    assert b"" == await rest(peer)
    return first + payload


async def test_what_may_no_longer_be_read_ends(open_site: Open) -> None:
    """A stream says the error, sockets close with 4403, a long poll is answered; those of other channels stay."""
    site = await open_site(Settings(port=0, channels=BEFORE))
    assert isinstance(site.server, Server)
    stream, kept = await site.sse("a"), await site.sse("b")
    socket, raw = await site.websocket("/v1/channels/a"), await site.websocket("/v1/channels/a", protocol=None)
    await socket.until(b"}")
    poll, other = await site.connect(POLL % b"a"), await site.connect(POLL % b"b")
    await site.until(lambda: site.server.node.hub.subscriptions == 6)
    site.server.reload(replace(site.server.settings, channels=AFTER))
    said = await rest(stream)
    assert b"event: error\n" in said
    assert WORDS.encode() in said
    for peer in (socket, raw):
        data = await close_of(peer)
        assert (4403, WORDS.encode()) == (int.from_bytes(data[2:4]), data[4:])
    answer = await poll.answer()
    assert (403, "forbidden", WORDS) == (answer.status, answer.code, answer.json["error"]["message"])
    await site.until(lambda: site.server.node.hub.subscriptions == 2)
    site.publish("b", b"more")
    assert b"data: more" in await kept.until(b"data: more")
    assert 200 == (await other.answer()).status


async def test_a_socket_that_stays_is_held_to_the_new_rules(open_site: Open) -> None:
    """A socket that stays open publishes and subscribes under the new rules."""
    site = await open_site(Settings(port=0, channels=BEFORE))
    socket = await site.websocket("/v1/channels/b")
    await socket.until(b"}")
    site.server.reload(replace(site.server.settings, channels=AFTER))
    app = site.server.app
    await site.until(lambda: not app._rechecked)
    await socket.send(frame(type="publish", channel="b", data=1, ref=1))
    assert b"Only a server's key may publish to b." in await socket.until(b'"ref":1')
    await socket.send(frame(type="subscribe", channel="a", ref=2))
    assert WORDS.encode() in await socket.until(b'"ref":2')


async def test_rules_that_come_to_a_server_without_any(open_site: Open) -> None:
    """Connections that were allowed everything are held to them."""
    site = await open_site(Settings(port=0))
    socket = await site.websocket("/v1/channels/a")
    await socket.until(b"}")
    site.server.reload(replace(site.server.settings, channels=AFTER))
    data = await close_of(socket)
    assert 4403 == int.from_bytes(data[2:4])

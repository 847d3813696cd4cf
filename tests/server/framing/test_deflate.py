"""Compressed WebSockets: bytes that are shared, sockets that keep nothing, bombs, and real clients on a real server."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.typing import Subprotocol

from oncecast.http.listening import DEFLATE
from oncecast.message import Draft, Kind
from oncecast.protocol import raw, v1
from oncecast.protocol.base import TransportSettings
from oncecast.protocol.raw import RawSession
from oncecast.protocol.v1 import V1Session
from oncecast.server.framing.formats import SHARED_BITS, frame_blocks
from oncecast.server.framing.websocket import DEFLATED_SLICE_BYTES
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.wire.ws_connection import CloseReceived, DataReceived, Role, WebSocketConnection
from oncecast.wire.ws_deflate import NAME, THRESHOLD_BYTES, Parameters, compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame
from oncecast.wire.ws_handshake import answered_extensions, check_response, new_key, request_bytes
from tests.session_rig import Peer

SECONDS = 60.0
MIB = 1 << 20
OFFER = Parameters(client_max_window_bits=15)  # what browsers say
LONG = json.dumps({"text": "Once upon a time " * 20}).encode()


def agreed(offer: Parameters) -> Parameters:
    """Return what the server answers to an offer."""
    answer = DEFLATE.accept(answered_extensions({"sec-websocket-extensions": str(offer)}))
    assert answer is not None
    return answer


class Compressing(Peer):
    """A client of channel c, from its beginning, that has negotiated `deflate`."""

    def __init__(self, rig: Any, kind: type[V1Session | RawSession], deflate: Parameters | None) -> None:
        super().__init__(rig, kind, "after=earliest", deflate=deflate)
        rig.run_turns()
        self.blocks: list[bytes] = list(self.link.sent)
        self.events()

    def take(self) -> list[bytes]:
        """Return the writes since the last time."""
        self.blocks = list(self.link.sent)
        self.link.take()
        return self.blocks


# -- shared bytes


def test_formats_are_shared() -> None:
    """Each window gets the formats of the largest shared one that it allows, the same objects each time."""
    for encoder in (v1.ENCODER, raw.ENCODER):
        plain = frame_blocks(encoder, None)
        assert plain is frame_blocks(encoder, None)
        found = {
            bits: frame_blocks(encoder, Parameters(True, server_max_window_bits=bits)) for bits in (None, *range(9, 16))
        }
        assert [15, 15, 12, 12, 12, 9, 9, 9] == [
            next(bits for bits in SHARED_BITS if found[bits] is found[asked])
            for asked in (None, 15, 14, 13, 12, 11, 10, 9)
        ]
        assert len(SHARED_BITS) + 1 == len({plain, *found.values()})


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_a_message_is_compressed_once(rig: Any, kind: type[V1Session | RawSession]) -> None:
    """All sockets with the extension get the same compressed bytes. The others get it uncompressed."""
    offers = [OFFER, Parameters(), Parameters(server_max_window_bits=15), Parameters(True, True)]
    peers = [Compressing(rig, kind, agreed(offer)) for offer in offers]
    small, plain = Compressing(rig, kind, agreed(Parameters(server_max_window_bits=10))), Compressing(rig, kind, None)
    rig.publish(LONG.decode())
    rig.run_turns()
    blocks = [peer.take() for peer in peers]
    assert [1] * len(peers) == [len(block) for block in blocks]
    assert {id(blocks[0][0])} == {id(block) for (block,) in blocks}
    assert 0xC1 == blocks[0][0][0]
    assert len(blocks[0][0]) < len(LONG) / 2
    expected = plain.events()
    assert 1 == len(expected)
    assert [expected] * 4 == [peer.codec.receive(block) for peer, (block,) in zip(peers, blocks, strict=True)]
    assert expected == small.events()


@pytest.mark.parametrize("length", [THRESHOLD_BYTES - 1, THRESHOLD_BYTES])
def test_a_small_message_is_sent_as_it_is(rig: Any, length: int) -> None:
    """Below the threshold, and where nothing is won, a message is not compressed."""
    peer = Compressing(rig, RawSession, agreed(OFFER))
    rig.publish(Draft("c", b"a" * length, Kind.TEXT), Draft("c", random.Random(1).randbytes(200), Kind.BINARY))
    rig.run_turns()
    (block,) = peer.take()
    assert (length >= THRESHOLD_BYTES) == (block[0] == 0xC1)
    assert encode_frame(Opcode.BINARY, random.Random(1).randbytes(200)) == block[-202 - 2 :]
    received = peer.codec.receive(block)
    assert [length, 200] == [len(event.data) for event in received if isinstance(event, DataReceived)]


def test_the_backlog_is_compressed_too(rig: Any) -> None:
    """A socket that catches up reads the same compressed bytes, many messages in one write."""
    rig.publish(*[LONG.decode()] * 20)
    rig.run_turns()
    first, second = Compressing(rig, RawSession, agreed(OFFER)), Compressing(rig, RawSession, agreed(Parameters()))
    assert [20 * (compress_message(LONG))] == [
        b"".join(block[at + 2 : at + 2 + block[1]] for at in range(0, len(block), block[1] + 2))
        for block in first.blocks
    ]
    assert first.blocks == second.blocks


# -- what comes in


def test_an_idle_socket_keeps_nothing(rig: Any) -> None:
    """After a compressed message, whole or in fragments, the server keeps neither a codec nor an inflater."""
    peer = Compressing(rig, RawSession, agreed(OFFER))
    for frame in peer.codec.fragments(LONG, True, 20):
        peer.socket.received(frame)
        assert (frame[0] & 0x80 > 0) == (peer.socket._codec is None)
    rig.run_turns()
    assert [DataReceived(LONG, True)] == peer.events()


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_rsv1_without_the_extension(rig: Any, kind: type[V1Session | RawSession]) -> None:
    """A compressed message from a client that has not negotiated is a fault."""
    peer = Compressing(rig, kind, None)
    peer.socket.received(encode_frame(Opcode.TEXT, compress_message(b"{}"), rsv1=True, mask=b"mask"))
    assert [CloseReceived(1002, "a reserved bit is set")] == peer.events()
    assert "ended" == peer.link.state


@pytest.mark.parametrize("kind", [V1Session, RawSession])
@pytest.mark.parametrize(
    "payload, code", [(compress_message(bytes(2 * MIB)), 1009), (b"\x07", 1007), (b"", 1007), (b"\x00\x00", 1007)]
)
def test_bad_compressed_messages(rig: Any, kind: type[V1Session | RawSession], payload: bytes, code: int) -> None:
    """A bomb is closed with 1009 and damage with 1007, and nobody else hears of it."""
    peer, other = Compressing(rig, kind, agreed(OFFER)), Compressing(rig, kind, agreed(OFFER))
    peer.socket.received(encode_frame(Opcode.BINARY, payload, rsv1=True, mask=b"mask"))
    rig.run_turns()
    (event,) = peer.events()
    assert code == event.code
    assert ("ended", "open", []) == (peer.link.state, other.link.state, other.events())


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_a_flood_of_bombs(rig: Any, kind: type[V1Session | RawSession]) -> None:
    """Messages that inflate to the limit count as any others, and one call takes bounded time and memory for them."""
    rig.settings = TransportSettings(frames_per_second=10, publishes_per_second=10)
    peer = Compressing(rig, kind, agreed(OFFER))
    bomb = encode_frame(Opcode.TEXT, compress_message(b"a" * MIB, level=9), rsv1=True, mask=b"mask")
    wire = bomb * 30
    longest = 0.0
    tracemalloc.start()
    try:
        for at in range(0, len(wire), DEFLATED_SLICE_BYTES):
            began = time.process_time()
            peer.socket.received(wire[at : at + DEFLATED_SLICE_BYTES])
            longest = max(longest, time.process_time() - began)
            if kind is V1Session:  # a raw one publishes them
                assert tracemalloc.get_traced_memory()[1] < 5 * MIB
        assert tracemalloc.get_traced_memory()[1] < 25 * MIB
    finally:
        tracemalloc.stop()
    rig.run_turns()
    assert longest < 0.2  # some 5 ms
    assert "ended" == peer.link.state
    assert 4429 == peer.events()[-1].code
    assert (20 if kind is RawSession else 0) == rig.node.log.head


# -- a real server


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A server that compresses."""
    server = Server(Settings(port=0, deflate=True))
    await server.start()
    yield server
    await server.stop()


def publish(server: Server, *data: bytes, kind: Kind = Kind.JSON) -> None:
    """Publish on the node."""
    server.node.publish([Draft("c", each, kind) for each in data], lambda outcomes: None)


def dial(server: Server, path: str = "/v1/channels/c", **options: Any) -> connect:
    """Connect with the package websockets, which offers permessage-deflate by itself."""
    return connect(f"ws://127.0.0.1:{server.port}{path}", open_timeout=SECONDS, proxy=None, **options)


def negotiated(socket: ClientConnection) -> str | None:
    """Return the extensions of the server's answer."""
    assert socket.response is not None
    return socket.response.headers.get("Sec-WebSocket-Extensions")


@pytest.mark.parametrize(
    "offer",
    [
        Parameters(*each)
        for each in itertools.product((False, True), (False, True), (None, 9, 12, 15), (None, 9, 12, 15))
    ][::3],
    ids=str,
)
async def test_their_client(server: Server, offer: Parameters) -> None:
    """With any offer of theirs, what is published comes back, and so does what they send."""
    factory = ClientPerMessageDeflateFactory(
        offer.server_no_context_takeover,
        offer.client_no_context_takeover,
        offer.server_max_window_bits,
        offer.client_max_window_bits,
    )
    async with dial(server, compression=None, extensions=[factory]) as socket:
        assert str(agreed(offer)) == negotiated(socket)
        source = random.Random(1)
        for length in (0, 1, 100, 5000, 70_000):
            said = "".join(source.choices("abcé€😀", k=length))
            await socket.send(said)
            assert said == await asyncio.wait_for(socket.recv(), SECONDS)
            await socket.send([said[: length // 2], said[length // 2 :]])
            assert said == await asyncio.wait_for(socket.recv(), SECONDS)
            publish(server, said.encode() * 2, kind=Kind.BINARY)
            assert said.encode() * 2 == await asyncio.wait_for(socket.recv(), SECONDS)


async def test_their_client_speaks_v1(server: Server) -> None:
    """The default client, with oncecast.v1: subscribes, publishes, and gets messages compressed."""
    v1 = [Subprotocol("oncecast.v1")]
    async with dial(server, "/v1/connect", compression="deflate", subprotocols=v1) as socket:
        assert negotiated(socket)
        await socket.send(json.dumps({"type": "subscribe", "channel": "c", "ref": 1}))
        assert "subscribed" == json.loads(await asyncio.wait_for(socket.recv(), SECONDS))["type"]
        await socket.send(json.dumps({"type": "publish", "channel": "c", "data": json.loads(LONG)}))
        frames = [json.loads(await asyncio.wait_for(socket.recv(), SECONDS)) for _ in range(2)]
        assert {"published", "message"} == {frame["type"] for frame in frames}
        assert [json.loads(LONG)] == [frame["data"] for frame in frames if frame["type"] == "message"]


@pytest.mark.parametrize("compression, settings", [(None, True), ("deflate", False)])
async def test_nothing_is_compressed_unless_both_want_it(compression: Any, settings: bool) -> None:
    """A client that does not offer it, and a server that is not set to it, speak plainly."""
    server = Server(Settings(port=0, deflate=settings))
    await server.start()
    try:
        async with dial(server, compression=compression) as socket:
            assert None is negotiated(socket)
            publish(server, LONG)
            assert LONG.decode() == await asyncio.wait_for(socket.recv(), SECONDS)
    finally:
        await server.stop()


async def shake_hands(server: Server, extensions: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
    """Send a handshake of ours with an extensions header; return the answer's head."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    headers = [("Sec-WebSocket-Extensions", extensions)]
    writer.write(request_bytes(f"127.0.0.1:{server.port}", "/v1/channels/c", KEY, headers=headers))
    return reader, writer, await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)


KEY = new_key()


async def test_our_client(server: Server) -> None:
    """Our own codec offers, checks the answer, and is understood both ways."""
    offer = Parameters(True, True, 12, 15)
    reader, writer, head = await shake_hands(server, str(offer))
    headers = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in head.decode().split("\r\n")[1:])
    }
    assert None is check_response(101, headers, KEY, (), extensions=(NAME,))
    deflate = offer.check(answered_extensions(headers))
    assert Parameters(True, True, 12, 15) == deflate
    codec = WebSocketConnection(Role.CLIENT, extension=deflate.client_codec(threshold=0))
    writer.write(codec.text(LONG) + codec.text(b""))
    events: list[Any] = []
    while len(events) < 2:
        events += codec.receive(await asyncio.wait_for(reader.read(4096), SECONDS))
    assert [DataReceived(LONG, True), DataReceived(b"", True)] == events
    writer.close()


@pytest.mark.parametrize("header", [f"{NAME};", f"{NAME}; {NAME}=", "a b", 'a; b="', f"{NAME}, ;"])
async def test_a_malformed_header_is_400(server: Server, header: str) -> None:
    """A header that is not of RFC 6455 §9.1 is no handshake."""
    _, writer, head = await shake_hands(server, header)
    assert head.startswith(b"HTTP/1.1 400 ")
    writer.close()


@pytest.mark.parametrize("header", ["x-webkit-deflate-frame", f"{NAME}; unknown", f"{NAME}; server_max_window_bits=8"])
async def test_what_can_not_be_met_is_declined(server: Server, header: str) -> None:
    """An offer that the server can't meet opens a socket without the extension."""
    _, writer, head = await shake_hands(server, header)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-extensions" not in head.lower()
    writer.close()

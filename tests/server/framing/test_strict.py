"""What a peer sends before a fault counts: each order of messages, pings and faults, through a running server.

A raw socket publishes what it is sent, and gets it back: it echoes. Bytes go in, and every frame that comes out is
compared. The conformance suite Autobahn|Testsuite calls these cases 3.2 to 3.4, 4.1.3 to 4.1.5, 4.2.3 to 4.2.5, 5.15,
7.1.5, and 9.3 and 9.4 with their kinds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from oncecast.brokers.base import Done
from oncecast.brokers.memory import MemoryBroker
from oncecast.message import Draft
from oncecast.policy.limits import Limits
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.wire.ws_deflate import NAME, compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame
from oncecast.wire.ws_handshake import new_key, request_bytes

SECONDS = 60.0
MIB = 1 << 20
KEY = b"mask"


class LaterBroker(MemoryBroker):
    """A memory broker that answers in a later turn of the loop, as one elsewhere does."""

    def publish(self, drafts: list[Draft], done: Done) -> None:  # type: ignore[override]
        """Publish some turns of the loop later."""
        asyncio.get_running_loop().call_later(0.001, super().publish, drafts, done)


@dataclass(frozen=True)
class Sent:
    """Some bytes of a peer, and what is owed for them."""

    name: str
    data: bytes
    echoes: tuple[tuple[int, bytes], ...] = ()
    pongs: tuple[bytes, ...] = ()

    def __add__(self, other: Sent) -> Sent:
        return Sent(
            f"{self.name}, {other.name}",
            self.data + other.data,
            self.echoes + other.echoes,
            self.pongs + other.pongs,
        )


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a frame as a client sends it."""
    return encode_frame(opcode, payload, fin=fin, mask=KEY)


TEXT = Sent("text", frame(Opcode.TEXT, "né".encode()), ((Opcode.TEXT, "né".encode()),))
BINARY = Sent("binary", frame(Opcode.BINARY, b"\xff\0"), ((Opcode.BINARY, b"\xff\0"),))
PING = Sent("ping", frame(Opcode.PING, b"?"), (), (b"?",))
PONG = Sent("pong", frame(Opcode.PONG, b"!"))
PARTS = Sent(
    "fragments", frame(Opcode.TEXT, b"ab", fin=False) + frame(Opcode.CONTINUATION, b"c"), ((Opcode.TEXT, b"abc"),)
)
MIXED = Sent(
    "fragments around a ping",
    frame(Opcode.BINARY, b"a", fin=False) + frame(Opcode.PING, b"1") + frame(Opcode.CONTINUATION, b"b"),
    ((Opcode.BINARY, b"ab"),),
    (b"1",),
)
SQUEEZED = b"a" * 500
COMPRESSED = Sent(
    "compressed",
    encode_frame(Opcode.TEXT, compress_message(SQUEEZED), rsv1=True, mask=KEY),
    ((Opcode.TEXT, SQUEEZED),),
)

FAULTS = {
    "RSV2": (b"\xa1\x85" + KEY, 1002),
    "RSV3": (b"\x91\x85" + KEY, 1002),
    "opcode 3": (b"\x83\x80" + KEY, 1002),
    "opcode 5": (b"\x85\x80" + KEY, 1002),
    "opcode 11": (b"\x8b\x80" + KEY, 1002),
    "opcode 13": (b"\x8d\x80" + KEY, 1002),
    "continuation of nothing": (frame(Opcode.CONTINUATION, b"x", fin=False), 1002),
    "unmasked": (encode_frame(Opcode.TEXT, b"x"), 1002),
    "long ping": (b"\x89\xfe\x00\x7e", 1002),
    "not UTF-8": (frame(Opcode.TEXT, b"a\xff"), 1007),
    "too big": (b"\x82\xff" + (2 * MIB).to_bytes(8, "big"), 1009),
    "bad close code": (frame(Opcode.CLOSE, (1005).to_bytes(2, "big")), 1002),
    "close of 1 byte": (frame(Opcode.CLOSE, b"\x03"), 1002),
    "normal close": (frame(Opcode.CLOSE, (1000).to_bytes(2, "big")), 1000),
}
AFTER = frame(Opcode.PING, b"late") + frame(Opcode.TEXT, b"late")


def befores(deflate: bool) -> Iterator[Sent]:
    """Yield what comes before a fault: everything alone, and in twos."""
    parts = [TEXT, BINARY, PING, PONG, PARTS, MIXED, *([COMPRESSED] if deflate else [])]
    yield Sent("nothing", b"")
    yield from parts
    for first, second in itertools.product(parts, repeat=2):
        yield first + second


@pytest_asyncio.fixture(params=["at once", "later"])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    """A server that compresses, on a broker that answers at once, or later."""
    kind = MemoryBroker if request.param == "at once" else LaterBroker
    server = Server(Settings(port=0, deflate=True), broker=kind("life1", lambda: 0.0))
    await server.start()
    yield server
    await server.stop()


async def say(server: Server, channel: str, pieces: list[bytes], *, deflate: bool) -> bytes:
    """Send the pieces on a new raw socket, each in a write of its own, and return all that comes back up to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        headers = [("Sec-WebSocket-Extensions", NAME)] if deflate else []
        writer.write(request_bytes("127.0.0.1", f"/v1/channels/{channel}", new_key(), headers=headers))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)  # so that the server reads each by itself
        return await asyncio.wait_for(reader.read(), SECONDS)
    finally:
        writer.close()


def frames(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the first byte and the payload of each frame, and demand that they are short and unmasked."""
    at = 0
    while at < len(data):
        first, length = data[at], data[at + 1]
        assert length <= 125, "an unmasked frame with a short payload"
        payload = data[at + 2 : at + 2 + length]
        assert length == len(payload), "a whole frame"
        yield first, payload
        at += 2 + length


def check(data: bytes, sent: Sent, code: int) -> None:
    """Check that everything owed has come, in order, and the Close last."""
    *answers, last = frames(data)
    echoes = []
    for first, payload in answers:
        if first == 0xC0 | Opcode.TEXT:
            assert compress_message(SQUEEZED) == payload
            echoes.append((int(Opcode.TEXT), SQUEEZED))
        elif first in (0x80 | Opcode.TEXT, 0x80 | Opcode.BINARY):
            echoes.append((first & 0x0F, payload))
        else:
            assert 0x80 | Opcode.PONG == first
    assert [(int(opcode), payload) for opcode, payload in sent.echoes] == echoes
    assert list(sent.pongs) == [payload for first, payload in answers if first == 0x80 | Opcode.PONG]
    assert (0x80 | Opcode.CLOSE, code) == (last[0], int.from_bytes(last[1][:2], "big"))


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("deflate", [False, True], ids=["plain", "deflate"])
async def test_what_comes_before_a_fault_counts(server: Server, name: str, deflate: bool) -> None:
    """Frames before a fault are published, echoed and answered before the Close, in whatever pieces they were sent."""
    fault, code = FAULTS[name]

    async def tell(before: Sent, way: str, pieces: list[bytes]) -> None:
        data = await say(server, f"{before.name}/{way}".encode().hex()[-120:], pieces, deflate=deflate)
        try:
            check(data, before, code)
        except AssertionError as error:
            raise AssertionError(f"{before.name}, then {name}, {way}: {data!r}") from error

    for before in befores(deflate):
        wire = before.data + fault
        await asyncio.gather(
            tell(before, "whole", [wire]),
            tell(before, "with bytes after it", [wire + AFTER]),
            *(
                []
                if "," in before.name
                else [tell(before, "byte by byte", [wire[n : n + 1] for n in range(len(wire))])]
            ),
        )


@pytest.mark.parametrize("fin", [True, False])
async def test_a_fault_inside_a_message_drops_that_message(server: Server, fin: bool) -> None:
    """A message that is not whole is not published; those before it are."""
    for inside in (TEXT.data, b"\x80\x80" + KEY if not fin else b"\xc0\x80" + KEY):
        wire = TEXT.data + frame(Opcode.TEXT, b"half", fin=False) + inside
        if inside == b"\x80\x80" + KEY:
            wire = TEXT.data + frame(Opcode.TEXT, b"\xe2", fin=False) + inside  # ends inside a UTF-8 sequence
        data = await say(server, f"c{len(wire)}", [wire], deflate=False)
        check(data, TEXT, 1007 if inside == b"\x80\x80" + KEY else 1002)


@pytest.mark.parametrize("size", [64, 256, 1024])
@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
async def test_a_message_of_4_mib_in_short_fragments(opcode: Opcode, size: int) -> None:
    """With `message_bytes` raised and the other settings at their defaults, it is echoed whole, then closed."""
    server = Server(Settings(port=0, limits=Limits(message_bytes=4 * MIB)), broker=MemoryBroker("life1", lambda: 0.0))
    await server.start()
    try:
        payload = b"*" * (4 * MIB)
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        last = len(pieces) - 1
        wire = b"".join(
            frame(Opcode.CONTINUATION if at else opcode, piece, fin=at == last) for at, piece in enumerate(pieces)
        )
        data = await say(server, "c", [wire, frame(Opcode.CLOSE, (1000).to_bytes(2, "big"))], deflate=False)
        echo = encode_frame(opcode, payload)
        assert echo == data[: len(echo)]
        assert [(0x80 | Opcode.CLOSE, (1000).to_bytes(2, "big"))] == list(frames(data[len(echo) :]))
    finally:
        await server.stop()

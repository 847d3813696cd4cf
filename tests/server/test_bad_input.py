"""Hostile peers on real sockets: each gets its coded answer, costs little memory, and nobody else notices.

In every case two well-behaved subscribers are connected meanwhile, and must get their messages. How long a callback of
the loop takes is measured in CPU time, so that a busy machine makes no difference.
"""

from __future__ import annotations

import asyncio
import json
import socket
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from msgspec.structs import replace

from oncecast.errors import ERRORS
from oncecast.server.connection import Connection
from oncecast.server.settings import Limits, RetentionSettings, Settings
from oncecast.wire.ws_connection import CloseReceived
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.server.cost import STALL_SECONDS, timing

if TYPE_CHECKING:
    from tests.server.conftest import Answer, Open, Peer, Site

SECONDS = 60.0
MEMORY_BYTES = int(2.25 * (1 << 20))  # 2 MiB, and what the test's own end of the socket takes

A = b"/v1/channels/a"
REST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"  # must not be taken for a request after a fault


@dataclass
class Scene:
    """A server, its two well-behaved subscribers, and how long the loop's callbacks took."""

    site: Site
    events: Peer
    frames: Peer
    longest: Callable[[], float]
    published: int = 0

    async def check(self) -> None:
        """The subscribers get what is published now, each message once and in order; the loop was never held up."""
        for _ in range(3):
            self.published += 1
            self.site.publish("w", b"%d" % self.published)
            await asyncio.sleep(0)
        for number in range(self.published - 2, self.published + 1):
            event = await asyncio.wait_for(self.events.until(b"data: %d\n\n" % number), SECONDS)
            assert 1 == event.count(b"data: ")
            frame = await asyncio.wait_for(self.frames.frame(), SECONDS)
            assert ("message", str(number)) == (frame["type"], frame["data"])
        assert self.longest() < STALL_SECONDS


@pytest_asyncio.fixture
async def scene(open_site: Open, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Start a server with small limits, and watch it."""
    limits = Limits(body_bytes=1 << 20, frames_per_second=200.0, head_seconds=SECONDS, heartbeat_seconds=2 * SECONDS)
    site = await open_site(Settings(port=0, limits=limits, retention=RetentionSettings(messages=50)))
    events = await site.sse("w")
    frames = await site.websocket("/v1/channels/w")
    await frames.frame()
    with timing(monkeypatch) as times:
        yield Scene(site, events, frames, lambda: max(times))


# -- HTTP


def head(*lines: bytes, first: bytes = b"POST " + A + b" HTTP/1.1") -> bytes:
    """Return a request's head."""
    return b"\r\n".join([first, *lines, b"", b""])


HOST = b"Host: localhost"
CHUNKED = b"Transfer-Encoding: chunked"

HTTP: dict[str, tuple[bytes, int, str]] = {
    "CL with TE": (head(HOST, b"Content-Length: 3", CHUNKED) + b"0\r\n\r\n", 400, "request_invalid"),
    "TE with CL": (head(HOST, CHUNKED, b"Content-Length: 3") + b"0\r\n\r\n", 400, "request_invalid"),
    "two CLs": (head(HOST, b"Content-Length: 1", b"Content-Length: 2") + b"1", 400, "request_invalid"),
    "two equal CLs": (head(HOST, b"Content-Length: 1", b"Content-Length: 1") + b"1", 400, "request_invalid"),
    "CL list": (head(HOST, b"Content-Length: 1, 1") + b"1", 400, "request_invalid"),
    "CL with a sign": (head(HOST, b"Content-Length: +1") + b"1", 400, "request_invalid"),
    "CL below zero": (head(HOST, b"Content-Length: -1") + b"1", 400, "request_invalid"),
    "CL in hex": (head(HOST, b"Content-Length: 0x1") + b"1", 400, "request_invalid"),
    "CL empty": (head(HOST, b"Content-Length:") + b"1", 400, "request_invalid"),
    "CL huge": (head(HOST, b"Content-Length: " + b"9" * 40), 400, "request_invalid"),
    "TE unknown": (head(HOST, b"Transfer-Encoding: gzip"), 400, "request_invalid"),
    "TE obfuscated": (head(HOST, b"Transfer-Encoding: xchunked"), 400, "request_invalid"),
    "TE twice": (head(HOST, b"Transfer-Encoding: chunked, chunked"), 400, "request_invalid"),
    "TE two lines": (head(HOST, CHUNKED, b"Transfer-Encoding: identity"), 400, "request_invalid"),
    "TE with HTTP/1.0": (head(HOST, CHUNKED, first=b"POST " + A + b" HTTP/1.0"), 400, "request_invalid"),
    "bare LF": (b"GET / HTTP/1.1\nHost: localhost\n\n", 400, "request_invalid"),
    "bare LF in a head": (b"GET / HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n", 400, "request_invalid"),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", 400, "request_invalid"),
    "space before the colon": (head(b"Host : t"), 400, "request_invalid"),
    "tab before the colon": (head(HOST, b"Content-Length\t: 1") + b"1", 400, "request_invalid"),
    "obs-fold": (head(HOST, b"X: a", b" b"), 400, "request_invalid"),
    "a folded first line": (b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n", 400, "request_invalid"),
    "NUL in a value": (head(HOST, b"X: a\0b"), 400, "request_invalid"),
    "NUL in a name": (head(HOST, b"X\0: a"), 400, "request_invalid"),
    "NUL in the target": (head(HOST, first=b"GET /\0 HTTP/1.1"), 400, "request_invalid"),
    "no colon": (head(HOST, b"nonsense"), 400, "request_invalid"),
    "an empty name": (head(HOST, b": x"), 400, "request_invalid"),
    "bad chunk size": (head(HOST, CHUNKED) + b"z\r\n", 400, "request_invalid"),
    "chunk size with a sign": (head(HOST, CHUNKED) + b"+1\r\n1\r\n0\r\n\r\n", 400, "request_invalid"),
    "chunk size 0x": (head(HOST, CHUNKED) + b"0x1\r\n1\r\n0\r\n\r\n", 400, "request_invalid"),
    "chunk size too long": (head(HOST, CHUNKED) + b"000000001\r\n", 400, "request_invalid"),
    "chunk without its end": (head(HOST, CHUNKED) + b"1\r\n12\r\n", 400, "request_invalid"),
    "chunk with bare LF": (head(HOST, CHUNKED) + b"1\n1\n0\n\n", 400, "request_invalid"),
    "a trailer that is none": (head(HOST, CHUNKED) + b"0\r\nX : y\r\n\r\n", 400, "request_invalid"),
    "trailers too large": (head(HOST, CHUNKED) + b"0\r\nX: " + b"y" * 5000, 431, "headers_too_large"),
    "no Host": (head(), 400, "request_invalid"),
    "two Hosts": (head(HOST, HOST), 400, "request_invalid"),
    "a bad Host": (head(b"Host: a b"), 400, "request_invalid"),
    "no version": (b"GET /\r\n\r\n", 400, "request_invalid"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "request_invalid"),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: localhost\r\n\r\n", 400, "request_invalid"),
    "TLS to a plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 60, 400, "request_invalid"),
    "a method too long": (b"G" * 100, 400, "request_invalid"),
    "CONNECT": (head(HOST, first=b"CONNECT t:80 HTTP/1.1"), 400, "request_invalid"),
    "empty lines": (b"\r\n" * 10, 400, "request_invalid"),
    "an expectation": (head(HOST, b"Expect: magic"), 400, "request_invalid"),
    "a bad percent": (head(HOST, first=b"GET /v1/channels/%zz HTTP/1.1"), 400, "request_invalid"),
    "percent-encoded NUL": (head(HOST, first=b"GET /v1/channels/%00 HTTP/1.1"), 400, "request_invalid"),
    "no UTF-8": (head(HOST, first=b"GET /v1/channels/%ff HTTP/1.1"), 400, "request_invalid"),
    "a header too large": (head(HOST, b"X: " + b"x" * 40_000), 431, "headers_too_large"),
    "an endless header": (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 40_000, 431, "headers_too_large"),
    "too many headers": (head(HOST, *[b"X: y"] * 120), 431, "headers_too_large"),
    "a URL too long": (head(HOST, first=b"GET /" + b"x" * 17_000 + b" HTTP/1.1"), 414, "url_too_long"),
    "an endless URL": (b"GET /" + b"x" * 40_000, 414, "url_too_long"),
    "a body too large": (head(HOST, b"Content-Length: 9999999"), 413, "body_too_large"),
    "a chunk too large": (head(HOST, CHUNKED) + b"fffffff\r\n", 413, "body_too_large"),
    "a body too large while it streams": (
        head(HOST, CHUNKED) + b"8000\r\n%b\r\n" % (b"x" * 0x8000) * 40, 413, "body_too_large",
    ),
    "a coding": (head(HOST, b"Content-Encoding: gzip", b"Content-Length: 1") + b"1", 415, "type_unsupported"),
}  # fmt: skip


@pytest.mark.parametrize("name", HTTP)
async def test_a_malformed_request(scene: Scene, parse_all: Callable[[bytes], list[Answer]], name: str) -> None:
    """One coded answer, then the end: what follows a fault is no request."""
    data, status, code = HTTP[name]
    if not name.startswith(("an endless", "a method", "TLS", "a body", "trailers")):
        data += REST
    peer = await scene.site.connect(data)
    (answer,) = parse_all(await asyncio.wait_for(peer.all(), SECONDS))
    assert (status, code, "close") == (answer.status, answer.code, answer.headers["connection"])
    await scene.check()


@pytest.mark.parametrize("name", ["CL with TE", "bare LF", "NUL in a value", "bad chunk size", "a URL too long"])
async def test_a_malformed_request_byte_by_byte(
    scene: Scene, parse_all: Callable[[bytes], list[Answer]], name: str
) -> None:
    """However slowly it comes, the answer is the same, once."""
    data, status, code = HTTP[name]
    peer = await scene.site.connect()
    for byte in data:
        peer.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    (answer,) = parse_all(await asyncio.wait_for(peer.all(), SECONDS))
    assert (status, code) == (answer.status, answer.code)
    await scene.check()


MEANT: dict[str, tuple[bytes, int, str]] = {
    "a channel that is none": (head(HOST, first=b"GET /v1/channels/-a HTTP/1.1"), 400, "channel_invalid"),
    "a channel with a break": (head(HOST, first=b"GET /v1/channels/a%0d%0ab HTTP/1.1"), 400, "channel_invalid"),
    "a channel too long": (head(HOST, first=b"GET /v1/channels/" + b"a" * 129 + b" HTTP/1.1"), 400, "channel_invalid"),
    "a malformed cursor": (head(HOST, first=b"GET " + A + b"?after=x HTTP/1.1"), 400, "cursor_invalid"),
    "a cursor with a break": (head(HOST, first=b"GET " + A + b"?after=e-1%0aid:5 HTTP/1.1"), 400, "cursor_invalid"),
    "a cursor too large": (
        head(HOST, first=b"GET " + A + b"?after=e-" + b"9" * 19 + b" HTTP/1.1"),
        400,
        "cursor_invalid",
    ),
    "a Last-Event-ID that is none": (
        head(HOST, b"Accept: text/event-stream", b"Last-Event-ID: 5", first=b"GET " + A + b" HTTP/1.1"),
        400,
        "cursor_invalid",
    ),
    "an event too long": (head(HOST, b"Oncecast-Event: " + b"e" * 129, b"Content-Length: 0"), 400, "event_invalid"),
    "a key too long": (head(HOST, b"Idempotency-Key: " + b"k" * 256, b"Content-Length: 0"), 400, "key_invalid"),
    "text that is no UTF-8": (
        head(HOST, b"Content-Type: text/plain", b"Content-Length: 1") + b"\xff",
        400,
        "data_invalid",
    ),
    "JSON that is none": (
        head(HOST, b"Content-Type: application/json", b"Content-Length: 1") + b"{",
        400,
        "data_invalid",
    ),
    "JSON too deep": (
        head(HOST, b"Content-Type: application/json", b"Content-Length: 900000") + b"[" * 900_000,
        400,
        "data_invalid",
    ),
    "a page of another origin reads": (
        head(HOST, b"Origin: https://evil.example", first=b"GET " + A + b" HTTP/1.1"),
        403,
        "origin_refused",
    ),
    "a page of another origin publishes": (
        head(HOST, b"Origin: null", b"Content-Length: 1") + b"1",
        403,
        "origin_refused",
    ),
    "a batch of too many lines": (
        head(HOST, b"Content-Length: 1000000", first=b"POST /v1/publish HTTP/1.1") + b"1\n" * 500_000,
        413,
        "body_too_large",
    ),
}


@pytest.mark.parametrize("name", MEANT)
async def test_a_request_that_means_nothing(scene: Scene, name: str) -> None:
    """A whole request that can't be granted gets its coded answer, and the connection goes on."""
    data, status, code = MEANT[name]
    peer = await scene.site.connect(data + REST)
    answer = await asyncio.wait_for(peer.answer(), SECONDS)
    assert (status, code) == (answer.status, answer.code)
    assert ERRORS[code].status == status
    assert b"ok\n" == (await asyncio.wait_for(peer.answer(), SECONDS)).body
    await scene.check()


async def test_nothing_is_injected_into_a_stream(scene: Scene) -> None:
    """Data with every kind of line break makes data lines, and never another field; event names can't have one."""
    listener = await scene.site.sse("inject")
    body = b"a\r\nid: 9\revent: gap\ndata: x\n\n: c\0"
    fields = (HOST, b"Content-Type: text/plain", b"Oncecast-Event: e", b"Content-Length: %d" % len(body))
    peer = await scene.site.connect(head(*fields, first=b"POST /v1/channels/inject HTTP/1.1") + body)
    published = await asyncio.wait_for(peer.answer(), SECONDS)
    assert 201 == published.status
    event = await asyncio.wait_for(listener.until(b"\n\n\r\n"), SECONDS)
    lines = event.decode().split("\r\n", 1)[1].removesuffix("\n\n\r\n").split("\n")
    assert {f"id: {published.json['id']}", "event: e"} == {line for line in lines if not line.startswith("data:")}
    assert ["a", "id: 9", "event: gap", "data: x", "", ": c\0"] == [
        line.removeprefix("data:").removeprefix(" ") for line in lines if line.startswith("data:")
    ]
    batch = json.dumps({"channel": "inject", "data": 1, "event": "e\n\nid: 9"}).encode()
    await peer.send(head(HOST, b"Content-Length: %d" % len(batch), first=b"POST /v1/publish HTTP/1.1") + batch)
    assert "event_invalid" == (await asyncio.wait_for(peer.answer(), SECONDS)).code
    await scene.check()


@pytest.mark.parametrize(
    "cursor, reason", [("x0-5", "epoch"), ("{epoch}-999999", "unknown"), ("{epoch}-9223372036854775807", "unknown")]
)
@pytest.mark.parametrize("transport", ["short", "long", "sse", "websocket", "raw"])
async def test_a_cursor_that_was_never_handed_out(scene: Scene, transport: str, cursor: str, reason: str) -> None:
    """A forged cursor, or one of another epoch, gets a gap at once on every transport; never a hang."""
    for number in range(3):
        scene.site.publish("a", b"%d" % number)
    query = "?after=" + cursor.format(epoch=scene.site.server.node.log.epoch)
    path = "/v1/channels/a" + query
    if transport in ("short", "long"):
        wait = "&wait=30" if transport == "long" else ""
        peer = await scene.site.connect(f"GET {path}{wait} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        answer = (await asyncio.wait_for(peer.answer(), SECONDS)).json
        assert reason == answer["gap"]["reason"]
        assert {"a"} >= {message["channel"] for message in answer["messages"]}
    elif transport == "sse":
        peer = await scene.site.connect(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()
        )
        data = await asyncio.wait_for(peer.until(b'"cursor":"'), SECONDS)
        assert b"event: gap\n" in data
        assert f'"reason":"{reason}"'.encode() in data
    elif transport == "websocket":
        peer = await scene.site.websocket(path)
        assert "subscribed" == (await asyncio.wait_for(peer.frame(), SECONDS))["type"]
        frame = await asyncio.wait_for(peer.frame(), SECONDS)
        assert ("gap", reason) == (frame["type"], frame["reason"])
    else:
        peer = await scene.site.websocket(path, protocol=None)
        event = await asyncio.wait_for(peer.event(), SECONDS)
        assert isinstance(event, CloseReceived)
        assert 4410 == event.code
    await scene.check()


# -- WebSocket


def frame(first: int, payload: bytes = b"", *, mask: bool = True, length: bytes | None = None) -> bytes:
    """Return a frame with any first byte and any claim of its length; the mask is zeros."""
    size = bytes([len(payload)]) if length is None else length
    second = bytes([size[0] | (0x80 if mask else 0)]) + size[1:]
    return bytes([first]) + second + (b"\0\0\0\0" if mask else b"") + payload


SOCKET: dict[str, tuple[bytes, int]] = {
    "RSV1": (frame(0xC1, b"{}"), 1002),
    "RSV2": (frame(0xA1, b"{}"), 1002),
    "RSV3": (frame(0x91, b"{}"), 1002),
    "a reserved data opcode": (frame(0x83), 1002),
    "a reserved control opcode": (frame(0x8B), 1002),
    "an unmasked frame": (frame(0x81, b"{}", mask=False), 1002),
    "a continuation of nothing": (frame(0x80, b"x"), 1002),
    "a message inside a message": (frame(0x01, b"{") + frame(0x81, b"}"), 1002),
    "a length of 125 in two bytes": (frame(0x81, length=b"\x7e\x00\x7d"), 1002),
    "a length of 1 in eight bytes": (frame(0x81, length=b"\x7f" + b"\0" * 7 + b"\x01"), 1002),
    "a length with its highest bit": (frame(0x82, length=b"\x7f\xff" + b"\0" * 7), 1002),
    "a long ping": (frame(0x89, length=b"\x7e\x01\x00"), 1002),
    "a fragmented ping": (frame(0x09), 1002),
    "a close of one byte": (frame(0x88, b"\x03"), 1002),
    "a close with code 1005": (frame(0x88, b"\x03\xed"), 1002),
    "a close with code 999": (frame(0x88, b"\x03\xe7"), 1002),
    "a close with code 5000": (frame(0x88, b"\x13\x88"), 1002),
    "text that is no UTF-8": (frame(0x81, b'"\xff"'), 1007),
    "no UTF-8 in the middle of a fragment": (frame(0x01, b"a\xed\xa0"), 1007),
    "a message that ends inside a character": (frame(0x01, b"\xe2\x82") + frame(0x80), 1007),
    "a close reason that is no UTF-8": (frame(0x88, b"\x03\xe8\xff"), 1007),
    "a message over the limit": (frame(0x82, length=b"\x7f" + (2 << 20).to_bytes(8, "big")), 1009),
    "fragments over the limit": (frame(0x02, b"x" * 65536, length=b"\x7f" + (65536).to_bytes(8, "big"))
                                 + frame(0x00, b"x" * 65536, length=b"\x7f" + (65536).to_bytes(8, "big")) * 20, 1009),
    "endless tiny fragments": (frame(0x01) + frame(0x00) * 70_000, 1009),
    "a flood of pings": (frame(0x89) * 60_000, 4429),
    "a flood of pongs": (frame(0x8A) * 60_000, 4429),
    "a flood of nonsense": (frame(0x81, b"x") * 60_000, 4429),
    "a flood of subscribes": (frame(0x81, b'{"type":"subscribe","channel":"a"}') * 20_000, 4429),
    "a flood of publishes": (frame(0x81, b'{"type":"publish","channel":"a","data":1}') * 30_000, 4429),
    "binary to oncecast.v1": (frame(0x82, b"{}"), 1003),
}  # fmt: skip


async def closed_with(peer: Peer) -> int:
    """Read up to the server's Close and return its code."""
    while True:
        event = await asyncio.wait_for(peer.event(), SECONDS)
        if isinstance(event, CloseReceived):
            assert event.code is not None
            return event.code


@pytest.mark.parametrize("name", SOCKET)
async def test_a_fault_on_a_websocket(scene: Scene, name: str) -> None:
    """A fault or a flood gets its close code, then the end."""
    data, code = SOCKET[name]
    app = scene.site.server.app
    app.settings = replace(app.settings, publishes_per_second=500.0)  # a slow machine must be flooded too
    peer = await scene.site.websocket("/v1/connect")
    peer.writer.write(data)  # not `drain`: a server may stop reading at any byte
    assert code == await closed_with(peer)
    peer.close()
    await scene.check()


@pytest.mark.parametrize(
    "data, code",
    [
        (b"nonsense", "frame_invalid"),
        (b"[]", "frame_invalid"),
        (b'{"type":"dance"}', "frame_invalid"),
        (b'{"type":"subscribe"}', "frame_invalid"),
        (b"[" * 100_000, "frame_invalid"),
        (b'{"type":"subscribe","channel":"!"}', "channel_invalid"),
        (b'{"type":"subscribe","channel":"a","after":"x"}', "cursor_invalid"),
        (b'{"type":"subscribe","channel":"a","after":"latest","last":1}', "request_invalid"),
        (b'{"type":"subscribe","channel":"a","since":-1}', "request_invalid"),
        (b'{"type":"subscribe","channel":"a","last":-1}', "request_invalid"),
        (b'{"type":"publish","channel":"a"}', "data_invalid"),
        (b'{"type":"publish","channel":"a","data":1,"event":"a\\nb"}', "event_invalid"),
        (b'{"type":"publish","channel":"a","data":1,"event":"\\u0000"}', "event_invalid"),
        (b'{"type":"publish","channel":"a","data64":"!"}', "data_invalid"),
        (b'{"type":"publish","channel":"a","data":' + b"[" * 5000 + b"]" * 5000 + b"}", "data_invalid"),
        (b'{"type":"unsubscribe","channel":"a b"}', "channel_invalid"),
        (b'{"type":"auth","token":"x"}', "request_invalid"),
    ],
)
async def test_a_frame_that_means_nothing(scene: Scene, data: bytes, code: str) -> None:
    """A frame that can't be obeyed is answered with an error frame, and the socket goes on."""
    peer = await scene.site.websocket("/v1/connect")
    await peer.send(encode_frame(Opcode.TEXT, data, mask=b"mask"))
    answer = await asyncio.wait_for(peer.frame(), SECONDS)
    assert ("error", code) == (answer["type"], answer["code"])
    await peer.say(type="publish", channel="a", data=1, ref="after")
    assert "after" == (await asyncio.wait_for(peer.frame(), SECONDS))["ref"]
    await scene.check()


# What is replaced in a right handshake, by what, and the answer.
HANDSHAKES: dict[str, tuple[bytes, bytes, int, str]] = {
    "another version": (b"Version: 13", b"Version: 8", 426, "upgrade_required"),
    "no version": (b"Sec-WebSocket-Version: 13\r\n", b"", 426, "upgrade_required"),
    "HTTP/1.0": (b" HTTP/1.1", b" HTTP/1.0", 400, "request_invalid"),
    "no key": (b"Sec-WebSocket-Key:", b"X-Key:", 400, "request_invalid"),
    "a key that is too short": (b"dGhlIHNhbXBsZSBub25jZQ==", b"c2hvcnQ=", 400, "request_invalid"),
    "a key that is no base64": (b"dGhlIHNhbXBsZSBub25jZQ==", b"?" * 24, 400, "request_invalid"),
    "two keys": (b"Host:", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nHost:", 400, "request_invalid"),
    "a body": (b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc", 400, "request_invalid"),
    "a chunked body": (
        b"\r\n\r\n",
        b"\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        400,
        "request_invalid",
    ),
    "a subprotocol that is no token": (b"oncecast.v1", b"a b", 400, "request_invalid"),
}


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_a_bad_handshake(scene: Scene, upgrade: Callable[..., bytes], name: str) -> None:
    """One coded answer, with the version where that is wrong, and the end (RFC 6455 §4.2.1, §4.4)."""
    old, new, status, code = HANDSHAKES[name]
    right = upgrade("/v1/channels/a")
    assert old in right
    peer = await scene.site.connect(right.replace(old, new, 1))
    answer = await asyncio.wait_for(peer.answer(), SECONDS)
    ends = "Upgrade, close" if status == 426 else "close"  # what an upgrade is offered by (RFC 9110 §15.5.22)
    assert (status, code, ends) == (answer.status, answer.code, answer.headers["connection"])
    assert ("13" if status == 426 else None) == answer.headers.get("sec-websocket-version")
    assert b"" == await asyncio.wait_for(peer.all(), SECONDS)
    await scene.check()


async def test_a_websocket_of_a_foreign_page(scene: Scene, upgrade: Callable[..., bytes]) -> None:
    """Another origin's page opens no WebSocket."""
    for origin in (b"https://evil.example", b"null"):
        peer = await scene.site.connect(
            upgrade("/v1/channels/a").replace(b"Host: localhost", b"Host: localhost\r\nOrigin: " + origin)
        )
        answer = await asyncio.wait_for(peer.answer(), SECONDS)
        assert (403, "origin_refused") == (answer.status, answer.code)
    await scene.check()


# -- piles


BATCH = head(HOST, b"Content-Length: 75000", first=b"POST /v1/publish HTTP/1.1") + b'{"channel":"a","data":1}\n' * 3000


@pytest.mark.parametrize(
    "name, data",
    [
        ("polls", head(HOST, first=b"GET " + A + b" HTTP/1.1") * 5000),
        ("metrics", head(HOST, first=b"GET /metrics HTTP/1.1") * 1000),
        ("publishes", (head(HOST, b"Content-Length: 1") + b"1") * 5000),
        ("batches", BATCH * 4),
        ("tiny chunks", head(HOST, CHUNKED) + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n"),
        ("many small headers", head(HOST, *[b"a:b"] * 99, first=b"GET /healthz HTTP/1.1") * 2000),
        ("raw publishes", b""),
    ],
)  # fmt: skip
async def test_a_pile_does_not_hold_up_the_others(
    scene: Scene, upgrade: Callable[..., bytes], name: str, data: bytes
) -> None:
    """However much one peer sends at once, the loop goes round in time for everybody else."""
    if name == "raw publishes":
        peer = await scene.site.websocket("/v1/channels/a", protocol=None)
        data = frame(0x82, b"x") * 100_000
    else:
        peer = await scene.site.connect()
    peer.writer.write(data)
    reading = asyncio.create_task(peer.all())
    for _ in range(5):
        await scene.check()
    reading.cancel()
    await asyncio.wait({reading})
    peer.close()
    await scene.check()


# -- memory


async def push(site: Site, peer: socket.socket, piece: bytes, total: int) -> int:
    """Send `piece` over and over until `total` bytes are sent, or the server reads no more, or has closed.

    Returns how much went out.
    """
    sent = 0
    idle = 0
    while sent < total:
        try:
            sent += peer.send(piece)
            idle = 0
        except BlockingIOError:
            idle += 1
            if idle > 100 and all(c._paused for c in site.server.app.connections if isinstance(c, Connection)):
                break
        except ConnectionError:
            break
        await asyncio.sleep(0)
    return sent


async def cost(site: Site, opening: bytes, piece: bytes, total: int, *, after: bytes = b"") -> int:
    """Return the most memory that the server used while a hostile peer sent, in bytes."""
    peer = socket.socket()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    peer.connect(("127.0.0.1", site.server.port))
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        await asyncio.wait_for(loop.sock_sendall(peer, opening), SECONDS)
        if after:
            got = b""
            while after not in got:
                got += await asyncio.wait_for(loop.sock_recv(peer, 65536), SECONDS)
        tracemalloc.start()
        began = tracemalloc.get_traced_memory()[0]
        await asyncio.wait_for(push(site, peer, piece, total), SECONDS)
        return tracemalloc.get_traced_memory()[1] - began
    finally:
        tracemalloc.stop()
        peer.close()
        await site.until(lambda: not site.server.app.connections)


async def test_memory_of_an_endless_head(open_site: Open) -> None:
    """A head is held up to its limit, however it comes."""
    site = await open_site()
    for piece in (b"x" * 100, b"X: y\r\n", b"x" * 60_000):
        assert await cost(site, b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", piece, 2 << 20) < 1 << 19


async def test_memory_of_an_endless_body(open_site: Open) -> None:
    """A body is held up to its limit, then refused."""
    site = await open_site()
    chunk = b"4000\r\n%b\r\n" % (b"x" * 0x4000)
    assert await cost(site, head(HOST, CHUNKED), chunk, 2 << 20) < MEMORY_BYTES
    assert await cost(site, head(HOST, CHUNKED), b"20\r\n%b\r\n" % (b"x" * 32) * 1000, 2 << 20) < MEMORY_BYTES
    assert await cost(site, head(HOST, b"Content-Length: 1048576"), b"x" * 16_000, (1 << 20) - 16_000) < MEMORY_BYTES


async def test_memory_of_endless_fragments(open_site: Open, upgrade: Callable[..., bytes]) -> None:
    """A message of fragments is held up to its limit, of bytes and of fragments."""
    site = await open_site()
    opening = upgrade("/v1/channels/a", protocol=None) + frame(0x02)
    fragment = frame(0x00, b"x" * 1000, length=b"\x7e\x03\xe8")
    for piece in (frame(0x00, b"x") * 64, frame(0x00) * 64, fragment):  # one at a time would take a quarter of a minute
        assert await cost(site, opening, piece, 2 << 20, after=b"\r\n\r\n") < MEMORY_BYTES


async def test_memory_of_a_large_message_in_pieces(open_site: Open, upgrade: Callable[..., bytes]) -> None:
    """A message as large as may be, of which the last byte never comes."""
    site = await open_site()
    opening = upgrade("/v1/channels/a", protocol=None) + frame(0x82, length=b"\x7f" + (1 << 20).to_bytes(8, "big"))
    assert await cost(site, opening, b"x" * 8000, (1 << 20) - 8000, after=b"\r\n\r\n") < MEMORY_BYTES


async def test_memory_of_answers_never_read(open_site: Open) -> None:
    """A peer that asks and asks and never reads is not answered past what its socket holds."""
    site = await open_site()
    for number in range(40):
        site.publish("a", b"%06d" % number * 1000)
    poll = head(HOST, first=b"GET " + A + b" HTTP/1.1")
    assert await cost(site, b"", poll, 4 << 20) < MEMORY_BYTES
    assert await cost(site, b"", head(HOST, first=b"GET /docs/errors HTTP/1.1"), 4 << 20) < MEMORY_BYTES


@pytest.mark.parametrize("protocol", ["oncecast.v1", None])
async def test_memory_of_a_publisher_that_never_reads(
    open_site: Open, upgrade: Callable[..., bytes], protocol: str | None
) -> None:
    """A socket that publishes to itself and never reads is read no further; what it missed is in the log."""
    limits = Limits(publishes_per_second=1e6, frames_per_second=1e6)
    site = await open_site(Settings(port=0, limits=limits, retention=RetentionSettings(messages=10)))
    text = b'{"type":"publish","channel":"a","data":"%b"}' % (b"x" * 900)
    piece = frame(0x81, text, length=b"\x7e" + len(text).to_bytes(2, "big"))
    assert (
        await cost(site, upgrade("/v1/channels/a", protocol=protocol), piece, 2 << 20, after=b"\r\n\r\n") < MEMORY_BYTES
    )

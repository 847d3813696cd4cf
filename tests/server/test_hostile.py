"""A row for each kind of hostile connection to a running server: raw bytes in, the exact answer out, and its cost.

The peer is a thread with a plain socket. Meanwhile a listener is connected, which must get its messages. A row runs
twice: once the longest callback of the loop is measured, in CPU time of its thread, so that a busy machine makes no
difference; once the memory. To add a kind, add a row to `ROWS`.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import select
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from oncecast.errors import Refusal
from oncecast.server.settings import AuthSettings, ChannelRule, Limits, Settings
from oncecast.wire.ws_connection import CloseReceived, DataReceived, Role, WebSocketConnection
from oncecast.wire.ws_deflate import compress_message
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.server.cost import STALL_SECONDS, Cost, measuring
from tests.token_rig import SECRET

if TYPE_CHECKING:
    from tests.server.conftest import Open

SECONDS = 60.0
READINGS = 3  # of memory: what else is in this process, such as a list of pytest's, may grow during one of them
KEPT_BYTES = 128 << 10  # of what the peer has read: the end of it
MIB = 1 << 20

LIMITS = Limits(head_seconds=0.3, body_seconds=0.3, answer_seconds=0.3, heartbeat_seconds=0.5, frames_per_second=50)
PATIENT = Limits(frames_per_second=10_000, publishes_per_second=10_000)
HOST = b"Host: localhost\r\n"
CLOSE = b"Connection: close\r\n\r\n"
GET = b"GET /v1/channels/a%s HTTP/1.1\r\n" + HOST
POST = b"POST %s HTTP/1.1\r\n" + HOST
UPGRADE = (
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
V1 = b"GET /v1/connect HTTP/1.1\r\n" + HOST + UPGRADE + b"Sec-WebSocket-Protocol: oncecast.v1\r\n\r\n"
RAW = GET % b"" + UPGRADE + b"\r\n"
PACKED = V1[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
OPENED = b"\r\n\r\n"

LAST = b'{"type":"publish","channel":"z","data":1,"ref":"last"}'


def text(data: bytes) -> bytes:
    """Return a masked text frame."""
    return encode_frame(Opcode.TEXT, data, mask=b"mask")


def more(data: bytes) -> bytes:
    """Return a masked frame of a message that goes on."""
    return encode_frame(Opcode.CONTINUATION, data, fin=False, mask=b"mask")


QUICK = Settings(port=0, limits=Limits(publishes_per_second=1))  # however slow the machine is
SMALL = Settings(port=0, limits=Limits(message_bytes=MIB // 4, body_bytes=MIB // 4))
PACKING = Settings(port=0, deflate=True)

Check = Callable[[bytes], object]
"""Looks at all that the server has sent, or at the end of it: raises where it is not the answer."""


@dataclass(frozen=True)
class Row:
    """A hostile connection: `opening`, then, once `after` was read, the pieces, each after a pause. `check` ends it.

    It reads all the time, or never (`deaf`). `settings` are those of the server.
    """

    check: Check
    opening: bytes = b""
    pieces: Sequence[bytes] = ()
    times: int = 1
    after: bytes = b""
    pause: float = 0.0
    deaf: bool = False
    most_bytes: int = int(2.25 * MIB)  # 2 MiB, and what the peer takes in the same process
    settings: Settings = field(default_factory=lambda: Settings(port=0, limits=LIMITS))


# -- what the answer has to be


def answered(status: int, code: str | None = None) -> Check:
    """The last answer is this one, and the connection is closed after it."""

    def check(data: bytes) -> None:
        last = data[data.rindex(b"HTTP/1.1 ") :]
        assert status == int(last[9:12]), last
        assert code is None or f'"code":"{code}"'.encode() in last

    return check


def closed(code: int) -> Check:
    """The last frame is a Close with this code."""

    def check(data: bytes) -> None:
        at = next(at for at in range(len(data) - 2, -1, -1) if data[at] == 0x88 and data[at + 1] == len(data) - at - 2)
        assert code == int.from_bytes(data[at + 2 : at + 4])

    return check


def cut(data: bytes) -> None:
    """There is no answer more: the connection has ended, which the peer has waited for."""


def said(*marks: bytes) -> Check:
    """Each of these stands in the answers, the last one at their end."""

    def check(data: bytes) -> None:
        assert all(mark in data for mark in marks), (marks, data[-2000:])

    return check


def frames(count: int, codes: set[str | None]) -> Check:
    """So many frames were answered, with these errors or (None) without, and the last one too."""

    def check(data: bytes) -> None:
        codec = WebSocketConnection(Role.CLIENT, mask_key=lambda: b"mask")
        found = codec.receive(data.partition(OPENED)[2])
        answers = [json.loads(event.data) for event in found if isinstance(event, DataReceived)]
        answers = [each for each in answers if each["type"] in ("error", "published", "subscribed", "unsubscribed")]
        assert count + 1 == len(answers)
        assert codes == {each.get("code") for each in answers[:-1]}
        assert ("published", "last") == (answers[-1]["type"], answers[-1]["ref"])
        assert not any(isinstance(event, CloseReceived) for event in found)

    return check


# -- what is sent


def body(content: bytes, path: bytes = b"/v1/channels/a", more: bytes = b"") -> bytes:
    """Return a POST after which the server closes."""
    return POST % path + more + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(content) + content


def packed(data: bytes) -> bytes:
    """Return a masked frame of compressed data."""
    return encode_frame(Opcode.TEXT, compress_message(data, level=9), mask=b"mask", rsv1=True)


NUMBERS = (b"9" * 18, b"9" * 40, b"-" + b"9" * 40, b"1e999", b"0." + b"3" * 5000, b"9" * 100_000)
FIELDS = {
    b"subscribe": (b"channel", b"after", b"last", b"since", b"ref"),
    b"unsubscribe": (b"channel", b"ref"),
    b"publish": (b"channel", b"data64", b"event", b"key", b"ref"),
    b"auth": (b"token", b"ref"),
}
NUMBER_FRAMES = [
    text(b'{"type":"%s",%s"%s":%s}' % (kind, b"" if name == b"channel" else b'"channel":"b",', name, number))
    for kind, names in FIELDS.items()
    for name in names
    for number in NUMBERS[1:]
]
QUERIES = [
    GET % b"?%s=%s" % (name, number) + b"\r\n"
    for name in (b"after", b"last", b"since", b"wait", b"limit", b"envelope")
    for number in NUMBERS[1:-1]
]
LINES = b"".join(
    b'{"channel":"a","data":1,"%s":%s}\n' % (name, number)
    for name in (b"channel", b"data", b"data64", b"event", b"key")
    for number in NUMBERS[1:-1]
)
END = GET % b"?limit=1" + b"Connection: close\r\n\r\n"
GUARDED = Settings(
    port=0,
    limits=LIMITS,
    auth=AuthSettings(secret=SECRET, cookie="sid"),
    channels={"*": ChannelRule(subscribe="public", publish="public")},
)
TOKEN = b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0."
DEEP = b"[" * 500_000
EMOJI = "😀".encode() * 200_000  # the text of it takes as many bytes again, or five times as many while it is made
LONG_FIELDS = [
    b'{%b"channel":"%b","data":1}' % (b"%b", EMOJI),
    *(b'{%b"channel":"a","data":1,"%b":"%b"}' % (b"%b", name, EMOJI) for name in (b"event", b"key", b"traceparent")),
]

ROWS: dict[str, Row] = {
    # heads
    "a head that dribbles in": Row(answered(408, "timeout"), b"GET / HTTP/1.1\r\nX: ", [b"x"], 1000, pause=0.02),
    "a head that stops": Row(answered(408, "timeout"), b"GET / HTTP/1.1\r\nHost"),
    "an endless head": Row(answered(431, "headers_too_large"), b"GET / HTTP/1.1\r\n" + HOST, [b"X: y\r\n" * 50], 1000),
    "an endless value": Row(answered(431, "headers_too_large"), b"GET / HTTP/1.1\r\nX: ", [b"x" * 9000], 100),
    "an endless target": Row(answered(414, "url_too_long"), b"GET /", [b"%20" * 3000], 100),
    "many headers": Row(answered(431, "headers_too_large"), GET % b"" + b"A: b\r\n" * 5000 + b"\r\n"),
    "many tags": Row(answered(200), GET % b"?limit=1" + b"If-None-Match: " + b'"a-1",' * 5000 + b"\r\n" + CLOSE),
    "many cookies": Row(
        answered(200),
        GET % b"?limit=1" + b"Cookie: " + b"sid=;" * 6000 + b"\r\nConnection: close\r\n\r\n",
        settings=GUARDED,
    ),
    "a megabyte of text beyond ASCII": Row(answered(201), body(EMOJI, more=b"Content-Type: text/plain\r\n")),
    "a megabyte of JSON beyond ASCII": Row(
        answered(201), body(b'"%b"' % EMOJI, more=b"Content-Type: application/json\r\n")
    ),
    "long fields beyond ASCII in a batch": Row(
        said(b'"code":"channel_invalid"', b'"code":"event_invalid"', b'"code":"key_invalid"', b'"code":"data_invalid"'),
        pieces=[
            *(body(line % b"", b"/v1/publish").replace(b"Connection: close\r\n", b"") for line in LONG_FIELDS[:3]),
            body(LONG_FIELDS[3] % b"", b"/v1/publish"),
        ],
    ),
    "many subprotocols": Row(
        answered(400, "request_invalid"), RAW[:-2] + b"Sec-WebSocket-Protocol: " + b"a," * 15_000 + b"b\r\n\r\n"
    ),
    "many extensions": Row(
        closed(4429),
        V1[:-2] + b"Sec-WebSocket-Extensions: " + b"permessage-deflate;a=1," * 1200 + b"b\r\n\r\n",
        [encode_frame(Opcode.PING, b"", mask=b"mask") * 200],
        settings=Settings(port=0, limits=LIMITS, deflate=True),
    ),
    "many channels": Row(
        answered(400, "request_invalid"),
        GET.replace(b"/a", b"/" + b"a%d," * 2000 % tuple(range(2000)) + b"b") % b"" + b"Connection: close\r\n\r\n",
    ),
    **{
        f"spaces in a field before a line that is none, {name.decode()}": Row(
            answered(400, "request_invalid"), b"GET / HTTP/1.1\r\n%b:%b\x80\r\nbad\r\n\r\n" % (name, b" " * 32_600)
        )
        for name in (b"Host", b"Origin")
    },
    "polls with bodies": Row(
        answered(200),
        pieces=[*[GET.replace(b"/a", b"/q") % b"" + b"Content-Length: 500000\r\n\r\n" + b"x" * 500_000] * 20, END],
        settings=Settings(port=0),
    ),
    "many fields of a query": Row(answered(400, "request_invalid"), GET % (b"?" + b"a=b&" * 3000) + CLOSE),
    # bodies
    "a body that dribbles in": Row(
        answered(408, "timeout"), POST % b"/v1/channels/a" + b"Content-Length: 9999\r\n\r\n", [b"1"], 1000, pause=0.02
    ),
    "chunks that dribble in": Row(
        answered(408, "timeout"),
        POST % b"/v1/channels/a" + b"Transfer-Encoding: chunked\r\n\r\n",
        [b"1\r\n1\r\n"],
        1000,
        pause=0.02,
    ),
    "endless chunks": Row(
        answered(413, "body_too_large"),
        POST % b"/v1/channels/a" + b"Transfer-Encoding: chunked\r\n\r\n",
        [b"10\r\n0123456789abcdef\r\n" * 500],
        2000,
        settings=SMALL,
    ),
    "an endless extension of a chunk": Row(
        answered(400, "request_invalid"),
        POST % b"/v1/channels/a" + b"Transfer-Encoding: chunked\r\n\r\n1;",
        [b"a" * 5000],
        200,
    ),
    "endless trailers": Row(
        answered(431, "headers_too_large"),
        POST % b"/v1/channels/a" + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",
        [b"A: b\r\n" * 200],
        200,
    ),
    "deep JSON": Row(answered(400, "data_invalid"), body(DEEP, more=b"Content-Type: application/json\r\n")),
    "wide JSON": Row(answered(201), body(b"[" + b"1," * 400_000 + b"1]", more=b"Content-Type: application/json\r\n")),
    "deep JSON in a batch": Row(
        said(b"HTTP/1.1 200 ", b'"code":"data_invalid"'), body(b'{"channel":"a","data":' + DEEP, b"/v1/publish")
    ),
    "a batch of lines that mean nothing": Row(answered(413, "body_too_large"), body(b"{}\n" * 300_000, b"/v1/publish")),
    "huge numbers in a batch": Row(said(b"HTTP/1.1 200 ", b'"code":"data_invalid"'), body(LINES, b"/v1/publish")),
    "deep JSON for a ticket": Row(
        answered(401, "unauthorized"), body(DEEP, b"/v1/ticket"), settings=GUARDED
    ),
    # credentials
    "tokens that are none": Row(
        said(b"HTTP/1.1 401 ", b'"code":"unauthorized"', b"HTTP/1.1 200 "),
        (GET % b"?limit=1" + b"Authorization: Bearer " + TOKEN + b"A" * 8000 + b"\r\n\r\n") * 300 + END,
        settings=GUARDED,
    ),
    "a deep token": Row(
        answered(401, "unauthorized"),
        GET % (b"?token=" + b"W1tb" * 1500 + b".e30.x") + b"Connection: close\r\n\r\n",
        settings=GUARDED,
    ),
    # answers that nobody reads
    "polls that nobody reads": Row(cut, pieces=[(GET % b"" + b"\r\n") * 50], times=1000, deaf=True),
    "pages that nobody reads": Row(
        cut, pieces=[(b"GET /docs/errors HTTP/1.1\r\n" + HOST + b"\r\n") * 50], times=1000, deaf=True
    ),
    # frames
    "a flood of pings": Row(closed(4429), V1, [encode_frame(Opcode.PING, b"x" * 125, mask=b"mask") * 100], 50, OPENED),
    "a flood of pongs": Row(closed(4429), V1, [encode_frame(Opcode.PONG, b"", mask=b"mask") * 100], 50, OPENED),
    "a flood of subscribes": Row(
        closed(4429), V1, [text(b'{"type":"subscribe","channel":"a","after":"earliest"}') * 50], 50, OPENED
    ),
    "a flood of channels": Row(
        closed(4429), V1, [text(b'{"type":"subscribe","channel":"c%d"}' % each) for each in range(2000)], 1, OPENED
    ),
    "a flood of publishes": Row(
        closed(4429),
        V1,
        [text(b'{"type":"publish","channel":"a","data":1}') * 100],
        100,
        OPENED,
        settings=QUICK,
    ),
    "a flood on a raw socket": Row(
        closed(4429), RAW, [text(b"1") * 100], 100, OPENED, settings=QUICK
    ),
    "a flood of tokens": Row(
        closed(4429),
        V1,
        [text(b'{"type":"auth","token":"%s"}' % (TOKEN + b"A" * 8000)) * 10],
        100,
        OPENED,
        settings=GUARDED,
    ),
    "a flood of requests": Row(
        answered(429, "too_many_requests"),
        pieces=[(POST % b"/v1/channels/a" + b"Content-Length: 1\r\n\r\n1") * 50],
        times=20,
        settings=Settings(port=0, limits=Limits(publishes_per_second=1, keep_alive_seconds=0.5)),
    ),
    "endless fragments": Row(
        closed(1009), V1, [b"\x01\x80mask", more(b"x") * 500], 5000, OPENED, settings=SMALL,
    ),
    "endless empty fragments": Row(
        closed(1009), V1, [b"\x01\x80mask", more(b"") * 500], 5000, OPENED, settings=SMALL,
    ),
    "a frame of 2^62 bytes": Row(closed(1009), V1, [b"\x81\xff" + (1 << 62).to_bytes(8) + b"mask"], 1, OPENED),
    "a bomb": Row(closed(1009), PACKED, [packed(bytes(64 * MIB))], 1, OPENED, settings=PACKING),
    "a bomb in many fragments": Row(
        closed(1009),
        PACKED,
        [b"\x41\x80mask", more(compress_message(bytes(MIB), level=9) + b"\0\0\xff\xff")],
        1000,
        OPENED,
        settings=PACKING,
    ),
    "deep JSON in a frame": Row(
        frames(2, {"frame_invalid", "data_invalid"}),
        V1,
        [text(DEEP), text(b'{"type":"publish","channel":"a","data":' + DEEP + b"}"), text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "a frame with many fields": Row(
        frames(1, {"frame_invalid"}),
        V1,
        [text(b'{"type":"publish","channel":"a",%s"data":1}' % (b'"data":1,' * 100_000)), text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "a frame with a long type": Row(
        frames(1, {"frame_invalid"}),
        V1,
        [text(b'{"type":"%s"}' % (b"x" * 1_000_000)), text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "a frame with a long name of a field": Row(
        frames(1, {"frame_invalid"}),
        V1,
        [text(b'{"type":"publish","channel":"a","%s":1}' % (b"x" * 1_000_000)), text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "a frame with a long ref": Row(
        frames(1, {"frame_invalid"}),
        V1,
        [text(b'{"type":"unsubscribe","channel":"a","ref":"%s"}' % (b"x" * 1_000_000)), text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "long fields beyond ASCII in frames": Row(
        frames(5, {"channel_invalid", "event_invalid", "key_invalid", "data_invalid", "frame_invalid"}),
        V1,
        [
            *(text(fields % b'"type":"publish",') for fields in LONG_FIELDS),
            text(b'{"type":"publish","channel":"a","data":1,"ref":"%b"}' % EMOJI),
            text(LAST),
        ],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "huge numbers in frames": Row(
        frames(len(NUMBER_FRAMES), {"frame_invalid", "request_invalid", None}),
        V1,
        [*NUMBER_FRAMES, text(LAST)],
        1,
        OPENED,
        settings=Settings(port=0, limits=PATIENT),
    ),
    "huge numbers in queries": Row(answered(200), pieces=[*QUERIES, END], settings=Settings(port=0)),
}  # fmt: skip


# -- the peer, and what it costs


class Assault:
    """The thread's end of the connection. `got` is the end of what the server has sent."""

    def __init__(self, port: int, row: Row) -> None:
        self._row = row
        self._socket = socket.socket()
        if row.deaf:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        self._socket.setblocking(False)
        self._buffer = bytearray(16384)
        self._until = time.monotonic() + SECONDS
        self.got = bytearray()
        self._moved = time.monotonic()  # when the server has taken something
        self.over = self._stuck = False

    def run(self) -> bytes:
        """Send all, then wait until the server closes, or has answered the last frame."""
        try:
            self._send(self._row.opening)
            while self._row.after and self._row.after not in self.got and not self.over:
                self._wait(0.05)
            for piece in self._pieces():
                if self.over or self._stuck:
                    break
                self._send(piece)
                if self._row.pause:
                    self._wait(self._row.pause)
            while not self.over and b'"ref":"last"' not in self.got:
                assert time.monotonic() < self._until, self.got[-300:]
                self._wait(0.05)
                if self._row.deaf:
                    self._send(b"\r\n")  # a reset shows in the next write
        finally:
            self._socket.close()
        return bytes(self.got)

    def _pieces(self) -> Iterable[bytes]:
        first, rest = self._row.pieces[:1], self._row.pieces
        if len(rest) > 1 and self._row.times > 1:  # a beginning, and what follows it again and again
            return itertools.chain(first, itertools.chain.from_iterable(itertools.repeat(rest[1:], self._row.times)))
        return itertools.chain.from_iterable(itertools.repeat(rest, self._row.times))

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view and not self.over:
            try:
                view = view[self._socket.send(view) :]
                self._moved = time.monotonic()
            except BlockingIOError:
                if self._row.deaf and time.monotonic() > self._moved + 0.3:
                    self._stuck = True  # the server reads no more: what is left is not sent
                    return
                self._wait(0.05, writing=True)
            except ConnectionError:
                self.over = True
            self._read()

    def _wait(self, seconds: float, *, writing: bool = False) -> None:
        assert time.monotonic() < self._until, self.got[-300:]
        reading = [] if self._row.deaf else [self._socket]
        select.select(reading, [self._socket] if writing else [], [], seconds)
        self._read()

    def _read(self) -> None:
        while not self._row.deaf and not self.over:
            try:
                size = self._socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            except ConnectionError:
                size = 0
            self.over = not size
            self.got += self._buffer[:size]
            del self.got[:-KEPT_BYTES]


@pytest.mark.parametrize("measured", ["stall", "memory"])
@pytest.mark.parametrize("name", ROWS)
async def test_a_hostile_connection(open_site: Open, monkeypatch: pytest.MonkeyPatch, name: str, measured: str) -> None:
    """A hostile peer gets its answer for bounded time and memory, and a listener beside it gets its message."""
    row = ROWS[name]
    for _ in range(READINGS):
        cost = await _assail(open_site, monkeypatch, row, measured)
        if cost.peak < row.most_bytes:
            break
    assert cost.seconds < STALL_SECONDS
    assert cost.peak < row.most_bytes


# By what may become the key of a cache: a request in which that is long, and of this number alone.
LONG_TEXTS: dict[str, Callable[[int], bytes]] = {
    "host": lambda number: b"GET /v1/channels/a HTTP/1.1\r\nHost: h%030000d\r\n\r\n" % number,
    "origin": lambda number: GET % b"" + b"Origin: https://h%030000d\r\n\r\n" % number,
    "accept": lambda number: GET % b"?limit=1" + b"Accept: text/event-stream;q=0,a/%030000d\r\n\r\n" % number,
    "type": lambda number: (
        POST % b"/v1/channels/b" + b"Content-Length: 1\r\nContent-Type: a/%030000d\r\n\r\n1" % number
    ),
    "query": lambda number: GET % (b"?x=%015000d" % number) + b"\r\n",
    "path": lambda number: (
        b"GET /v1/channels/%b HTTP/1.1\r\n" % b",".join(b"%dx%d" % (number, each) for each in range(1000))
        + HOST
        + b"\r\n"
    ),
}


@pytest.mark.parametrize("name", LONG_TEXTS)
async def test_a_long_text_is_not_remembered(open_site: Open, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each request has another one, and the memory that they cost together is that of one connection."""
    numbers = itertools.count()
    for _ in range(READINGS):
        pieces = [LONG_TEXTS[name](number) for number in itertools.islice(numbers, 300)]
        row = Row(answered(200), pieces=[*pieces, END], settings=Settings(port=0, limits=PATIENT))
        cost = await _assail(open_site, monkeypatch, row, "memory")
        if cost.peak < row.most_bytes:
            break
    assert cost.peak < row.most_bytes


@pytest.mark.parametrize("name", ["an endless head", "endless chunks", "a flood of tokens", "deep JSON in a batch"])
async def test_a_refusal_is_no_garbage(open_site: Open, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What was refused is freed at once: a refusal that its own frames keep would keep the bytes of the peer too."""
    with measuring("memory", monkeypatch):  # no garbage is collected meanwhile
        await _assail(open_site, monkeypatch, ROWS[name], "stall")
        assert [] == [each for each in gc.get_objects() if isinstance(each, Refusal) and each.__traceback__]


async def _assail(open_site: Open, monkeypatch: pytest.MonkeyPatch, row: Row, measured: str) -> Cost:
    site = await open_site(row.settings)
    for number in range(40):
        site.publish("a", b"%06d" % number * 1000)
    listener = await site.sse("w")
    assault = Assault(site.server.port, row)
    gc.collect()
    with measuring(measured, monkeypatch) as cost:
        row.check(await asyncio.to_thread(assault.run))
        site.publish("w", b"still here")
        await asyncio.wait_for(listener.until(b"data: still here\n\n"), SECONDS)
    return cost

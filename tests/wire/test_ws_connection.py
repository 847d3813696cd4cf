"""The life of a WebSocket connection: every case whole, byte by byte, cut anywhere, and with bytes after it.

A case is what a peer sends and what must come of it. `outcomes` feeds it in every way; the outcome must not depend on
how the bytes were cut.
"""

from __future__ import annotations

import itertools
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.http11 import Request
from websockets.protocol import State as TheirState
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from oncecast.errors import UsageError
from oncecast.wire import ws_connection
from oncecast.wire.ws_connection import (
    MAX_ANSWERS,
    MOVES,
    CloseReceived,
    DataReceived,
    PingReceived,
    PongReceived,
    ProtocolFailed,
    Role,
    WebSocketConnection,
    WebSocketEvent,
    WebSocketState,
)
from oncecast.wire.ws_frames import Opcode, apply_mask, close_payload, encode_frame
from oncecast.wire.ws_handshake import accept_response, check_response, new_key, parse_upgrade, request_bytes
from oncecast.wire.ws_reader import SHORT_BYTES, SHORT_ROOM

KEY = bytes.fromhex("37fa213d")
MIB = 1 << 20
CUT_BYTES = 400_000  # a case is fed in at most this many bytes over all its cuts: a long one is cut at fewer places


# -- the harness


@dataclass(frozen=True)
class Case:
    """What the peer of `role` sends, and what comes of it. `sent` is what `data_to_send` gives in the end."""

    name: str
    data: bytes
    events: tuple[WebSocketEvent, ...]
    sent: bytes = b""
    state: WebSocketState = WebSocketState.OPEN
    role: Role = Role.SERVER
    limit: int = MIB
    idle: bool = True


Outcome = tuple[list[WebSocketEvent], bytes, WebSocketState]


def connection(role: Role, limit: int = MIB) -> WebSocketConnection:
    """Return a connection whose masking key is known."""
    return WebSocketConnection(role, max_message_bytes=limit, mask_key=lambda: KEY)


def peer(opcode: int, payload: bytes = b"", *, fin: bool = True, role: Role = Role.SERVER) -> bytes:
    """Return a frame as the peer of `role` sends it."""
    return encode_frame(opcode, payload, fin=fin, mask=KEY if role is Role.SERVER else None)


def ours(opcode: int, payload: bytes = b"", *, role: Role = Role.SERVER) -> bytes:
    """Return a frame as `role` sends it."""
    return encode_frame(opcode, payload, mask=KEY if role is Role.CLIENT else None)


def feed(case: Case, pieces: Iterable[bytes]) -> Outcome:
    """Return what comes of a case whose bytes arrive in `pieces`."""
    conn = connection(case.role, case.limit)
    events = [event for piece in pieces for event in conn.receive(piece)]
    return events, conn.data_to_send(), conn.state


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Yield `data` whole, byte by byte, and cut in two everywhere."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    for at in range(0, len(data) + 1, max(1, len(data) ** 2 // CUT_BYTES)):
        yield [data[:at], data[at:]]


def check(case: Case) -> None:
    """Assert that a case has its outcome however its bytes are cut, and whatever follows."""
    for pieces in ways(case.data):
        assert (list(case.events), case.sent, case.state) == feed(case, pieces), [len(p) for p in pieces]
    if case.state is WebSocketState.CLOSED:
        for after in (b"\x00", peer(Opcode.TEXT, b"late"), peer(Opcode.CLOSE), b"\xff" * 20):
            for pieces in ways(case.data + after):
                assert (list(case.events), case.sent, case.state) == feed(case, pieces)
    elif case.idle:
        ping, pong = peer(Opcode.PING, b"?", role=case.role), ours(Opcode.PONG, b"?", role=case.role)
        for pieces in ways(case.data + ping):
            assert ([*case.events, PingReceived(b"?")], case.sent + pong, WebSocketState.OPEN) == feed(case, pieces)
        conn = connection(case.role, case.limit)
        conn.receive(case.data + ping[:1])
        conn.data_to_send()
        assert not conn.idle


# -- good input


def text(data: str | bytes) -> DataReceived:
    """Return the event of a text message."""
    return DataReceived(data.encode() if isinstance(data, str) else data, True)


def binary(data: bytes) -> DataReceived:
    """Return the event of a binary message."""
    return DataReceived(data, False)


def split(opcode: Opcode, *parts: bytes) -> bytes:
    """Return a message in one frame for each part, as a client sends it."""
    last = len(parts) - 1
    return b"".join(peer(Opcode.CONTINUATION if at else opcode, part, fin=at == last) for at, part in enumerate(parts))


UTF8 = "aé€😀\U0010ffff\ud7ff\ue000".encode()

GOOD = [
    Case("nothing", b"", ()),
    Case("empty text", peer(Opcode.TEXT), (text(""),)),
    Case("empty binary", peer(Opcode.BINARY), (binary(b""),)),
    *(
        Case(f"binary of {length}", peer(Opcode.BINARY, b"\xff" * length), (binary(b"\xff" * length),))
        for length in (1, 2, 3, 4, 5, 125, 126, 127, 255, 600)
    ),
    Case("text", peer(Opcode.TEXT, UTF8), (text(UTF8),)),
    Case("to a client", peer(Opcode.TEXT, UTF8, role=Role.CLIENT), (text(UTF8),), role=Role.CLIENT),
    Case(
        "long to a client",
        peer(Opcode.BINARY, bytes(200), role=Role.CLIENT),
        (binary(bytes(200)),),
        role=Role.CLIENT,
    ),
    Case("two messages", peer(Opcode.TEXT, b"a") + peer(Opcode.BINARY, b"b"), (text("a"), binary(b"b"))),
    Case("fragments", split(Opcode.TEXT, b"ab", b"cde", b"f"), (text("abcdef"),)),
    Case("UTF-8 cut everywhere", split(Opcode.TEXT, *(bytes((b,)) for b in UTF8)), (text(UTF8),)),
    Case("fragments of anything", split(Opcode.BINARY, b"\xff", b"\xfe"), (binary(b"\xff\xfe"),)),
    Case("empty fragments", split(Opcode.TEXT, b"", b"", b"a", b""), (text("a"),)),
    Case("only empty fragments", split(Opcode.BINARY, b"", b""), (binary(b""),)),
    Case(
        "text after binary fragments",
        split(Opcode.BINARY, b"\xff", b"") + split(Opcode.TEXT, b"x", b"y") + peer(Opcode.BINARY, b"\xff"),
        (binary(b"\xff"), text("xy"), binary(b"\xff")),
    ),
    Case("ping", peer(Opcode.PING), (PingReceived(b""),), ours(Opcode.PONG)),
    Case("longest ping", peer(Opcode.PING, b"\xff" * 125), (PingReceived(b"\xff" * 125),), ours(10, b"\xff" * 125)),
    Case(
        "ping to a client",
        peer(Opcode.PING, b"hi", role=Role.CLIENT),
        (PingReceived(b"hi"),),
        ours(Opcode.PONG, b"hi", role=Role.CLIENT),
        role=Role.CLIENT,
    ),
    Case("pong", peer(Opcode.PONG, b"x"), (PongReceived(b"x"),)),
    Case(
        "control frames between fragments",
        peer(Opcode.TEXT, b"\xe2", fin=False)
        + peer(Opcode.PING, b"\xff1")
        + peer(Opcode.CONTINUATION, b"\x82", fin=False)
        + peer(Opcode.PONG, b"2")
        + peer(Opcode.PING, b"3")
        + peer(Opcode.CONTINUATION, b"\xac"),
        (PingReceived(b"\xff1"), PongReceived(b"2"), PingReceived(b"3"), text("€")),
        ours(Opcode.PONG, b"\xff1") + ours(Opcode.PONG, b"3"),
    ),
    Case("at the limit", peer(Opcode.BINARY, bytes(200)), (binary(bytes(200)),), limit=200),
    Case("two at the limit", peer(Opcode.BINARY, b"ab") * 2, (binary(b"ab"), binary(b"ab")), limit=2),
    Case("the limit in fragments", split(Opcode.TEXT, b"ab", b"", b"c") * 2, (text("abc"), text("abc")), limit=3),
    Case("a limit of nothing", peer(Opcode.TEXT), (text(""),), limit=0),
    Case("an open message", peer(Opcode.TEXT, b"a", fin=False), (), idle=False),
    Case("half a frame", peer(Opcode.TEXT, b"abc")[:-1], (), idle=False),
    Case("half a head", b"\x81", (), idle=False),
    Case("half a masking key", b"\x81\x80\x01\x02\x03", (), idle=False),
    Case("half a close", peer(Opcode.CLOSE, close_payload(1000, "né"))[:-1], (), idle=False),
]


def closed(name: str, payload: bytes, code: int | None, reason: str, role: Role = Role.SERVER) -> Case:
    """Return the case of a Close from the peer, which is answered with its code."""
    echo = ours(Opcode.CLOSE, payload[:2], role=role)
    data = peer(Opcode.CLOSE, payload, role=role)
    return Case(name, data, (CloseReceived(code, reason),), echo, WebSocketState.CLOSED, role)


CLOSES = [
    closed("without a code", b"", None, ""),
    closed("normal", b"\x03\xe8", 1000, ""),
    closed("with a reason", close_payload(1001, "né😀"), 1001, "né😀"),
    closed("with the longest reason", close_payload(4999, "x" * 123), 4999, "x" * 123),
    closed("to a client", close_payload(1012, "again"), 1012, "again", Role.CLIENT),
    Case(
        "inside a message, after a ping",
        peer(Opcode.TEXT, b"\xe2", fin=False) + peer(Opcode.PING) + peer(Opcode.CLOSE),
        (PingReceived(b""), CloseReceived(None, "")),
        ours(Opcode.PONG) + ours(Opcode.CLOSE),
        WebSocketState.CLOSED,
    ),
]


@pytest.mark.parametrize("case", GOOD + CLOSES, ids=lambda case: case.name)
def test_good_input(case: Case) -> None:
    """Good input gives its events in order and its answers, however it is cut."""
    check(case)


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_idle_after(case: Case) -> None:
    """A connection is idle exactly when nothing is half read and no answer waits."""
    conn = connection(case.role, case.limit)
    conn.receive(case.data)
    assert (case.idle and not case.sent) == conn.idle
    conn.data_to_send()
    assert case.idle == conn.idle


# -- bad input


def fault(
    name: str, data: bytes, code: int, reason: str, *, events: tuple[WebSocketEvent, ...] = (), sent: bytes = b"",
    role: Role = Role.SERVER, limit: int = MIB,
) -> Case:  # fmt: skip
    """Return the case of `data` whose last byte is the first that shows a fault."""
    answer = sent + ours(Opcode.CLOSE, close_payload(code, reason), role=role)
    return Case(name, data, (*events, ProtocolFailed(code, reason)), answer, WebSocketState.CLOSED, role, limit)


def begun(opcode: int, payload: bytes, length: int = 125) -> bytes:
    """Return a client's frame of which only `payload` has arrived yet."""
    return bytes((0x80 | opcode, 0x80 | length)) + KEY + apply_mask(payload, KEY)


BIG = "message too big"
SHORT = "length not minimal"
BAD_CODE = "bad close code"
BAD_UTF8 = "invalid UTF-8"
CUT_UTF8 = "the message ends inside a UTF-8 sequence"

HEADS = [
    *(
        fault(f"RSV in {f:02x}", bytes((f,)), 1002, "a reserved bit is set")
        for f in (0xC1, 0xA1, 0x91, 0xF2, 0xC9, 0x40)
    ),
    *(fault(f"opcode {n}", bytes((0x80 | n,)), 1002, "reserved opcode") for n in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    *(fault(f"fragmented {n}", bytes((n,)), 1002, "fragmented control frame") for n in (8, 9, 10)),
    fault("continuation", b"\x80", 1002, "continuation without a message"),
    fault("open continuation", b"\x00", 1002, "continuation without a message"),
    fault(
        "continuation after a message",
        split(Opcode.TEXT, b"a", b"b") + b"\x80",
        1002,
        "continuation without a message",
        events=(text("ab"),),
    ),
    *(
        fault(
            f"{f:02x} inside a message",
            peer(Opcode.TEXT, fin=False) + peer(Opcode.PING) + bytes((f,)),
            1002,
            "new message inside a fragmented one",
            events=(PingReceived(b""),),
            sent=ours(Opcode.PONG),
        )
        for f in (0x81, 0x82, 0x01, 0x02)
    ),
    fault("RSV inside a message", peer(Opcode.TEXT, fin=False) + b"\xc0", 1002, "a reserved bit is set"),
    fault("unmasked text", b"\x81\x00", 1002, "unmasked frame from a client"),
    fault("unmasked ping", b"\x89\x05", 1002, "unmasked frame from a client"),
    fault("unmasked long", b"\x82\x7f", 1002, "unmasked frame from a client"),
    fault("masked text", b"\x81\x80", 1002, "masked frame from a server", role=Role.CLIENT),
    fault("masked close", b"\x88\x82", 1002, "masked frame from a server", role=Role.CLIENT),
    fault("after a message", peer(Opcode.TEXT, b"a") + b"\xff", 1002, "a reserved bit is set", events=(text("a"),)),
    *(
        fault(f"long {f:02x}", bytes((f, n)), 1002, "long control frame")
        for f in (0x88, 0x89, 0x8A)
        for n in (254, 255)
    ),
    fault("long ping to a client", b"\x89\x7e", 1002, "long control frame", role=Role.CLIENT),
    fault("close of 1 byte", b"\x88\x81", 1002, "a close payload of 1 byte"),
    fault("close of 1 byte to a client", b"\x88\x01", 1002, "a close payload of 1 byte", role=Role.CLIENT),
    fault("16-bit 125", b"\x82\xfe\x00\x7d", 1002, SHORT),
    fault("16-bit 0", b"\x82\xfe\x00\x00", 1002, SHORT),
    fault("64-bit below 65536", b"\x82\xff" + bytes(6), 1002, SHORT),
    fault("64-bit to a client", b"\x82\x7f" + bytes(6), 1002, SHORT, role=Role.CLIENT),
    fault("64-bit top bit", b"\x82\xff\x80", 1002, "the top bit of a 64-bit length is set"),
]

EMPTY = SHORT_ROOM // SHORT_BYTES  # fragments that every message may have, however short they are

TOO_BIG = [
    fault("7-bit", b"\x82\xe5", 1009, BIG, limit=100),
    fault("7-bit text", b"\x81\x81", 1009, BIG, limit=0),
    fault("16-bit by its form", b"\x82\xfe", 1009, BIG, limit=125),
    fault("16-bit", b"\x82\xfe\x03\xe9", 1009, BIG, limit=1000),
    fault("16-bit by its first byte", b"\x82\xfe\x04", 1009, BIG, limit=1000),
    fault("64-bit by its form", b"\x82\xff", 1009, BIG, limit=65535),
    fault("64-bit", b"\x82\xff" + (MIB + 1).to_bytes(8, "big"), 1009, BIG),
    fault("64-bit huge", b"\x82\xff\x00\x01", 1009, BIG),
    fault("sum of fragments", peer(Opcode.BINARY, bytes(600), fin=False) + b"\x80\xfe\x01\x91", 1009, BIG, limit=1000),
    fault("sum of small fragments", split(Opcode.TEXT, b"a", b"")[:-6] + b"\x00\x82", 1009, BIG, limit=2),
    fault(
        "endless empty fragments",
        peer(Opcode.TEXT, fin=False) + peer(Opcode.CONTINUATION, fin=False) * (EMPTY - 1) + b"\x80",
        1009,
        "too many short fragments",
        limit=1000,
    ),
]

CLOSE_FAULTS = [
    *(
        fault(f"code {code}", begun(Opcode.CLOSE, code.to_bytes(2, "big")), 1002, BAD_CODE)
        for code in (999, 1004, 1005, 1006, 1015, 1016)
    ),
    *(
        fault(f"code {code} by its first byte", begun(Opcode.CLOSE, bytes((code >> 8,))), 1002, BAD_CODE)
        for code in (0, 2000, 2303, 5120, 65535)
    ),
    fault("code 2999", begun(Opcode.CLOSE, (2999).to_bytes(2, "big"), 2), 1002, BAD_CODE),
    fault("code 5000", begun(Opcode.CLOSE, (5000).to_bytes(2, "big"), 2), 1002, BAD_CODE),
    fault("reason", begun(Opcode.CLOSE, b"\x03\xe8ok\xff"), 1007, BAD_UTF8),
    fault("surrogate in the reason", begun(Opcode.CLOSE, b"\x03\xe8\xed\xa0"), 1007, BAD_UTF8),
    fault(
        "reason cut",
        begun(Opcode.CLOSE, b"\x03\xe8\xe2\x82", 4),
        1007,
        "the close reason ends inside a UTF-8 sequence",
    ),
]

BAD_SEQUENCES = {
    "lone continuation": b"\x80",
    "overlong slash, 2 bytes": b"\xc0",
    "overlong, 2 bytes": b"\xc1",
    "overlong, 3 bytes": b"\xe0\x80",
    "overlong U+07FF": b"\xe0\x9f",
    "overlong, 4 bytes": b"\xf0\x80",
    "overlong U+FFFF": b"\xf0\x8f",
    "first surrogate": b"\xed\xa0",
    "last surrogate": b"\xed\xbf",
    "U+110000": b"\xf4\x90",
    "5 bytes": b"\xf8",
    "6 bytes": b"\xfc",
    "FE": b"\xfe",
    "FF": b"\xff",
    "ASCII for a second byte": b"\xc3a",
    "ASCII for a third byte": b"\xe2\x82a",
    "ASCII for a fourth byte": b"\xf0\x9f\x98a",
    "lead for a second byte": b"\xe2\xe2",
}

UTF8_FAULTS = [
    *(
        fault(f"{name} {where}", begun(Opcode.TEXT, before + sequence), 1007, BAD_UTF8)
        for name, sequence in BAD_SEQUENCES.items()
        for where, before in (("at once", b""), ("after text", "né".encode()))
    ),
    *(
        fault(
            f"{name}, its last byte in another fragment",
            peer(Opcode.TEXT, sequence[:-1], fin=False) + peer(Opcode.PING) + begun(Opcode.CONTINUATION, sequence[-1:]),
            1007,
            BAD_UTF8,
            events=(PingReceived(b""),),
            sent=ours(Opcode.PONG),
        )
        for name, sequence in BAD_SEQUENCES.items()
    ),
    *(
        fault(f"message cut after {len(part)}", peer(Opcode.TEXT, b"a" + part), 1007, CUT_UTF8)
        for part in (b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98")
    ),
    fault("fragments cut", split(Opcode.TEXT, b"\xe2", b"\x82"), 1007, CUT_UTF8),
    fault("cut before an empty fragment", split(Opcode.TEXT, b"\xe2", b""), 1007, CUT_UTF8),
]


@pytest.mark.parametrize("case", HEADS + TOO_BIG + CLOSE_FAULTS + UTF8_FAULTS, ids=lambda case: case.name)
def test_bad_input(case: Case) -> None:
    """Bad input fails the connection at the first byte that shows it, however it is cut; what follows is ignored."""
    check(case)
    events, sent, state = feed(case, [case.data[:-1]])
    assert WebSocketState.OPEN is state, "the fault shows before the last byte"
    assert list(case.events[:-1]) == events
    assert case.sent.startswith(sent)


@pytest.mark.parametrize("fragment", range(1, EMPTY, 1000))
def test_fragments_are_counted_for_each_message(fragment: int) -> None:
    """As many fragments as allowed are a message, and the count begins again with the next message."""
    conn = connection(Role.SERVER)
    data = peer(Opcode.TEXT, b"a", fin=False) + peer(Opcode.CONTINUATION, b"b", fin=False) * (EMPTY - 2)
    message = data + peer(Opcode.CONTINUATION, b"c")
    expected = text("a" + "b" * (EMPTY - 2) + "c")
    assert [expected, expected] == conn.receive(message + message[: 7 * fragment]) + conn.receive(
        message[7 * fragment :]
    )


def test_every_close_code_from_the_peer() -> None:
    """Of 0 to 5000, a Close with a registered or private code is echoed, any other is 1002."""
    legal = {1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)}
    for code in range(5001):
        conn = connection(Role.SERVER)
        payload = code.to_bytes(2, "big")
        events = conn.receive(peer(Opcode.CLOSE, payload))
        if code in legal:
            assert ([CloseReceived(code, "")], ours(Opcode.CLOSE, payload)) == (events, conn.data_to_send())
        else:
            assert [ProtocolFailed(1002, BAD_CODE)] == events
            assert 1002 == conn.close_code


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("first", range(256))
def test_every_first_byte(first: int, role: Role) -> None:
    """Of all first bytes just the seven legal ones are waited on."""
    conn = connection(role)
    events = conn.receive(bytes((first,)))
    assert (first in {0x01, 0x02, 0x81, 0x82, 0x88, 0x89, 0x8A}) == (events == [])


# -- size and speed


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("piece", [1024, 65536, 1000003, 2 * MIB])
@pytest.mark.parametrize("unit", [b"a", "é€😀".encode()])
def test_message_of_a_mebibyte(role: Role, piece: int, unit: bytes) -> None:
    """A message of 1 MiB arrives whole, in pieces or at once, in one frame or in fragments."""
    data = unit * (MIB // len(unit)) + b"a" * (MIB % len(unit))
    sender, receiver = connection(role), connection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    for wire in (sender.text(data), b"".join(sender.fragments(data, True, 70001))):
        events = [event for at in range(0, len(wire), piece) for event in receiver.receive(wire[at : at + piece])]
        assert [text(data)] == events
    assert receiver.idle


def test_work_is_linear() -> None:
    """A big message in small pieces, and a big piece of small frames, cost no quadratic copying."""
    limit = 16 * MIB
    receiver = WebSocketConnection(Role.CLIENT, max_message_bytes=limit)
    wire = peer(Opcode.BINARY, bytes(limit), role=Role.CLIENT)
    small = peer(Opcode.BINARY, b"abcd", role=Role.CLIENT) * 100_000
    started = time.process_time()
    events = [event for at in range(0, len(wire), 4096) for event in receiver.receive(wire[at : at + 4096])]
    assert [limit] == [len(event.data) for event in events if isinstance(event, DataReceived)]
    assert 100_000 == len(receiver.receive(small))
    assert time.process_time() - started < 3  # some 0.2 s; copying the rest at each step takes 10 s and more


def test_memory_is_not_used_before_the_bytes_come() -> None:
    """A head that announces 1 MiB costs nothing; the message costs itself, and twice that only as it is handed over."""
    conn = connection(Role.SERVER)
    wire = peer(Opcode.BINARY, bytes(MIB))
    tracemalloc.start()
    try:
        conn.receive(wire[:100])
        assert tracemalloc.get_traced_memory()[1] < 16_384
        for at in range(100, len(wire), 50):
            events = conn.receive(wire[at : at + 50])
        held, peak = tracemalloc.get_traced_memory()
        assert [binary(bytes(MIB))] == events
        assert peak < 2.2 * MIB
        assert held < 1.1 * MIB
    finally:
        tracemalloc.stop()


def test_answers_are_bounded() -> None:
    """A flood of pings that nobody drains keeps the last pongs only, in order (RFC 6455 §5.5.3)."""
    conn = connection(Role.SERVER)
    count = MAX_ANSWERS * 3 + 1
    assert count == len(conn.receive(b"".join(peer(Opcode.PING, b"%d" % n) for n in range(count))))
    expected = b"".join(ours(Opcode.PONG, b"%d" % n) for n in range(count - MAX_ANSWERS, count))
    assert expected == conn.data_to_send()
    assert b"" == conn.data_to_send()


# -- out


@pytest.mark.parametrize("role", Role)
def test_what_is_sent(role: Role) -> None:
    """Messages and pings come back as frames, masked by a client, and leave the connection idle."""
    conn = connection(role)
    assert ours(Opcode.TEXT, b"a", role=role) == conn.text(b"a")
    assert ours(Opcode.BINARY, b"\xff", role=role) == conn.binary(b"\xff")
    assert ours(Opcode.PING, b"p", role=role) == conn.ping(b"p")
    assert ours(Opcode.PING, role=role) == conn.ping()
    assert b"" == conn.data_to_send()
    assert (True, WebSocketState.OPEN, None, "") == (conn.idle, conn.state, conn.close_code, conn.close_reason)


def test_each_frame_of_a_client_has_a_fresh_key() -> None:
    """Every frame asks for a masking key; by default the keys are random."""
    conn = WebSocketConnection(Role.CLIENT)
    keys = {conn.binary(bytes(8))[2:6] for _ in range(50)} | {f[2:6] for f in conn.fragments(bytes(50), False, 1)}
    assert len(keys) > 90


@pytest.mark.parametrize(
    "length, size, sizes",
    [(0, 5, [0]), (4, 5, [4]), (5, 5, [5]), (6, 5, [5, 1]), (10, 5, [5, 5]), (11, 5, [5, 5, 1]), (3, 1, [1, 1, 1])],
)
@pytest.mark.parametrize("is_text", [True, False])
def test_fragments(length: int, size: int, sizes: list[int], is_text: bool) -> None:
    """A message is cut into the fewest frames of at most the size; only the first has its opcode, the last FIN."""
    data = b"x" * length
    frames = list(connection(Role.SERVER).fragments(data, is_text, size))
    assert sizes == [len(frame) - 2 for frame in frames]
    firsts = [Opcode.TEXT if is_text else Opcode.BINARY] + [Opcode.CONTINUATION] * (len(sizes) - 1)
    assert [int(first) for first in firsts] == [frame[0] & 0x0F for frame in frames]
    assert [0] * (len(sizes) - 1) + [0x80] == [frame[0] & 0x80 for frame in frames]
    assert [DataReceived(data, is_text)] == connection(Role.CLIENT).receive(b"".join(frames))


def test_fragment_of_nothing_is_our_misuse() -> None:
    """A size below 1 is refused at the call."""
    with pytest.raises(UsageError, match="at least 1 byte"):
        connection(Role.SERVER).fragments(b"abc", True, 0)


def test_no_message_inside_our_fragments() -> None:
    """Between our fragments a ping may go out, another message may not."""
    conn = connection(Role.SERVER)
    frames = conn.fragments(b"abcd", False, 2)
    next(frames)
    idle = [conn.idle]
    assert ours(Opcode.PING) == conn.ping()
    for send in (conn.text, conn.binary, lambda data: next(conn.fragments(data, True, 1))):
        with pytest.raises(UsageError, match="Finish the fragmented message"):
            send(b"x")
    next(frames)
    assert [False, True] == [*idle, conn.idle]
    assert ours(Opcode.TEXT, b"x") == conn.text(b"x")


SENDS: list[Callable[[WebSocketConnection], object]] = [
    lambda conn: conn.text(b""),
    lambda conn: conn.binary(b""),
    lambda conn: conn.ping(),
    lambda conn: next(conn.fragments(b"", True, 1)),
]


@pytest.mark.parametrize("send", SENDS)
@pytest.mark.parametrize("data", [None, peer(Opcode.CLOSE), b"\xff"], ids=["our close", "their close", "a fault"])
def test_nothing_is_sent_after_a_close(send: Callable[[WebSocketConnection], object], data: bytes | None) -> None:
    """Sending after a Close, ours or theirs, or after a fault is our misuse."""
    conn = connection(Role.SERVER)
    if data is None:
        conn.close()
    else:
        conn.receive(data)
    with pytest.raises(UsageError, match="after a Close"):
        send(conn)


def test_fragments_stop_at_a_close() -> None:
    """A Close between our fragments is sent at once, and no fragment follows it."""
    conn = connection(Role.SERVER)
    frames = conn.fragments(b"abcd", False, 2)
    next(frames)
    assert ours(Opcode.CLOSE, b"\x03\xe8") == conn.close()
    with pytest.raises(UsageError, match="after a Close"):
        next(frames)


# -- the end


def test_moves() -> None:
    """Every state has a row, and no move leads back."""
    assert set(WebSocketState) == set(MOVES)
    order = list(WebSocketState)
    assert [] == [
        (old, new) for old, row in MOVES.items() for new in row.values() if order.index(new) <= order.index(old)
    ]


@pytest.mark.parametrize("role", Role)
def test_we_close(role: Role) -> None:
    """Our Close is sent once; messages and pings are still read until the peer's Close ends it."""
    conn = connection(role)
    assert ours(Opcode.CLOSE, close_payload(1001, "né"), role=role) == conn.close(1001, "né")
    assert (WebSocketState.CLOSING, False, b"") == (conn.state, conn.idle, conn.close(1000))
    assert [text("a"), PingReceived(b"p")] == conn.receive(
        peer(Opcode.TEXT, b"a", role=role) + peer(Opcode.PING, b"p", role=role)
    )
    assert ours(Opcode.PONG, b"p", role=role) == conn.data_to_send()
    assert (WebSocketState.CLOSING, None, "") == (conn.state, conn.close_code, conn.close_reason)
    assert [CloseReceived(1001, "")] == conn.receive(peer(Opcode.CLOSE, b"\x03\xe9", role=role))
    assert (WebSocketState.CLOSED, b"", b"") == (conn.state, conn.data_to_send(), conn.close())
    assert (1001, "") == (conn.close_code, conn.close_reason)


def test_they_close() -> None:
    """The peer's code and reason are kept, and no Close of ours follows the echo."""
    conn = connection(Role.SERVER)
    conn.receive(peer(Opcode.CLOSE, close_payload(4001, "né")))
    assert (WebSocketState.CLOSED, 4001, "né", b"") == (conn.state, conn.close_code, conn.close_reason, conn.close())
    assert not conn.idle


def test_a_fault_while_we_close() -> None:
    """A fault after our Close ends the connection, without a second Close."""
    conn = connection(Role.SERVER)
    conn.close(1001)
    assert [ProtocolFailed(1002, "a reserved bit is set")] == conn.receive(b"\xff")
    assert (WebSocketState.CLOSED, b"") == (conn.state, conn.data_to_send())
    assert (1002, "a reserved bit is set") == (conn.close_code, conn.close_reason)


def test_a_bad_code_to_close_with_is_our_misuse() -> None:
    """A code that may not be on the wire is refused, and the connection stays open."""
    conn = connection(Role.SERVER)
    with pytest.raises(UsageError, match="1006"):
        conn.close(1006)
    assert WebSocketState.OPEN is conn.state


@pytest.mark.parametrize("end", [b"\xff", peer(Opcode.CLOSE)], ids=["a fault", "a close"])
def test_the_end_lets_go_of_the_message(end: bytes) -> None:
    """The memory of a message that was received in part is freed when the connection ends."""
    conn = connection(Role.SERVER)
    tracemalloc.start()
    try:
        conn.receive(peer(Opcode.BINARY, bytes(MIB), fin=False))
        assert tracemalloc.get_traced_memory()[0] > MIB
        assert 1 == len(conn.receive(end))
        assert tracemalloc.get_traced_memory()[0] < 65_536
    finally:
        tracemalloc.stop()
    assert [] == conn.receive(peer(Opcode.CONTINUATION))


# -- any input

MESSAGES = st.lists(
    st.tuples(
        st.text(max_size=300).map(str.encode).map(lambda data: (data, True))
        | st.binary(max_size=700).map(lambda data: (data, False)),
        st.none() | st.integers(1, 400),  # the size of its fragments
        st.none() | st.binary(max_size=125),  # a ping after each frame
    ),
    max_size=6,
)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` cut at `cuts`, taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def conversation(
    sender: WebSocketConnection, messages: list[tuple[tuple[bytes, bool], int | None, bytes | None]]
) -> bytes:
    """Return the frames of some messages, with pings between them."""
    frames: list[bytes] = []
    for (data, is_text), size, ping in messages:
        whole = sender.text if is_text else sender.binary
        for frame in [whole(data)] if size is None else sender.fragments(data, is_text, size):
            frames.append(frame)
            if ping is not None:
                frames.append(sender.ping(ping))
    return b"".join(frames)


@given(MESSAGES, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from(Role))
def test_round_trip(
    messages: list[tuple[tuple[bytes, bool], int | None, bytes | None]], cuts: list[int], role: Role
) -> None:
    """Whatever one end sends, in any fragments and pieces, the other receives, and its pongs come back."""
    sender = WebSocketConnection(role)
    receiver = WebSocketConnection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
    pings: list[bytes] = []
    received: list[WebSocketEvent] = []
    pongs: list[WebSocketEvent] = []
    wire = conversation(sender, messages) + sender.close(4000, "done")
    for piece in pieces_of(wire, cuts):
        for event in receiver.receive(piece):
            if isinstance(event, PingReceived):
                pings.append(event.data)
            else:
                received.append(event)
        if len(pings) <= MAX_ANSWERS:
            pongs += sender.receive(receiver.data_to_send())
    assert [*(DataReceived(*message) for message, _, _ in messages), CloseReceived(4000, "done")] == received
    if len(pings) <= MAX_ANSWERS:
        assert [*map(PongReceived, pings), CloseReceived(4000, "")] == pongs
        assert (WebSocketState.CLOSED, WebSocketState.CLOSED) == (sender.state, receiver.state)


@given(
    MESSAGES,
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=3),
    st.lists(st.integers(0, 10_000), max_size=20),
)
def test_damaged_bytes_never_raise(
    messages: list[tuple[tuple[bytes, bool], int | None, bytes | None]],
    damage: list[tuple[int, int]],
    cuts: list[int],
) -> None:
    """Any bytes give events, and the same ones however they are cut; nothing follows a fault or a Close."""
    wire = bytearray(conversation(connection(Role.CLIENT), messages))
    for at, value in damage:
        if wire:
            wire[at % len(wire)] = value
    case = Case("damaged", bytes(wire), (), limit=1000)
    whole = feed(case, [case.data])
    assert whole == feed(case, pieces_of(case.data, cuts))
    assert whole == feed(case, [case.data[at : at + 1] for at in range(len(case.data))])
    ends = [isinstance(event, CloseReceived | ProtocolFailed) for event in whole[0]]
    assert (whole[2] is WebSocketState.CLOSED) == any(ends)
    assert not any(ends[:-1])


# -- against another implementation


def head_of(data: bytes) -> tuple[str, dict[str, str]]:
    """Return the first line and the headers of a head."""
    line, *lines = data.decode().removesuffix("\r\n\r\n").split("\r\n")
    return line, {name.lower(): value for name, value in (header.split(": ", 1) for header in lines)}


Theirs = ClientProtocol | ServerProtocol


def shake_hands(role: Role) -> tuple[WebSocketConnection, Theirs]:
    """Return ours of `role` and theirs of the other, after the opening handshake."""
    if role is Role.SERVER:
        client = ClientProtocol(parse_uri("ws://example.com/x"))
        client.send_request(client.connect())
        line, headers = head_of(b"".join(client.data_to_send()))
        client.receive_data(accept_response(parse_upgrade(line.split()[0], (1, 1), headers), None))
        assert 1 == len(client.events_received())
        return connection(role), client
    server = ServerProtocol()
    key = new_key()
    server.receive_data(request_bytes("example.com", "/x", key))
    request = server.events_received()[0]
    assert isinstance(request, Request)
    server.send_response(server.accept(request))
    line, headers = head_of(b"".join(server.data_to_send()))
    assert check_response(int(line.split()[1]), headers, key, []) is None
    return connection(role), server


def sent_by(theirs: Theirs) -> bytes:
    """Return what theirs has to send; the end of the stream is not a byte."""
    return b"".join(theirs.data_to_send())


@pytest.mark.parametrize("role", Role)
def test_they_send_to_us(role: Role) -> None:
    """Messages, fragments and pings of the package websockets are received, and it takes our pong."""
    conn, theirs = shake_hands(role)
    theirs.send_text(UTF8)
    theirs.send_binary(bytes(70_000))
    theirs.send_text(UTF8[:5], fin=False)
    theirs.send_ping(b"ping")
    theirs.send_continuation(UTF8[5:], fin=True)
    theirs.send_pong(b"pong")
    expected = [text(UTF8), binary(bytes(70_000)), PingReceived(b"ping"), text(UTF8), PongReceived(b"pong")]
    assert expected == conn.receive(sent_by(theirs))
    theirs.receive_data(conn.data_to_send())
    assert [Frame(TheirOpcode.PONG, b"ping")] == theirs.events_received()


@pytest.mark.parametrize("role", Role)
def test_we_send_to_them(role: Role) -> None:
    """The package websockets receives our messages, fragments and pings, and we take its pong."""
    conn, theirs = shake_hands(role)
    theirs.receive_data(conn.text(UTF8) + conn.binary(bytes(70_000)) + conn.ping(b"ping"))
    theirs.receive_data(b"".join(conn.fragments(b"abcde", False, 2)))
    assert [
        Frame(TheirOpcode.TEXT, UTF8),
        Frame(TheirOpcode.BINARY, bytes(70_000)),
        Frame(TheirOpcode.PING, b"ping"),
        Frame(TheirOpcode.BINARY, b"ab", fin=False),
        Frame(TheirOpcode.CONT, b"cd", fin=False),
        Frame(TheirOpcode.CONT, b"e"),
    ] == theirs.events_received()
    assert [PongReceived(b"ping")] == conn.receive(sent_by(theirs))


@pytest.mark.parametrize("role", Role)
def test_closing_with_them(role: Role) -> None:
    """Whichever side closes first, both sides know the code in the end."""
    conn, theirs = shake_hands(role)
    theirs.send_close(4000, "né")
    assert [CloseReceived(4000, "né")] == conn.receive(sent_by(theirs))
    theirs.receive_data(conn.data_to_send())
    assert theirs.close_rcvd is not None
    assert 4000 == theirs.close_rcvd.code

    conn, theirs = shake_hands(role)
    theirs.receive_data(conn.close(4001, "né"))
    assert theirs.close_rcvd is not None
    assert (4001, "né") == (theirs.close_rcvd.code, theirs.close_rcvd.reason)
    assert 4001 == conn.receive(sent_by(theirs))[0].code  # type: ignore[union-attr]  # it is a CloseReceived
    theirs.receive_eof()
    assert (WebSocketState.CLOSED, TheirState.CLOSED) == (conn.state, theirs.state)


# Left out is what the package judges elsewhere or not at all: the UTF-8 of text, and lengths that are not minimal.
FAULTY_FRAMES = [
    *(peer(Opcode.CLOSE, code.to_bytes(2, "big")) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
    *(peer(Opcode.CLOSE, b"\x03\xe8" + sequence) for sequence in BAD_SEQUENCES.values()),
    *(case.data + bytes(14) for case in HEADS if case.role is Role.SERVER and case.data[1:2] < b"\xfe"),
    *(case.data for case in TOO_BIG if case.limit == MIB and len(case.data) == 10),
]


@pytest.mark.parametrize("data", FAULTY_FRAMES, ids=lambda data: data[:30].hex())
def test_they_find_the_same_faults(data: bytes) -> None:
    """The server of the package websockets fails each of these connections too, with the same code."""
    _, theirs = shake_hands(Role.CLIENT)
    conn = connection(Role.SERVER)
    conn.receive(data)
    theirs.receive_data(data)
    assert theirs.close_sent is not None
    assert theirs.close_sent.code == conn.close_code


def test_everything_public_is_there() -> None:
    """Each name in `__all__` exists."""
    assert [] == [name for name in ws_connection.__all__ if not hasattr(ws_connection, name)]

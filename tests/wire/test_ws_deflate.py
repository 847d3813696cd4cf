"""permessage-deflate: its negotiation against tables and another implementation, its codec byte by byte.

A case is what a peer sends and what must come of it, whole, byte by byte, cut in two anywhere, and with bytes after it,
as in `test_ws_connection.py`. The judge is the package websockets, as client and as server.
"""

from __future__ import annotations

import itertools
import os
import random
import time
import tracemalloc
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.exceptions import NegotiationError
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate as Theirs,
)
from websockets.frames import Frame
from websockets.frames import Opcode as TheirOpcode
from websockets.headers import build_extension, parse_extension
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from oncecast.errors import UsageError
from oncecast.wire import ws_deflate
from oncecast.wire.ws_connection import (
    DataReceived,
    PingReceived,
    ProtocolFailed,
    Role,
    WebSocketConnection,
    WebSocketEvent,
    WebSocketState,
)
from oncecast.wire.ws_deflate import (
    LEVEL,
    MAX_STREAMS,
    NAME,
    SLICE_BYTES,
    THRESHOLD_BYTES,
    Deflate,
    Parameters,
    PerMessageDeflate,
    compress_message,
)
from oncecast.wire.ws_frames import Opcode, apply_mask, close_payload, encode_frame
from oncecast.wire.ws_handshake import (
    Extensions,
    HandshakeFailed,
    accept_response,
    answered_extensions,
    new_key,
    parse_upgrade,
    request_bytes,
)

KEY = bytes.fromhex("37fa213d")
MIB = 1 << 20
CUT_BYTES = 400_000  # a case is fed in at most this many bytes over all its cuts: a long one is cut at fewer places

ALONE = Parameters(True, True)  # no context is taken over
TAKEOVER = Parameters()


def read(header: str) -> Extensions:
    """Return the extensions of a header."""
    return answered_extensions({"sec-websocket-extensions": header})


def codec(role: Role, parameters: Parameters, threshold: int = 0) -> PerMessageDeflate:
    """Return one end's codec, which compresses everything."""
    if role is Role.SERVER:
        return parameters.server_codec(threshold=threshold)
    return parameters.client_codec(threshold=threshold)


def connection(role: Role, parameters: Parameters = ALONE, limit: int = MIB) -> WebSocketConnection:
    """Return a connection that has negotiated `parameters`, with a masking key that is known."""
    return WebSocketConnection(role, max_message_bytes=limit, mask_key=lambda: KEY, extension=codec(role, parameters))


# -- compress_message


@pytest.mark.parametrize("window_bits", range(9, 16))
@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_compress_message(window_bits: int, level: int) -> None:
    """A compressed message and the tail are whole blocks, for a window of the size asked for."""
    data = b"".join(b'{"price": %d}' % (n * n) for n in range(3000))
    payload = compress_message(data, window_bits=window_bits, level=level)
    inflater = zlib.decompressobj(-window_bits)
    whole = b"".join(inflater.decompress(payload[at : at + 1]) for at in range(len(payload)))
    assert data == whole + inflater.decompress(b"\x00\x00\xff\xff")
    assert (level > 0) == (len(payload) < len(data))


def test_compress_message_is_pure() -> None:
    """The same message becomes the same bytes, whatever was compressed before; nothing becomes one byte."""
    first = compress_message(b"Hello")
    assert [b"\x00", first, bytes.fromhex("f248cdc9c90700")] == [
        compress_message(b""),
        compress_message(b"Hello"),
        first,
    ]


@pytest.mark.parametrize("window_bits", [8, 16, 0])
def test_no_other_window_is_compressed_into(window_bits: int) -> None:
    """A window that zlib can't compress into raw is an error, and never quietly another one."""
    with pytest.raises(ValueError, match="option"):
        compress_message(b"a", window_bits=window_bits)


# -- negotiation, the server's end

S, C = "server_no_context_takeover", "client_no_context_takeover"
SB, CB = "server_max_window_bits", "client_max_window_bits"
BOTH = f"{NAME}; {S}; {C}"

OFFERS: list[tuple[str, str | None]] = [
    ("", None),
    ("x-webkit-deflate-frame", None),
    (NAME, BOTH),
    (f"{NAME}; {CB}", BOTH),  # what browsers offer
    (f"{NAME}; {S}", BOTH),
    (f"{NAME}; {C}", BOTH),
    (f"{NAME}; {C}; {S}", BOTH),
    *((f"{NAME}; {SB}={bits}", f"{BOTH}; {SB}={bits}") for bits in range(9, 16)),
    *((f"{NAME}; {CB}={bits}", f"{BOTH}; {CB}={bits}") for bits in range(8, 15)),
    (f'{NAME}; {SB}="10"', f"{BOTH}; {SB}=10"),
    (f"{NAME}; {CB}=15", BOTH),
    (f"{NAME}; {SB}=10; {CB}=11; {S}; {C}", f"{BOTH}; {SB}=10; {CB}=11"),
    # zlib can't compress into 2**8 bytes
    (f"{NAME}; {SB}=8", None),
    (f"{NAME}; {SB}=8, {NAME}; {SB}=9", f"{BOTH}; {SB}=9"),
    # the first that can be met, others beside it
    (f"{NAME}; {SB}=10, {NAME}", f"{BOTH}; {SB}=10"),
    (f"x, {NAME}; unknown, y; {SB}=3, {NAME}; {CB}, {NAME}; {SB}=9", BOTH),
    # bad ones are declined
    (f"{NAME}; unknown", None),
    (f"{NAME}; {S.upper()}", None),
    (NAME.upper(), None),
    (f"{NAME}; {S}; {S}", None),
    (f"{NAME}; {C}; {C}", None),
    (f"{NAME}; {SB}=10; {SB}=10", None),
    (f"{NAME}; {CB}; {CB}=10", None),
    (f"{NAME}; {S}=true", None),
    (f"{NAME}; {C}=1", None),
    (f"{NAME}; {SB}", None),
    *(
        (f"{NAME}; {name}={value}", None)
        for name in (SB, CB)
        for value in ("7", "16", "0", "08", "010", "-9", "+9", "9.0", "x")
    ),
]


@pytest.mark.parametrize("header, answer", OFFERS)
def test_server_answers(header: str, answer: str | None) -> None:
    """The first offer that can be met is answered in full, a bad one is passed over."""
    accepted = Deflate().accept(read(header))
    assert answer == (None if accepted is None else str(accepted))


@pytest.mark.parametrize(
    "settings, header, answer",
    [
        (Deflate(server_bits=12), NAME, f"{BOTH}; {SB}=12"),
        (Deflate(server_bits=12), f"{NAME}; {SB}=10", f"{BOTH}; {SB}=10"),
        (Deflate(server_bits=12), f"{NAME}; {SB}=15", f"{BOTH}; {SB}=12"),
        (Deflate(client_bits=11), NAME, BOTH),  # without leave it can't be asked
        (Deflate(client_bits=11), f"{NAME}; {CB}", f"{BOTH}; {CB}=11"),
        (Deflate(client_bits=11), f"{NAME}; {CB}=15", f"{BOTH}; {CB}=11"),
        (Deflate(client_bits=11), f"{NAME}; {CB}=9", f"{BOTH}; {CB}=9"),
        (Deflate(server_takeover=True), NAME, f"{NAME}; {C}"),
        (Deflate(server_takeover=True), f"{NAME}; {S}", BOTH),
        (Deflate(client_takeover=True), NAME, f"{NAME}; {S}"),
        (Deflate(client_takeover=True), f"{NAME}; {C}", BOTH),
        (Deflate(server_takeover=True, client_takeover=True), f"{NAME}; {CB}", NAME),
    ],
)
def test_server_settings(settings: Deflate, header: str, answer: str) -> None:
    """A setting is never exceeded, and never put on a client that gave no leave."""
    assert answer == str(settings.accept(read(header)))


@pytest.mark.parametrize("server_bits, client_bits", [(8, 15), (16, 15), (15, 7), (15, 16)])
def test_bad_settings(server_bits: int, client_bits: int) -> None:
    """A window that is none is our misuse."""
    with pytest.raises(UsageError, match="bits"):
        Deflate(server_bits, client_bits)


def all_settings(server_bits: Iterable[int], client_bits: Iterable[int]) -> list[Deflate]:
    """Return the settings of a server with each combination of windows and takeovers."""
    takeover = (False, True)
    return [
        Deflate(server, client, server_takeover, client_takeover)
        for server, client, server_takeover, client_takeover in itertools.product(
            server_bits, client_bits, takeover, takeover
        )
    ]


# -- negotiation, the client's end


@pytest.mark.parametrize(
    "offer, header, agreed",
    [
        (Parameters(), "", None),
        (Parameters(), NAME, Parameters()),
        (Parameters(), BOTH, Parameters(True, True)),
        (Parameters(True), f"{NAME}; {S}", Parameters(True)),
        (Parameters(False, True), NAME, Parameters(False, True)),
        (Parameters(), f"{NAME}; {SB}=8", Parameters(False, False, 8)),
        (Parameters(server_max_window_bits=12), f"{NAME}; {SB}=12", Parameters(False, False, 12)),
        (Parameters(server_max_window_bits=12), f"{NAME}; {SB}=9", Parameters(False, False, 9)),
        (Parameters(client_max_window_bits=15), NAME, Parameters(False, False, None, 15)),
        (Parameters(client_max_window_bits=15), f"{NAME}; {CB}=15", Parameters(False, False, None, 15)),
        (Parameters(client_max_window_bits=12), NAME, Parameters(False, False, None, 12)),
        (Parameters(client_max_window_bits=12), f"{NAME}; {CB}=9", Parameters(False, False, None, 9)),
    ],
)
def test_good_answers(offer: Parameters, header: str, agreed: Parameters | None) -> None:
    """An answer that keeps to the offer holds, with what the offer promised."""
    assert agreed == offer.check(read(header))


@pytest.mark.parametrize(
    "offer, header, text",
    [
        (Parameters(), "x", "not offered"),
        (Parameters(), f"{NAME}, x", "not offered"),
        (Parameters(), f"{NAME}, {NAME}", "not offered"),
        (Parameters(), f"{NAME}; unknown", "malformed"),
        (Parameters(), f"{NAME}; {S}; {S}", "malformed"),
        (Parameters(), f"{NAME}; {S}=1", "malformed"),
        (Parameters(), f"{NAME}; {SB}", "malformed"),
        (Parameters(), f"{NAME}; {SB}=7", "malformed"),
        (Parameters(), f"{NAME}; {SB}=16", "malformed"),
        (Parameters(client_max_window_bits=15), f"{NAME}; {CB}", "malformed"),
        (Parameters(True), NAME, "server_no_context_takeover"),
        (Parameters(True), f"{NAME}; {C}", "server_no_context_takeover"),
        (Parameters(server_max_window_bits=12), NAME, "keep to the server_max"),
        (Parameters(server_max_window_bits=12), f"{NAME}; {SB}=13", "keep to the server_max"),
        (Parameters(), f"{NAME}; {CB}=15", "not offered"),
        (Parameters(client_max_window_bits=10), f"{NAME}; {CB}=11", "not offered"),
        (Parameters(client_max_window_bits=15), f"{NAME}; {CB}=8", "below 9"),
    ],
)
def test_bad_answers(offer: Parameters, header: str, text: str) -> None:
    """An answer that does not keep to the offer fails the handshake and says why."""
    with pytest.raises(HandshakeFailed, match=text):
        offer.check(read(header))


BITS = [None, 9, 12, 15]
COMBINATIONS = [Parameters(*each) for each in itertools.product((False, True), (False, True), BITS, BITS)]


@pytest.mark.parametrize("offer", COMBINATIONS, ids=str)
def test_our_ends_agree(offer: Parameters) -> None:
    """Whatever our client offers and our server is set to, both ends come to the same streams."""
    for settings in all_settings((9, 13, 15), (8, 13, 15)):
        answer = settings.accept(read(str(offer)))
        assert answer is not None
        if answer.client_max_window_bits == 8:
            with pytest.raises(HandshakeFailed, match="below 9"):
                offer.check(read(str(answer)))
            continue
        agreed = offer.check(read(str(answer)))
        assert agreed is not None
        assert answer == replace(agreed, client_max_window_bits=answer.client_max_window_bits)
        assert (agreed.client_max_window_bits or 15) <= (answer.client_max_window_bits or 15)


# -- negotiation, against another implementation


def their_parameters(parameters: Parameters) -> dict[str, Any]:
    """Return our parameters as keyword arguments of theirs."""
    return {name: getattr(parameters, name) for name in (S, C, SB, CB)}


def what_they_hold(theirs: Any, role: Role) -> Parameters:
    """Return the streams of one of their ends, with every window said."""
    here, there = (
        (theirs.local_no_context_takeover, theirs.local_max_window_bits),
        (theirs.remote_no_context_takeover, theirs.remote_max_window_bits),
    )
    server, client = (here, there) if role is Role.SERVER else (there, here)
    return Parameters(server[0], client[0], server[1], client[1])


def said(parameters: Parameters) -> Parameters:
    """Return parameters with every window said."""
    return replace(
        parameters,
        server_max_window_bits=parameters.server_max_window_bits or 15,
        client_max_window_bits=parameters.client_max_window_bits or 15,
    )


@pytest.mark.parametrize("offer", COMBINATIONS, ids=str)
def test_their_client_accepts_our_answer(offer: Parameters) -> None:
    """The answer to each offer of theirs is accepted by them, and both ends come to the same streams."""
    factory = ClientPerMessageDeflateFactory(**their_parameters(offer))
    header = build_extension([(factory.name, factory.get_request_params())])
    for settings in all_settings((9, 15), (9, 15)):
        answer = settings.accept(read(header))
        assert answer is not None
        ((_, parameters),) = parse_extension(str(answer))
        held = what_they_hold(factory.process_response_params(parameters, []), Role.CLIENT)
        assert said(answer) == held


@pytest.mark.parametrize("offer", COMBINATIONS, ids=str)
def test_our_client_accepts_their_answer(offer: Parameters) -> None:
    """Our client accepts the other library's answer to each of its offers, and both then compress alike."""
    ((_, parameters),) = parse_extension(str(offer))
    for settings in COMBINATIONS:
        factory = ServerPerMessageDeflateFactory(**their_parameters(settings))
        response, theirs = factory.process_request_params(parameters, [])
        agreed = offer.check(read(build_extension([(factory.name, response)])))
        assert agreed is not None
        held = what_they_hold(theirs, Role.SERVER)
        # Of a hint that the server does not take up they keep nothing; the client's window may be smaller than theirs.
        assert said(agreed) == replace(held, client_max_window_bits=said(agreed).client_max_window_bits)
        assert (said(agreed).client_max_window_bits or 0) <= (held.client_max_window_bits or 0)


@pytest.mark.parametrize("header", [header for header, _ in OFFERS if header.startswith(NAME) and "," not in header])
def test_both_servers_decline_the_same(header: str) -> None:
    """An offer is declined here if and only if the package websockets declines it."""
    ((_, parameters),) = parse_extension(header)
    try:
        ServerPerMessageDeflateFactory().process_request_params(parameters, [])
        declined = False
    except NegotiationError:
        declined = True
    assert declined == (Deflate().accept(read(header)) is None)


@pytest.mark.parametrize("offer", COMBINATIONS, ids=str)
def test_both_clients_refuse_the_same(offer: Parameters) -> None:
    """An answer is refused here if and only if the package websockets refuses it."""
    factory = ClientPerMessageDeflateFactory(**{**their_parameters(offer), CB: offer.client_max_window_bits})
    answers = [Parameters(*each) for each in itertools.product((False, True), (False, True), BITS, BITS)]
    for header in [*map(str, answers), f"{NAME}; x", f"{NAME}; {CB}", f"{NAME}; {SB}", f"{NAME}; {S}=1"]:
        ((_, parameters),) = parse_extension(header)
        try:
            theirs: object = factory.process_response_params(parameters, [])
        except NegotiationError:
            theirs = None
        try:
            ours: object = offer.check(read(header))
        except HandshakeFailed:
            ours = None
        assert (theirs is None) == (ours is None), header


# -- the harness of the codec


@dataclass(frozen=True)
class Case:
    """What a client sends, and what comes of it. `sent` is what `data_to_send` gives in the end."""

    name: str
    data: bytes
    events: tuple[WebSocketEvent, ...]
    sent: bytes = b""
    state: WebSocketState = WebSocketState.OPEN
    parameters: Parameters = ALONE
    limit: int = MIB


Outcome = tuple[list[WebSocketEvent], bytes, WebSocketState]


def feed(case: Case, pieces: Iterable[bytes]) -> Outcome:
    """Return what comes of a case whose bytes arrive in `pieces`."""
    conn = connection(Role.SERVER, case.parameters, case.limit)
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
    plain = b"plain"[: case.limit]
    after, late = (peer(Opcode.TEXT, plain), [text(plain)]) if case.state is WebSocketState.OPEN else (b"\xff\x00", [])
    for pieces in ways(case.data):
        expected = (list(case.events), case.sent, case.state)
        assert expected == feed(case, pieces), [len(piece) for piece in pieces]
        expected = ([*case.events, *late], case.sent, case.state)
        assert expected == feed(case, [*pieces, after]), [len(piece) for piece in pieces]


def peer(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv1: bool = False) -> bytes:
    """Return a frame as a client sends it."""
    return encode_frame(opcode, payload, fin=fin, rsv1=rsv1, mask=KEY)


def split(opcode: Opcode, *parts: bytes) -> bytes:
    """Return a compressed message in one frame for each part, as a client sends it."""
    last = len(parts) - 1
    return b"".join(
        peer(Opcode.CONTINUATION if at else opcode, part, fin=at == last, rsv1=not at) for at, part in enumerate(parts)
    )


def singles(data: bytes) -> list[bytes]:
    """Return the bytes one by one."""
    return [data[at : at + 1] for at in range(len(data))]


def text(data: str | bytes) -> DataReceived:
    """Return the event of a text message."""
    return DataReceived(data.encode() if isinstance(data, str) else data, True)


def binary(data: bytes) -> DataReceived:
    """Return the event of a binary message."""
    return DataReceived(data, False)


def final(data: bytes) -> bytes:
    """Return a deflate stream whose last block has BFINAL set."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(data) + deflater.flush()


def stored(data: bytes) -> bytes:
    """Return a block that is not compressed."""
    return b"\x00" + len(data).to_bytes(2, "little") + (len(data) ^ 0xFFFF).to_bytes(2, "little") + data


HELLO = bytes.fromhex("f248cdc9c90700")  # RFC 7692 §7.2.3.1
UTF8 = "aé€😀\U0010ffff\ud7ff\ue000".encode()
EMPTY_FINAL = b"\x03\x00"

GOOD = [
    Case("one frame", split(Opcode.TEXT, HELLO), (text("Hello"),)),
    Case("two fragments", split(Opcode.TEXT, HELLO[:3], HELLO[3:]), (text("Hello"),)),
    Case("fragments of a byte", split(Opcode.TEXT, *singles(HELLO)), (text("Hello"),)),
    Case("empty fragments", split(Opcode.TEXT, b"", HELLO, b""), (text("Hello"),)),
    Case("binary", split(Opcode.BINARY, compress_message(b"\xff\xfe")), (binary(b"\xff\xfe"),)),
    Case("twice", split(Opcode.TEXT, HELLO) * 2, (text("Hello"), text("Hello"))),
    Case(
        "a shared window",
        split(Opcode.TEXT, HELLO) + split(Opcode.TEXT, bytes.fromhex("f200110000")),  # RFC 7692 §7.2.3.2
        (text("Hello"), text("Hello")),
        parameters=TAKEOVER,
    ),
    Case(
        "a window shared over a plain message",
        split(Opcode.TEXT, HELLO) + peer(Opcode.TEXT, b"\x00") + split(Opcode.TEXT, b"\xf2\x00", b"\x11\x00\x00"),
        (text("Hello"), text("\0"), text("Hello")),
        parameters=TAKEOVER,
    ),
    Case("not compressed", split(Opcode.TEXT, bytes.fromhex("000500faff48656c6c6f00")), (text("Hello"),)),  # §7.2.3.3
    Case("BFINAL", split(Opcode.TEXT, bytes.fromhex("f348cdc9c9070000")), (text("Hello"),)),  # §7.2.3.4
    Case("BFINAL, kept", split(Opcode.TEXT, final(b"Hello") + b"\0") * 2, (text("Hello"),) * 2, parameters=TAKEOVER),
    # The empty block's head can stand in the bits that the last byte has left.
    Case("BFINAL and no more", split(Opcode.TEXT, final(b"Hello")) * 2, (text("Hello"),) * 2),
    Case("BFINAL and no more, kept", split(Opcode.TEXT, final(b"a")) * 2, (text("a"),) * 2, parameters=TAKEOVER),
    Case("BFINAL, and another stream", split(Opcode.TEXT, final(b"Hel") + compress_message(b"lo")), (text("Hello"),)),
    Case("BFINAL, and an empty fragment", split(Opcode.TEXT, final(b"Hello"), b""), (text("Hello"),)),
    Case("BFINAL inside UTF-8", split(Opcode.TEXT, final(b"\xe2") + final(b"\x82"), final(b"\xac")), (text("€"),)),
    Case("BFINAL in the tail", split(Opcode.TEXT, b"\x01"), (text(""),)),
    Case("many streams", split(Opcode.BINARY, EMPTY_FINAL * (MAX_STREAMS - 1) + HELLO) * 2, (binary(b"Hello"),) * 2),
    Case("two blocks", split(Opcode.TEXT, bytes.fromhex("f248050000 00ffffcac9c90700")), (text("Hello"),)),  # §7.2.3.5
    Case("nothing", split(Opcode.TEXT, b"\x00"), (text(""),)),  # §7.2.3.6
    Case("nothing, in a fixed block", split(Opcode.TEXT, b"\x02\x00"), (text(""),)),
    Case("nothing, kept", split(Opcode.BINARY, b"\x00") * 3, (binary(b""),) * 3, parameters=TAKEOVER),
    Case("UTF-8", split(Opcode.TEXT, *singles(compress_message(UTF8))), (text(UTF8),)),
    Case(
        "a ping between fragments",
        split(Opcode.TEXT, HELLO[:3], HELLO[3:]).replace(
            peer(Opcode.CONTINUATION, HELLO[3:]), peer(Opcode.PING, b"?") + peer(Opcode.CONTINUATION, HELLO[3:])
        ),
        (PingReceived(b"?"), text("Hello")),
        encode_frame(Opcode.PONG, b"?"),
    ),
    Case(
        "a block that the tail completes",
        split(Opcode.BINARY, stored(b"abc\0\0\xff\xff")[:-4]),
        (binary(b"abc\0\0\xff\xff"),),
    ),
    Case("plain", peer(Opcode.TEXT, b"a") + split(Opcode.TEXT, HELLO), (text("a"), text("Hello"))),
    Case(
        "plain fragments",
        peer(Opcode.BINARY, b"\xff", fin=False) + peer(Opcode.CONTINUATION, b"\xf2"),
        (binary(b"\xff\xf2"),),
    ),
    Case("at the limit", split(Opcode.TEXT, HELLO) * 2, (text("Hello"), text("Hello")), limit=5),
    Case("a limit of nothing", split(Opcode.TEXT, b"\x00"), (text(""),), limit=0),
    Case(
        "larger on the wire than the limit",
        split(Opcode.BINARY, compress_message(bytes(range(256)), level=0)),
        (binary(bytes(range(256))),),
        limit=256,
    ),
    Case(
        "flushes larger than the limit",
        split(Opcode.BINARY, *[b"\x00\x00\x00\xff\xff"] * 60, b"\x00"),
        (binary(b""),),
        limit=10,
    ),
]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_good_input(case: Case) -> None:
    """Good input gives its events in order, however it is cut."""
    check(case)


# -- bad input


def fault(
    name: str, data: bytes, code: int, reason: str, *, events: tuple[WebSocketEvent, ...] = (),
    parameters: Parameters = ALONE, limit: int = MIB,
) -> Case:  # fmt: skip
    """Return the case of `data` whose last byte is the first that shows a fault."""
    answer = encode_frame(Opcode.CLOSE, close_payload(code, reason))
    return Case(name, data, (*events, ProtocolFailed(code, reason)), answer, WebSocketState.CLOSED, parameters, limit)


def begun(payload: bytes, before: bytes | None = None) -> bytes:
    """Return a client's compressed frame of 125 bytes of which only `payload` has arrived yet; `before` is another."""
    if before is None:
        return b"\xc1\xfd" + KEY + apply_mask(payload, KEY)
    return peer(Opcode.TEXT, before, fin=False, rsv1=True) + b"\x80\xfd" + KEY + apply_mask(payload, KEY)


RSV = "a reserved bit is set"
DAMAGED = "damaged deflate data"
BIG = "message too big"
BAD_UTF8 = "invalid UTF-8"
CUT_UTF8 = "the message ends inside a UTF-8 sequence"

BAD = [
    *(fault(f"RSV in {first:02x}", bytes((first,)), 1002, RSV) for first in (0xA1, 0x91, 0xE1, 0xF2, 0xC9, 0xC8, 0xCA)),
    *(fault(f"RSV1 in {first:02x}", bytes((first,)), 1002, RSV) for first in (0x40, 0xC0)),
    *(
        fault(f"RSV1 in {first:02x}, inside a {kind} message", opening + bytes((first,)), 1002, RSV)
        for first in (0x40, 0xC0, 0xC1, 0xC9)
        for kind, opening in (
            ("compressed", peer(Opcode.TEXT, HELLO[:3], fin=False, rsv1=True)),
            ("plain", peer(Opcode.TEXT, b"a", fin=False)),
        )
    ),
    fault("block type 3", begun(b"\x07"), 1007, DAMAGED),
    fault("block type 3, after data", begun(HELLO[:-1] + b"\x00\x00\x00\xff\xff\x07"), 1007, DAMAGED),
    fault("stored length", begun(b"\x00\x01\x00\x00\x00"), 1007, DAMAGED),
    fault("too far back", begun(bytes.fromhex("f200110000")[:3]), 1007, DAMAGED),
    fault(
        "a window that is not shared",
        split(Opcode.TEXT, HELLO) + begun(bytes.fromhex("f200110000")[:3]),
        1007,
        DAMAGED,
        events=(text("Hello"),),
    ),
    fault(
        "a window that BFINAL ended",
        split(Opcode.TEXT, final(b"Hello") + b"\0", b"") + begun(bytes.fromhex("f200110000")[:3]),
        1007,
        DAMAGED,
        events=(text("Hello"),),
    ),
    fault("garbage after BFINAL", begun(final(b"Hello") + b"\xff"), 1007, DAMAGED),
    fault("no data", split(Opcode.TEXT, b""), 1007, DAMAGED),
    fault("no data in fragments", split(Opcode.TEXT, b"", b"", b""), 1007, DAMAGED),
    fault(
        "no data, kept", split(Opcode.TEXT, HELLO) + split(Opcode.TEXT, b""), 1007, DAMAGED,
        events=(text("Hello"),), parameters=TAKEOVER,
    ),
    fault("cut", split(Opcode.TEXT, HELLO[:-2]), 1007, DAMAGED),
    fault("cut, kept", split(Opcode.TEXT, HELLO[:-2]), 1007, DAMAGED, parameters=TAKEOVER),
    fault("cut inside a stored block", split(Opcode.BINARY, stored(bytes(8))[:-6]), 1007, DAMAGED),
    fault("cut after BFINAL", split(Opcode.TEXT, final(b"Hello") + b"\x00\x01"), 1007, DAMAGED),
    *(
        fault(f"{left} bytes of a block left", split(Opcode.BINARY, b"\x01" + stored(bytes(left))[1:5]), 1007, DAMAGED)
        for left in (1, 3, 5, 8, 9, 10)
    ),
    fault("the tail was sent", split(Opcode.TEXT, HELLO + b"\x00\x00\xff\xff"), 1007, DAMAGED),
    fault("bytes left over by BFINAL in the tail", split(Opcode.BINARY, b"\x01\x02\x00\xfd\xff"), 1007, DAMAGED),
    fault("endless streams", begun(b"\x03", EMPTY_FINAL * MAX_STREAMS), 1009, "too many deflate streams in a message"),
    fault("too big", begun(stored(b"abcdef")), 1009, BIG, limit=5),
    fault("too big, in fragments", begun(stored(b"d"), stored(b"abc")), 1009, BIG, limit=3),
    fault("too big, kept", begun(stored(b"d"), stored(b"abc")), 1009, BIG, limit=3, parameters=TAKEOVER),
    fault("too big by its head", b"\xc2\xff", 1009, BIG, limit=10),
    fault("too big by a length", b"\xc2\xfe\x80\x10", 1009, BIG, limit=10),
    fault("too big by lengths", peer(2, stored(b""), fin=False, rsv1=True) + b"\x80\xfe\x80\x0b", 1009, BIG, limit=10),
    fault("plain and too big", b"\x82\x8b", 1009, BIG, limit=10),
    fault("plain fragments too big", peer(Opcode.TEXT, b"abc", fin=False) + b"\x80\x83", 1009, BIG, limit=5),
    fault("UTF-8", begun(stored(b"abcdefg\xff")), 1007, BAD_UTF8),
    fault("a surrogate", begun(stored(b"\xed\xa0\x80")[:-1]), 1007, BAD_UTF8),
    fault("UTF-8 before the limit", begun(stored(b"a\xff")), 1007, BAD_UTF8, limit=2),
    fault("the limit before UTF-8", begun(stored(b"ab\xff")), 1009, BIG, limit=2),
    fault("UTF-8 over fragments", begun(stored(b"\xe2"), stored(b"\xe2")), 1007, BAD_UTF8),
    fault("UTF-8 cut", split(Opcode.TEXT, compress_message(b"a\xe2\x82")), 1007, CUT_UTF8),
]  # fmt: skip


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_bad_input(case: Case) -> None:
    """Bad input fails the connection at the first byte that shows it, however it is cut; what follows is ignored."""
    check(case)
    events, _, state = feed(case, [case.data[:-1]])
    assert (list(case.events[:-1]), WebSocketState.OPEN) == (events, state), "the fault shows before the last byte"


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("first", range(256))
def test_every_first_byte(first: int, role: Role) -> None:
    """With the extension RSV1 is legal on the first frame of a message, and nowhere else."""
    legal = {0x01, 0x02, 0x81, 0x82, 0x88, 0x89, 0x8A, 0x41, 0x42, 0xC1, 0xC2}
    assert (first in legal) == (connection(role).receive(bytes((first,))) == [])


# -- size and speed


@pytest.mark.parametrize("parameters", [ALONE, TAKEOVER], ids=["alone", "takeover"])
@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [MIB, MIB - 1, SLICE_BYTES, SLICE_BYTES + 1])
@pytest.mark.parametrize("noise", [True, False])
def test_large_messages(parameters: Parameters, level: int, size: int, noise: bool) -> None:
    """A message up to the limit arrives whole, however well it can be compressed; a byte more is 1009."""
    data = random.Random(size).randbytes(size) if noise else bytes(size)
    for piece in (1000, 3 * MIB):
        conn = connection(Role.SERVER, parameters, size)
        wire = split(Opcode.BINARY, compress_message(data, level=level))
        received = [event for at in range(0, len(wire), piece) for event in conn.receive(wire[at : at + piece])]
        assert [binary(data)] == received
        wire = split(Opcode.BINARY, compress_message(data + b"x", level=level))
        received = [event for at in range(0, len(wire), piece) for event in conn.receive(wire[at : at + piece])]
        assert [ProtocolFailed(1009, BIG)] == received


@pytest.mark.parametrize("opcode", [Opcode.TEXT, Opcode.BINARY])
@pytest.mark.parametrize("parts", [1, 50])
def test_a_bomb_is_refused_before_the_memory_is_used(opcode: Opcode, parts: int) -> None:
    """Of 64 MiB in 64 KiB no more is inflated than the limit, and it is let go of at once."""
    bomb = compress_message(bytes(64 * MIB), level=9)
    size = len(bomb) // parts + 1
    wire = split(opcode, *[bomb[at : at + size] for at in range(0, len(bomb), size)])
    conn = connection(Role.SERVER)
    conn.receive(split(opcode, HELLO))
    started = time.process_time()
    tracemalloc.start()
    try:
        assert [ProtocolFailed(1009, BIG)] == conn.receive(wire)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * MIB
    assert held < SLICE_BYTES
    assert time.process_time() - started < 0.5  # some 5 ms


def test_the_memory_of_a_message() -> None:
    """A message of 1 MiB out of 1 KiB costs itself, and twice that only as it is handed over."""
    wire = split(Opcode.BINARY, compress_message(bytes(MIB)))
    conn = connection(Role.SERVER)
    tracemalloc.start()
    try:
        assert [binary(bytes(MIB))] == conn.receive(wire)
        assert tracemalloc.get_traced_memory()[1] < 3.5 * MIB  # the expected one included
    finally:
        tracemalloc.stop()


def test_work_is_linear() -> None:
    """Inflating a big piece, or one of many streams, does not copy the rest of it at each step."""
    limit = 32 * MIB
    stored_blocks = split(Opcode.BINARY, compress_message(os.urandom(limit), level=0))
    started = time.process_time()
    assert 1 == len(connection(Role.SERVER, limit=limit).receive(stored_blocks))
    assert time.process_time() - started < 0.6  # some 0.15 s; 1 s if each slice out copied what is still to go in
    wires = [
        split(Opcode.BINARY, EMPTY_FINAL * (MAX_STREAMS - 1) + compress_message(bytes(limit))),
        split(Opcode.BINARY, b"\x00\x00\x00\xff\xff" * 1_000_000 + b"\x00"),
        split(Opcode.BINARY, EMPTY_FINAL * MAX_STREAMS) * 1000,
    ]
    started = time.process_time()
    for wire in wires:
        events = connection(Role.SERVER, limit=limit).receive(wire)
        assert {DataReceived} == {type(event) for event in events}
    assert time.process_time() - started < 5  # some 0.5 s


# -- out


@pytest.mark.parametrize("role", Role)
def test_what_is_sent(role: Role) -> None:
    """A message goes out compressed and marked; control frames and small messages go out as they are."""
    mask = KEY if role is Role.CLIENT else None
    data = b"a" * THRESHOLD_BYTES
    conn = WebSocketConnection(role, mask_key=lambda: KEY, extension=codec(role, ALONE, THRESHOLD_BYTES))
    assert encode_frame(Opcode.TEXT, compress_message(data), rsv1=True, mask=mask) == conn.text(data)
    assert encode_frame(Opcode.BINARY, compress_message(data), rsv1=True, mask=mask) == conn.binary(data)
    assert encode_frame(Opcode.TEXT, data[1:], mask=mask) == conn.text(data[1:])
    assert encode_frame(Opcode.PING, data[:100], mask=mask) == conn.ping(data[:100])
    assert encode_frame(Opcode.CLOSE, close_payload(1000, "aaaaaaaaaa"), mask=mask) == conn.close(1000, "aaaaaaaaaa")


def test_what_does_not_shrink_is_sent_as_it_is() -> None:
    """A message that compression would make larger is not compressed."""
    data = random.Random(1).randbytes(1000)
    conn = WebSocketConnection(Role.SERVER, extension=ALONE.server_codec())
    assert encode_frame(Opcode.BINARY, data) == conn.binary(data)
    assert [encode_frame(Opcode.BINARY, data)] == list(conn.fragments(data, False, 1000))


@pytest.mark.parametrize("parameters", [ALONE, TAKEOVER], ids=["alone", "takeover"])
def test_fragments(parameters: Parameters) -> None:
    """A compressed message is cut after it was compressed; RSV1 stands on the first frame only."""
    data = b"abc" * 1000
    conn = connection(Role.SERVER, parameters)
    frames = list(conn.fragments(data, True, 10))
    assert [0x41, *[0x00] * (len(frames) - 2), 0x80] == [frame[0] for frame in frames]
    assert 2 < len(frames) < 10
    assert [text(data)] == connection(Role.CLIENT, parameters).receive(b"".join(frames))


def test_the_window_is_taken_over() -> None:
    """Where it may, a message refers to the one before it."""
    data = random.Random(1).randbytes(500)
    ours, theirs = connection(Role.CLIENT, TAKEOVER), connection(Role.SERVER, TAKEOVER)
    first, second = ours.binary(data), ours.binary(data)
    assert len(first) > 500
    assert len(second) < 50
    assert [binary(data)] * 2 == theirs.receive(first + second)


@pytest.mark.parametrize("level", [0, 1, 6, 9])
def test_the_level_is_used(level: int) -> None:
    """A codec compresses at the level it is given."""
    data = b"".join(b"%d, " % (n * n) for n in range(500))
    expected = compress_message(data, level=level)
    assert expected == ALONE.server_codec(level=level, threshold=0).deflate(data)
    assert expected == ALONE.client_codec(level=level, threshold=0).deflate(data)
    assert expected == replace(ALONE, client_no_context_takeover=False).client_codec(level=level).deflate(data)
    assert compress_message(data) == compress_message(data, level=LEVEL)


# -- idle


@pytest.mark.parametrize("role", Role)
def test_nothing_is_kept_where_no_context_is_taken_over(role: Role) -> None:
    """Between two messages the codec is idle, and inside one it is not."""
    other = Role.CLIENT if role is Role.SERVER else Role.SERVER
    conn = connection(role)
    conn.text(b"a" * 200)
    for frame in connection(other).fragments(b"abc" * 1000, True, 10):
        conn.receive(frame)
        assert (frame[0] & 0x80 > 0) == conn.idle
    assert [text("a")] == conn.receive(connection(other).text(b"a"))
    conn.receive(split(Opcode.TEXT, HELLO)[:-1] if role is Role.SERVER else encode_frame(1, HELLO, rsv1=True)[:-1])
    assert not conn.idle


def test_the_message_may_begin_with_an_empty_fragment() -> None:
    """A compressed message of which only an empty fragment has come is not idle."""
    conn = connection(Role.SERVER)
    conn.receive(peer(Opcode.TEXT, b"", fin=False, rsv1=True))
    assert not conn.idle


@pytest.mark.parametrize("role", Role)
def test_a_context_is_kept(role: Role) -> None:
    """Where a side's context is taken over, the codec can't be dropped after that side's first compressed message."""
    other = Role.CLIENT if role is Role.SERVER else Role.SERVER
    sends = Parameters(role is Role.CLIENT, role is Role.SERVER)
    receives = Parameters(role is Role.SERVER, role is Role.CLIENT)
    for parameters, kept in ((sends, (True, False)), (receives, (False, True)), (TAKEOVER, (True, True))):
        for sent, received in ((True, False), (False, True)):
            conn = connection(role, parameters)
            assert conn.idle
            conn.receive(WebSocketConnection(other).text(b"plain"))
            assert conn.idle
            if sent:
                conn.text(b"a" * 200)
            else:
                conn.receive(connection(other, parameters).text(b"a" * 200))
            assert ((kept[0] and sent) or (kept[1] and received)) == (not conn.idle)


# -- any input

MESSAGES = st.lists(
    st.tuples(
        st.text(max_size=300).map(str.encode).map(lambda data: (data, True))
        | st.binary(max_size=700).map(lambda data: (data, False))
        | st.tuples(st.sampled_from([b"{}", b'{"price": 1}', bytes(3)]), st.integers(0, 9000)).map(
            lambda each: (each[0] * each[1], False)
        ),
        st.none() | st.integers(1, 400),  # the size of its fragments
    ),
    max_size=6,
)
PARAMETERS = st.sampled_from(
    [Parameters(*each) for each in itertools.product((False, True), (False, True), BITS, BITS)]
)


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    """Return `data` cut at `cuts`, taken modulo its length."""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(places)]


def conversation(sender: WebSocketConnection, messages: list[tuple[tuple[bytes, bool], int | None]]) -> bytes:
    """Return the frames of some messages."""
    frames: list[bytes] = []
    for (data, is_text), size in messages:
        whole = sender.text if is_text else sender.binary
        frames += [whole(data)] if size is None else sender.fragments(data, is_text, size)
    return b"".join(frames)


@given(
    MESSAGES, st.lists(st.integers(0, 10_000), max_size=20), st.sampled_from(Role), PARAMETERS, st.sampled_from((0, 64))
)
def test_round_trip(
    messages: list[tuple[tuple[bytes, bool], int | None]],
    cuts: list[int],
    role: Role,
    parameters: Parameters,
    threshold: int,
) -> None:
    """Whatever one end sends, in any fragments and pieces, the other receives."""
    other = Role.CLIENT if role is Role.SERVER else Role.SERVER
    sender = WebSocketConnection(role, extension=codec(role, parameters, threshold))
    receiver = connection(other, parameters)
    wire = conversation(sender, messages)
    received = [event for piece in pieces_of(wire, cuts) for event in receiver.receive(piece)]
    assert [DataReceived(data, is_text) for (data, is_text), _ in messages] == received


@given(st.binary(max_size=300), st.booleans(), PARAMETERS, st.integers(0, 1000))
def test_any_data_is_a_message_or_a_fault(data: bytes, fin: bool, parameters: Parameters, limit: int) -> None:
    """Any bytes for deflate data never raise, and end in a message within the limit or in one fault."""
    conn = connection(Role.SERVER, parameters, limit)
    for event in conn.receive(
        peer(Opcode.BINARY, data, fin=fin, rsv1=True) + peer(Opcode.CONTINUATION, data) * (not fin)
    ):
        match event:
            case DataReceived():
                assert len(event.data) <= limit
            case _:
                assert isinstance(event, ProtocolFailed)
                assert event.code in (1007, 1009)


# -- against another implementation


def their_server(settings: Parameters, request: bytes) -> tuple[ServerProtocol, str]:
    """Return their server after its handshake with our request, and the extensions of its answer."""
    server = ServerProtocol(extensions=[ServerPerMessageDeflateFactory(**their_parameters(settings))])
    server.receive_data(request)
    asked = server.events_received()[0]
    assert isinstance(asked, Request)
    response = server.accept(asked)
    server.send_response(response)
    server.data_to_send()
    assert server.handshake_exc is None
    return server, response.headers.get("Sec-WebSocket-Extensions", "")


def their_client(offer: Parameters, settings: Deflate) -> tuple[ClientProtocol, Parameters]:
    """Return their client after its handshake with our server, and what our server answered."""
    factory = ClientPerMessageDeflateFactory(**their_parameters(offer))
    client = ClientProtocol(parse_uri("ws://example.com/x"), extensions=[factory])
    client.send_request(client.connect())
    start, *lines = b"".join(client.data_to_send()).decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    upgrade = parse_upgrade(start.split()[0], (1, 1), headers)
    answer = settings.accept(upgrade.extensions)
    assert answer is not None
    client.receive_data(accept_response(upgrade, None, [("Sec-WebSocket-Extensions", str(answer))]))
    client.events_received()
    assert client.handshake_exc is None
    return client, answer


def swap(theirs: ServerProtocol | ClientProtocol, ours: WebSocketConnection, seed: int) -> None:
    """Send messages both ways, of any size, in one frame and in fragments, and hold them against each other."""
    source = random.Random(seed)
    for turn in range(30):
        data = source.choice([b"", b"a", b"{}" * source.randrange(5000), "é€😀".encode() * 200, UTF8])
        # to us
        if turn % 2:
            theirs.send_text(data)
        else:
            theirs.send_text(data[: len(data) // 2], fin=False) if data.isascii() else theirs.send_text(b"", fin=False)
            theirs.send_continuation(data[len(data) // 2 :] if data.isascii() else data, fin=True)
        assert [text(data)] == ours.receive(b"".join(theirs.data_to_send()))
        # from us
        frames = [ours.text(data)] if turn % 3 else ours.fragments(data, True, 50)
        theirs.receive_data(b"".join(frames))
        received = cast("list[Frame]", theirs.events_received())
        assert data == b"".join(frame.data for frame in received)
        assert [TheirOpcode.TEXT, *[TheirOpcode.CONT] * (len(received) - 1)] == [frame.opcode for frame in received]
    assert theirs.parser_exc is None


@pytest.mark.parametrize("settings", COMBINATIONS[::5], ids=str)
@pytest.mark.parametrize("offer", COMBINATIONS[::7], ids=str)
def test_our_client_and_their_server(offer: Parameters, settings: Parameters) -> None:
    """With each combination of parameters our client and their server understand one another."""
    request = request_bytes("a", "/", new_key(), headers=[("Sec-WebSocket-Extensions", str(offer))])
    server, answer = their_server(settings, request)
    agreed = offer.check(read(answer))
    assert agreed is not None
    swap(server, connection(Role.CLIENT, agreed), len(answer))


@pytest.mark.parametrize("settings", all_settings((9, 15), (9, 15)), ids=str)
@pytest.mark.parametrize("offer", COMBINATIONS[::7], ids=str)
def test_their_client_and_our_server(offer: Parameters, settings: Deflate) -> None:
    """With each combination of parameters their client and our server understand one another."""
    client, answer = their_client(offer, settings)
    swap(client, connection(Role.SERVER, answer), len(str(answer)))


@pytest.mark.parametrize("name", [case.name for case in BAD if case.parameters is ALONE and case.limit == MIB])
def test_they_read_nothing_that_we_refuse(name: str) -> None:
    """Of what is refused here, the package websockets makes no message either, but for what lacks its end."""
    (case,) = (case for case in BAD if case.name == name)
    server, _ = their_server(ALONE, request_bytes("a", "/", new_key(), headers=[("Sec-WebSocket-Extensions", BOTH)]))
    server.receive_data(case.data)
    messages = [frame for frame in server.events_received() if isinstance(frame, Frame) and frame.fin]
    if name not in LENIENT:
        assert len(messages) <= len(case.events), messages


# They add the tail and look no further, so a message that is cut, or has no data at all, is one.
LENIENT = {"no data", "no data in fragments", "cut inside a stored block"}


def test_everything_public_is_there() -> None:
    """Each name in `__all__` exists."""
    assert [] == [name for name in ws_deflate.__all__ if not hasattr(ws_deflate, name)]


def test_theirs_is_the_judge() -> None:
    """The extension of the package websockets reads each good message that has no window before it."""
    for case in GOOD:
        if case.parameters is ALONE and len(case.events) == 1 and case.data[0] == 0xC1 and "BFINAL" not in case.name:
            decoder = Theirs(True, True, 15, 15)
            payload = apply_mask(case.data[6:], KEY)
            frame = decoder.decode(Frame(TheirOpcode.TEXT, payload, True, True))
            assert [text(bytes(frame.data))] == list(case.events), case.name


@pytest.mark.parametrize("size", [SLICE_BYTES - 1, SLICE_BYTES, SLICE_BYTES + 1, 3 * SLICE_BYTES])
def test_a_stream_that_ends_behind_a_full_slice(size: int) -> None:
    """A stream of more than one slice that ends inside of a piece is followed by the next, and by no endless loop."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    ended = stream.compress(bytes(size)) + stream.flush()
    codec = Parameters().server_codec()
    out = bytearray()
    for part in itertools.islice(codec.inflate(ended + compress_message(b"next"), last=True), 10):
        out += part
    assert bytes(size) + b"next" == out

"""WebSockets under fuzzing: frames, messages and their compression.

Oracles: the same events however the bytes are cut; at most a message is held, and inflated in slices; what was read and
is sent again is read the same; the shortcut for a message in one frame agrees with the codec.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from oncecast.wire.ws_connection import (
    MAX_ANSWERS,
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
from oncecast.wire.ws_deflate import SLICE_BYTES, Parameters, PerMessageDeflate, compress_message
from oncecast.wire.ws_frames import FrameFault, whole_message

from .pieces import opened, pieces

__all__ = ["deflate", "frames"]

MOST_BYTES = 200  # of a message, so that its limit is near
MASK = b"\x37\xfa\x21\x3d"  # RFC 6455 §5.7
AGREED = (
    None,
    Parameters(),
    Parameters(server_no_context_takeover=True, client_no_context_takeover=True),
    Parameters(server_max_window_bits=9, client_max_window_bits=9),
)


def frames(data: bytes) -> None:
    """Read frames whole and cut, as a server or a client, with and without compression."""
    variant, way, content = opened(data)
    role = Role.CLIENT if variant & 4 else Role.SERVER
    agreed = AGREED[variant & 3]
    whole = _events([content], role, agreed)
    cut = _events(pieces(content, way), role, agreed)
    if agreed is not None:
        whole, cut = _without_codes(whole), _without_codes(cut)
    if _looks_back(agreed) and ProtocolFailed(1002, "") in cut:
        return
    assert whole == cut
    if way % 4 == 0:  # it takes as long as the rest
        _send_back(whole, role, agreed)
    shortcut = whole_message(content, MOST_BYTES)
    if shortcut is not None and role is Role.SERVER:
        assert [DataReceived(*shortcut)] == whole


def _looks_back(agreed: Parameters | None) -> bool:
    """Tell whether a window is short: zlib sees a distance beyond it only where it leads out of a piece's output."""
    return agreed is not None and agreed.client_max_window_bits is not None


def _codec(role: Role, agreed: Parameters | None) -> PerMessageDeflate | None:
    if agreed is None:
        return None
    return agreed.server_codec(threshold=0) if role is Role.SERVER else agreed.client_codec(threshold=0)


def _connection(role: Role, agreed: Parameters | None) -> WebSocketConnection:
    return WebSocketConnection(
        role, max_message_bytes=MOST_BYTES, mask_key=lambda: MASK, extension=_codec(role, agreed)
    )


def _events(parts: Iterable[bytes], role: Role, agreed: Parameters | None) -> list[WebSocketEvent]:
    connection = _connection(role, agreed)
    events: list[WebSocketEvent] = []
    for part in parts:
        events += connection.receive(part)
        assert connection.held <= MOST_BYTES
        assert len(connection._outbox) <= MAX_ANSWERS + 1
        assert len(connection._head) <= 14
        assert len(connection._control) <= 125
    for event in events[:-1]:
        assert not isinstance(event, CloseReceived | ProtocolFailed)
    for event in events:
        match event:
            case DataReceived(data, is_text):
                assert len(data) <= MOST_BYTES
                assert not is_text or data.decode().encode() == data
            case PingReceived(data) | PongReceived(data):
                assert len(data) <= 125
            case ProtocolFailed(code, _):
                assert code in (1002, 1007, 1009)
    ended = bool(events) and isinstance(events[-1], CloseReceived | ProtocolFailed)
    assert ended == (connection.state is WebSocketState.CLOSED)
    if ended:  # the answer ends with one Close, which the other end understands
        other = WebSocketConnection(Role.CLIENT if role is Role.SERVER else Role.SERVER)
        answers = other.receive(connection.data_to_send())
        assert isinstance(answers[-1], CloseReceived)
    return events


def _without_codes(events: list[WebSocketEvent]) -> list[WebSocketEvent]:
    """Make all faults one: in a compressed message, a fault may hide another that the same piece would show first."""
    return [ProtocolFailed(1002, "") if isinstance(event, ProtocolFailed) else event for event in events]


def _send_back(events: list[WebSocketEvent], role: Role, agreed: Parameters | None) -> None:
    """Send what was read, from the other end: whole and in fragments, it is read the same."""
    reader = _connection(role, agreed)
    writer = _connection(Role.CLIENT if role is Role.SERVER else Role.SERVER, agreed)
    for number, event in enumerate(events[:20]):
        if not isinstance(event, DataReceived):
            continue
        if number % 2:
            sent = b"".join(writer.fragments(event.data, event.is_text, 1 + len(event.data) // 3))
        else:
            sent = writer.text(event.data) if event.is_text else writer.binary(event.data)
        assert [event] == reader.receive(sent)


def deflate(data: bytes) -> None:
    """Inflate a message's payload whole and cut, and compress the content."""
    variant, way, content = opened(data)
    agreed = AGREED[1 + variant % 3] or Parameters()
    whole = _inflated([content], agreed)
    cut = _inflated(pieces(content, way), agreed)
    out, fault = whole
    if _looks_back(agreed) and cut[1] is not None:
        return
    assert out == cut[0]
    assert (fault is None) == (cut[1] is None)  # a fault may hide output of its own piece, which would be another one
    if fault is None:
        sent = agreed.server_codec(threshold=0).deflate(out)
        assert sent is not None
        assert out == b"".join(agreed.client_codec().inflate(sent, last=True))
    sent = compress_message(content, window_bits=9 + variant % 7, level=variant % 10)
    # What any inflater makes of it, as RFC 7692 §7.2.2 says.
    assert content == zlib.decompressobj(-15).decompress(sent + b"\0\0\xff\xff")


def _inflated(parts: Iterable[bytes], agreed: Parameters) -> tuple[bytes, int | None]:
    codec = agreed.server_codec()
    room = 1 << 18
    out = bytearray()
    try:
        for part in parts:
            for piece in codec.inflate(part, last=False):
                assert 0 < len(piece) <= SLICE_BYTES
                out += piece
                if len(out) > room:
                    return b"", 1009
        for piece in codec.inflate(b"", last=True):
            out += piece
    except FrameFault as fault:
        assert fault.code in (1007, 1009)
        return b"", fault.code
    assert codec.idle or not agreed.client_no_context_takeover
    return (bytes(out), None) if len(out) <= room else (b"", 1009)

"""Reading a WebSocket: messages in fragments of any length, and what they may cost.

Each fault, cut at every byte, is tested with the connection: `test_ws_connection.py`.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest

from oncecast.wire.ws_connection import DataReceived, ProtocolFailed, Role, WebSocketConnection
from oncecast.wire.ws_frames import Opcode, encode_frame
from oncecast.wire.ws_reader import SHORT_BYTES, SHORT_ROOM

KEY = b"mask"
MIB = 1 << 20


def connection(limit: int = MIB) -> WebSocketConnection:
    """Return a server's end."""
    return WebSocketConnection(Role.SERVER, max_message_bytes=limit)


def peer(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """Return a frame as a client sends it."""
    return encode_frame(opcode, payload, fin=fin, mask=KEY)


@pytest.mark.slow
@pytest.mark.parametrize("size", [64, 1024])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_message_in_short_fragments(size: int, is_text: bool) -> None:
    """A message of 4 MiB in fragments of 64 bytes arrives whole, in time and memory that are linear."""
    limit = 4 * MIB
    sender = WebSocketConnection(Role.CLIENT, mask_key=lambda: KEY)
    receiver = WebSocketConnection(Role.SERVER, max_message_bytes=limit)
    wire = b"".join(sender.fragments(b"*" * limit, is_text, size))
    started = time.process_time()
    tracemalloc.start()
    try:
        events = [event for at in range(0, len(wire), 4096) for event in receiver.receive(wire[at : at + 4096])]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [DataReceived(b"*" * limit, is_text)] == events
    assert peak < 2.3 * limit
    assert time.process_time() - started < 5  # some 0.7 s under the tracer; one copy for each fragment takes minutes


@pytest.mark.parametrize("limit", [1000, 100_000, MIB])
def test_short_fragments_are_bounded_by_the_limit(limit: int) -> None:
    """Empty fragments are taken up to the limit, in units of SHORT_BYTES; what is not short is not counted."""
    conn = connection(limit)
    most = max(limit, SHORT_ROOM)
    begin = peer(Opcode.BINARY, bytes(min(limit, 600)), fin=False)
    empties = -(-most // SHORT_BYTES)
    assert [] == conn.receive(begin + peer(Opcode.CONTINUATION, fin=False) * empties)
    assert [ProtocolFailed(1009, "too many short fragments")] == conn.receive(b"\x80")


def test_a_full_message_may_end_with_an_empty_fragment() -> None:
    """A message at the limit is not refused for the frame that ends it."""
    conn = connection()
    assert [DataReceived(bytes(MIB), False)] == conn.receive(
        peer(Opcode.BINARY, bytes(MIB), fin=False) + peer(Opcode.CONTINUATION)
    )


def test_the_bytes_of_an_unfinished_message_are_held() -> None:
    """`held` grows with the message, and is 0 once it is whole or the connection has failed."""
    conn = connection()
    conn.receive(peer(Opcode.TEXT, b"abc", fin=False) + peer(Opcode.CONTINUATION, b"de", fin=False))
    assert 5 == conn.held
    conn.receive(peer(Opcode.CONTINUATION, b"f"))
    assert 0 == conn.held
    conn.receive(peer(Opcode.TEXT, b"abc", fin=False) + b"\xff")
    assert 0 == conn.held

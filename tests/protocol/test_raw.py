"""The raw session: data alone, both ways."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.message import Cursor, Draft, Kind, LogGap, Reason, Retention
from oncecast.protocol.raw import gap_text
from oncecast.testing.driver import run_now
from oncecast.wire.ws_connection import DataReceived, PingReceived
from tests.session_rig import BEAT, raw


def test_raw_frames_are_the_data(rig: Any) -> None:
    """JSON and text come in text frames, binary data in binary ones."""
    peer = raw(rig)
    rig.run_turns()
    rig.publish('{"n":1}', Draft("c", b"text", Kind.TEXT), Draft("c", b"\0", Kind.BINARY))
    rig.run_turns()
    assert [
        DataReceived(b'{"n":1}', True),
        DataReceived(b"text", True),
        DataReceived(b"\0", False),
    ] == peer.events()


def test_raw_publishes_text_and_binary(rig: Any) -> None:
    """A frame on a raw socket is published to the channel of the URL, without an acknowledgement."""
    peer = raw(rig)
    peer.socket.received(peer.codec.text(b"hello") + peer.codec.binary(b"\0"))
    entries = rig.node.log.read_after(("c",), 0, 10)
    assert [(b"hello", Kind.TEXT), (b"\0", Kind.BINARY)] == [(e.message.data, e.message.kind) for e in entries]
    rig.run_turns()
    assert [DataReceived(b"hello", True), DataReceived(b"\0", False)] == peer.events()


def test_raw_text_right_before_the_close_is_published(rig: Any) -> None:
    """`ws.send(x); ws.close()` comes in one piece, and says x."""
    peer = raw(rig)
    peer.socket.received(peer.codec.text(b"bye") + peer.codec.close())
    assert 1 == rig.node.log.head


def test_raw_with_several_channels_only_listens(rig: Any) -> None:
    """Nobody can say which of them a frame is for."""
    peer = raw(rig, "c", "d")
    peer.socket.received(peer.codec.text(b"hello"))
    assert 4400 == peer.close()[0]


def test_raw_is_closed_by_a_gap_at_the_start(rig: Any) -> None:
    """4410, with the place to go on from: past the gaps of all channels."""
    rig.retention = Retention(messages=1)
    rig.publish("1", "2")
    peer = raw(rig, query="after=e-0")
    assert (4410, "gap (expired) on c; go on from e-1") == peer.close()
    several = raw(rig, "c", "d", query="after=other-5")
    assert (4410, "gap (epoch) on c; go on from e-1") == several.close()
    assert 0 == rig.node.hub.subscriptions


def test_raw_is_closed_by_a_gap_on_the_way(rig: Any) -> None:
    """A reader that was too slow is closed with 4410 once its socket takes bytes again."""
    rig.retention = Retention(messages=1)
    peer = raw(rig, "c", "d")
    rig.run_turns()
    peer.link.block()
    for channel in ("c", "d", "c", "d"):
        rig.publish("1", channel=channel)
    rig.run_turns()
    peer.link.drain()
    rig.run_turns()
    assert (4410, "gap (slow) on c; go on from e-2") == peer.close()


def test_raw_is_closed_where_its_publish_is_refused(rig: Any) -> None:
    """The broker's refusal has no other way to be said."""
    run_now(rig.broker.stop())
    peer = raw(rig)
    peer.socket.received(peer.codec.text(b"x"))
    assert 1013 == peer.close()[0]


def test_raw_has_a_ping_for_a_heartbeat(rig: Any) -> None:
    """Nothing else could come without being taken for a message."""
    peer = raw(rig)
    rig.run_turns()
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert [PingReceived(b"")] == peer.events()


def test_raw_has_the_limit_on_channels(rig: Any) -> None:
    """No channel is subscribed to."""
    with pytest.raises(Refusal, match="at most"):
        raw(rig, *(f"c{n}" for n in range(65)))
    assert 0 == rig.node.hub.subscriptions


@pytest.mark.parametrize("length", [1, 42, 128])
def test_a_gaps_text_fits_into_a_close_and_keeps_its_cursor(length: int) -> None:
    """RFC 6455 §5.5: a reason has 123 bytes; the cursor is what a client needs of it."""
    here = Cursor("z" * 32, 2**63 - 1)
    text = gap_text(LogGap("c" * length, Reason.EXPIRED, here, here, here))
    assert len(text) <= 123
    assert text.endswith(f"; go on from {here}")
    assert text.startswith("gap (expired) on c")

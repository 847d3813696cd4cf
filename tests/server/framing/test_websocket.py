"""The carrier of a WebSocket: liveness, the close handshake, floods, and bytes cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.core.subscription import Lag
from oncecast.protocol.base import TransportSettings
from oncecast.server.framing.websocket import CLOSE_SECONDS, SLICE_BYTES
from oncecast.wire.ws_connection import CloseReceived
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.session_rig import BEAT, Peer, raw, v1


@pytest.fixture(params=[v1, raw], ids=["v1", "raw"])
def peer(request: pytest.FixtureRequest, rig: Any) -> Peer:
    """A peer of each kind, live on channel c."""
    made: Peer = request.param(rig, "c")
    rig.settle()
    made.events()
    return made


def test_the_peers_close_is_answered(rig: Any, peer: Peer) -> None:
    """Its code comes back, then the connection ends, and the subscription is gone."""
    peer.socket.received(peer.codec.close(1001, "going"))
    assert (1001, "") == peer.close()
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)
    peer.socket.closed()


def test_our_close_waits_for_the_peers(rig: Any, peer: Peer) -> None:
    """After ours nothing more is sent; the peer's answer ends the connection."""
    peer.socket.drain()
    assert (1012, "restarting: reconnect and resume") == peer.close()
    rig.publish("1")
    rig.settle()
    peer.link.drain()
    rig.settle()
    assert ([], "open") == (peer.link.sent, peer.link.state)
    peer.socket.received(peer.codec.data_to_send())
    assert ([], "ended") == (peer.link.sent, peer.link.state)


def test_frames_after_our_close_are_not_read(rig: Any, peer: Peer) -> None:
    """RFC 6455 §1.4: data is ignored while the Close is under way."""
    message = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.drain()
    peer.link.take()
    peer.socket.received(message)
    assert (0, []) == (rig.node.log.head, peer.link.sent)


def test_a_peer_that_does_not_answer_our_close_is_cut_off(rig: Any, peer: Peer) -> None:
    """It has `CLOSE_SECONDS`."""
    peer.socket.drain()
    rig.pass_time(peer.link, peer.socket, CLOSE_SECONDS - 0.1)
    assert "open" == peer.link.state
    rig.pass_time(peer.link, peer.socket, 0.1)
    assert "aborted" == peer.link.state


def test_a_dead_peer_is_found_within_two_heartbeats(rig: Any, peer: Peer) -> None:
    """Whoever has not answered one heartbeat by the next is gone; any byte is an answer."""
    rig.pass_time(peer.link, peer.socket, BEAT)
    peer.socket.received(peer.codec.ping())
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert "open" == peer.link.state
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert "aborted" == peer.link.state


def test_a_peer_whose_socket_is_full_is_not_taken_for_dead(rig: Any, peer: Peer) -> None:
    """It may not even have got our ping."""
    peer.link.block()
    for _ in range(3):
        rig.pass_time(peer.link, peer.socket, BEAT)
    assert ([], "open") == (peer.link.sent, peer.link.state)


def test_an_idle_socket_keeps_no_codec(rig: Any, peer: Peer) -> None:
    """The codec lives from the first byte of a frame to its last."""
    ping = peer.codec.ping(b"x")
    assert not peer.has_codec()
    peer.socket.received(ping[:3])
    assert peer.has_codec()
    peer.socket.received(ping[3:])
    assert not peer.has_codec()
    (pong,) = peer.events()
    assert b"x" == pong.data


@pytest.mark.parametrize(
    "data, code",
    [
        (encode_frame(Opcode.TEXT, b"x"), 1002),
        (b"\xf1\x80", 1002),
        (encode_frame(Opcode.TEXT, b"\xff", mask=b"\0\0\0\0"), 1007),
        (b"\x81\xfe\x00\xc9", 1009),
    ],
    ids=["unmasked", "reserved bits", "not UTF-8", "too big"],
)
@pytest.mark.parametrize("make", [v1, raw], ids=["v1", "raw"])
def test_a_peer_that_breaks_the_protocol(rig: Any, make: Any, data: bytes, code: int) -> None:
    """RFC 6455 §7.1.7: the Close says why, and the connection ends without waiting for an answer."""
    rig.settings = TransportSettings(message_bytes=200)
    peer = make(rig, "c")
    peer.socket.received(data)
    assert code == peer.close()[0]
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)


def test_a_flood_of_pings_is_closed_with_4429(rig: Any, peer: Peer) -> None:
    """Pings are answered up to the burst; past it nothing more is looked at."""
    ping = peer.codec.ping()
    peer.socket.received(ping * (1000))
    assert 4429 in [event.code for event in peer.events() if isinstance(event, CloseReceived)]
    assert "ended" == peer.link.state


def test_a_long_read_is_taken_in_slices(rig: Any, peer: Peer) -> None:
    """More than one slice says the same."""
    rest = encode_frame(
        Opcode.TEXT, b'{"type":"publish","channel":"c","data":"%b"}' % (b"x" * 10 * SLICE_BYTES), mask=b"abcd"
    )
    for at in range(0, len(rest), SLICE_BYTES):
        peer.socket.received(rest[at : at + SLICE_BYTES])
    assert (1, "open") == (rig.node.log.head, peer.link.state)


def test_a_client_that_has_gone_is_forgotten(rig: Any, peer: Peer) -> None:
    """Nothing is written after `closed`."""
    peer.socket.closed()
    rig.publish("1")
    rig.settle()
    assert ([], 0) == (peer.link.sent, rig.node.hub.subscriptions)


@pytest.mark.parametrize("make", [v1, raw], ids=["v1", "raw"])
def test_where_the_channel_does_not_wait_a_full_socket_is_closed(rig: Any, make: Any) -> None:
    """The policy `disconnect` closes with 4409."""
    rig.lag = Lag.DISCONNECT
    peer = make(rig, "c")
    rig.settle()
    peer.events()
    peer.link.fills = True
    rig.publish("1")
    rig.settle()
    assert 4409 == peer.close()[0]
    assert 0 == rig.node.hub.subscriptions


def test_a_pong_counts_as_a_frame(rig: Any) -> None:
    """Unasked-for pongs are allowed (RFC 6455 §5.5.3), and guarded like pings."""
    rig.settings = TransportSettings(frames_per_second=1)
    peer = v1(rig)
    pong = encode_frame(Opcode.PONG, b"", mask=b"\0\0\0\0")
    peer.socket.received(pong * 2)
    assert [] == peer.events()
    peer.socket.received(pong)
    assert 4429 == peer.close()[0]

"""The carrier of a WebSocket: liveness, the close handshake, floods, and bytes cut anywhere."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.protocol.base import TransportSettings
from oncecast.protocol.duplex import END_SECONDS
from oncecast.protocol.raw import RawSession
from oncecast.server.framing.websocket import (
    CLOSE_SECONDS,
    DEFLATED_SLICE_BYTES,
    MOVES,
    SLICE_BYTES,
    CarrierState,
)
from oncecast.wire.ws_connection import CloseReceived
from oncecast.wire.ws_deflate import Parameters
from oncecast.wire.ws_frames import Opcode, encode_frame
from tests.session_rig import BEAT, Peer, SlowBroker, raw, v1


@pytest.fixture(params=[v1, raw], ids=["v1", "raw"])
def peer(request: pytest.FixtureRequest, rig: Any) -> Peer:
    """A peer of each kind, live on channel c."""
    made: Peer = request.param(rig, "c")
    rig.run_turns()
    made.events()
    return made


def test_the_peers_close_is_answered(rig: Any, peer: Peer) -> None:
    """The peer's Close is answered with its code, the connection ends, and the subscription is removed."""
    peer.socket.received(peer.codec.close(1001, "going"))
    assert (1001, "") == peer.close()
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)
    peer.socket.closed()


def test_our_close_waits_for_the_peers(rig: Any, peer: Peer) -> None:
    """After ours nothing more is sent; the peer's answer ends the connection."""
    peer.socket.drain()
    assert (1012, "restarting: reconnect and resume") == peer.close()
    rig.publish("1")
    rig.run_turns()
    peer.link.drain()
    rig.run_turns()
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
    """A peer that does not answer our Close is cut off after `CLOSE_SECONDS`."""
    peer.socket.drain()
    rig.pass_time(peer.link, peer.socket, CLOSE_SECONDS - 0.1)
    assert "open" == peer.link.state
    rig.pass_time(peer.link, peer.socket, 0.1)
    assert "aborted" == peer.link.state


def test_a_dead_peer_is_found_within_two_heartbeats(rig: Any, peer: Peer) -> None:
    """A peer that sends no byte between two heartbeats is disconnected."""
    rig.pass_time(peer.link, peer.socket, BEAT)
    peer.socket.received(peer.codec.ping())
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert "open" == peer.link.state
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert "aborted" == peer.link.state


def test_a_peer_whose_socket_is_full_is_not_taken_for_dead(rig: Any, peer: Peer) -> None:
    """A peer with a full socket is not cut off without a pong, as it may not have received our ping."""
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
    rig.run_turns()
    assert ([], 0) == (peer.link.sent, rig.node.hub.subscriptions)


@pytest.mark.parametrize("make", [v1, raw], ids=["v1", "raw"])
def test_where_the_channel_does_not_wait_a_full_socket_is_closed(rig: Any, make: Any) -> None:
    """The policy `disconnect` closes with 4409."""
    rig.lag = Lag.DISCONNECT
    peer = make(rig, "c")
    rig.run_turns()
    peer.events()
    peer.link.fills = True
    rig.publish("1")
    rig.run_turns()
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


def test_pings_and_frames_share_one_rate(rig: Any) -> None:
    """`frames_per_second` bounds all that is no publish, on both sides of the codec."""
    rig.settings = TransportSettings(frames_per_second=1)  # so two may come at once
    peer = v1(rig)
    peer.socket.received(encode_frame(Opcode.PING, b"", mask=b"\0\0\0\0"))
    peer.say(type="unsubscribe", channel="c")
    assert 2 == len(peer.events())
    peer.say(type="unsubscribe", channel="c")
    assert 4429 == peer.close()[0]


def test_the_pong_that_a_heartbeat_asks_for_is_not_counted(rig: Any) -> None:
    """A client that answers every ping never meets the flood guard; further pongs are counted."""
    rig.settings = TransportSettings(frames_per_second=1)
    peer = raw(rig, "c")
    pong = encode_frame(Opcode.PONG, b"", mask=b"\0\0\0\0")
    for _ in range(20):
        rig.pass_time(peer.link, peer.socket, BEAT)
        peer.socket.received(pong)
    peer.events()
    peer.socket.received(pong * 2)  # as many as may come at once: none was counted before
    assert [] == peer.events()
    peer.socket.received(pong)
    assert 4429 == peer.close()[0]


@pytest.mark.parametrize("make", [v1, raw], ids=["v1", "raw"])
def test_a_peer_that_ends_while_the_broker_is_slow(rig: Any, make: Any) -> None:
    """A Close is answered last, after a slow broker or END_SECONDS, and pings are answered at once."""
    broker = rig.node.broker = SlowBroker(rig.broker)
    peer = make(rig, "c")
    rig.run_turns()
    peer.events()
    publish = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.received(peer.codec.ping(b"?") + publish + peer.codec.close(1000))
    peer.socket.received(publish)
    assert ("open", 1) == (peer.link.state, len(broker.waiting))
    rig.pass_time(peer.link, peer.socket, END_SECONDS - 0.1)
    assert "open" == peer.link.state
    rig.pass_time(peer.link, peer.socket, 0.1)
    pong, close = peer.events()
    assert (b"?", 1000) == (pong.data, close.code)
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)
    broker.answer()
    rig.run_turns()
    assert [] == peer.link.sent


def test_the_server_stops_while_a_peer_ends(rig: Any, peer: Peer) -> None:
    """The peer's Close is answered then, and the connection ends at once."""
    rig.node.broker = SlowBroker(rig.broker)
    peer.socket.received(peer.codec.text(b'{"type":"publish","channel":"c","data":1}') + peer.codec.close(1000))
    peer.socket.drain()
    assert (1000, "ended") == (peer.close()[0], peer.link.state)
    peer.socket.drain()
    peer.socket.closed()


def test_a_session_that_closes_in_the_read_that_ends(rig: Any, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer's Close has been read with the message before it: it is answered, and no other Close is sent."""
    session: Any = peer.socket._session
    monkeypatch.setattr(
        type(session), "received", lambda self, payload, is_text: self.refuse(Refusal("slow", "too slow"))
    )
    peer.socket.received(peer.codec.text(b"{}") + peer.codec.close(1000))
    assert (1000, "ended") == (peer.close()[0], peer.link.state)


def test_the_bytes_of_an_unfinished_message_are_counted(rig: Any, peer: Peer) -> None:
    """The connection knows how much is held, and that nothing is once the message is whole or the connection fails."""
    frames = list(peer.codec.fragments(b'{"type":"publish","channel":"c","data":"x"}', True, 10))
    held = []
    for frame in frames:
        peer.socket.received(frame)
        held.append(peer.link.held)
    assert [10, 20, 30, 40, 0] == held
    peer.socket.received(frames[0])
    assert 10 == peer.link.held
    peer.socket.received(b"\xff")
    assert 0 == peer.link.held


def test_each_event_of_the_table_leads_where_it_says() -> None:
    """Nothing leads back, and CLOSED is the end."""
    order = list(CarrierState)
    assert set(order) == set(MOVES)
    assert all(order.index(new) > order.index(state) for state, row in MOVES.items() for new in row.values())
    assert {} == MOVES[CarrierState.CLOSED]


def test_slices_are_smaller_where_the_peer_may_compress(rig: Any) -> None:
    """A byte of compressed data can be a thousand of a message."""
    assert SLICE_BYTES == raw(rig).socket.slice_bytes
    deflated = Peer(rig, RawSession, deflate=Parameters(True, True))
    assert DEFLATED_SLICE_BYTES == deflated.socket.slice_bytes < SLICE_BYTES


def test_a_socket_that_the_server_refuses(rig: Any, peer: Peer) -> None:
    """The Close has the error's code, and nothing more is read: the rest of a large message is not kept."""
    peer.socket.received(next(peer.codec.fragments(b"x" * 100, True, 10)))
    peer.socket.refuse(Refusal("unavailable", "too many unfinished messages"))
    assert (1013, "too many unfinished messages") == peer.close()
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)

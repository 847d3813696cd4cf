"""WebSocket: the frames of `oncecast.v1`, the raw socket, and what both do to a peer that misbehaves."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.brokers.base import Done
from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Retention
from oncecast.protocol.base import Settings, parse_query
from oncecast.protocol.websocket import CLOSE_SECONDS, READ_BYTES, RawSocket, V1Socket
from oncecast.testing.driver import run_now
from oncecast.wire.ws_connection import CloseReceived, DataReceived, PingReceived, Role, WebSocketConnection
from oncecast.wire.ws_frames import Opcode, encode_frame

OPENING = b"HTTP/1.1 101 opening\r\n\r\n"
BEAT = 15.0


class Peer:
    """A client on a fake link: it speaks through our codec, and reads what the server wrote."""

    def __init__(
        self,
        rig: Any,
        kind: type[V1Socket | RawSocket],
        query: str,
        channels: tuple[str, ...],
    ) -> None:
        self.link = rig.link()
        self.socket = kind(rig.node, rig.settings, self.link, channels, parse_query(query), OPENING)
        self.link.listener = self.socket
        self.codec = WebSocketConnection(Role.CLIENT)
        opening = self.link.take()
        assert opening.startswith(OPENING)
        self._first = opening[len(OPENING) :]

    def events(self) -> list[Any]:
        """Return what the server has sent since the last time."""
        first, self._first = self._first, b""
        return list(self.codec.receive(first + self.link.take()))

    def frames(self) -> list[dict[str, Any]]:
        """Return the JSON frames that the server has sent since the last time, and nothing else."""
        events = self.events()
        assert all(isinstance(event, DataReceived) and event.is_text for event in events), events
        return [json.loads(event.data) for event in events]

    def frame(self) -> dict[str, Any]:
        """Return the one frame."""
        (frame,) = self.frames()
        return frame

    def close(self) -> tuple[int | None, str]:
        """Return the code and reason of the Close, the last thing sent."""
        event = self.events()[-1]
        assert isinstance(event, CloseReceived), event
        return event.code, event.reason

    def has_codec(self) -> bool:
        """Return whether the server keeps a codec for this peer."""
        return self.socket._codec is not None

    def say(self, **fields: object) -> None:
        """Send a JSON frame."""
        self.socket.received(self.codec.text(json.dumps(fields).encode()))

    def ask(self, **fields: object) -> dict[str, Any]:
        """Send a JSON frame and return the one that answers it."""
        self.say(**fields)
        return self.frame()


def v1(rig: Any, *channels: str, query: str = "") -> Peer:
    """Connect with `oncecast.v1`."""
    return Peer(rig, V1Socket, query, channels)


def raw(rig: Any, *channels: str, query: str = "") -> Peer:
    """Connect without a subprotocol."""
    return Peer(rig, RawSocket, query, channels or ("c",))


class SlowBroker:
    """A broker that answers when the test says so."""

    def __init__(self, broker: Any) -> None:
        self._broker = broker
        self.waiting: list[tuple[Any, Done]] = []

    def publish(self, drafts: Any, done: Done) -> None:
        self.waiting.append((drafts, done))

    def answer(self) -> None:
        for drafts, done in self.waiting:
            self._broker.publish(drafts, done)
        self.waiting.clear()


# -- oncecast.v1


def test_the_channels_of_the_url_are_subscribed_with_the_opening(rig: Any) -> None:
    """Each is confirmed with its cursor, in the first write, and its messages follow."""
    rig.publish("1")
    peer = v1(rig, "c", "d", query="after=earliest")
    assert [
        {"type": "subscribed", "channel": "c", "cursor": "e-0", "ref": None},
        {"type": "subscribed", "channel": "d", "cursor": "e-0", "ref": None},
    ] == peer.frames()
    rig.settle()
    assert {
        "type": "message",
        "id": "e-1",
        "channel": "c",
        "data": 1,
        "event": None,
        "time": 1764000000.0,
    } == peer.frame()


@pytest.mark.parametrize(
    "start, cursor, data",
    [
        ({}, "e-3", []),
        ({"after": "latest"}, "e-3", []),
        ({"after": "earliest"}, "e-0", [1, 2, 3]),
        ({"after": "e-1"}, "e-1", [2, 3]),
        ({"last": 1}, "e-2", [3]),
        ({"since": 0}, "e-0", [1, 2, 3]),
    ],
)
def test_subscribe(rig: Any, start: dict[str, object], cursor: str, data: list[int]) -> None:
    """A subscribe frame has each of the starts; its answer echoes the ref."""
    rig.publish("1", "2", "3")
    peer = v1(rig)
    answer = {"type": "subscribed", "channel": "c", "cursor": cursor, "ref": 7}
    assert answer == peer.ask(type="subscribe", channel="c", ref=7, **start)
    rig.settle()
    assert data == [frame["data"] for frame in peer.frames()]


def test_a_subscription_can_be_ended_and_begun_again(rig: Any) -> None:
    """After `unsubscribed` nothing of the channel comes; ending what is not there is fine."""
    peer = v1(rig, "c")
    rig.settle()
    peer.frames()
    gone = {"type": "unsubscribed", "channel": "c", "ref": "x"}
    assert gone == peer.ask(type="unsubscribe", channel="c", ref="x")
    assert gone == peer.ask(type="unsubscribe", channel="c", ref="x")
    rig.publish("1")
    rig.settle()
    assert [] == peer.frames()
    assert "subscribed" == peer.ask(type="subscribe", channel="c", after="e-0")["type"]
    rig.settle()
    assert 1 == peer.frame()["data"]


def test_a_gap_of_one_channel_is_told_with_its_subscription(rig: Any) -> None:
    """`subscribed` has the client's own cursor, the gap the one that the channel goes on from."""
    rig.retention = Retention(messages=1)
    rig.publish("1", "2")
    peer = v1(rig)
    peer.say(type="subscribe", channel="c", after="e-0")
    gap = {"type": "gap", "channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": "e-1"}
    assert ["e-0", {**gap, "cursor": "e-1"}] == [f["cursor"] if f["type"] == "subscribed" else f for f in peer.frames()]
    rig.settle()
    assert "e-2" == peer.frame()["id"]


@pytest.mark.parametrize(
    "fields, data, kind",
    [
        ({"data": {"t": 1.0}}, b'{"t": 1.0}', Kind.JSON),
        ({"data": None}, b"null", Kind.JSON),
        ({"data": "text"}, b"text", Kind.TEXT),
        ({"data64": "AP8="}, b"\0\xff", Kind.BINARY),
        ({"data64": {"base64": "AP8="}}, b"\0\xff", Kind.BINARY),
    ],
)
def test_publish(rig: Any, fields: dict[str, object], data: bytes, kind: Kind) -> None:
    """A publish is acknowledged with its id, how durable it is and its ref, and is in the log."""
    peer = v1(rig)
    answer = {"type": "published", "id": "e-1", "durability": "memory", "ref": "r"}
    assert answer == peer.ask(type="publish", channel="c", event="tick", ref="r", **fields)
    (entry,) = rig.node.log.read_after(("c",), 0, 10)
    assert (data, kind, "tick") == (entry.message.data, entry.message.kind, entry.message.event)


def test_a_publish_with_a_key_lands_once(rig: Any) -> None:
    """A repeated key is answered with the first receipt."""
    peer = v1(rig)
    first = peer.ask(type="publish", channel="c", data=1, key="k")
    assert first == peer.ask(type="publish", channel="c", data=1, key="k")
    assert 1 == rig.node.log.head


def test_a_publisher_hears_its_own_message_once_it_is_in_the_log(rig: Any) -> None:
    """The acknowledgement comes first, then the message, as for anybody else."""
    peer = v1(rig, "c")
    rig.settle()
    peer.frames()
    peer.say(type="publish", channel="c", data=1)
    rig.settle()
    assert ["published", "message"] == [frame["type"] for frame in peer.frames()]


@pytest.mark.parametrize(
    "frame, code",
    [
        ("not json", "frame_invalid"),
        ("[]", "frame_invalid"),
        ('{"type":"dance"}', "frame_invalid"),
        ('{"type":"subscribe"}', "frame_invalid"),
        ('{"type":"subscribe","channel":"c","surplus":1}', "frame_invalid"),
        ('{"type":"subscribe","channel":"-"}', "channel_invalid"),
        ('{"type":"subscribe","channel":"c","after":"x"}', "cursor_invalid"),
        ('{"type":"subscribe","channel":"c","after":"latest","last":1}', "request_invalid"),
        ('{"type":"subscribe","channel":"c","last":-1}', "request_invalid"),
        ('{"type":"unsubscribe","channel":"-"}', "channel_invalid"),
        ('{"type":"publish","channel":"-","data":1}', "channel_invalid"),
        ('{"type":"publish","channel":"c"}', "data_invalid"),
        ('{"type":"publish","channel":"c","data64":"!"}', "data_invalid"),
        ('{"type":"publish","channel":"c","data":1,"event":"a\\nb"}', "event_invalid"),
        ('{"type":"publish","channel":"c","data":1,"key":""}', "request_invalid"),
        ('{"type":"auth","token":"t"}', "request_invalid"),
    ],
)
def test_a_bad_frame_is_answered_and_harms_nothing(rig: Any, frame: str, code: str) -> None:
    """The error has its code, and the connection goes on."""
    peer = v1(rig)
    peer.socket.received(peer.codec.text(frame.encode()))
    error = peer.frame()
    assert ("error", code) == (error["type"], error["code"])
    assert "published" == peer.ask(type="publish", channel="c", data=1)["type"]


def test_an_error_echoes_the_ref_of_a_frame_that_could_be_read(rig: Any) -> None:
    """So a client knows which of its requests failed, whatever else is wrong with it; what is no JSON has none."""
    peer = v1(rig)
    assert 5 == peer.ask(type="subscribe", channel="-", ref=5)["ref"]
    assert 5 == peer.ask(type="subscribe", ref=5)["ref"]
    assert "a" == peer.ask(type="shout", ref="a")["ref"]
    assert 6 == peer.ask(type="unsubscribe", channel="c", ref=6, surplus=1)["ref"]
    assert peer.ask(type="shout")["ref"] is None
    assert peer.ask(type="shout", ref=[7])["ref"] is None
    assert peer.ask(type="shout", ref="r" * 129)["ref"] is None


def test_a_channel_is_subscribed_once(rig: Any) -> None:
    """A second subscribe is an error, and the first goes on."""
    peer = v1(rig, "c")
    peer.frames()
    assert "request_invalid" == peer.ask(type="subscribe", channel="c")["code"]
    rig.publish("1")
    rig.settle()
    assert 1 == peer.frame()["data"]


def test_the_number_of_channels_is_limited(rig: Any) -> None:
    """One more than the limit is refused, in the URL and in a frame."""
    rig.settings = Settings(channels_per_subscription=2)
    with pytest.raises(Refusal, match="at most 2"):
        v1(rig, "a", "b", "c")
    peer = v1(rig, "a", "b")
    peer.frames()
    assert "request_invalid" == peer.ask(type="subscribe", channel="c")["code"]


def test_a_refused_publish_is_an_error_with_its_ref(rig: Any) -> None:
    """What the broker refuses is not acknowledged."""
    run_now(rig.broker.stop())
    error = v1(rig).ask(type="publish", channel="c", data=1, ref=3)
    assert ("error", "unavailable", 3) == (error["type"], error["code"], error["ref"])


def test_a_late_acknowledgement_is_written_at_once(rig: Any) -> None:
    """A broker that answers later does not wait for the client's next frame."""
    broker = rig.node.broker = SlowBroker(rig.broker)
    peer = v1(rig)
    peer.say(type="publish", channel="c", data=1)
    assert [] == peer.frames()
    broker.answer()
    assert "published" == peer.frame()["type"]


def test_after_the_close_nothing_is_acknowledged(rig: Any) -> None:
    """RFC 6455 §5.5.1: no data frame after a Close."""
    broker = rig.node.broker = SlowBroker(rig.broker)
    peer = v1(rig)
    peer.say(type="publish", channel="c", data=1)
    peer.socket.drain()
    peer.events()
    broker.answer()
    assert [] == peer.link.sent


def test_a_publish_right_before_the_close_counts(rig: Any) -> None:
    """What came before the peer's Close in the same bytes is published, and acknowledged before ours."""
    peer = v1(rig, "c")
    rig.settle()
    peer.frames()
    frame = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.received(frame + peer.codec.close(1000))
    published, close = peer.events()
    assert "published" == json.loads(published.data)["type"]
    assert 1000 == close.code
    assert (1, "ended", 0) == (rig.node.log.head, peer.link.state, rig.node.hub.subscriptions)


def test_a_binary_frame_closes_with_1003(rig: Any) -> None:
    """`oncecast.v1` is JSON text: RFC 6455 §7.4.1. What follows it is not read."""
    peer = v1(rig)
    peer.socket.received(peer.codec.binary(b"\0") + peer.codec.text(b'{"type":"publish","channel":"c","data":1}'))
    assert 1003 == peer.close()[0]
    assert 0 == rig.node.log.head


def test_the_heartbeat_is_a_ping_and_the_cursor(rig: Any) -> None:
    """With every channel live, the frame moves all cursors; while one is behind, only the ping goes."""
    peer = v1(rig, "c", "d")
    peer.frames()
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert [PingReceived(b"")] == peer.events()
    peer.socket.received(peer.codec.data_to_send())
    rig.settle()
    rig.publish("1", channel="elsewhere")
    rig.settle()
    rig.pass_time(peer.link, peer.socket, BEAT)
    ping, cursor = peer.events()
    assert (PingReceived(b""), {"type": "cursor", "cursor": "e-1"}) == (ping, json.loads(cursor.data))


def test_a_full_socket_holds_messages_back_and_new_subscriptions_too(rig: Any) -> None:
    """What is subscribed while the socket is full waits with the others, in the log."""
    peer = v1(rig, "c")
    rig.settle()
    peer.frames()
    peer.socket.blocked()
    peer.say(type="subscribe", channel="d")
    peer.frames()
    rig.publish("1")
    rig.publish("2", channel="d")
    rig.settle()
    rig.pass_time(peer.link, peer.socket, BEAT)
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert ([], "open") == (peer.frames(), peer.link.state)
    peer.socket.drained()
    rig.settle()
    assert [1, 2] == [frame["data"] for frame in peer.frames()]


def test_a_drain_says_when_to_come_back(rig: Any) -> None:
    """The frame and the Close go out, and only once."""
    peer = v1(rig, "c")
    peer.frames()
    peer.socket.drain()
    peer.socket.drain()
    drain, close = peer.events()
    assert {"type": "drain", "retry_after_ms": 1000} == json.loads(drain.data)
    assert 1012 == close.code
    assert 0 == rig.node.hub.subscriptions


@pytest.mark.parametrize(
    "settings, frame",
    [
        (Settings(frames_per_second=5), b'{"type":"unsubscribe","channel":"c"}'),
        (Settings(frames_per_second=5), b"not json"),
        (Settings(publishes_per_second=5), b'{"type":"publish","channel":"c","data":1}'),
    ],
    ids=["subscribes", "errors", "publishes"],
)
def test_a_flood_is_closed_with_4429(rig: Any, settings: Settings, frame: bytes) -> None:
    """The burst is twice the rate; past it the socket closes, and nothing after that is read."""
    rig.settings = settings
    peer = v1(rig)
    peer.socket.received(b"".join(peer.codec.text(frame) for _ in range(50)))
    events = peer.events()
    assert 4429 == events[-1].code
    assert 10 == len(events) - 1
    assert rig.node.log.head <= 10


def test_as_many_frames_as_the_rate_go_on_for_ever(rig: Any) -> None:
    """The guard refuses floods, not use."""
    rig.settings = Settings(frames_per_second=5)
    peer = v1(rig)
    for _ in range(100):
        rig.clock.advance(0.2)
        assert "unsubscribed" == peer.ask(type="unsubscribe", channel="c")["type"]


def test_a_flood_before_the_peers_own_close_is_bounded_too(rig: Any) -> None:
    """Where the peer has said goodbye already there is nobody to tell, but no more is published."""
    rig.settings = Settings(publishes_per_second=5)
    peer = v1(rig)
    publish = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.received(publish * 50 + peer.codec.close())
    assert (10, "ended") == (rig.node.log.head, peer.link.state)


# -- raw


def test_raw_frames_are_the_data(rig: Any) -> None:
    """JSON and text come in text frames, binary data in binary ones."""
    peer = raw(rig)
    rig.settle()
    rig.publish('{"n":1}', Draft("c", b"text", Kind.TEXT), Draft("c", b"\0", Kind.BINARY))
    rig.settle()
    assert [
        DataReceived(b'{"n":1}', True),
        DataReceived(b"text", True),
        DataReceived(b"\0", False),
    ] == peer.events()


def test_raw_publishes_text_and_binary(rig: Any) -> None:
    """What comes in is published to the channel of the URL; no acknowledgement can be told from a message."""
    peer = raw(rig)
    peer.socket.received(peer.codec.text(b"hello") + peer.codec.binary(b"\0"))
    entries = rig.node.log.read_after(("c",), 0, 10)
    assert [(b"hello", Kind.TEXT), (b"\0", Kind.BINARY)] == [(e.message.data, e.message.kind) for e in entries]
    rig.settle()
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
    rig.settle()
    peer.socket.blocked()
    for channel in ("c", "d", "c", "d"):
        rig.publish("1", channel=channel)
    rig.settle()
    peer.socket.drained()
    rig.settle()
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
    rig.settle()
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert [PingReceived(b"")] == peer.events()


def test_raw_has_the_limit_on_channels(rig: Any) -> None:
    """Nothing is subscribed then."""
    with pytest.raises(Refusal, match="at most"):
        raw(rig, *(f"c{n}" for n in range(65)))
    assert 0 == rig.node.hub.subscriptions


# -- both


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
    peer.socket.drained()
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
    peer.socket.blocked()
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
    rig.settings = Settings(message_bytes=200)
    peer = make(rig, "c")
    peer.socket.received(data)
    assert code == peer.close()[0]
    assert ("ended", 0) == (peer.link.state, rig.node.hub.subscriptions)


def test_a_flood_of_pings_is_closed_with_4429(rig: Any, peer: Peer) -> None:
    """Pings are answered up to the burst; past a read of a flood nothing more is looked at."""
    ping = peer.codec.ping()
    peer.socket.received(ping * (READ_BYTES // len(ping) + 100))
    assert 4429 in [event.code for event in peer.events() if isinstance(event, CloseReceived)]
    assert "ended" == peer.link.state


def test_a_long_read_is_taken_in_slices(rig: Any, peer: Peer) -> None:
    """More than one slice at once says the same."""
    rest = encode_frame(
        Opcode.TEXT, b'{"type":"publish","channel":"c","data":"%b"}' % (b"x" * READ_BYTES), mask=b"abcd"
    )
    peer.socket.received(rest)
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
    rig.settings = Settings(frames_per_second=1)
    peer = v1(rig)
    pong = encode_frame(Opcode.PONG, b"", mask=b"\0\0\0\0")
    peer.socket.received(pong * 2)
    assert [] == peer.events()
    peer.socket.received(pong)
    assert 4429 == peer.close()[0]

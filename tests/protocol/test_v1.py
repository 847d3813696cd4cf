"""The session of `oncecast.v1`: its frames, subscriptions and publishes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.message import Kind, Retention
from oncecast.protocol.base import TransportSettings
from oncecast.testing.driver import run_now
from oncecast.wire.ws_connection import PingReceived
from tests.session_rig import BEAT, SlowBroker, v1


def test_the_channels_of_the_url_are_subscribed_with_the_opening(rig: Any) -> None:
    """Each channel of the URL is confirmed with its cursor in the first write, and its messages follow."""
    rig.publish("1")
    peer = v1(rig, "c", "d", query="after=earliest")
    assert [
        {"type": "subscribed", "channel": "c", "cursor": "e-0", "ref": None},
        {"type": "subscribed", "channel": "d", "cursor": "e-0", "ref": None},
    ] == peer.frames()
    rig.run_turns()
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
    rig.run_turns()
    assert data == [frame["data"] for frame in peer.frames()]


def test_a_subscription_can_be_ended_and_begun_again(rig: Any) -> None:
    """After `unsubscribed` nothing of the channel comes; ending what is not there is fine."""
    peer = v1(rig, "c")
    rig.run_turns()
    peer.frames()
    gone = {"type": "unsubscribed", "channel": "c", "ref": "x"}
    assert gone == peer.ask(type="unsubscribe", channel="c", ref="x")
    assert gone == peer.ask(type="unsubscribe", channel="c", ref="x")
    rig.publish("1")
    rig.run_turns()
    assert [] == peer.frames()
    assert "subscribed" == peer.ask(type="subscribe", channel="c", after="e-0")["type"]
    rig.run_turns()
    assert 1 == peer.frame()["data"]


def test_a_gap_of_one_channel_is_sent_with_its_subscription(rig: Any) -> None:
    """`subscribed` has the client's own cursor, the gap the one that the channel goes on from."""
    rig.retention = Retention(messages=1)
    rig.publish("1", "2")
    peer = v1(rig)
    peer.say(type="subscribe", channel="c", after="e-0")
    gap = {"type": "gap", "channel": "c", "reason": "expired", "missed_from": "e-1", "missed_to": "e-1"}
    assert ["e-0", {**gap, "cursor": "e-1"}] == [f["cursor"] if f["type"] == "subscribed" else f for f in peer.frames()]
    rig.run_turns()
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
    rig.run_turns()
    peer.frames()
    peer.say(type="publish", channel="c", data=1)
    rig.run_turns()
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
        ('{"type":"publish","channel":"c","data":1,"key":""}', "key_invalid"),
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
    """An error has the ref of any frame that is JSON, whatever else is wrong with the frame."""
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
    rig.run_turns()
    assert 1 == peer.frame()["data"]


def test_the_number_of_channels_is_limited(rig: Any) -> None:
    """One more than the limit is refused, in the URL and in a frame."""
    rig.settings = TransportSettings(channels_per_subscription=2)
    with pytest.raises(Refusal, match="at most 2"):
        v1(rig, "a", "b", "c")
    peer = v1(rig, "a", "b")
    peer.frames()
    assert "request_invalid" == peer.ask(type="subscribe", channel="c")["code"]


def test_a_refused_publish_is_an_error_with_its_ref(rig: Any) -> None:
    """A publish that the broker refuses gets an error with its ref and no acknowledgement."""
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
    """Frames before the peer's Close in the same bytes are published, answered and delivered before our Close."""
    peer = v1(rig, "c")
    rig.run_turns()
    peer.frames()
    frame = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.received(frame + peer.codec.close(1000))
    rig.run_turns()
    *frames, close = peer.events()
    assert ["published", "message"] == [json.loads(frame.data)["type"] for frame in frames]
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
    rig.run_turns()
    rig.publish("1", channel="elsewhere")
    rig.run_turns()
    rig.pass_time(peer.link, peer.socket, BEAT)
    ping, cursor = peer.events()
    assert (PingReceived(b""), {"type": "cursor", "cursor": "e-1"}) == (ping, json.loads(cursor.data))


def test_a_full_socket_holds_messages_back_and_new_subscriptions_too(rig: Any) -> None:
    """A new subscription of a full socket waits in the log, as the others of the socket do."""
    peer = v1(rig, "c")
    rig.run_turns()
    peer.frames()
    peer.link.block()
    peer.say(type="subscribe", channel="d")
    peer.frames()
    rig.publish("1")
    rig.publish("2", channel="d")
    rig.run_turns()
    rig.pass_time(peer.link, peer.socket, BEAT)
    rig.pass_time(peer.link, peer.socket, BEAT)
    assert ([], "open") == (peer.frames(), peer.link.state)
    peer.link.drain()
    rig.run_turns()
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
        (TransportSettings(frames_per_second=5), b'{"type":"unsubscribe","channel":"c"}'),
        (TransportSettings(frames_per_second=5), b"not json"),
        (TransportSettings(publishes_per_second=5), b'{"type":"publish","channel":"c","data":1}'),
    ],
    ids=["subscribes", "errors", "publishes"],
)
def test_a_flood_is_closed_with_4429(rig: Any, settings: TransportSettings, frame: bytes) -> None:
    """The burst is twice the rate; past it the socket closes, and nothing after that is read."""
    rig.settings = settings
    peer = v1(rig)
    peer.socket.received(b"".join(peer.codec.text(frame) for _ in range(50)))
    rig.run_turns()
    events = peer.events()
    assert 4429 == events[-1].code
    assert 10 == len(events) - 1
    assert rig.node.log.head <= 10


def test_as_many_frames_as_the_rate_go_on_for_ever(rig: Any) -> None:
    """The guard refuses floods, not use."""
    rig.settings = TransportSettings(frames_per_second=5)
    peer = v1(rig)
    for _ in range(100):
        rig.clock.advance(0.2)
        assert "unsubscribed" == peer.ask(type="unsubscribe", channel="c")["type"]


def test_a_flood_before_the_peers_own_close_is_bounded_too(rig: Any) -> None:
    """Where the peer has said goodbye already there is nobody to tell, but no more is published."""
    rig.settings = TransportSettings(publishes_per_second=5)
    peer = v1(rig)
    publish = peer.codec.text(b'{"type":"publish","channel":"c","data":1}')
    peer.socket.received(publish * 50 + peer.codec.close())
    rig.run_turns()
    assert (10, "ended") == (rig.node.log.head, peer.link.state)

"""Server-Sent Events: the bytes of a stream."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Retention
from oncecast.protocol.events import EventStream
from oncecast.protocol.query import parse_query
from oncecast.server.framing.event_stream import event_stream_carrier


class Stream:
    """A stream on a fake link."""

    def __init__(
        self,
        rig: Any,
        query: str = "",
        last_event_id: str | None = None,
        *,
        channels: tuple[str, ...] = ("c",),
        chunked: bool = False,
    ) -> None:
        self.link = rig.link()
        self.stream = event_stream_carrier(
            self.link,
            b"HEAD\n",
            lambda carrier: EventStream(rig.node, rig.settings, carrier, channels, parse_query(query), last_event_id),
            chunked=chunked,
        )
        self.link.listener = self.stream

    def take(self) -> str:
        """Return what has been sent since the last time."""
        return str(self.link.take().decode())


OPENING = "HEAD\nid: e-{}\nretry: 1000\n\n"


def test_a_stream_begins_with_its_cursor_and_when_to_retry(rig: Any) -> None:
    """The head, the id and the retry time go out in one write, before any message."""
    rig.publish("1")
    stream = Stream(rig)
    assert [(OPENING.format(1)).encode()] == stream.link.sent
    assert "HEAD\nid: e-1\nretry: 1000\n\n" == stream.take()


def test_messages_are_events(rig: Any) -> None:
    """Each has its id, its event name and its data, a line for each line; binary data comes as base64."""
    stream = Stream(rig)
    rig.run_turns()
    stream.take()
    rig.publish(
        '{"n":1}', Draft("c", b"a\nb", Kind.TEXT, event="tick"), Draft("c", b"\0\xff", Kind.BINARY), channel="c"
    )
    rig.run_turns()
    assert (
        'id: e-1\ndata: {"n":1}\n\nid: e-2\nevent: tick\ndata: a\ndata: b\n\nid: e-3\ndata: AP8=\n\n' == stream.take()
    )


@pytest.mark.parametrize("query, channels", [("envelope=1", ("c",)), ("", ("c", "d"))])
def test_an_envelope_is_the_messages_json(rig: Any, query: str, channels: tuple[str, ...]) -> None:
    """With `envelope=1`, and with several channels, data is the JSON that polls have."""
    stream = Stream(rig, query, channels=channels)
    rig.run_turns()
    stream.take()
    rig.publish("1")
    rig.run_turns()
    message = '{"id":"e-1","channel":"c","data":1,"event":null,"time":1764000000.0}'
    assert f"id: e-1\ndata: {message}\n\n" == stream.take()


def test_chunks_for_http_1_1(rig: Any) -> None:
    """RFC 9112 §7.1: each write is one chunk, and the last chunk ends the stream; before it, when to come back."""
    stream = Stream(rig, chunked=True)
    assert "HEAD\n15\r\nid: e-0\nretry: 1000\n\n\r\n" == stream.take()
    rig.publish("1", "2")
    rig.run_turns()
    assert "22\r\nid: e-1\ndata: 1\n\nid: e-2\ndata: 2\n\n\r\n" == stream.take()
    stream.stream.drain()
    assert "d\r\nretry: 1000\n\n\r\n0\r\n\r\n" == stream.take()
    assert ("ended", 0) == (stream.link.state, rig.node.hub.subscriptions)


def test_without_chunks_the_end_is_the_close(rig: Any) -> None:
    """For HTTP/1.0 nothing marks the end but the connection's."""
    stream = Stream(rig)
    stream.take()
    stream.stream.drain()
    assert ("retry: 1000\n\n", "ended") == (stream.take(), stream.link.state)


def test_last_event_id_wins_over_the_query(rig: Any) -> None:
    """A browser comes back to the URL that it first had: its header says where it is."""
    rig.publish("1", "2")
    stream = Stream(rig, "after=earliest", "e-1")
    rig.run_turns()
    assert OPENING.format(1) + "id: e-2\ndata: 2\n\n" == stream.take()


def test_an_empty_last_event_id_is_none(rig: Any) -> None:
    """An `id:` without a value resets it: then the query counts."""
    rig.publish("1")
    stream = Stream(rig, "after=earliest", "")
    rig.run_turns()
    assert OPENING.format(0) + "id: e-1\ndata: 1\n\n" == stream.take()


def test_a_bad_last_event_id_is_refused_before_anything_is_sent(rig: Any) -> None:
    """The refusal can still be an answer of its own."""
    with pytest.raises(Refusal) as refusal:
        Stream(rig, "", "not a cursor")
    assert "cursor_invalid" == refusal.value.code
    assert 0 == rig.node.hub.subscriptions


def test_too_many_channels_are_refused(rig: Any) -> None:
    """No channel is subscribed to."""
    with pytest.raises(Refusal, match="at most"):
        Stream(rig, channels=tuple(f"c{n}" for n in range(65)))
    assert 0 == rig.node.hub.subscriptions


def test_a_gap_stands_before_what_follows_it(rig: Any) -> None:
    """The opening has the client's own cursor, so that a cut before the gap makes it come again."""
    rig.retention = Retention(messages=1)
    rig.publish("1", "2", "3")
    stream = Stream(rig, "after=e-0")
    rig.run_turns()
    gap = '{"channel":"c","reason":"expired","missed_from":"e-1","missed_to":"e-2","cursor":"e-2"}'
    assert OPENING.format(0) + f"id: e-2\nevent: gap\ndata: {gap}\n\n" + "id: e-3\ndata: 3\n\n" == stream.take()


def test_of_several_gaps_only_the_last_moves_the_cursor(rig: Any) -> None:
    """A connection that is cut between two gaps comes back to both."""
    stream = Stream(rig, "after=earlier-7", channels=("a", "b"))
    text = stream.take()
    assert 3 == text.count("id: ")
    assert 2 == text.count("id: earlier-7\n")
    assert text.index("id: e-0\nevent: gap") > text.index("id: earlier-7\nevent: gap")


def test_several_gaps_of_a_slow_reader_move_it_with_the_last(rig: Any) -> None:
    """The same holds for gaps that come while it is connected."""
    rig.retention = Retention(messages=1)
    stream = Stream(rig, "after=latest", channels=("a", "b"))
    rig.run_turns()
    stream.link.block()
    for channel in ("a", "b", "a", "b"):
        rig.publish("1", channel=channel)
    rig.run_turns()
    stream.take()
    stream.link.drain()
    rig.run_turns()
    ids = [line for line in stream.take().splitlines() if line.startswith("id: ")]
    assert ["id: e-0", "id: e-2", "id: e-3", "id: e-4"] == ids


def test_a_heartbeat_is_a_comment_and_an_id(rig: Any) -> None:
    """A heartbeat comes every `heartbeat_seconds`, moves the cursor, and fires no event."""
    stream = Stream(rig)
    rig.run_turns()
    stream.take()
    rig.publish("1", channel="elsewhere")
    rig.run_turns()
    rig.pass_time(stream.link, stream.stream, 14.9)
    assert "" == stream.take()
    rig.pass_time(stream.link, stream.stream, 0.1)
    assert ": keep-alive\nid: e-1\n\n" == stream.take()
    rig.pass_time(stream.link, stream.stream, 15)
    assert ": keep-alive\nid: e-1\n\n" == stream.take()


def test_no_heartbeat_while_it_is_behind_or_full(rig: Any) -> None:
    """The head's cursor would pass over what has not been written yet."""
    stream = Stream(rig)
    stream.take()
    rig.pass_time(stream.link, stream.stream, 15)
    assert "" == stream.take()
    rig.run_turns()
    stream.link.block()
    rig.publish("1")
    rig.run_turns()
    rig.pass_time(stream.link, stream.stream, 15)
    assert "" == stream.take()
    stream.link.drain()
    rig.run_turns()
    assert "id: e-1\ndata: 1\n\n" == stream.take()


def test_a_write_that_fills_the_socket_is_the_last_for_now(rig: Any) -> None:
    """After `blocked` nothing is written, and after `drained` it goes on where it was."""
    stream = Stream(rig)
    rig.run_turns()
    stream.take()
    stream.link.fills = True
    rig.publish("1")
    rig.run_turns()
    rig.publish("2")
    rig.run_turns()
    assert "id: e-1\ndata: 1\n\n" == stream.take()
    stream.link.drain()
    rig.run_turns()
    assert "id: e-2\ndata: 2\n\n" == stream.take()


def test_where_the_channel_does_not_wait_the_stream_ends(rig: Any) -> None:
    """The policy `disconnect` ends the response in order; the browser comes back with its cursor."""
    rig.lag = Lag.DISCONNECT
    stream = Stream(rig, chunked=True)
    rig.run_turns()
    stream.take()
    stream.link.block()
    assert ("0\r\n\r\n", "ended") == (stream.take(), stream.link.state)
    stream.link.drain()
    rig.run_turns()
    assert 0 == rig.node.hub.subscriptions


def test_what_a_client_sends_is_ignored_and_a_close_forgets_it(rig: Any) -> None:
    """Nothing is read on a stream, and a client that has gone costs nothing."""
    stream = Stream(rig)
    rig.run_turns()
    stream.stream.received(b"GET / HTTP/1.1\r\n\r\n")
    stream.stream.closed()
    assert 0 == rig.node.hub.subscriptions

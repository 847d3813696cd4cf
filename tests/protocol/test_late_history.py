"""Every transport over a broker whose history answers late: what is said before, and in which order after."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Draft
from oncecast.protocol.base import Reply
from oncecast.protocol.events import RETRY_MS, EventStream
from oncecast.protocol.polls import MOVES, READ_SECONDS, PollState, WaitingPoll, answer_poll
from oncecast.protocol.query import parse_query
from oncecast.protocol.raw import RawSession
from oncecast.protocol.v1 import V1Session
from oncecast.server.framing.event_stream import EventStreamCarrier, event_stream_carrier
from oncecast.server.framing.websocket import WebSocketCarrier
from oncecast.testing.driver import run_now
from oncecast.testing.history_broker import HistoryBroker
from oncecast.wire.ws_connection import CloseReceived, DataReceived, Role, WebSocketConnection, WebSocketEvent

REFUSAL = Refusal("unavailable", "The log can't be read now.", retry_after=5)


@pytest.fixture
def late(rig: Any) -> Any:
    """A rig whose log has four messages, none of them in memory, read when the test says so."""
    rig.broker = HistoryBroker("e", rig.clock.wall, at_once=False)
    rig.broker.append(*(Draft("c", b"%d" % n) for n in (1, 2, 3, 4)))
    rig.node = Node(
        rig.broker,
        policy=lambda channel: ChannelPolicy(rig.retention, rig.lag),
        max_bytes=1 << 30,
        monotonic=rig.clock.monotonic,
        schedule=rig.turns.schedule,
    )
    run_now(rig.node.start())
    return rig


def run_turns(late: Any) -> None:
    """Answer and turn until nothing is left to do."""
    while late.broker.reads or late.turns.run():
        if late.broker.reads:
            late.broker.answer()


# -- SSE


def stream(
    late: Any, query: str = "after=earliest", channels: tuple[str, ...] = ("c",), link: Any = None
) -> tuple[Any, EventStreamCarrier]:
    """A stream, chunked, and its link."""
    link = link or late.link()
    made = event_stream_carrier(
        link,
        b"HEAD\n",
        lambda carrier: EventStream(late.node, late.settings, carrier, channels, parse_query(query), None),
        chunked=True,
    )
    link.listener = made
    return link, made


def events(data: bytes) -> list[str]:
    """The fields of a stream's events, without the chunks."""
    return [line for line in data.decode().splitlines() if line.partition(":")[0] in ("HEAD", "id", "retry", "data")]


def test_a_stream_says_its_head_at_once_and_its_place_when_it_is_known(late: Any) -> None:
    """A stream sends its head at once, then its opening when the place is known, then old and new messages, once."""
    link, _ = stream(late)
    assert b"HEAD\n" == link.take()
    late.run_turns()
    assert b"" == link.take()
    late.publish("5")
    run_turns(late)
    ids = [f"id: e-{n}" for n in range(6)]
    data = [f"data: {n}" for n in range(1, 6)]
    assert [
        ids[0],
        f"retry: {RETRY_MS}",
        *(each for pair in zip(ids[1:], data, strict=True) for each in pair),
    ] == events(link.take())


def test_no_heartbeat_comes_before_the_place(late: Any) -> None:
    """There is no cursor to send, and the stream goes on."""
    link, made = stream(late)
    late.run_turns()
    link.take()
    late.pass_time(link, made, 15)
    assert b"" == link.take()
    run_turns(late)
    link.take()
    late.pass_time(link, made, 15)
    assert b"keep-alive" in link.take()


def test_a_client_that_leaves_before_its_place_is_written_nothing(late: Any) -> None:
    """The answer finds nobody."""
    link, made = stream(late)
    link.take()
    made.closed()
    run_turns(late)
    assert (b"", 0) == (link.take(), late.node.hub.subscriptions)


def test_a_drain_before_the_place_ends_the_stream(late: Any) -> None:
    """With when to come back, and nothing after it."""
    link, made = stream(late)
    link.take()
    made.drain()
    assert b"d\r\nretry: 1000\n\n\r\n0\r\n\r\n" == link.take()
    run_turns(late)
    assert (b"", "ended") == (link.take(), link.state)


def test_a_history_that_fails_ends_the_stream(late: Any) -> None:
    """In order, so that the browser comes back, also where a page fails after the opening."""
    link, _ = stream(late)
    link.take()
    late.broker.answer(0, REFUSAL)
    assert (b"0\r\n\r\n", "ended", 0) == (link.take(), link.state, late.node.hub.subscriptions)
    link, _ = stream(late, "after=e-1")
    late.run_turns()
    link.take()
    late.broker.answer(0, REFUSAL)
    assert (b"0\r\n\r\n", "ended") == (link.take(), link.state)


def test_a_history_that_refuses_at_once_is_an_answer_of_its_own(late: Any) -> None:
    """Nothing has been written: the client gets 503, not a stream."""
    run_now(late.broker.stop())
    link = late.link()
    with pytest.raises(Refusal):
        stream(late, link=link)
    assert (b"", 0) == (link.take(), late.node.hub.subscriptions)


def test_a_full_socket_before_the_place(late: Any) -> None:
    """The opening is said, the messages wait."""
    link, _ = stream(late)
    link.block()
    run_turns(late)
    assert b"HEAD\n15\r\nid: e-0\nretry: %d\n\n\r\n" % RETRY_MS == link.take()
    link.drain()
    run_turns(late)
    assert ["id: e-1", "data: 1"] == events(link.take())[:2]


# -- WebSocket


class Socket:
    """A socket on a fake link, and the client's end of the codec."""

    def __init__(self, late: Any, kind: Callable[..., Any], query: str, channels: tuple[str, ...] = ("c",)) -> None:
        self.link = late.link()
        self.peer = WebSocketConnection(Role.CLIENT, max_message_bytes=1 << 20)
        self.session: Any = None

        def make(carrier: Any) -> Any:
            self.session = kind(late.node, late.settings, carrier, channels, parse_query(query))
            return self.session

        self.socket = WebSocketCarrier(self.link, b"", make, settings=late.settings)
        self.link.listener = self.socket

    def events(self) -> list[WebSocketEvent]:
        """What has come since the last time."""
        return self.peer.receive(self.link.take())

    def frames(self) -> list[str]:
        """The frames that have come, in few words."""
        seen = []
        for event in self.events():
            if isinstance(event, DataReceived):
                frame = json.loads(event.data)
                seen.append(f"{frame['type']} {frame.get('channel')} {frame.get('cursor') or frame.get('id')}")
            elif isinstance(event, CloseReceived):
                seen.append(f"close {event.code}")
        return seen


def test_a_socket_says_subscribed_when_the_place_is_known(late: Any) -> None:
    """One channel may wait while another, whose place is known, goes on; each is announced before its messages."""
    socket = Socket(late, V1Session, "after=latest", ("d",))
    late.run_turns()
    assert ["subscribed d e-4"] == socket.frames()
    socket.session._subscribe("c", parse_query("after=earliest").start, None)
    late.publish("5", channel="d")
    late.run_turns()
    assert ["message d e-5"] == socket.frames()
    run_turns(late)
    assert ["subscribed c e-0", *(f"message c e-{n}" for n in (1, 2, 3, 4))] == socket.frames()
    late.publish("6")
    late.run_turns()
    assert ["message c e-6"] == socket.frames()


def test_a_socket_that_closes_before_the_place_says_no_more(late: Any) -> None:
    """After a drain there is a Close, and nothing after it; a client that has gone is written nothing."""
    socket = Socket(late, V1Session, "after=earliest")
    socket.socket.drain()
    run_turns(late)
    assert ["drain None None", "close 1012"] == socket.frames()
    gone = Socket(late, V1Session, "after=earliest")
    gone.link.take()
    gone.socket.closed()
    run_turns(late)
    assert (b"", 0) == (gone.link.take(), late.node.hub.subscriptions)


def test_a_history_that_fails_closes_the_socket(late: Any) -> None:
    """With the error's code: the client comes back with its cursors."""
    for kind in (V1Session, RawSession):
        socket = Socket(late, kind, "after=earliest")
        late.broker.answer(0, REFUSAL)
        assert [f"close {REFUSAL.error.close}"] == socket.frames()
        socket.socket.closed()
    assert 0 == late.node.hub.subscriptions


@pytest.mark.parametrize("kind", [V1Session, RawSession])
def test_a_socket_that_can_not_begin_leaves_nothing(late: Any, kind: Callable[..., Any]) -> None:
    """A history that refuses at once is the answer to the handshake, whichever channel it was."""
    run_now(late.broker.stop())
    with pytest.raises(Refusal):
        Socket(late, kind, "after=earliest", ("d", "c"))
    assert 0 == late.node.hub.subscriptions


def test_a_raw_socket_begins_when_its_place_is_known(late: Any) -> None:
    """A raw socket starts with its first message, or is closed for a gap at its start with the cursor to go on from."""
    socket = Socket(late, RawSession, "after=earliest")
    late.publish("5")
    run_turns(late)
    assert [b"1", b"2", b"3", b"4", b"5"] == [e.data for e in socket.events() if isinstance(e, DataReceived)]
    gap = Socket(late, RawSession, "after=e-99")
    run_turns(late)
    assert ["close 4410"] == gap.frames()


# -- polls


def short(late: Any, query: str, known: str | None = None) -> list[Reply | Refusal]:
    """Poll, and return where the answer will be."""
    answers: list[Reply | Refusal] = []
    answer_poll(late.node, late.settings, ("c",), parse_query(query), known, answers.append)
    return answers


def long(late: Any, query: str, known: str | None = None) -> tuple[Any, WaitingPoll, list[Reply | Refusal]]:
    """Poll, and wait; return the link, the poll, and where the answer will be."""
    link = late.link()
    answers: list[Reply | Refusal] = []
    return link, WaitingPoll(late.node, late.settings, link, ("c",), parse_query(query), known, answers.append), answers


def state(poll: WaitingPoll) -> PollState:
    """The state as it is now: a type checker believes that it stays."""
    return poll.state


def shown(answers: list[Reply | Refusal]) -> tuple[list[object], str]:
    """The data of the one answer, and its cursor."""
    (answer,) = answers
    assert isinstance(answer, Reply)
    body = json.loads(answer.body)
    return [message["data"] for message in body["messages"]], body["cursor"]


def test_a_short_poll_is_answered_when_it_has_been_read(late: Any) -> None:
    """The answer is what the read found, 304 for a matching ETag, or the refusal."""
    answers, known = short(late, "after=earliest"), short(late, "after=earliest", '"e-4"')
    assert [] == answers + known
    run_turns(late)
    assert (([1, 2, 3, 4], "e-4"), 304) == (shown(answers), known[0].status)  # type: ignore[union-attr]
    refused = short(late, "after=earliest")
    late.broker.answer(0, REFUSAL)
    assert [REFUSAL] == refused


def test_a_long_poll_that_is_behind_is_answered_when_it_has_been_read(late: Any) -> None:
    """A long poll that is behind is answered as soon as its page is read, and not at all if it ends before."""
    _, _, answers = long(late, "after=e-2&wait=25")
    run_turns(late)
    assert ([3, 4], "e-4") == shown(answers)
    _, poll, none = long(late, "after=e-2&wait=25")
    poll.closed()
    run_turns(late)
    assert [] == none


@pytest.mark.parametrize("known", [None, '"e-4"'])
def test_what_comes_while_a_long_poll_is_read_wakes_it(late: Any, known: str | None) -> None:
    """The read has not seen it, so it must not be passed over: with a cursor that is ahead, and with If-None-Match."""
    late.broker.append(Draft("x", b"0"))
    query = "after=e-5&wait=25" if known is None else "after=earliest&wait=25"
    _, _, answers = long(late, query, known)
    late.broker.look(0)
    late.publish("6")
    late.run_turns()
    assert [] == answers
    run_turns(late)
    assert 6 == shown(answers)[0][-1]


def test_a_drain_while_a_long_poll_is_read_answers_with_what_is_found(late: Any) -> None:
    """A drain answers a long poll with its page as soon as that is read."""
    late.broker.append(Draft("x", b"0"))
    _, poll, answers = long(late, "after=e-5&wait=25")
    poll.drain()
    assert [] == answers
    run_turns(late)
    assert ([], "e-5") == shown(answers)


def test_a_history_that_fails_is_a_long_polls_answer(late: Any) -> None:
    """When it is read first, when it begins to wait, and when that is refused at once."""
    _, _, answers = long(late, "after=e-2&wait=25")
    late.broker.answer(0, REFUSAL)
    assert [REFUSAL] == answers
    late.broker.append(Draft("x", b"0"))
    _, _, answers = long(late, "after=e-5&wait=25")
    late.broker.answer()
    late.broker.answer(0, REFUSAL)
    assert [REFUSAL] == answers
    _, _, answers = long(late, "after=e-5&wait=25")
    late.broker.look(0)
    run_now(late.broker.stop())
    late.broker.answer()
    assert "unavailable" == getattr(answers[0], "code", None)
    assert 0 == late.node.hub.subscriptions


# -- every transport at once


def test_a_replay_is_not_disconnected_for_a_full_socket(late: Any) -> None:
    """`lag = "disconnect"` is for a subscriber that has been live, on a stream and on each kind of socket."""
    late.lag = Lag.DISCONNECT
    link, made = stream(late)
    sockets = [Socket(late, kind, "after=earliest") for kind in (RawSession, V1Session)]
    listeners: list[Any] = [made, *(socket.socket for socket in sockets)]
    for listener in listeners:
        listener.blocked()
    run_turns(late)
    for listener in listeners:
        listener.drained()
    run_turns(late)
    assert ["data: 1", "data: 2", "data: 3", "data: 4"] == [line for line in events(link.take()) if "data" in line]
    assert [4, 5] == [len(socket.events()) for socket in sockets]
    for listener in listeners:
        listener.blocked()
    assert 0 == late.node.hub.subscriptions


def test_last_counts_for_each_channel_on_every_transport(late: Any) -> None:
    """`last=2` over two channels gives up to four messages, from the history and from memory, however it is asked."""
    late.broker.append(*(Draft("d", b"%d" % n) for n in (5, 6, 7)), Draft("c", b"8"))
    late.broker.hand_over()
    late.run_turns()
    channels = ("c", "d")
    link, _ = stream(late, "last=2", channels)
    raw = Socket(late, RawSession, "last=2", channels)
    v1 = Socket(late, V1Session, "last=2", channels)
    answers: list[Reply | Refusal] = []
    answer_poll(late.node, late.settings, channels, parse_query("last=2"), None, answers.append)
    run_turns(late)
    assert ["id: e-4", "id: e-6", "id: e-7", "id: e-8"] == [line for line in events(link.take()) if "id:" in line][1:]
    assert [b"4", b"6", b"7", b"8"] == [event.data for event in raw.events() if isinstance(event, DataReceived)]
    frames = [frame for frame in v1.frames() if frame.startswith("message")]
    assert ["message c e-4", "message c e-8", "message d e-6", "message d e-7"] == sorted(frames)
    assert ([4, 6, 7, 8], "e-8") == shown(answers)


def test_a_read_that_does_not_end_is_refused(late: Any) -> None:
    """A long poll has READ_SECONDS for each reading of the log, the first one and that for the answer."""
    link, poll, answers = long(late, "after=e-2&wait=25")
    late.pass_time(link, poll, READ_SECONDS - 0.1)
    assert [] == answers
    late.pass_time(link, poll, 0.1)
    assert "unavailable" == getattr(answers[0], "code", None)
    run_turns(late)
    assert 1 == len(answers)
    late.broker.append(Draft("x", b"0"))
    link, poll, answers = long(late, "after=e-5&wait=25")
    late.broker.look(0)
    late.broker.answer()
    assert PollState.WAITING is poll.state
    late.pass_time(link, poll, 25)
    assert ([], PollState.ANSWERING) == (answers, state(poll))
    late.pass_time(link, poll, READ_SECONDS)
    assert "unavailable" == getattr(answers[0], "code", None)
    assert 0 == late.node.hub.subscriptions


def test_a_poll_that_is_read_at_the_end_of_its_wait_does_not_wait_again(late: Any) -> None:
    """Where the first read has taken all of the wait, the log is read once more, for the answer."""
    late.broker.append(Draft("x", b"0"))
    _, poll, answers = long(late, "after=e-5&wait=2")
    late.clock.advance(2)
    run_turns(late)
    assert (([], "e-5"), PollState.DONE) == (shown(answers), poll.state)


def test_each_event_of_a_poll_leads_where_the_table_says() -> None:
    """DONE is the end, every state can be closed, and only READING can begin to wait."""
    assert set(PollState) == set(MOVES)
    assert {} == MOVES[PollState.DONE]
    for state, row in MOVES.items():
        assert (PollState.DONE if row else None) is row.get("closed")
        assert (PollState.WAITING in row.values()) == (state is PollState.READING)

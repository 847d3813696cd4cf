"""Polls: what they answer, at once or after a wait."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.core.place import resolve
from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Draft, Kind, Retention
from oncecast.protocol.base import Reply, TransportSettings
from oncecast.protocol.polls import PollRequest, WaitingPoll, answer_poll
from oncecast.protocol.query import parse_query


def poll(rig: Any, query: str = "", known: str | None = None, channels: tuple[str, ...] = ("c",)) -> Reply:
    """Answer one poll."""
    replies: list[Reply | Refusal | None] = []
    PollRequest(rig.node, rig.settings, channels, parse_query(query), known).answer(replies.append)
    (reply,) = replies
    assert isinstance(reply, Reply)
    return reply


def body(reply: Reply) -> dict[str, Any]:
    """Return the answer's JSON."""
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def test_a_poll_has_what_is_new_and_the_cursor_to_go_on_from(rig: Any) -> None:
    """The ETag is the cursor; `gap` is null where nothing was missed."""
    rig.publish("1", "2", Draft("c", b"\xff", Kind.BINARY, event="blob"))
    reply = poll(rig, "after=e-1")
    assert (200, "e-3", None) == (reply.status, body(reply)["cursor"], body(reply)["gap"])
    assert ["e-2", "e-3"] == [m["id"] for m in body(reply)["messages"]]
    assert {"base64": "/w=="} == body(reply)["messages"][1]["data64"]
    assert ("ETag", '"e-3"') in reply.headers
    assert ("Cache-Control", "no-store") in reply.headers
    assert "gaps" not in body(reply)


def test_without_a_start_a_poll_begins_at_the_earliest(rig: Any) -> None:
    """A poll that says nothing gets all that is kept."""
    rig.publish("1", "2")
    assert [1, 2] == [m["data"] for m in body(poll(rig))["messages"]]


def test_the_limit_is_the_smaller_of_both(rig: Any) -> None:
    """A poll's `limit` can't exceed the server's, and the cursor stands after what was given."""
    rig.settings = TransportSettings(poll_messages=2)
    rig.publish("1", "2", "3")
    for query, count in (("limit=1", 1), ("limit=5", 2), ("", 2)):
        answer = body(poll(rig, query))
        assert (count, f"e-{count}") == (len(answer["messages"]), answer["cursor"])


def test_several_channels_have_all_their_gaps(rig: Any) -> None:
    """With several channels `gaps` has all of them, and `gap` the first."""
    rig.retention = Retention(messages=1)
    rig.publish("1", "2", channel="a")
    rig.publish("3", "4", channel="b")
    answer = body(poll(rig, "after=e-0", channels=("a", "b")))
    assert [("a", "e-1"), ("b", "e-3")] == [(gap["channel"], gap["missed_to"]) for gap in answer["gaps"]]
    assert answer["gaps"][0] == answer["gap"]
    assert ["e-2", "e-4"] == [m["id"] for m in answer["messages"]]


@pytest.mark.parametrize(
    "known, status",
    [
        (None, 200),
        ("", 200),
        ('"e-2"', 304),
        ('W/"e-2"', 304),
        ('"e-1"', 200),
        ('"other-9"', 200),
        ('"rubbish", "e-2"', 304),
        ('"rubbish"', 200),
        ("*", 200),
        ('"e-99"', 304),
    ],
)
def test_if_none_match(rig: Any, known: str | None, status: int) -> None:
    """The answer is 304 if one of the request's tags is the newest (RFC 9110 §13.1.2)."""
    rig.publish("1", "2")
    reply = poll(rig, "after=e-0", known)
    assert status == reply.status
    assert ("ETag", '"e-2"') in reply.headers
    if status == 304:
        assert b"" == reply.body


def test_a_gap_is_never_answered_with_304(rig: Any) -> None:
    """A poll with a gap is answered with 200, whatever `If-None-Match` says."""
    rig.publish("1")
    assert 200 == poll(rig, "after=earlier-1", '"e-1"').status


def test_nothing_new_is_304_only_for_a_request_with_a_tag(rig: Any) -> None:
    """An empty answer is 200 with the cursor, or 304 where the client said what it has."""
    rig.publish("1")
    assert ([], "e-1") == (body(poll(rig, "after=e-1"))["messages"], body(poll(rig, "after=e-1"))["cursor"])
    assert 304 == poll(rig, "after=e-1", '"e-1"').status


# -- short polls


def answered(rig: Any, query: str, if_none_match: str | None = None) -> Reply:
    """The answer to a short poll, which comes at once."""
    replies: list[Reply | Refusal] = []
    answer_poll(rig.node, rig.settings, ("c",), parse_query(query), if_none_match, replies.append)
    (reply,) = replies
    assert isinstance(reply, Reply)
    return reply


def test_it_answers_at_once_also_with_nothing(rig: Any) -> None:
    """An empty log is answered with the cursor of its head, and leaves no subscription."""
    reply = answered(rig, "after=latest")
    assert {"messages": [], "cursor": "e-0", "gap": None} == json.loads(reply.body)
    assert 0 == rig.node.hub.subscriptions


def test_it_answers_304_to_a_matching_tag(rig: Any) -> None:
    """The condition goes through to the poll."""
    rig.publish("1")
    assert 304 == answered(rig, "", '"e-1"').status


def test_too_many_channels_are_refused_at_once(rig: Any) -> None:
    """The limit on channels holds for polls too."""
    names = tuple(f"c{n}" for n in range(rig.settings.channels_per_subscription + 1))
    with pytest.raises(Refusal, match="at most"):
        answer_poll(rig.node, rig.settings, names, parse_query(""), None, lambda reply: None)


# -- long polls


class Poll:
    """A long poll on a fake link, and its answers."""

    def __init__(self, rig: Any, query: str, known: str | None = None, channels: tuple[str, ...] = ("c",)) -> None:
        self.answers: list[Reply | Refusal] = []
        self.link = rig.link()
        self.poll = WaitingPoll(
            rig.node, rig.settings, self.link, channels, parse_query(query), known, self.answers.append
        )

    @property
    def answer(self) -> Reply:
        """The one answer."""
        (answer,) = self.answers
        assert isinstance(answer, Reply)
        return answer

    @property
    def data(self) -> list[object]:
        """The data of the answer's messages."""
        return [message["data"] for message in json.loads(self.answer.body)["messages"]]


def test_what_is_there_is_answered_at_once(rig: Any) -> None:
    """A poll that is behind does not wait, and leaves no subscription."""
    rig.publish("1", "2")
    poll = Poll(rig, "after=e-1&wait=25")
    assert [2] == poll.data
    assert (0, None) == (rig.node.hub.subscriptions, poll.link.wake)
    poll.poll.closed()
    assert 1 == len(poll.answers)


def test_it_is_answered_once_by_the_next_publish(rig: Any) -> None:
    """All that one turn brings is in the one answer; what comes later is for the next poll."""
    poll = Poll(rig, "after=latest&wait=25")
    rig.run_turns()
    assert [] == poll.answers
    rig.publish("1")
    rig.publish("2")
    rig.run_turns()
    rig.publish("3")
    rig.run_turns()
    rig.pass_time(poll.link, poll.poll, 25)
    assert [1, 2] == poll.data
    assert 0 == rig.node.hub.subscriptions


def test_a_publish_in_the_turn_that_it_came_in_is_not_missed(rig: Any) -> None:
    """Between the first look and the subscription's first turn nothing is lost."""
    rig.publish("0")
    poll = Poll(rig, "after=latest&wait=25")
    rig.publish("1")
    rig.run_turns()
    assert [1] == poll.data


@pytest.mark.parametrize("start", ["after=latest", "last=0", "since=9999999999"])
@pytest.mark.parametrize("known", [None, '"e-1"', '"e-0"'])
def test_a_start_does_not_move_on_while_it_waits(rig: Any, start: str, known: str | None) -> None:
    """A long poll from `latest` is answered with messages that came while it waited, as its start stays in place."""
    rig.publish("1")
    poll = Poll(rig, f"{start}&wait=25", known)
    assert [] == poll.answers
    rig.publish("2")
    rig.run_turns()
    assert [2] == poll.data


def test_after_the_wait_the_answer_is_empty_with_the_cursor(rig: Any) -> None:
    """At the end of its wait, not before, a poll's answer has the head as its cursor."""
    poll = Poll(rig, "after=latest&wait=2")
    rig.publish("1", channel="elsewhere")
    rig.run_turns()
    rig.pass_time(poll.link, poll.poll, 1.9)
    assert [] == poll.answers
    rig.pass_time(poll.link, poll.poll, 0.1)
    assert {"messages": [], "cursor": "e-1", "gap": None} == json.loads(poll.answer.body)


def test_after_the_wait_a_matching_tag_gets_304(rig: Any) -> None:
    """With If-None-Match it waits although there are messages, as the client has them, and ends with 304."""
    rig.publish("1")
    poll = Poll(rig, "after=earliest&wait=2", '"e-1"')
    assert [] == poll.answers
    rig.pass_time(poll.link, poll.poll, 2)
    assert 304 == poll.answer.status


def test_without_a_wait_it_is_a_short_poll(rig: Any) -> None:
    """`wait=0` answers at once, also with nothing."""
    assert [] == Poll(rig, "after=latest&wait=0").data
    assert 304 == Poll(rig, "after=latest", '"e-0"').answer.status


def test_a_wait_over_the_limit_is_refused(rig: Any) -> None:
    """The limit itself is fine."""
    Poll(rig, f"after=latest&wait={rig.settings.wait_seconds}")
    with pytest.raises(Refusal, match="at most 60 seconds"):
        Poll(rig, "after=latest&wait=60.5")


def test_too_many_channels_are_refused(rig: Any) -> None:
    """No channel is subscribed to."""
    with pytest.raises(Refusal, match="at most"):
        Poll(rig, "wait=1", channels=tuple(f"c{n}" for n in range(65)))
    assert 0 == rig.node.hub.subscriptions


def test_a_drain_answers_now(rig: Any) -> None:
    """A server that stops lets its polls go to another."""
    poll = Poll(rig, "after=latest&wait=25")
    poll.poll.drain()
    poll.poll.drain()
    assert [] == poll.data


def test_a_client_that_leaves_is_forgotten(rig: Any) -> None:
    """Nothing is written to a closed link."""
    poll = Poll(rig, "after=latest&wait=25")
    rig.run_turns()
    poll.poll.closed()
    rig.publish("1")
    rig.run_turns()
    assert (0, []) == (rig.node.hub.subscriptions, poll.answers)


def test_what_expires_while_it_waits_is_a_gap(rig: Any) -> None:
    """A publish that trims itself at once is answered with the gap."""
    rig.retention = Retention(messages=1, seconds=10)
    poll = Poll(rig, "after=e-0&wait=25", channels=("a", "b"))
    rig.publish("1", "2", "3", channel="a")
    rig.run_turns()
    answer = json.loads(poll.answer.body)
    assert ("e-1", "e-2") == (answer["gap"]["missed_from"], answer["gap"]["missed_to"])
    assert ["e-3"] == [message["id"] for message in answer["messages"]]


def test_the_hub_can_tell_it_of_a_gap_or_refuse_it(rig: Any) -> None:
    """Both end the wait: one with what the log says, the other with the error; only the first counts."""
    poll = Poll(rig, "after=latest&wait=25")
    start = parse_query("after=other-1").start
    assert start is not None
    gap = resolve(rig.node.log, ("c",), start).gaps[0]
    poll.poll.gap(gap)
    refusal = Refusal("slow", "too slow")
    poll.poll.refuse(refusal)
    assert [] == poll.data
    other = Poll(rig, "after=latest&wait=25")
    other.poll.refuse(refusal)
    other.poll.refuse(refusal)
    assert [refusal] == other.answers


def test_a_full_socket_does_not_end_the_wait(rig: Any) -> None:
    """An answer before this one may fill the socket: the policies of lagging readers are not for polls."""
    rig.lag = Lag.DISCONNECT
    poll = Poll(rig, "after=latest&wait=25")
    poll.poll.blocked()
    poll.poll.drained()
    assert [] == poll.answers
    rig.publish("1")
    rig.run_turns()
    assert [1] == poll.data

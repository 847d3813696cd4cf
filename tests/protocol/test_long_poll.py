"""Long polling: it answers once, with what comes first."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.core.place import resolve
from oncecast.core.subscription import Lag
from oncecast.errors import Refusal
from oncecast.message import Retention
from oncecast.protocol.base import Reply, parse_query
from oncecast.protocol.long_poll import LongPoll


class Poll:
    """A long poll on a fake link, and its answers."""

    def __init__(self, rig: Any, query: str, known: str | None = None, channels: tuple[str, ...] = ("c",)) -> None:
        self.answers: list[Reply | Refusal] = []
        self.link = rig.link()
        self.poll = LongPoll(
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
    rig.settle()
    assert [] == poll.answers
    rig.publish("1")
    rig.publish("2")
    rig.settle()
    rig.publish("3")
    rig.settle()
    rig.pass_time(poll.link, poll.poll, 25)
    assert [1, 2] == poll.data
    assert 0 == rig.node.hub.subscriptions


def test_a_publish_in_the_turn_that_it_came_in_is_not_missed(rig: Any) -> None:
    """Between the first look and the subscription's first turn nothing is lost."""
    rig.publish("0")
    poll = Poll(rig, "after=latest&wait=25")
    rig.publish("1")
    rig.settle()
    assert [1] == poll.data


@pytest.mark.parametrize("start", ["after=latest", "last=0", "since=9999999999"])
@pytest.mark.parametrize("known", [None, '"e-1"', '"e-0"'])
def test_a_start_does_not_move_on_while_it_waits(rig: Any, start: str, known: str | None) -> None:
    """What comes while it waits is the answer, also where `latest` would now be after it, and whatever it has."""
    rig.publish("1")
    poll = Poll(rig, f"{start}&wait=25", known)
    assert [] == poll.answers
    rig.publish("2")
    rig.settle()
    assert [2] == poll.data


def test_after_the_wait_the_answer_is_empty_with_the_cursor(rig: Any) -> None:
    """At the end of its wait, not before, a poll is told where the head is."""
    poll = Poll(rig, "after=latest&wait=2")
    rig.publish("1", channel="elsewhere")
    rig.settle()
    rig.pass_time(poll.link, poll.poll, 1.9)
    assert [] == poll.answers
    rig.pass_time(poll.link, poll.poll, 0.1)
    assert {"messages": [], "cursor": "e-1", "gap": None} == json.loads(poll.answer.body)


def test_after_the_wait_who_has_it_gets_304(rig: Any) -> None:
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
    """Nothing is subscribed then."""
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
    """Nothing is answered to a closed link."""
    poll = Poll(rig, "after=latest&wait=25")
    rig.settle()
    poll.poll.closed()
    rig.publish("1")
    rig.settle()
    assert (0, []) == (rig.node.hub.subscriptions, poll.answers)


def test_what_expires_while_it_waits_is_a_gap(rig: Any) -> None:
    """A publish that trims itself at once is answered with the gap."""
    rig.retention = Retention(messages=1, seconds=10)
    poll = Poll(rig, "after=e-0&wait=25", channels=("a", "b"))
    rig.publish("1", "2", "3", channel="a")
    rig.settle()
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


def test_a_full_socket_or_early_bytes_do_not_end_the_wait(rig: Any) -> None:
    """An answer before this one may fill the socket: the policies of lagging readers are not for polls."""
    rig.lag = Lag.DISCONNECT
    poll = Poll(rig, "after=latest&wait=25")
    poll.poll.blocked()
    poll.poll.received(b"GET / HTTP/1.1\r\n")
    poll.poll.drained()
    assert [] == poll.answers
    rig.publish("1")
    rig.settle()
    assert [1] == poll.data

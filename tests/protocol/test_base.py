"""How a request says where to start, and what a poll answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from oncecast.errors import Refusal
from oncecast.message import EARLIEST, LATEST, Cursor, Draft, Gap, Kind, Reason, Retention, Start, StartKind
from oncecast.protocol.base import (
    PollRequest,
    Query,
    Reply,
    check_count,
    gap_text,
    parse_channels,
    parse_query,
    parse_start,
)


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


def test_channels_are_taken_once_in_order() -> None:
    """Names are separated by commas; a repeated one counts once."""
    assert ("b", "a", "c") == parse_channels("b,a,b,c,a")


@pytest.mark.parametrize("names", ["", "a,", ",a", "a,,b", "a, b", "-a", "x" * 129])
def test_a_bad_name_refuses_them_all(names: str) -> None:
    """One name that is none makes the request invalid."""
    with pytest.raises(Refusal, match="channel name"):
        parse_channels(names)


@pytest.mark.parametrize(
    "query, start",
    [
        ("", None),
        ("other=1&other=2", None),
        ("after=latest", LATEST),
        ("after=earliest", EARLIEST),
        ("after=e-7", Start(StartKind.CURSOR, Cursor("e", 7))),
        ("last=0", Start(StartKind.LAST, number=0)),
        ("last=25", Start(StartKind.LAST, number=25)),
        ("since=1764000000.5", Start(StartKind.SINCE, number=1764000000.5)),
    ],
)
def test_a_query_says_where_to_start(query: str, start: Start | None) -> None:
    """Each way to begin is read; fields of others are ignored."""
    if query.startswith("other"):
        with pytest.raises(Refusal, match="twice"):
            parse_query("after=latest&after=latest")
        query = "other=1"
    assert start == parse_query(query).start


def test_the_rest_of_a_query() -> None:
    """`wait`, `limit` and `envelope` are read."""
    assert Query(None, 2.5, 10, True) == parse_query("wait=2.5&limit=10&envelope=1")
    assert Query(None, None, None, False) == parse_query("envelope=false")
    assert not parse_query("envelope=").envelope


@pytest.mark.parametrize(
    "query, code",
    [
        ("after=", "cursor_invalid"),
        ("after=newest", "cursor_invalid"),
        ("last=-1", "request_invalid"),
        ("last=1.5", "request_invalid"),
        ("last=" + "9" * 19, "request_invalid"),
        ("last=\u0663", "request_invalid"),
        ("limit=0", "request_invalid"),
        ("since=soon", "request_invalid"),
        ("since=-1", "request_invalid"),
        ("wait=nan", "request_invalid"),
        ("wait=inf", "request_invalid"),
        ("after=latest&last=1", "request_invalid"),
        ("since=1&last=1", "request_invalid"),
        ("limit=1&limit=1", "request_invalid"),
        ("a=%ff", "request_invalid"),
        ("&".join(f"f{n}=1" for n in range(33)), "request_invalid"),
    ],
)
def test_a_bad_query_is_refused(query: str, code: str) -> None:
    """What can't be meant is refused with the code of the part that is wrong."""
    with pytest.raises(Refusal) as refusal:
        parse_query(query)
    assert code == refusal.value.code


def test_last_and_since_in_a_frame_are_not_negative() -> None:
    """A frame's numbers are numbers already, and are held to the same rule."""
    with pytest.raises(Refusal, match="0 or more"):
        parse_start(None, -1, None)
    with pytest.raises(Refusal, match="0 or more"):
        parse_start(None, None, -0.5)


def test_the_number_of_channels_is_limited() -> None:
    """As many as the limit are fine, one more is refused."""
    check_count(("a", "b"), 2)
    with pytest.raises(Refusal, match="at most 1 channels"):
        check_count(("a", "b"), 1)


@pytest.mark.parametrize("length", [1, 42, 128])
def test_a_gaps_text_fits_into_a_close_and_keeps_its_cursor(length: int) -> None:
    """RFC 6455 §5.5: a reason has 123 bytes; the cursor is what a client needs of it."""
    here = Cursor("z" * 32, 2**63 - 1)
    text = gap_text(Gap("c" * length, Reason.EXPIRED, here, here, here))
    assert len(text) <= 123
    assert text.endswith(f"; go on from {here}")
    assert text.startswith("gap (expired) on c")


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
    rig.settings = type(rig.settings)(poll_messages=2)
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
    """RFC 9110 §13.1.2: 304 to whoever has the newest of the answer, by any of its tags."""
    rig.publish("1", "2")
    reply = poll(rig, "after=e-0", known)
    assert status == reply.status
    assert ("ETag", '"e-2"') in reply.headers
    if status == 304:
        assert b"" == reply.body


def test_a_gap_is_never_answered_with_304(rig: Any) -> None:
    """Whoever has missed something hears of it, whatever it says to have."""
    rig.publish("1")
    assert 200 == poll(rig, "after=earlier-1", '"e-1"').status


def test_nothing_new_is_304_only_to_who_asks_with_a_tag(rig: Any) -> None:
    """An empty answer is 200 with the cursor, or 304 where the client said what it has."""
    rig.publish("1")
    assert ([], "e-1") == (body(poll(rig, "after=e-1"))["messages"], body(poll(rig, "after=e-1"))["cursor"])
    assert 304 == poll(rig, "after=e-1", '"e-1"').status

"""Where a subscription stands: which gaps, cursors and messages are news to it."""

from __future__ import annotations

import pytest

from oncecast import Broken, ClientMessage, Gap
from oncecast.client.base import CursorMoved, Received, StartQuery
from oncecast.client.places import Places


def gap(first: str, last: str | None, cursor: str, reason: str = "expired", channel: str = "c") -> Gap:
    """A gap."""
    return Gap(channel=channel, reason=reason, missed_from=first, missed_to=last, cursor=cursor)


def got(cursor: str, channel: str = "c") -> Received:
    """A message."""
    return Received(ClientMessage(id=cursor, channel=channel, data=1, time=0.0))


def places(cursor: str) -> Places:
    """A place in one channel."""
    return Places(["c"], StartQuery("after", cursor))


@pytest.mark.parametrize(
    "event, news, place",
    [
        (gap("e-6", "e-7", "e-7"), gap("e-6", "e-7", "e-7"), "e-7"),
        (gap("e-2", "e-7", "e-7"), gap("e-6", "e-7", "e-7"), "e-7"),  # what came out already is not missed
        (gap("e-2", "e-5", "e-9"), None, "e-5"),  # all of it came out already
        (gap("e-6", "e-9", "e-7"), gap("e-6", "e-9", "e-7"), "e-9"),  # the stream begins further back, for others
        (gap("e-2", None, "f-3", "epoch"), gap("e-6", None, "f-3", "epoch"), "f-3"),
        (gap("d-2", None, "e-5", "epoch"), None, "e-5"),  # this channel has had it
        (gap("d-2", None, "e-7", "epoch"), gap("d-2", None, "e-7", "epoch"), "e-7"),
        (gap("e-4", "e-5", "e-3", "unknown"), gap("e-4", "e-5", "e-3", "unknown"), "e-3"),
        (gap("e-6", "e-8", "e-9", "unknown"), gap("e-6", "e-8", "e-9", "unknown"), "e-9"),  # a hole in the log
        (gap("e-2", "e-4", "e-1", "unknown"), None, "e-5"),  # a hole that came out already, with the first's cursor
        (gap("e-2", "e-4", "e-5", "unknown"), None, "e-5"),
        (gap("e-6", "e-7", "e-7", channel="other"), None, "e-5"),
        (gap("e-6", "odd~", "odd~"), gap("e-6", "odd~", "odd~"), "odd~"),
        (got("e-6"), got("e-6").message, "e-6"),
        (got("e-5"), None, "e-5"),
        (got("e-4"), None, "e-5"),
        (got("e-6", "other"), None, "e-5"),
        (CursorMoved("e-6"), None, "e-6"),
        (CursorMoved("e-6", "c"), None, "e-6"),
        (CursorMoved("e-6", "other"), None, "e-5"),
        (CursorMoved("e-4"), None, "e-5"),
        (CursorMoved("f-3"), None, "f-3"),  # a new epoch without a gap: nothing is missing
        (got("f-3"), got("f-3").message, "f-3"),
    ],
)
def test_an_event(event: Gap | Received | CursorMoved, news: object, place: str) -> None:
    """A new event is given out once, and the place follows it."""
    here = places("e-5")
    assert news == here.take(event)
    assert {"c": StartQuery("after", place)} == here.starts


@pytest.mark.parametrize("event", [got("a b"), gap("e-6", "e-7", "e\r\nX: y"), CursorMoved(""), CursorMoved("é")])
def test_what_is_no_place(event: Gap | Received | CursorMoved) -> None:
    """A cursor that can't stand in a URL breaks the connection, and moves no place."""
    here = places("e-5")
    with pytest.raises(Broken, match="malformed"):
        here.take(event)
    assert {"c": StartQuery("after", "e-5")} == here.starts


def test_repeats() -> None:
    """A message that was yielded is not yielded again."""
    here = places("e-5")
    for event in (gap("e-6", "e-7", "e-7"), got("e-8"), gap("e-9", None, "f-0", "epoch"), got("f-1")):
        assert here.take(event) is not None
        assert here.take(event) is None


def test_attached() -> None:
    """A connection is attached once each of its channels has a cursor."""
    here = Places(["c", "d"], StartQuery("after", "latest"))
    attached = []
    for event in (CursorMoved("e-1", "c"), got("e-2", "d")):
        attached.append(here.attached)
        here.take(event)
    assert [False, False, True] == [*attached, here.attached]
    assert ["c", "d"] == list(here.starts)

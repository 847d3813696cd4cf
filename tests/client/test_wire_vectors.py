"""The example vectors of the wire, `spec/vectors`, read by the client's parsers: each transport sees the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oncecast import ClientMessage, Gap
from oncecast.client.base import CursorMoved, Received, StartQuery
from oncecast.client.poll import events_of
from oncecast.client.reading import parse_cursor, parse_gap
from oncecast.client.reading import parse_message as parse
from oncecast.client.sse import EventReader
from oncecast.client.websocket import V1Reader
from oncecast.wire.ws_connection import DataReceived

VECTORS = Path(__file__).parent.parent.parent / "spec" / "vectors"


def cases(name: str) -> list[Any]:
    """The cases of a file, each under its name."""
    found = json.loads((VECTORS / f"{name}.json").read_text("utf-8"))["cases"]
    return [pytest.param(case, id=case["name"]) for case in found]


def octets(value: Any) -> bytes:
    """Bytes as they stand in a vector."""
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else str(value).encode()


def session() -> V1Reader:
    """A session that has attached the channel of the vectors."""
    made = V1Reader()
    made.waiting.add("news")
    return made


@pytest.mark.parametrize("case", cases("messages"))
def test_messages(case: Any) -> None:
    """A message is the same from a poll, a stream and a socket, with its data decoded."""
    fields = case["message"]
    data = octets(fields["data"])
    decoded: Any = data
    if fields["kind"] != "binary":
        decoded = json.loads(data) if fields["kind"] == "json" else data.decode()
    expected = ClientMessage(
        id=f"k3f9x2-{fields['seq']}",
        channel=fields["channel"],
        data=decoded,
        event=fields["event"],
        time=fields["time"],
    )
    assert expected == parse(octets(case["json"]))
    assert [Received(expected), CursorMoved(expected.id)] == list(EventReader().receive(octets(case["sse_envelope"])))
    assert [Received(expected)] == list(session().take(DataReceived(octets(case["v1"]["payload"]), is_text=True)))


@pytest.mark.parametrize("case", cases("gaps"))
def test_gaps(case: Any) -> None:
    """A gap is the same from a poll, a stream and a socket."""
    expected = Gap(**case["gap"])
    assert expected == parse_gap(octets(case["json"]))
    assert [expected, CursorMoved(expected.cursor)] == list(EventReader().receive(octets(case["sse"])))
    assert [expected] == list(session().take(DataReceived(octets(case["v1"]), is_text=True)))


@pytest.mark.parametrize("case", cases("polls"))
def test_polls(case: Any) -> None:
    """A page is its gaps, then its messages, then its cursor."""
    *found, cursor = events_of(octets(case["answer"]))
    assert CursorMoved(case["cursor"]) == cursor
    assert len(case["gaps"]) + len(case["messages"]) == len(found)
    assert [Received(parse(octets(message))) for message in case["messages"]] == found[len(case["gaps"]) :]
    assert [msgspec.convert(_gap(gap), Gap) for gap in case["gaps"]] == found[: len(case["gaps"])]


def _gap(gap: Any) -> Any:
    return json.loads(gap) if isinstance(gap, str) else gap


def test_cursors() -> None:
    """The cursors that are compared are those of the grammar; any other is passed on as it is."""
    vectors = json.loads((VECTORS / "cursors.json").read_text("utf-8"))
    for case in vectors["valid"]:
        cursor = parse_cursor(case["text"])
        assert cursor is not None
        assert (case["epoch"], int(case["seq"])) == (cursor.epoch, cursor.seq)
        assert cursor == StartQuery("after", case["text"]).cursor
    assert [None] * len(vectors["invalid"]) == [parse_cursor(text) for text in vectors["invalid"]]

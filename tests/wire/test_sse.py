"""Server-Sent Events: what is written, what is read of it however it is cut, and a model of the standard as the judge.

The model below reads a whole stream in the standard's own steps (HTML Living Standard §9.2.6), with no thought of
speed or of bytes that come in pieces; the parser has to agree with it on everything.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.errors import OncecastError, UsageError
from oncecast.wire.sse import MAX_EVENT_BYTES, EventParser, SseEvent, StreamFailed, comment, encode


class Model:
    """The event stream's interpretation, step by step, of a stream that is all there."""

    def __init__(self, stream: bytes) -> None:
        self.events: list[SseEvent] = []
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.data = self.event = self.id = ""
        text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
        *lines, _unfinished = re.split("\r\n|\n|\r", text)
        for line in lines:
            self.take(line)

    def take(self, line: str) -> None:
        if line == "":
            self.dispatch()
        elif line.startswith(":"):
            pass
        elif ":" in line:
            field, value = line.split(":", 1)
            self.process(field, value.removeprefix(" "))
        else:
            self.process(line, "")

    def process(self, field: str, value: str) -> None:
        match field:
            case "event":
                self.event = value
            case "data":
                self.data += value + "\n"
            case "id" if "\0" not in value:
                self.id = value
            case "retry" if re.fullmatch("[0-9]{1,15}", value):
                self.retry_ms = int(value)

    def dispatch(self) -> None:
        self.last_event_id = self.id
        if self.data != "":
            self.events.append(SseEvent(self.data.removesuffix("\n"), self.event or "message", self.id))
        self.data = self.event = ""


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Cut `data` in every way that a case is run in."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in range(len(data) + 1):  # with an empty piece too
        yield [data[:at], data[at:]]


def read(pieces: list[bytes]) -> tuple[list[SseEvent], str, int | None]:
    """Read the pieces with a new parser: its events, its last event id, its retry."""
    parser = EventParser()
    events = [event for piece in pieces for event in parser.receive(piece)]
    return events, parser.last_event_id, parser.retry_ms


# --- reading ---

STREAMS = {
    "one": (b"data: a\n\n", [SseEvent("a")], "", None),
    "all fields": (
        b": hi\nid: 7\nevent: tick\nretry: 3000\ndata: a\ndata: b\n\n",
        [SseEvent("a\nb", "tick", "7")],
        "7",
        3000,
    ),
    "one space goes": (
        b"data:a\n\ndata:  b\n\ndata:\tc\n\n",
        [SseEvent("a"), SseEvent(" b"), SseEvent("\tc")],
        "",
        None,
    ),
    "empty data": (
        b"data\n\ndata:\n\ndata: \n\ndata\ndata\n\n",
        [SseEvent(""), SseEvent(""), SseEvent(""), SseEvent("\n")],
        "",
        None,
    ),
    "no data, no event": (b"event: x\n\ndata: a\n\n", [SseEvent("a")], "", None),
    "empty event name": (b"event: x\nevent:\ndata: a\n\n", [SseEvent("a")], "", None),
    "line ends": (
        b"data: a\r\ndata: b\rdata: c\n\r\ndata: d\r\r",
        [SseEvent("a\nb\nc"), SseEvent("d")],
        "",
        None,
    ),
    "LF then CR": (b"data: a\n\rdata: b\r\n\n", [SseEvent("a"), SseEvent("b")], "", None),
    "CR LF after CR": (b"data: a\r\r\ndata: b\r\n\r\n", [SseEvent("a"), SseEvent("b")], "", None),
    "blank lines": (b"\n\r\n\r\n\n\rdata: a\n\n\n\n", [SseEvent("a")], "", None),
    "id lives on": (
        b"id: 1\ndata: a\n\ndata: b\n\n",
        [SseEvent("a", id="1"), SseEvent("b", id="1")],
        "1",
        None,
    ),
    "id alone": (b"id: 1\n\n", [], "1", None),
    "id is cleared": (
        b"id: 1\ndata: a\n\nid\ndata: b\n\n",
        [SseEvent("a", id="1"), SseEvent("b")],
        "",
        None,
    ),
    "id not committed": (b"id: 1\n\nid: 2\ndata: a\n", [], "1", None),
    "id with NUL": (b"id: 1\nid: 2\0\ndata: a\n\n", [SseEvent("a", id="1")], "1", None),
    "last id wins": (b"id: 1\nid: 2\n\n", [], "2", None),
    "NUL in data": (b"data: a\0b\nevent: \0\n\n", [SseEvent("a\0b", "\0")], "", None),
    "retry at once": (b"retry: 10", [], "", None),
    "retry at its line's end": (b"retry: 010\n", [], "", 10),
    "bad retries": (
        b"retry: 5\nretry: -1\nretry: 1.5\nretry: 1 \nretry:\nretry: \xd9\xa3\nretry: x\nretry: " + b"9" * 16 + b"\n",
        [],
        "",
        5,
    ),
    "unknown fields": (b"DATA: a\n data: b\ndata : c\nfoo\nfoo: d\ndata: e\n\n", [SseEvent("e")], "", None),
    "comments": (b":\n: data: a\n:data: b\ndata: c\n:\n\n", [SseEvent("c")], "", None),
    "colons": (b"data: a:b: c\n\ndata::\n\n", [SseEvent("a:b: c"), SseEvent(":")], "", None),
    "BOM first": (b"\xef\xbb\xbfdata: a\n\n", [SseEvent("a")], "", None),
    "BOM alone on its line": (b"\xef\xbb\xbf\ndata: a\n\n", [SseEvent("a")], "", None),
    "two BOMs": (b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", [SseEvent("b")], "", None),
    "BOM later": (b"data: \xef\xbb\xbfa\n\n\xef\xbb\xbfdata: b\n\n", [SseEvent("\ufeffa")], "", None),
    "half a BOM": (b"\xef\xbbdata: a\n\ndata: b\n\n", [SseEvent("b")], "", None),
    "UTF-8": ("id: ü\nevent: €\ndata: 🎈\n\n".encode(), [SseEvent("🎈", "€", "ü")], "ü", None),
    "bad UTF-8": (
        b"data: \xff \xf0\x9f\x8e \xe2\x82\ndata: \xed\xa0\x80\xc0\xaf\n\n",
        [SseEvent("\ufffd \ufffd \ufffd\n\ufffd\ufffd\ufffd\ufffd\ufffd")],
        "",
        None,
    ),
    "unfinished": (b"data: a\n\ndata: b\n", [SseEvent("a")], "", None),
    "unfinished line": (b"data: a\n\ndata: b", [SseEvent("a")], "", None),
    "nothing": (b"", [], "", None),
}


@pytest.mark.parametrize("stream, events, last_id, retry", STREAMS.values(), ids=STREAMS)
def test_streams(stream: bytes, events: list[SseEvent], last_id: str, retry: int | None) -> None:
    """A stream gives what the standard says, however it is cut; and so does the model that the parser is held to."""
    model = Model(stream)
    assert (events, last_id, retry) == (model.events, model.last_event_id, model.retry_ms)
    for pieces in cuts(stream):
        assert (events, last_id, retry) == read(pieces)


WORDS = (b"data", b"id", b"event", b"retry", b":", b": ", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"5", b"a")
LINES = (b"data: x\n", b"id: 1\n", b"data:\r", b"\xef\xbb\xbf")
BYTES = (b"\xef", b"\xbb", "€".encode(), "🎈".encode(), b"\xf0\x9f", b"\xff")
FRAGMENTS = st.sampled_from((*WORDS, *LINES, *BYTES))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[bytes]]:
    """Draw a stream near the grammar, and the same stream in pieces."""
    stream = b"".join(draw(st.lists(FRAGMENTS | st.binary(max_size=3), max_size=40)))
    places = draw(st.lists(st.integers(0, len(stream)), max_size=8))
    at = [0, *sorted(places), len(stream)]
    return stream, [stream[i:j] for i, j in itertools.pairwise(at)]


@settings(deadline=None, max_examples=1000)
@given(streams())
def test_model(drawn: tuple[bytes, list[bytes]]) -> None:
    """The parser agrees with the model on any stream, in pieces and byte by byte."""
    stream, pieces = drawn
    model = Model(stream)
    expected = (model.events, model.last_event_id, model.retry_ms)
    assert expected == read(pieces)
    assert expected == read([stream[i : i + 1] for i in range(len(stream))])


def test_prompt() -> None:
    """An event is given out with the byte that ends it, without waiting for the LF that may follow a CR."""
    parser = EventParser()
    assert [] == parser.receive(b"data: a\r\n")
    assert [SseEvent("a")] == parser.receive(b"\r")
    assert [] == parser.receive(b"\ndata: b\n")
    assert [SseEvent("b")] == parser.receive(b"\n")


def test_resumed() -> None:
    """A new parser goes on from the id that the old one had reached."""
    parser = EventParser(last_event_id="7")
    assert "7" == parser.last_event_id
    assert [SseEvent("a", id="7")] == parser.receive(b"data: a\n\n")
    assert [SseEvent("b", id="8")] == parser.receive(b"id: 8\ndata: b\n\n")
    assert "8" == parser.last_event_id


# --- bounds ---

TOO_LARGE = {
    "line": b"data: 12345",
    "unknown line": b"x" * 11,
    "comment": b":" * 11,
    "lines": b"data:1\ndata:2\n",
    "empty lines": b"data\ndata\ndata\n",
    "line after lines": b"data:1\nid: 12\n",
}


@pytest.mark.parametrize("stream", TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large(stream: bytes) -> None:
    """A line or an event over the limit fails the stream for ever, at the latest at the end of its line."""
    for pieces in cuts(stream):
        parser = EventParser(max_event_bytes=10)
        with pytest.raises(StreamFailed, match="over 10 bytes"):
            list(map(parser.receive, [*pieces, b"\n"]))
        with pytest.raises(StreamFailed):
            parser.receive(b"\n\ndata: a\n\n")
    assert issubclass(StreamFailed, OncecastError)


def test_just_fits() -> None:
    """Each event has the whole limit for itself, the bytes of the BOM not counted."""
    stream = b"\xef\xbb\xbfdata: 1234\n\ndata\ndata:1\n\n" + b":" * 10 + b"\n" + b"id: 123456\n" * 5 + b"data: 1234\n\n"
    expected = [SseEvent("1234"), SseEvent("\n1"), SseEvent("1234", id="123456")]
    for pieces in cuts(stream):
        parser = EventParser(max_event_bytes=10)
        assert expected == [event for piece in pieces for event in parser.receive(piece)]


def test_events_before_the_fault() -> None:
    """Events that came with the fault are handed out before it is raised, so that no id runs ahead of them."""
    parser = EventParser(max_event_bytes=10)
    assert [SseEvent("a", id="1")] == parser.receive(b"id: 1\ndata: a\n\nid: 2\ndata: 12345\n\n")
    assert "1" == parser.last_event_id
    with pytest.raises(StreamFailed):
        parser.receive(b"")


def test_default_limit() -> None:
    """By default an event of four MiB fits."""
    data = b"x" * (MAX_EVENT_BYTES - 6)
    (event,) = EventParser().receive(encode(data))
    assert len(data) == len(event.data)
    with pytest.raises(StreamFailed):
        EventParser().receive(encode(data + b"x"))


def test_read_once() -> None:
    """A line that dribbles in costs time in proportion to its size; the bound is a hundred times too generous."""
    parser = EventParser()
    started = time.process_time()
    line = b"data: " + b"x" * (1 << 21)
    for at in range(0, len(line), 64):
        assert [] == parser.receive(line[at : at + 64])
    assert time.process_time() - started < 5
    assert 1 == len(parser.receive(b"\n\n"))


# --- writing ---


@pytest.mark.parametrize(
    "expected, written",
    [
        (b"data: a\n\n", encode(b"a")),
        (b"data: \n\n", encode(b"")),
        (b"id: 7\nevent: tick\nretry: 0\ndata: a\n\n", encode(b"a", id="7", event="tick", retry_ms=0)),
        (b"data: a\ndata: b\ndata: c\ndata: d\n\n", encode(b"a\nb\rc\r\nd")),
        (b"data: a\ndata: \n\n", encode(b"a\n")),
        (b"data: \ndata: \ndata: \n\n", encode(b"\n\r")),
        (b"id: 7\n\n", encode(None, id="7")),
        (b"id: \n\n", encode(None, id="")),
        (b"retry: 3000\n\n", encode(None, retry_ms=3000)),
        (b"\n", encode(None)),
        ("id: ü\nevent: a b\u2028\ndata: a\n\n".encode(), encode(b"a", id="ü", event="a b\u2028")),
        (b"data: \0\n\n", encode(b"\0")),
        (b": keep-alive\n", comment("keep-alive")),
        (b": \n", comment("")),
        (b": a\n: data: b\n: c\n: \n", comment("a\ndata: b\r\nc\r")),
        (b": ?\n", comment("\ud800")),
    ],
)
def test_written(expected: bytes, written: bytes) -> None:
    """An event is written field by field in a fixed order, its data line by line."""
    assert expected == written


@pytest.mark.parametrize("text", ["a\nb", "a\r", "\0", "\ud800", "\n\ndata: x"])
def test_injection(text: str) -> None:
    """A value that would end its field and begin another is refused, and not sent."""
    with pytest.raises(UsageError):
        encode(b"a", id=text)
    with pytest.raises(UsageError):
        encode(b"a", event=text)


def test_negative_retry() -> None:
    """No time to wait is negative."""
    with pytest.raises(UsageError, match="retry"):
        encode(None, retry_ms=-1)


DATA = st.text(st.sampled_from("\r\n\0 :a€🎈\ufeff") | st.characters(codec="utf-8"), max_size=20)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)
MESSAGES = st.tuples(DATA, st.none() | NAME, st.none() | NAME, st.none() | st.integers(0, 10**15 - 1))


@settings(deadline=None, max_examples=500)
@given(st.lists(MESSAGES | st.text(max_size=8), max_size=5), st.lists(st.integers(0, 300), max_size=8), st.booleans())
def test_read_back(
    written: list[tuple[str, str | None, str | None, int | None] | str], places: list[int], bom: bool
) -> None:
    """Whatever is written, comments between, is read back as it was meant, its line ends turned into LF."""
    stream = b"\xef\xbb\xbf" if bom else b""
    expected = []
    last_id, last_retry = "", None
    for item in written:
        if isinstance(item, str):
            stream += comment(item)
            continue
        data, event, event_id, retry = item
        stream += encode(data.encode(), event=event, id=event_id, retry_ms=retry)
        last_id = last_id if event_id is None else event_id
        last_retry = last_retry if retry is None else retry
        expected.append(SseEvent(re.sub("\r\n|\r", "\n", data), event or "message", last_id))
    at = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    assert (expected, last_id, last_retry) == read([stream[i:j] for i, j in itertools.pairwise(at)])

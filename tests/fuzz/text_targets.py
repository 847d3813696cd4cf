"""What is read from texts, under fuzzing: event streams, envelopes, cursors and queries.

Oracles: what is written is read back equal; a second reader of JSON agrees on what was accepted; nothing that was
accepted can end a line or a field.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

from oncecast.client.failures import Broken
from oncecast.client.reading import parse_gap, parse_message
from oncecast.client.sse import EventReader
from oncecast.errors import Refusal
from oncecast.message import (
    JSON,
    MAX_SEQ,
    Cursor,
    Draft,
    Kind,
    Message,
    StartKind,
    check_channel,
    check_event,
    check_key,
)
from oncecast.protocol.query import parse_channels, parse_query
from oncecast.wire import sse
from oncecast.wire.draft_fields import parse_line
from oncecast.wire.envelope import message_json
from oncecast.wire.payload import MAX_DEPTH, json_data, sniff
from oncecast.wire.traceparent import FLAGS, parse_traceparent, traceparent
from oncecast.wire.v1_frames import Publish, Subscribe, message_frame, parse_frame, ref_of

from .pieces import opened, pieces

__all__ = ["cursors", "envelopes", "event_streams", "queries"]

EVENT_BYTES = 200
LATEST_SECOND = 1e18


# -- event streams


def event_streams(data: bytes) -> None:
    """Read a stream whole and cut, as events and as the client's messages; write the events and read them again."""
    _, way, content = opened(data)
    whole = _events([content])
    assert whole == _events(pieces(content, way))
    events, _, _, _ = whole
    for event in events:
        kept = event.event != "message" and not {*event.event} & {"\0"}
        text = sse.encode(event.data.encode("utf-8", "replace"), event=event.event if kept else None, retry_ms=7)
        parser = sse.EventParser(last_event_id=event.id)
        (again,) = parser.receive(text)
        assert (event.data, event.event if kept else "message") == (again.data, again.event)
        assert 7 == parser.retry_ms
    if way % 2 == 0:
        _read_as_client(pieces(content, way))


def _events(parts: Iterable[bytes]) -> tuple[list[sse.SseEvent], str, int | None, bool]:
    parser = sse.EventParser(max_event_bytes=EVENT_BYTES)
    events: list[sse.SseEvent] = []
    failed = False
    for part in parts:
        try:
            events += parser.receive(part)
        except sse.StreamFailed:
            failed = True
        assert len(parser._line) <= EVENT_BYTES + 3 or parser._failed
        assert parser._size <= EVENT_BYTES
    for event in events:
        assert not {"\r", "\n", "\0"} & {*event.id}
        assert not {"\r", "\n"} & {*event.event}
        assert "\r" not in event.data
        assert event.event
    return events, parser.last_event_id, parser.retry_ms, failed or parser._failed


def _read_as_client(parts: Iterable[bytes]) -> None:
    reader = EventReader()
    try:
        for part in parts:
            for _ in reader.receive(part):
                pass
    except Broken:
        pass


# -- envelopes


def envelopes(data: bytes) -> None:
    """Read the content as a frame, a batch's line, a body, and as what a server sends."""
    _, _, content = opened(data)
    _check_frame(content)
    _check_line(content)
    _check_body(content)
    for read in (parse_message, parse_gap):
        try:
            read(content)
        except Broken:
            pass


def _pairs(content: bytes) -> dict[str, Any]:
    """Read an object as another reader does, which must not find a name twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs)

    found = json.JSONDecoder(object_pairs_hook=once, parse_int=str, parse_float=str, strict=False).decode(
        content.decode()
    )
    assert isinstance(found, dict)
    listed = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str, strict=False).decode(
        content.decode()
    )
    assert len(listed) == len(found)
    return found


def _check_frame(content: bytes) -> None:
    try:
        frame = parse_frame(content)
    except Refusal as refusal:
        assert refusal.code in ("frame_invalid", "data_invalid")
        ref_of(content)
        return
    assert frame.ref == ref_of(content)
    if isinstance(frame, Publish):
        _check_draft(frame.draft, content)
        return
    read = _pairs(content)
    assert read["type"] == type(frame).__name__.lower()
    if isinstance(frame, Subscribe):
        assert read["channel"] == frame.channel
        assert read.get("after") == frame.after


def _check_line(content: bytes) -> None:
    _check_draft(lambda: parse_line(content), content)


def _check_draft(make: Any, content: bytes) -> None:
    try:
        draft = make()
    except Refusal as refusal:
        assert refusal.error.status == 400
        return
    read = _pairs(content)
    assert (read["channel"], read.get("event"), read.get("key")) == (draft.channel, draft.event, draft.key)
    given = read.get("traceparent")
    if draft.trace is not None:
        assert given is not None
        assert given[2:53] == traceparent(draft.trace)[2:53]
        assert int(given[53:55], 16) & FLAGS == draft.trace[-1]  # flags that are not known are zero
    elif given is not None:
        assert parse_traceparent(given) is None
    _check_written(draft)


def _check_body(content: bytes) -> None:
    try:
        taken, kind = sniff(content)
    except Refusal as refusal:
        assert refusal.code == "data_invalid"
        return
    if kind is JSON:
        assert taken == json_data(content)
        json.loads(taken.decode(), parse_int=str, parse_float=str)
        assert json_data(taken) == taken
    else:
        assert taken == content
    _check_written(Draft("a", taken, kind))


def _check_written(draft: Draft) -> None:
    """A message is one line of JSON, which the client reads as what was published."""
    message = Message(7, draft.channel, draft.data, draft.kind, draft.event, 1.5)
    text = message_json(message, "e0")
    assert b"\n" not in text
    assert b"\r" not in text
    assert message_frame(message, "e0").startswith(b'{"type":"message","id":"e0-7",')
    read = parse_message(text)
    assert ("e0-7", draft.channel, draft.event, 1.5) == (read.id, read.channel, read.event, read.time)
    match draft.kind:
        case Kind.BINARY:
            assert draft.data == read.data
        case Kind.TEXT:
            assert draft.data.decode() == read.data
        case Kind.JSON:
            assert draft.data.strip(b" \t") == read.raw_data.strip(b" \t")
            assert draft.data.count(b"[") <= MAX_DEPTH or b'"' in draft.data or b"]" in draft.data


# -- cursors, names, queries


def cursors(data: bytes) -> None:
    """Read a text as a cursor and as each kind of name: what is taken is taken as it stands."""
    _, _, content = opened(data)
    text = content.decode("latin-1") if data[:1] == b"l" else content.decode("utf-8", "surrogateescape")
    try:
        cursor = Cursor.parse(text)
    except Refusal as refusal:
        assert "cursor_invalid" == refusal.code
        assert refusal.message.isascii()
    else:
        assert text == str(cursor)
        assert 0 <= cursor.seq <= MAX_SEQ
        assert cursor.epoch.isascii()
    for check, code, most in (
        (check_channel, "channel_invalid", 128),
        (check_event, "event_invalid", 128),
        (check_key, "key_invalid", 255),
    ):
        try:
            assert text == check(text)
        except Refusal as refusal:
            assert code == refusal.code
            assert "\n" not in refusal.message
        else:
            assert 1 <= len(text) <= most
            assert text == text.strip(" \t")
            assert not {"\r", "\n", "\0"} & {*text}
            sse.encode(b"", id=text if check is check_channel else None, event=text).decode()


def queries(data: bytes) -> None:
    """Read a query and the channels of a path; what was read and is written again is read the same."""
    variant, _, content = opened(data)
    text = content.decode("latin-1") if variant & 1 else content.decode("ascii", "replace")
    try:
        channels = parse_channels(text)
        assert len(set(channels)) == len(channels)
        assert channels == parse_channels(",".join(channels))
    except Refusal as refusal:
        assert "channel_invalid" == refusal.code
    try:
        query = parse_query(text)
    except Refusal as refusal:
        assert refusal.code in ("request_invalid", "cursor_invalid")
        return
    fields = {"envelope": "1"} if query.envelope else {}
    if query.limit is not None:
        assert 1 <= query.limit <= 10**18
        fields["limit"] = str(query.limit)
    if query.wait is not None:
        assert 0 <= query.wait <= LATEST_SECOND
        fields["wait"] = f"{query.wait:.18f}"[:37] if query.wait < 1e17 else f"{query.wait:.0f}"
    start = query.start
    if start is not None:
        match start.kind:
            case StartKind.LATEST | StartKind.EARLIEST:
                fields["after"] = start.kind.value
            case StartKind.CURSOR:
                fields["after"] = str(start.cursor)
            case StartKind.LAST:
                assert 0 <= start.number <= MAX_SEQ
                fields["last"] = str(int(start.number))
            case StartKind.SINCE:
                assert 0 <= start.number <= LATEST_SECOND
                fields.pop("wait", None)
    again = parse_query("&".join(f"{name}={quote(value)}" for name, value in fields.items()))
    assert (query.limit, query.envelope) == (again.limit, again.envelope)
    if start is None or start.kind is not StartKind.SINCE:
        assert start == again.start

"""The example vectors of the wire, `spec/vectors`, held against the code.

Owns the shape of each vector file: a struct below, which refuses unknown keys, so that a key that no test reads can't
be written. Invariant: every file has a shape and every case runs. To add a file, add its structs, a line in `SHAPES`,
and a test that goes through its cases.

Bytes stand in a vector as a text, which is UTF-8, or as `{"hex": "..."}`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import msgspec
import pytest

from oncecast.errors import ERRORS, Refusal
from oncecast.message import Cursor, Draft, Kind, LogGap, Message, Reason, check_channel
from oncecast.protocol import raw as raw_socket
from oncecast.protocol import v1
from oncecast.protocol.events import BARE, ENVELOPED, gap_event
from oncecast.protocol.query import parse_channels, parse_query
from oncecast.server.framing.event_stream import event_blocks
from oncecast.server.framing.formats import frame_blocks
from oncecast.server.server import Server
from oncecast.server.settings import Settings
from oncecast.wire import draft_fields, envelope, v1_frames
from oncecast.wire.sse import EventParser, SseEvent
from oncecast.wire.ws_connection import (
    CloseReceived,
    DataReceived,
    PingReceived,
    PongReceived,
    ProtocolFailed,
    Role,
    WebSocketConnection,
)

VECTORS = Path(__file__).parent.parent / "spec" / "vectors"
KINDS = {"json": Kind.JSON, "text": Kind.TEXT, "binary": Kind.BINARY}


# Shapes ----------------------------------------------------------------------------------------------------------


class Hex(msgspec.Struct, forbid_unknown_fields=True):
    hex: str


Bytes: TypeAlias = str | Hex


class Strict(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every struct here is: a key too many is an error."""


class CursorParts(Strict):
    text: str
    epoch: str
    seq: str


class Cursors(Strict):
    about: str
    valid: list[CursorParts]
    invalid: list[str]


class NameList(Strict):
    names: str
    channels: list[str] | None = None
    error: str | None = None


class Channels(Strict):
    about: str
    valid: list[str]
    invalid: list[str]
    lists: list[NameList]


class MessageFields(Strict):
    seq: int
    channel: str
    kind: str
    data: Bytes
    event: str | None
    time: float
    traceparent: str | None = None


class Frame(Strict):
    head: Bytes
    payload: Bytes


class MessageCase(Strict):
    name: str
    message: MessageFields
    json: str
    sse: Bytes
    sse_envelope: Bytes
    v1: Frame
    raw: Bytes


class Messages(Strict):
    about: str
    epoch: str
    cases: list[MessageCase]


class GapFields(Strict):
    channel: str
    reason: str
    missed_from: str
    missed_to: str | None
    cursor: str


class Closing(Strict):
    code: int
    reason: str


class GapCase(Strict):
    name: str
    gap: GapFields
    json: str
    sse: Bytes
    v1: str
    raw_close: Closing


class Gaps(Strict):
    about: str
    cases: list[GapCase]


class PollCase(Strict):
    name: str
    messages: list[str]
    cursor: str
    gaps: list[GapFields]
    several: bool
    answer: str


class Polls(Strict):
    about: str
    cases: list[PollCase]


class EventFields(Strict):
    data: str
    event: str
    id: str


class SseCase(Strict):
    name: str
    stream: Bytes
    events: list[EventFields]
    last_event_id: str
    retry_ms: int | None


class Streams(Strict):
    about: str
    cases: list[SseCase]


class StartFields(Strict):
    kind: str
    cursor: str | None = None
    number: float = 0


class QueryCase(Strict):
    query: str
    start: StartFields | None = None
    wait: float | None = None
    limit: int | None = None
    envelope: bool = False
    error: str | None = None


class Queries(Strict):
    about: str
    cases: list[QueryCase]


class FrameEvent(Strict):
    type: str
    data: Bytes | None = None
    text: bool | None = None
    code: int | None = None
    reason: str | None = None


class FrameCase(Strict):
    name: str
    role: str
    hex: str
    events: list[FrameEvent]


class Frames(Strict):
    about: str
    max_message_bytes: int
    cases: list[FrameCase]


class V1Case(Strict):
    name: str
    frame: str
    parsed: dict[str, Any] | None = None
    error: str | None = None
    ref: str | int | None = None  # of the error's frame


class V1Frames(Strict):
    about: str
    cases: list[V1Case]


class PublishCase(Strict):
    name: str
    content_type: str | None
    body: Bytes
    kind: str | None = None
    data: Bytes | None = None
    error: str | None = None


class LabelCase(Strict):
    name: str
    text: str
    key_error: str | None
    event_error: str | None


class Publishes(Strict):
    about: str
    cases: list[PublishCase]
    labels_about: str
    labels: list[LabelCase]


class DraftFields(Strict):
    channel: str
    kind: str
    data: Bytes
    event: str | None
    key: str | None
    traceparent: str | None = None


class LineCase(Strict):
    name: str
    line: str
    draft: DraftFields | None = None
    error: str | None = None


class Lines(Strict):
    about: str
    cases: list[LineCase]


SHAPES: dict[str, type[Strict]] = {
    "channels.json": Channels,
    "cursors.json": Cursors,
    "frames.json": Frames,
    "gaps.json": Gaps,
    "lines.json": Lines,
    "messages.json": Messages,
    "polls.json": Polls,
    "publishes.json": Publishes,
    "queries.json": Queries,
    "sse.json": Streams,
    "v1_frames.json": V1Frames,
}

Shape = TypeVar("Shape", bound=Strict)


def load(shape: type[Shape]) -> Shape:
    """Read the one file of a shape."""
    (name,) = (name for name, known in SHAPES.items() if known is shape)
    return msgspec.json.decode((VECTORS / name).read_bytes(), type=shape)


def raw(data: Bytes | None) -> bytes:
    """Return the bytes that a vector means."""
    assert data is not None
    return bytes.fromhex(data.hex) if isinstance(data, Hex) else data.encode()


def each(cases: Iterable[Any], key: str = "name") -> pytest.MarkDecorator:
    """Run a test once for each case, under its name."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=str(getattr(case, key))[:60]) for case in cases])


def gap_of(fields: GapFields) -> LogGap:
    """Return the gap that a vector means."""
    missed_to = None if fields.missed_to is None else Cursor.parse(fields.missed_to)
    first, here = Cursor.parse(fields.missed_from), Cursor.parse(fields.cursor)
    return LogGap(fields.channel, Reason(fields.reason), first, missed_to, here)


# The files -------------------------------------------------------------------------------------------------------


def test_every_vector_file_is_read() -> None:
    """No file of vectors is without a shape, and no shape without a file."""
    assert set(SHAPES) == {path.name for path in VECTORS.iterdir()}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_key_that_nobody_reads_is_refused(name: str) -> None:
    """A misspelt key fails the file instead of being skipped."""
    text = (VECTORS / name).read_bytes().replace(b'"about"', b'"aboot"', 1)
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=SHAPES[name])


def test_every_error_of_a_vector_is_in_the_table() -> None:
    """A vector names only errors that exist."""
    cases: list[Any] = [*load(Queries).cases, *load(V1Frames).cases, *load(Publishes).cases, *load(Lines).cases]
    assert set() == {case.error for case in [*cases, *load(Channels).lists] if case.error} - set(ERRORS)


# Cursors and names -----------------------------------------------------------------------------------------------


@each(load(Cursors).valid, "text")
def test_a_cursor_is_read_and_written_back(case: CursorParts) -> None:
    """A valid cursor has these parts, and is the same text again."""
    cursor = Cursor.parse(case.text)
    assert (case.epoch, case.seq, case.text) == (cursor.epoch, str(cursor.seq), str(cursor))


@pytest.mark.parametrize("text", load(Cursors).invalid, ids=repr)
def test_what_is_no_cursor_is_refused(text: str) -> None:
    """An invalid cursor is refused with its code."""
    assert "cursor_invalid" == refused(lambda: Cursor.parse(text))


@pytest.mark.parametrize("name", load(Channels).valid)
def test_a_channel_name_is_taken(name: str) -> None:
    """A valid name comes back as it is."""
    assert name == check_channel(name)


@pytest.mark.parametrize("name", load(Channels).invalid, ids=repr)
def test_what_is_no_channel_name_is_refused(name: str) -> None:
    """An invalid name is refused with its code."""
    assert "channel_invalid" == refused(lambda: check_channel(name))


@each(load(Channels).lists, "names")
def test_a_list_of_names_is_read(case: NameList) -> None:
    """A path's list gives its channels in order, each once, or is refused."""
    if case.error is None:
        assert case.channels == list(parse_channels(case.names))
    else:
        assert case.error == refused(lambda: parse_channels(case.names))


@each(load(Queries).cases, "query")
def test_a_query_is_read(case: QueryCase) -> None:
    """A query gives its start and its numbers, or is refused with its code."""
    if case.error is not None:
        assert case.error == refused(lambda: parse_query(case.query))
        return
    query = parse_query(case.query)
    start = None
    if query.start is not None:
        cursor = None if query.start.cursor is None else str(query.start.cursor)
        start = StartFields(kind=query.start.kind.value, cursor=cursor, number=query.start.number)
    assert (case.start, case.wait, case.limit, case.envelope) == (start, query.wait, query.limit, query.envelope)


def trace_of(text: str | None) -> bytes | None:
    """Return the 25 bytes of a context, read without the code under test."""
    return None if text is None else bytes.fromhex("".join(text.split("-")[1:]))


# Messages and gaps -----------------------------------------------------------------------------------------------


@each(load(Messages).cases)
def test_a_message_is_written_in_each_format(case: MessageCase) -> None:
    """A message has exactly these bytes on each transport, alone and in a chunk."""
    epoch, m = load(Messages).epoch, case.message
    message = Message(m.seq, m.channel, raw(m.data), KINDS[m.kind], m.event, m.time, trace_of(m.traceparent))
    assert case.json.encode() == envelope.message_json(message, epoch)
    for enveloped, expected in ((False, raw(case.sse)), (True, raw(case.sse_envelope))):
        format_ = event_blocks(ENVELOPED if enveloped else BARE, chunked=False)
        assert expected == format_.block([format_.message(message, epoch)])
        format_ = event_blocks(ENVELOPED if enveloped else BARE, chunked=True)
        assert b"%x\r\n%b\r\n" % (len(expected), expected) == format_.block([format_.message(message, epoch)])
    assert raw(case.v1.head) + raw(case.v1.payload) == frame_blocks(v1.ENCODER, None).message(message, epoch)
    assert raw(case.raw) == frame_blocks(raw_socket.ENCODER, None).message(message, epoch)


@each(load(Messages).cases)
def test_a_message_is_read_back_from_each_format(case: MessageCase) -> None:
    """The JSON says the same on every transport, and a stream's reader has the cursor and the event's name."""
    epoch, m = load(Messages).epoch, case.message
    whole = msgspec.json.decode(case.json)
    assert (f"{epoch}-{m.seq}", m.channel, m.event, m.time) == tuple(
        whole[k] for k in ("id", "channel", "event", "time")
    )
    assert m.traceparent == whole.get("traceparent")
    assert {"type": "message", **whole} == msgspec.json.decode(raw(case.v1.payload))
    (event,) = EventParser().receive(raw(case.sse_envelope))
    assert SseEvent(case.json, m.event or "message", whole["id"]) == event
    (event,) = EventParser().receive(raw(case.sse))
    assert (m.event or "message", whole["id"]) == (event.event, event.id)
    (frame,) = WebSocketConnection(Role.CLIENT).receive(raw(case.raw))
    assert DataReceived(raw(m.data), m.kind != "binary") == frame


@each(load(Gaps).cases)
def test_a_gap_is_written_in_each_format(case: GapCase) -> None:
    """A gap has exactly these bytes on each transport, and its words where it closes a raw socket."""
    gap = gap_of(case.gap)
    assert case.json.encode() == envelope.gap_json(gap)
    assert raw(case.sse) == gap_event(gap)
    assert case.v1.encode() == v1_frames.gap_frame(gap)
    assert case.raw_close == Closing(code=ERRORS["gap"].close, reason=raw_socket.gap_text(gap))


@each(load(Polls).cases)
def test_a_polls_answer_is_written(case: PollCase) -> None:
    """A poll's body has exactly these bytes."""
    messages = [message.encode() for message in case.messages]
    gaps = [gap_of(gap) for gap in case.gaps]
    assert case.answer.encode() == envelope.poll_json(messages, Cursor.parse(case.cursor), gaps, several=case.several)


# Streams and frames, read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 1, 2, 3], ids=["whole", "by 1", "by 2", "by 3"])
@each(load(Streams).cases)
def test_an_event_stream_is_read(case: SseCase, step: int | None) -> None:
    """A stream gives these events, however its bytes were cut."""
    stream = raw(case.stream)
    parser = EventParser()
    events = [event for piece in cut(stream, step) for event in parser.receive(piece)]
    assert [SseEvent(e.data, e.event, e.id) for e in case.events] == events
    assert (case.last_event_id, case.retry_ms) == (parser.last_event_id, parser.retry_ms)


@pytest.mark.parametrize("step", [None, 1, 2, 3], ids=["whole", "by 1", "by 2", "by 3"])
@each(load(Frames).cases)
def test_frames_are_read(case: FrameCase, step: int | None) -> None:
    """Frames give these events, however their bytes were cut; a fault is answered with its code."""
    codec = WebSocketConnection(Role(case.role), max_message_bytes=load(Frames).max_message_bytes)
    events = [event for piece in cut(bytes.fromhex(case.hex), step) for event in codec.receive(piece)]
    shown = [shown_event(event) for event in events]
    assert case.events == shown
    if shown[-1].type == "fail":
        sent = WebSocketConnection(Role.CLIENT if case.role == "server" else Role.SERVER).receive(codec.data_to_send())
        assert [shown[-1].code] == [event.code for event in sent if isinstance(event, CloseReceived)]


def shown_event(event: object) -> FrameEvent:
    """Return an event as a vector has it: bytes that are no text in hex."""
    match event:
        case DataReceived(data=data, is_text=True):
            return FrameEvent(type="data", data=data.decode(), text=True)
        case DataReceived(data=data):
            return FrameEvent(type="data", data=Hex(data.hex()), text=False)
        case PingReceived(data=data):
            return FrameEvent(type="ping", data=Hex(data.hex()))
        case PongReceived(data=data):
            return FrameEvent(type="pong", data=Hex(data.hex()))
        case CloseReceived(code=code, reason=reason):
            return FrameEvent(type="close", code=code, reason=reason)
        case ProtocolFailed(code=code):
            return FrameEvent(type="fail", code=code)
    raise AssertionError(event)


@each(load(V1Frames).cases)
def test_a_clients_frame_is_read(case: V1Case) -> None:
    """A frame of `oncecast.v1` has these fields, or is refused."""
    if case.parsed is None:
        assert case.error == refused(lambda: v1_frames.parse_frame(case.frame.encode()))
        assert case.ref == v1_frames.ref_of(case.frame.encode())
        return
    assert case.parsed.get("ref") == v1_frames.ref_of(case.frame.encode())
    frame = v1_frames.parse_frame(case.frame.encode())
    fields = {name: getattr(frame, name) for name in frame.__struct_fields__}
    if isinstance(frame, v1_frames.Publish):
        fields["data"] = bytes(frame.data).decode() or None
    given = {name: value for name, value in fields.items() if value is not None and value is not msgspec.UNSET}
    assert case.parsed == {"type": frame.__struct_config__.tag, **given}


# Publishing ------------------------------------------------------------------------------------------------------


@each(load(Publishes).cases)
async def test_a_body_is_kept_by_its_type(case: PublishCase) -> None:
    """What a server keeps of a posted body is this kind and these bytes, or it answers with this error."""
    server = Server(Settings(port=0))
    await server.start()
    try:
        status, answer = await post(server.port, case.content_type, raw(case.body))
        if case.error is not None:
            assert (ERRORS[case.error].status, case.error) == (status, answer["error"]["code"])
            return
        (entry,) = server.node.log.read_after(("vectors",), 0, 2)
        assert case.kind is not None
        assert (201, KINDS[case.kind], raw(case.data)) == (status, entry.message.kind, entry.message.data)
    finally:
        await server.stop()


async def publish_labelled(text: str, name: str, header: str) -> list[str]:
    """Publish with an event or a key in a header, a line and a frame; return what each kept, or its code."""
    line = msgspec.json.encode({"channel": "vectors", "data": 1, name: text})
    frame = v1_frames.parse_frame(b'{"type":"publish",' + line[1:])
    assert isinstance(frame, v1_frames.Publish)
    found: list[str] = []
    drafts: list[Callable[[], Draft]] = [lambda: draft_fields.parse_line(line), frame.draft]
    for draft in drafts:
        try:
            kept: str = getattr(draft(), name)
            found.append(kept)
        except Refusal as refusal:
            found.append(refusal.code)
    if text.strip(" \t") == text and all(c == "\t" or (c >= " " and c != "\x7f") for c in text):
        server = Server(Settings(port=0))
        await server.start()
        try:
            _, answer = await post(server.port, None, b"1", f"{header}: ".encode() + text.encode())
            found.append(answer["error"]["code"] if "error" in answer else text)
            kept_events = [entry.message.event for entry in server.node.log.read_after(("vectors",), 0, 2)]
            assert name != "event" or kept_events in ([], [text])
        finally:
            await server.stop()
    return found


@each(load(Publishes).labels)
async def test_a_key_and_an_event_arrive_as_they_are(case: LabelCase) -> None:
    """On each carrier that can have them, or they are refused on each."""
    expected = {case.key_error or case.text}
    assert expected == set(await publish_labelled(case.text, "key", "Idempotency-Key"))
    expected = {case.event_error or case.text}
    assert expected == set(await publish_labelled(case.text, "event", "Oncecast-Event"))


@each(load(Lines).cases)
def test_a_line_of_a_batch_is_read(case: LineCase) -> None:
    """A JSON line is this message, or is refused; a `publish` frame of the same fields is the same message."""
    if case.draft is None:
        assert case.error == refused(lambda: draft_fields.parse_line(case.line.encode()))
        return
    d = case.draft
    draft = Draft(d.channel, raw(d.data), KINDS[d.kind], d.event, d.key, trace_of(d.traceparent))
    assert draft == draft_fields.parse_line(case.line.encode())
    frame = v1_frames.parse_frame(b'{"type":"publish",' + case.line.encode()[1:])
    assert isinstance(frame, v1_frames.Publish)
    assert draft == frame.draft()


# Helpers ---------------------------------------------------------------------------------------------------------


def refused(call: Any) -> str:
    """Return the code that a call is refused with."""
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value.code


def cut(data: bytes, step: int | None) -> list[bytes]:
    """Return the bytes in pieces of `step`, or whole."""
    if step is None:
        return [data]
    return [data[at : at + step] for at in range(0, len(data), step)]


async def post(port: int, content_type: str | None, body: bytes, field: bytes = b"") -> tuple[int, Any]:
    """Post a body to the channel `vectors`, perhaps with one more field; return the status and the answer's JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/channels/vectors HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
    )
    if content_type is not None:
        head += f"Content-Type: {content_type}\r\n"
    writer.write(head.encode() + (field + b"\r\n" if field else b"") + b"\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, content = answer.decode().partition("\r\n\r\n")
    return int(head.split()[1]), msgspec.json.decode(content)

"""The JSON of the wire: a message, a gap, an error, a receipt; and the frames of `oncecast.v1`, in and out.

The data of a JSON message goes out exactly as it came in (numbers keep their digits), binary data as base64 in
`data64`. To add a frame type, add a struct and a name in `ClientFrame`, or an encoder below.
"""

from __future__ import annotations

import base64
from typing import Annotated, Any, TypeAlias

import msgspec

from ..errors import Refusal
from ..message import (
    BINARY,
    CHANNEL_SCHEMA,
    EVENT_SCHEMA,
    JSON,
    KEY_SCHEMA,
    MAX_NUMBER,
    TEXT,
    Cursor,
    Draft,
    LogGap,
    Message,
    Receipt,
    check_channel,
    check_event,
    check_key,
)
from .payload import TOO_DEEP, base64_data, check_fields, colons_around, json_value, refuse_half_pair

DOCS_PATH = "/docs/errors#"  # where the error's explanation stands, relative to the server
REASON_CHARS = 200  # of what a decoder says is wrong
REF_CHARS = 128  # a ref is echoed back; it is a label, not a payload
REF_BYTES = 2 + 12 * REF_CHARS  # the most that it takes in JSON: each character as two escapes
REF_TOO_LONG = f"A ref is at most {REF_CHARS} characters."
BESIDE_BYTES = 16 << 10  # of a frame beside the values of its fields; a longer frame is looked at before it is decoded
TYPE_BYTES = 128  # of a type in JSON, with escapes

NO_DATA = msgspec.Raw(b"")  # the field was left out; `null` is data

QUOTE = ord('"')

_encode = msgspec.json.encode


# -- messages, out


def message_json(message: Message, epoch: str) -> bytes:
    """Return a message's JSON: `{"id", "channel", "data" | "data64", "event", "time"}`."""
    data = message.data
    if message.kind is JSON:
        field = b'"data":' + data
    elif message.kind is TEXT:
        field = b'"data":' + _encode(data.decode())
    else:
        field = b'"data64":{"base64":"' + base64.b64encode(data) + b'"}'
    event = b"null" if message.event is None else _encode(message.event)
    return (
        b'{"id":"%s-%d","channel":"%s",' % (epoch.encode(), message.seq, message.channel.encode())
        + field
        + b',"event":%s,"time":%s}' % (event, _encode(message.time))
    )


def gap_fields(gap: LogGap) -> dict[str, str | None]:
    """Return a gap's fields: channel, reason, missed_from, missed_to, cursor."""
    return {
        "channel": gap.channel,
        "reason": gap.reason.value,
        "missed_from": str(gap.missed_from),
        "missed_to": None if gap.missed_to is None else str(gap.missed_to),
        "cursor": str(gap.cursor),
    }


def gap_json(gap: LogGap) -> bytes:
    """Return a gap's JSON."""
    return _encode(gap_fields(gap))


def error_json(refusal: Refusal) -> bytes:
    """Return an error's JSON: `{"error": {"code", "message", "docs"}}`."""
    return _encode({"error": {"code": refusal.code, "message": refusal.message, "docs": DOCS_PATH + refusal.code}})


def receipt_json(receipt: Receipt) -> bytes:
    """Return the answer to a publish: `{"id", "durability"}`."""
    return f'{{"id":"{receipt.epoch}-{receipt.seq}","durability":"{receipt.durability}"}}'.encode()


def poll_json(messages: list[bytes], cursor: Cursor, gaps: list[LogGap], *, several: bool) -> bytes:
    """Return a poll's answer: `{"messages", "cursor", "gap"}`, and `gaps`, all of them, with several channels."""
    fields = [gap_fields(gap) for gap in gaps]
    tail = b',"gap":' + _encode(fields[0] if fields else None)
    if several:
        tail += b',"gaps":' + _encode(fields)
    return b'{"messages":[' + b",".join(messages) + b'],"cursor":"' + str(cursor).encode() + b'"' + tail + b"}"


# -- the fields of what clients send. What `Meta` has is shown in `http/documents`, and decides nothing.


ChannelField: TypeAlias = Annotated[
    str, msgspec.Meta(description="A channel's name.", extra_json_schema=CHANNEL_SCHEMA)
]
EventField: TypeAlias = Annotated[str, msgspec.Meta(description="The event's name.", extra_json_schema=EVENT_SCHEMA)]
KeyField: TypeAlias = Annotated[
    str, msgspec.Meta(description="A repeated publish with the same key is one message.", extra_json_schema=KEY_SCHEMA)
]
DataField: TypeAlias = Annotated[msgspec.Raw, msgspec.Meta(description="Any JSON; a string is a text.")]
Data64Field: TypeAlias = Annotated[
    str | msgspec.UnsetType | dict[str, str],
    msgspec.Meta(description='Instead of `data`: bytes in base64, bare or as `{"base64": "…"}`.'),
]


# -- publishing in batches: JSON lines


class BatchLine(msgspec.Struct, forbid_unknown_fields=True):
    """One line of `POST /v1/publish`."""

    channel: ChannelField
    data: DataField = NO_DATA
    data64: Data64Field = msgspec.UNSET
    event: EventField | None = None
    key: KeyField | None = None

    def draft(self) -> Draft:
        """Return the checked draft. Raises `Refusal`."""
        return _draft(self.channel, self.data, self.data64, self.event, self.key)


_decode_line = msgspec.json.Decoder(BatchLine).decode


def parse_line(line: bytes) -> Draft:
    """Read one JSON line of a batch. Raises `Refusal`."""
    try:
        read = _decode_line(line)
        raw = bytes(read.data)
        if colons_around(raw, line) != _message_fields(read):
            check_fields("data_invalid", "line", line, raw, _message_colons(read, raw))
        return read.draft()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        refuse_half_pair("data_invalid", line)
        raise Refusal("data_invalid", f"This line is not a message: {_short(error)}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None


# -- oncecast.v1: frames from the client


# Any number of 64 bits; a text holds what is larger.
Ref: TypeAlias = (
    Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": REF_CHARS})]
    | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
    | None
)


class Subscribe(msgspec.Struct, tag="subscribe", tag_field="type", forbid_unknown_fields=True):
    """Begin to listen to a channel. `after` is a cursor, `latest` or `earliest`; `last` or `since` instead of it."""

    channel: ChannelField
    after: str | None = None
    last: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_NUMBER})] | None = None
    since: Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": MAX_NUMBER + 1})] | None = None
    ref: Ref = None


class Unsubscribe(msgspec.Struct, tag="unsubscribe", tag_field="type", forbid_unknown_fields=True):
    """Stop listening to a channel."""

    channel: ChannelField
    ref: Ref = None


class Publish(msgspec.Struct, tag="publish", tag_field="type", forbid_unknown_fields=True):
    """Publish a message."""

    channel: ChannelField
    data: DataField = NO_DATA
    data64: Data64Field = msgspec.UNSET
    event: EventField | None = None
    key: KeyField | None = None
    ref: Ref = None

    def draft(self) -> Draft:
        """Return the checked draft. Raises `Refusal`."""
        return _draft(self.channel, self.data, self.data64, self.event, self.key)


class Auth(msgspec.Struct, tag="auth", tag_field="type", forbid_unknown_fields=True):
    """Replace the connection's token."""

    token: str
    ref: Ref = None


class _Shape(msgspec.Struct):
    """Where the fields of any frame stand: nothing of them is decoded or copied."""

    type: msgspec.Raw = NO_DATA
    channel: msgspec.Raw = NO_DATA
    after: msgspec.Raw = NO_DATA
    last: msgspec.Raw = NO_DATA
    since: msgspec.Raw = NO_DATA
    data: msgspec.Raw = NO_DATA
    data64: msgspec.Raw = NO_DATA
    event: msgspec.Raw = NO_DATA
    key: msgspec.Raw = NO_DATA
    ref: msgspec.Raw = NO_DATA
    token: msgspec.Raw = NO_DATA


_decode_shape = msgspec.json.Decoder(_Shape).decode


ClientFrame: TypeAlias = Subscribe | Unsubscribe | Publish | Auth
_decode_frame = msgspec.json.Decoder(ClientFrame).decode


def parse_frame(data: bytes) -> ClientFrame:
    """Read a client's frame. Raises `Refusal`: `frame_invalid`, or `data_invalid` where its data nests too deeply."""
    try:
        if len(data) > BESIDE_BYTES:
            _check_shape(data)
        frame: ClientFrame = _decode_frame(data)
        if not isinstance(frame, Publish):
            _check_frame(frame, data)
        else:
            raw = bytes(frame.data)
            fields = 1 + _message_fields(frame) + (frame.ref is not None)
            if colons_around(raw, data) != fields:
                _check_publish(frame, data, raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        refuse_half_pair("frame_invalid", data)
        raise Refusal("frame_invalid", f"This frame is not of oncecast.v1: {_short(error)}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None
    if isinstance(frame.ref, str) and len(frame.ref) > REF_CHARS:
        raise Refusal("frame_invalid", REF_TOO_LONG)
    return frame


class _Ref(msgspec.Struct):
    ref: Ref = None


_decode_ref = msgspec.json.Decoder(_Ref).decode


def ref_of(data: bytes) -> str | int | None:
    """Return the `ref` of a client's frame, also of one that `parse_frame` refuses; None where none can be read."""
    try:
        ref = _decode_ref(data).ref
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if isinstance(ref, str) and len(ref) > REF_CHARS else ref


# -- oncecast.v1: frames from the server


def message_frame(message: Message, epoch: str) -> bytes:
    """Return `{"type": "message", …}` around a message's JSON."""
    return b'{"type":"message",' + message_json(message, epoch)[1:]


def server_frame(kind: str, /, **fields: Any) -> bytes:
    """Return a frame of the server: its `type`, then the fields."""
    return _encode({"type": kind, **fields})


def gap_frame(gap: LogGap) -> bytes:
    """Return `{"type": "gap", …}`."""
    return server_frame("gap", **gap_fields(gap))


def published_frame(receipt: Receipt, ref: str | int | None) -> bytes:
    """Return `{"type": "published", …}`: the acknowledgement of a publish."""
    return server_frame("published", id=receipt.id, durability=receipt.durability, ref=ref)


def error_frame(refusal: Refusal, ref: str | int | None) -> bytes:
    """Return `{"type": "error", …}`."""
    return server_frame("error", code=refusal.code, message=refusal.message, ref=ref)


# -- helpers


def _short(error: Exception) -> str:
    """Return what a decoder says, cut: it repeats a type, or the name of a field, however long the peer made that."""
    text = str(error)
    return text if len(text) <= REASON_CHARS else f"{text[:REASON_CHARS]}…"


def _message_fields(message: BatchLine | Publish) -> int:
    """Return how many fields a message has. With as many colons around its data, none can stand twice.

    This passes most publishes without a closer look: their channel, event and key have no colon.
    """
    return 2 + (message.event is not None) + (message.key is not None)  # a channel, and data or data64


def _check_shape(data: bytes) -> None:
    """Refuse a long frame whose type, ref or unknown fields are long: the decoder's error would repeat them.

    White space counts as an unknown field does: to tell it from that of a long name costs more than it is worth.
    """
    shape = _decode_shape(data)
    if len(memoryview(shape.type)) > TYPE_BYTES:
        raise Refusal("frame_invalid", "This frame is not of oncecast.v1: its type is too long for one.")
    if len(memoryview(shape.ref)) > REF_BYTES:
        raise Refusal("frame_invalid", REF_TOO_LONG)
    known = sum(len(memoryview(getattr(shape, name))) for name in shape.__struct_fields__)
    if len(data) - known > BESIDE_BYTES:
        text = f"over {BESIDE_BYTES} bytes of it are no value of a field: leave out unknown fields and white space."
        raise Refusal("frame_invalid", f"This frame is not of oncecast.v1: {text}")


def _check_publish(frame: Publish, data: bytes, raw: bytes) -> None:
    check_fields("frame_invalid", "frame", data, raw, 1 + _message_colons(frame, raw) + _colons(frame.ref))


def _check_frame(frame: Subscribe | Unsubscribe | Auth, data: bytes) -> None:
    colons = 1  # of its type
    match frame:
        case Subscribe():
            colons += _colons(frame.channel, frame.after, frame.last, frame.since, frame.ref)
        case Unsubscribe():
            colons += _colons(frame.channel, frame.ref)
        case Auth():
            colons += _colons(frame.token, frame.ref)
    check_fields("frame_invalid", "frame", data, b"", colons)


def _message_colons(message: BatchLine | Publish, raw: bytes) -> int:
    """Do as `_colons` does for the fields of a message."""
    count = int(bool(raw)) + _colons(message.channel, message.event, message.key)
    if message.data64 is not msgspec.UNSET:
        count += 1 + (message.data64.count(":") if isinstance(message.data64, str) else len(message.data64))
    return count


def _colons(*values: str | float | None) -> int:
    """Return how many colons these fields have in JSON.

    One that is absent counts as a null one does: where a null stands in the text, its colon is one too many here.
    """
    return sum(1 + (value.count(":") if isinstance(value, str) else 0) for value in values if value is not None)


def _draft(
    channel: str,
    data: msgspec.Raw,
    data64: str | msgspec.UnsetType | dict[str, str],
    event: str | None,
    key: str | None,
) -> Draft:
    check_channel(channel)
    if event is not None:
        check_event(event)
    if key is not None:
        check_key(key)
    raw = bytes(data)
    if not isinstance(data64, msgspec.UnsetType):
        if raw:
            raise Refusal("data_invalid", "Send data or data64, not both.")
        if isinstance(data64, dict) and data64.keys() != {"base64"}:
            raise Refusal("data_invalid", 'data64 as an object has the one field base64: {"base64": "…"}.')
        text = data64["base64"] if isinstance(data64, dict) else data64
        return Draft(channel, base64_data(text), BINARY, event, key)
    if not raw:
        raise Refusal("data_invalid", "The message has no data: send data (any JSON) or data64 (base64).")
    raw = json_value(raw)
    if raw[0] == QUOTE:  # a JSON string is a text: every transport then shows it alike
        return Draft(channel, msgspec.json.decode(raw, type=str).encode(), TEXT, event, key)
    return Draft(channel, raw, JSON, event, key)

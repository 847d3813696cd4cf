"""The JSON of a message that a client publishes: its fields, the draft that they make, and the line of a batch.

Invariant: a line and a frame (`v1_frames.py`) with the same fields make the same draft, or are refused with the same
code. No field may stand twice, and none may be unknown.

To add a field to what is published, add it to `DraftFields`, and to `message_fields` and `message_colons`, which count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, TypeAlias

import msgspec

from ..errors import Refusal
from ..message import (
    BINARY,
    CHANNEL_CHARS,
    CHANNEL_SCHEMA,
    EVENT_CHARS,
    EVENT_SCHEMA,
    JSON,
    KEY_CHARS,
    KEY_SCHEMA,
    TEXT,
    Draft,
    check_channel,
    check_event,
    check_key,
)
from .payload import TOO_DEEP, base64_data, check_fields, colons_around, json_value, refuse_half_pair
from .traceparent import parse_traceparent

BESIDE_BYTES = 16 << 10  # of a line beside the values of its fields; a longer line is looked at before it is decoded
TOO_MUCH_BESIDE = f"over {BESIDE_BYTES} bytes of it are no value of a field: leave out unknown fields and white space."
# The code for each field that can't be long, and the most bytes of its JSON that could be right: each character may be
# two escapes.
LONGEST_FIELDS = {
    "channel": ("channel_invalid", 2 + 12 * CHANNEL_CHARS),
    "event": ("event_invalid", 2 + 12 * EVENT_CHARS),
    "key": ("key_invalid", 2 + 12 * KEY_CHARS),
    "traceparent": ("data_invalid", 4096),
}
REASON_CHARS = 200  # of what a decoder says is wrong

NO_DATA = msgspec.Raw(b"")  # the field was left out; `null` is data

QUOTE = ord('"')


# -- the fields. What `Meta` has is shown in `http/documents`, and decides nothing.


ChannelField: TypeAlias = Annotated[
    str, msgspec.Meta(description="A channel's name.", extra_json_schema=CHANNEL_SCHEMA)
]
EventField: TypeAlias = Annotated[str, msgspec.Meta(description="The event's name.", extra_json_schema=EVENT_SCHEMA)]
KeyField: TypeAlias = Annotated[
    str, msgspec.Meta(description="A repeated publish with the same key is one message.", extra_json_schema=KEY_SCHEMA)
]
TraceparentField: TypeAlias = Annotated[
    str, msgspec.Meta(description="The trace that the message belongs to: W3C Trace Context.")
]
DataField: TypeAlias = Annotated[msgspec.Raw, msgspec.Meta(description="Any JSON; a string is a text.")]
Data64Field: TypeAlias = Annotated[
    str | msgspec.UnsetType | dict[str, str],
    msgspec.Meta(description='Instead of `data`: bytes in base64, bare or as `{"base64": "…"}`.'),
]


class DraftFields(msgspec.Struct, forbid_unknown_fields=True):
    """What a client gives to publish a message."""

    channel: ChannelField
    data: DataField = NO_DATA
    data64: Data64Field = msgspec.UNSET
    event: EventField | None = None
    key: KeyField | None = None
    traceparent: TraceparentField | None = None

    def draft(self) -> Draft:
        """Return the checked draft. Raises `Refusal`."""
        channel, data64, event, key = self.channel, self.data64, self.event, self.key
        check_channel(channel)
        if event is not None:
            check_event(event)
        if key is not None:
            check_key(key)
        trace = parse_traceparent(self.traceparent)
        raw = bytes(self.data)
        if not isinstance(data64, msgspec.UnsetType):
            if raw:
                raise Refusal("data_invalid", "Send data or data64, not both.")
            if isinstance(data64, dict) and data64.keys() != {"base64"}:
                raise Refusal("data_invalid", 'data64 as an object has the one field base64: {"base64": "…"}.')
            text = data64["base64"] if isinstance(data64, dict) else data64
            return Draft(channel, base64_data(text), BINARY, event, key, trace)
        if not raw:
            raise Refusal("data_invalid", "The message has no data: send data (any JSON) or data64 (base64).")
        raw = json_value(raw)
        if raw[0] == QUOTE:  # a JSON string is a text: every transport then shows it alike
            # Without an escape the JSON has the text's own bytes; with one the text may take five times them.
            plain = raw[1:-1] if b"\\" not in raw else msgspec.json.decode(raw, type=str).encode()
            return Draft(channel, plain, TEXT, event, key, trace)
        return Draft(channel, raw, JSON, event, key, trace)


# -- publishing in batches: JSON lines


class BatchLine(DraftFields):
    """One line of `POST /v1/publish`."""


class MessageShape(msgspec.Struct):
    """Where the fields of a message stand in a line: nothing of them is decoded or copied."""

    data: msgspec.Raw = NO_DATA
    data64: msgspec.Raw = NO_DATA
    channel: msgspec.Raw = NO_DATA
    event: msgspec.Raw = NO_DATA
    key: msgspec.Raw = NO_DATA
    traceparent: msgspec.Raw = NO_DATA


_decode_line = msgspec.json.Decoder(BatchLine).decode
_decode_shape = msgspec.json.Decoder(MessageShape).decode


def parse_line(line: bytes) -> Draft:
    """Read one JSON line of a batch. Raises `Refusal`."""
    try:
        if len(line) > BESIDE_BYTES:
            shape = _decode_shape(line)
            check_lengths("line", shape, LONGEST_FIELDS)
            if beside(line, shape) > BESIDE_BYTES:
                raise Refusal("data_invalid", f"This line is not a message: {TOO_MUCH_BESIDE}")
        read = _decode_line(line)
        raw = bytes(read.data)
        if colons_around(raw, line) != message_fields(read):
            check_fields("data_invalid", "line", line, raw, message_colons(read, raw))
        return read.draft()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        refuse_half_pair("data_invalid", line)
        raise Refusal("data_invalid", f"This line is not a message: {short(error)}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None


# -- what a frame that publishes is checked with, too


def beside(text: bytes, shape: msgspec.Struct) -> int:
    """Return how many bytes of an object's JSON are no value of a field of its shape.

    White space counts as an unknown field does: to tell it from that of a long name costs more than it is worth.
    """
    return len(text) - sum(len(memoryview(getattr(shape, name))) for name in shape.__struct_fields__)


def check_lengths(what: str, shape: msgspec.Struct, longest: Mapping[str, tuple[str, int]]) -> None:
    """Refuse a field that is too long to be right, before its text is made: that may take five times its bytes.

    `shape` has the fields as `msgspec.Raw`; `longest` their codes, and the most bytes of their JSON.
    """
    for name, (code, most) in longest.items():
        raw = memoryview(getattr(shape, name))
        if len(raw) > most and raw[0] == QUOTE:
            raise Refusal(code, f"The {name} of this {what} is too long for one.")


def short(error: Exception) -> str:
    """Return what a decoder says, cut: it repeats a type, or the name of a field, however long the peer made that."""
    text = str(error)
    return text if len(text) <= REASON_CHARS else f"{text[:REASON_CHARS]}…"


def message_fields(message: DraftFields) -> int:
    """Return how many fields a message has. With as many colons around its data, none can stand twice.

    This passes most publishes without a closer look: their channel, event and key have no colon.
    """
    optional = (message.event is not None) + (message.key is not None) + (message.traceparent is not None)
    return 2 + optional  # a channel, and data or data64


def message_colons(message: DraftFields, raw: bytes) -> int:
    """Do as `colons_of` does for the fields of a message."""
    count = int(bool(raw)) + colons_of(message.channel, message.event, message.key, message.traceparent)
    if message.data64 is not msgspec.UNSET:
        count += 1 + (message.data64.count(":") if isinstance(message.data64, str) else len(message.data64))
    return count


def colons_of(*values: str | float | None) -> int:
    """Return how many colons these fields have in JSON.

    One that is absent counts as a null one does: where a null stands in the text, its colon is one too many here.
    """
    return sum(1 + (value.count(":") if isinstance(value, str) else 0) for value in values if value is not None)

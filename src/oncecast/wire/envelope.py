"""The JSON of the wire: a message, a gap, an error, a receipt; and the frames of `oncecast.v1`, in and out.

The data of a JSON message goes out exactly as it came in (numbers keep their digits), binary data as base64 in
`data64`. To add a frame type, add a struct and a name in `ClientFrame`, or an encoder below.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from itertools import accumulate
from typing import Annotated, Any, TypeAlias

import msgspec

from ..errors import Refusal
from ..message import Cursor, Draft, Gap, Kind, Message, Receipt, check_channel, check_event, check_key

DOCS_PATH = "/docs/errors#"  # where the error's explanation stands, relative to the server
REF_CHARS = 128  # a ref is echoed back; it is a label, not a payload
CUT_BYTES = 256  # of data: looking through more for the names of fields costs more than cutting it out

NO_DATA = msgspec.Raw(b"")  # the field was left out; `null` is data

_encode = msgspec.json.encode
MAX_DEPTH = 512  # arrays and objects inside each other; with an envelope around, every client's decoder reads it still
TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} deep: send it flatter, or as text/plain."
HALF_PAIR = "The JSON has a surrogate (\\ud800 to \\udfff) without its other half, which no UTF-8 can hold: send both."
_JSON_SPACE = b" \t\n\r"  # RFC 8259 §2
_OPENING, _CLOSING = b"[{", b"]}"
_NOT_BRACKETS = bytes(set(range(256)) - set(_OPENING + _CLOSING))
_STEP = {**dict.fromkeys(_OPENING, 1), **dict.fromkeys(_CLOSING, -1)}
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_PAIR = re.compile(  # everything that is none, in one pass, then a half of a pair
    rb"(?:[^\\]|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F])*+\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


# -- data, in


def json_data(data: bytes) -> bytes:
    """Check that `data` is one JSON text in UTF-8 (RFC 8259) and return it on one line. Raises `data_invalid`."""
    _check_depth(data)
    try:
        data.decode()
        _check_json(data)
        if b"\n" in data or b"\r" in data:  # an envelope of it stays one line
            return msgspec.json.format(data, indent=-1)
    except UnicodeDecodeError as error:
        raise Refusal("data_invalid", f"The data is not UTF-8: byte {error.start} is wrong.") from None
    except msgspec.DecodeError as error:
        _refuse_half_pair("data_invalid", data)
        raise Refusal("data_invalid", f"The data is not JSON: {error}. Send valid JSON, or text/plain.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None
    return data


def text_data(data: bytes) -> bytes:
    """Check that `data` is UTF-8 and return it. Raises `data_invalid`."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise Refusal("data_invalid", f"The text is not UTF-8: byte {error.start} is wrong.") from None
    return data


def base64_data(text: str) -> bytes:
    """Decode the base64 (RFC 4648 §4) of a `data64` field. Raises `data_invalid`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("data_invalid", "data64 is not base64 (RFC 4648 §4, with padding).") from None


def sniff(data: bytes) -> tuple[bytes, Kind]:
    """Classify data whose sender named no type: JSON if it parses, else text if it is UTF-8, else binary.

    Raises `data_invalid` where it begins as JSON and nests too deeply, as it would be refused with its type.
    """
    if data.lstrip(_JSON_SPACE)[:1] in (b"[", b"{"):
        _check_depth(data)
    try:
        return json_data(data), Kind.JSON
    except Refusal:
        pass
    try:
        return text_data(data), Kind.TEXT
    except Refusal:
        return data, Kind.BINARY


# -- messages, out


def message_json(message: Message, epoch: str) -> bytes:
    """Return a message's JSON: `{"id", "channel", "data" | "data64", "event", "time"}`."""
    data = message.data
    if message.kind is Kind.JSON:
        field = b'"data":' + data
    elif message.kind is Kind.TEXT:
        field = b'"data":' + _encode(data.decode())
    else:
        field = b'"data64":{"base64":"' + base64.b64encode(data) + b'"}'
    event = b"null" if message.event is None else _encode(message.event)
    return (
        b'{"id":"%s-%d","channel":"%s",' % (epoch.encode(), message.seq, message.channel.encode())
        + field
        + b',"event":%s,"time":%s}' % (event, _encode(message.time))
    )


def gap_fields(gap: Gap) -> dict[str, str | None]:
    """Return a gap's fields: channel, reason, missed_from, missed_to, cursor."""
    return {
        "channel": gap.channel,
        "reason": gap.reason.value,
        "missed_from": str(gap.missed_from),
        "missed_to": None if gap.missed_to is None else str(gap.missed_to),
        "cursor": str(gap.cursor),
    }


def gap_json(gap: Gap) -> bytes:
    """Return a gap's JSON."""
    return _encode(gap_fields(gap))


def error_json(refusal: Refusal) -> bytes:
    """Return an error's JSON: `{"error": {"code", "message", "docs"}}`."""
    return _encode({"error": {"code": refusal.code, "message": refusal.message, "docs": DOCS_PATH + refusal.code}})


def receipt_json(receipt: Receipt) -> bytes:
    """Return the answer to a publish: `{"id", "durability"}`."""
    return f'{{"id":"{receipt.epoch}-{receipt.seq}","durability":"{receipt.durability}"}}'.encode()


def poll_json(messages: list[bytes], cursor: Cursor, gaps: list[Gap], *, several: bool) -> bytes:
    """Return a poll's answer: `{"messages", "cursor", "gap"}`, and `gaps`, all of them, with several channels."""
    fields = [gap_fields(gap) for gap in gaps]
    tail = b',"gap":' + _encode(fields[0] if fields else None)
    if several:
        tail += b',"gaps":' + _encode(fields)
    return b'{"messages":[' + b",".join(messages) + b'],"cursor":"' + str(cursor).encode() + b'"' + tail + b"}"


# -- publishing in batches: JSON lines


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """One line of `POST /v1/publish`."""

    channel: str
    data: msgspec.Raw = NO_DATA
    data64: str | msgspec.UnsetType | dict[str, str] = msgspec.UNSET
    event: str | None = None
    key: str | None = None

    def draft(self) -> Draft:
        """Return the checked draft. Raises `Refusal`."""
        return _draft(self.channel, self.data, self.data64, self.event, self.key)


_decode_line = msgspec.json.Decoder(Line).decode
_LINE_NAMES = tuple(f'"{name}"'.encode() for name in (*Line.__struct_fields__, "base64"))


def parse_line(line: bytes) -> Draft:
    """Read one JSON line of a batch. Raises `Refusal`."""
    try:
        read = _decode_line(line)
        _check_fields("data_invalid", "line", line, bytes(read.data), _LINE_NAMES)
        return read.draft()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _refuse_half_pair("data_invalid", line)
        raise Refusal("data_invalid", f"This line is not a message: {error}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None


# -- oncecast.v1: frames from the client


# Any number of 64 bits; a text holds what is larger.
Ref: TypeAlias = str | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | None


class Subscribe(msgspec.Struct, tag="subscribe", tag_field="type", forbid_unknown_fields=True):
    """Begin to listen to a channel. `after` is a cursor, `latest` or `earliest`; `last` or `since` instead of it."""

    channel: str
    after: str | None = None
    last: int | None = None
    since: float | None = None
    ref: Ref = None


class Unsubscribe(msgspec.Struct, tag="unsubscribe", tag_field="type", forbid_unknown_fields=True):
    """Stop listening to a channel."""

    channel: str
    ref: Ref = None


class Publish(msgspec.Struct, tag="publish", tag_field="type", forbid_unknown_fields=True):
    """Publish a message."""

    channel: str
    data: msgspec.Raw = NO_DATA
    data64: str | msgspec.UnsetType | dict[str, str] = msgspec.UNSET
    event: str | None = None
    key: str | None = None
    ref: Ref = None

    def draft(self) -> Draft:
        """Return the checked draft. Raises `Refusal`."""
        return _draft(self.channel, self.data, self.data64, self.event, self.key)


class Auth(msgspec.Struct, tag="auth", tag_field="type", forbid_unknown_fields=True):
    """Replace the connection's token."""

    token: str
    ref: Ref = None


ClientFrame: TypeAlias = Subscribe | Unsubscribe | Publish | Auth
_decode_frame = msgspec.json.Decoder(ClientFrame).decode
_FRAME_NAMES = tuple(
    f'"{name}"'.encode()
    for name in dict.fromkeys(["type", *Subscribe.__struct_fields__, *Publish.__struct_fields__, "base64", "token"])
)


def parse_frame(data: bytes) -> ClientFrame:
    """Read a client's frame. Raises `Refusal`: `frame_invalid`, or `data_invalid` where its data nests too deeply."""
    try:
        frame: ClientFrame = _decode_frame(data)
        raw = bytes(frame.data) if isinstance(frame, Publish) else b""
        _check_fields("frame_invalid", "frame", data, raw, _FRAME_NAMES)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        _refuse_half_pair("frame_invalid", data)
        raise Refusal("frame_invalid", f"This frame is not of oncecast.v1: {error}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None
    if isinstance(frame.ref, str) and len(frame.ref) > REF_CHARS:
        raise Refusal("frame_invalid", f"A ref is at most {REF_CHARS} characters.")
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


def gap_frame(gap: Gap) -> bytes:
    """Return `{"type": "gap", …}`."""
    return server_frame("gap", **gap_fields(gap))


def published_frame(receipt: Receipt, ref: str | int | None) -> bytes:
    """Return `{"type": "published", …}`: the acknowledgement of a publish."""
    return server_frame("published", id=receipt.id, durability=receipt.durability, ref=ref)


def error_frame(refusal: Refusal, ref: str | int | None) -> bytes:
    """Return `{"type": "error", …}`."""
    return server_frame("error", code=refusal.code, message=refusal.message, ref=ref)


# -- helpers


def _check_depth(data: bytes) -> None:
    """Raise `data_invalid` for JSON that nests too deeply.

    The decoder has a bound of its own, but one that depends on how deep the call is. Almost all data has fewer brackets
    than the bound, which is quick to see.
    """
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    outside = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])  # of strings
    brackets = outside.translate(None, _NOT_BRACKETS)
    if max(accumulate(map(_STEP.__getitem__, brackets)), default=0) > MAX_DEPTH:
        raise Refusal("data_invalid", TOO_DEEP)


def _check_fields(code: str, what: str, data: bytes, raw: bytes, names: tuple[bytes, ...]) -> None:
    """Refuse an object in which a field stands twice: its readers would not agree on which one counts (RFC 8259 §4).

    `raw` is the value of its `data` field, which may hold such names.
    """
    # A long value is cut out; a short one is looked through. A backslash can spell a name in another way.
    rest = data.replace(raw, b"0", 1) if len(raw) > CUT_BYTES else data
    for name in names:
        if rest.count(name) > 1:
            break
    else:
        if b"\\" not in rest:
            return
    try:
        pairs = _read_pairs(rest.decode())
    except ValueError:  # the same text stood in another field, and was cut out there
        pairs = _read_pairs(data.decode())
    for key, value in pairs:
        inner = value if isinstance(value, list) and key == "data64" else []
        for many in (pairs, inner):
            if len({name for name, _ in many}) < len(many):
                raise Refusal(code, f"A field of this {what} stands twice in it: give each once.")


# Objects as lists of pairs; numbers as texts, as the largest take long to read.
_read_pairs = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str, strict=False).decode


def _refuse_half_pair(code: str, data: bytes) -> None:
    """Name the one fault that the decoder describes as other ones. Its JSON would be well-formed (RFC 8259 §8.2)."""
    if _SURROGATE.search(data) is not None and _HALF_PAIR.match(data) is not None:
        raise Refusal(code, HALF_PAIR) from None


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
    if not isinstance(data64, msgspec.UnsetType):
        if bytes(data):
            raise Refusal("data_invalid", "Send data or data64, not both.")
        if isinstance(data64, dict) and data64.keys() != {"base64"}:
            raise Refusal("data_invalid", 'data64 as an object has the one field base64: {"base64": "…"}.')
        text = data64["base64"] if isinstance(data64, dict) else data64
        return Draft(channel, base64_data(text), Kind.BINARY, event, key)
    raw = bytes(data)
    if not raw:
        raise Refusal("data_invalid", "The message has no data: send data (any JSON) or data64 (base64).")
    raw = json_data(raw)
    if raw[:1] == b'"':  # a JSON string is a text: every transport then shows it alike
        return Draft(channel, msgspec.json.decode(raw, type=str).encode(), Kind.TEXT, event, key)
    return Draft(channel, raw, Kind.JSON, event, key)

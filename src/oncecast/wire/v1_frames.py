"""The frames of `oncecast.v1`: those of a client, read and checked, and those of the server.

Invariant: a frame is one of `ClientFrame`, or is refused. An answer repeats nothing long of a frame, whatever its size,
and a frame beside its values has at most `BESIDE_BYTES`. The `ref` comes back as it was.

To add a frame of a client's, add a struct and its name in `ClientFrame`, its fields in `_Shape` and its colons in
`_check_frame`; to add one of the server's, an encoder. Both then stand in `protocol/v1.py` and `spec/wire.md`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from ..errors import Refusal
from ..message import MAX_NUMBER, LogGap, Message, Receipt
from .draft_fields import (
    BESIDE_BYTES,
    LONGEST_FIELDS,
    NO_DATA,
    TOO_MUCH_BESIDE,
    ChannelField,
    DraftFields,
    MessageShape,
    beside,
    check_lengths,
    colons_of,
    message_colons,
    message_fields,
    short,
)
from .envelope import gap_fields, message_json
from .payload import TOO_DEEP, check_fields, colons_around, refuse_half_pair

REF_CHARS = 128  # a ref is echoed back; it is a label, not a payload
REF_BYTES = 2 + 12 * REF_CHARS  # the most that it takes in JSON: each character as two escapes
REF_TOO_LONG = f"A ref is at most {REF_CHARS} characters."
TYPE_BYTES = 128  # of a type in JSON, with escapes
LONGEST = {**LONGEST_FIELDS, "after": ("cursor_invalid", 1024), "token": ("frame_invalid", 64 << 10)}

_encode = msgspec.json.encode


# -- from the client


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


class Publish(DraftFields, tag="publish", tag_field="type"):
    """Publish a message."""

    ref: Ref = None


class Auth(msgspec.Struct, tag="auth", tag_field="type", forbid_unknown_fields=True):
    """Replace the connection's token."""

    token: str
    ref: Ref = None


class _Shape(MessageShape):
    """Where the fields of any frame stand, with those of a message."""

    type: msgspec.Raw = NO_DATA
    after: msgspec.Raw = NO_DATA
    last: msgspec.Raw = NO_DATA
    since: msgspec.Raw = NO_DATA
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
            fields = 1 + message_fields(frame) + (frame.ref is not None)
            if colons_around(raw, data) != fields:
                _check_publish(frame, data, raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        refuse_half_pair("frame_invalid", data)
        raise Refusal("frame_invalid", f"This frame is not of oncecast.v1: {short(error)}.") from None
    except RecursionError:
        raise Refusal("data_invalid", TOO_DEEP) from None
    if isinstance(frame.ref, str) and len(frame.ref) > REF_CHARS:
        raise Refusal("frame_invalid", REF_TOO_LONG)
    return frame


class _RawRef(msgspec.Struct):
    ref: msgspec.Raw = NO_DATA


_find_ref = msgspec.json.Decoder(_RawRef).decode
_decode_ref = msgspec.json.Decoder(Ref).decode


def ref_of(data: bytes) -> str | int | None:
    """Return the `ref` of a client's frame, also of one that `parse_frame` refuses; None where none can be read."""
    try:
        raw = memoryview(_find_ref(data).ref)
        if not 0 < len(raw) <= REF_BYTES:  # the text of a longer one may take five times its bytes
            return None
        ref: str | int | None = _decode_ref(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return None if isinstance(ref, str) and len(ref) > REF_CHARS else ref


# -- from the server


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


def _check_shape(data: bytes) -> None:
    """Refuse a long frame whose fields are too long to be right: their texts or the decoder's error would be so too."""
    shape = _decode_shape(data)
    if len(memoryview(shape.type)) > TYPE_BYTES:
        raise Refusal("frame_invalid", "This frame is not of oncecast.v1: its type is too long for one.")
    if len(memoryview(shape.ref)) > REF_BYTES:
        raise Refusal("frame_invalid", REF_TOO_LONG)
    check_lengths("frame", shape, LONGEST)
    if beside(data, shape) > BESIDE_BYTES:
        raise Refusal("frame_invalid", f"This frame is not of oncecast.v1: {TOO_MUCH_BESIDE}")


def _check_publish(frame: Publish, data: bytes, raw: bytes) -> None:
    check_fields("frame_invalid", "frame", data, raw, 1 + message_colons(frame, raw) + colons_of(frame.ref))


def _check_frame(frame: Subscribe | Unsubscribe | Auth, data: bytes) -> None:
    colons = 1  # of its type
    match frame:
        case Subscribe():
            colons += colons_of(frame.channel, frame.after, frame.last, frame.since, frame.ref)
        case Unsubscribe():
            colons += colons_of(frame.channel, frame.ref)
        case Auth():
            colons += colons_of(frame.token, frame.ref)
    check_fields("frame_invalid", "frame", data, b"", colons)

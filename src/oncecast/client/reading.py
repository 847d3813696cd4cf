"""The JSON that a server sends, read: messages, gaps and cursors.

Invariant: a message whose JSON is sound is always read, whatever its data is. Else it would be read again, and fail
again, for ever.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec

from ..errors import Refusal
from ..message import Cursor
from .failures import MALFORMED, Broken
from .values import ClientMessage, Gap

__all__ = ["MESSAGE_BYTES", "parse_cursor", "parse_gap", "parse_message"]

MESSAGE_BYTES = 128 * 1024 * 1024  # the largest message that a server may be set to allow, in base64, fits


class _Envelope(msgspec.Struct):
    id: str
    channel: str
    time: float
    event: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")  # left out; `null` is data
    data64: str | dict[str, str] | None = None
    traceparent: str | None = None


_read_envelope = msgspec.json.Decoder(_Envelope).decode
_read_gap = msgspec.json.Decoder(Gap).decode


def parse_cursor(text: str | None) -> Cursor | None:
    """Read a cursor; None where it is of a form that can't be compared."""
    try:
        return None if text is None else Cursor.parse(text)
    except Refusal:
        return None


def parse_message(text: bytes | str) -> ClientMessage:
    """Read the JSON of a message. Raises `Broken` where it is none."""
    raw = b""
    try:
        fields = _read_envelope(text)
        if fields.data64 is not None:
            encoded = fields.data64["base64"] if isinstance(fields.data64, dict) else fields.data64
            data: Any = base64.b64decode(encoded, validate=True)
        elif raw := bytes(fields.data):
            data = _read_data(raw)
        else:
            raise Broken("the server sent a message without data")
    except (KeyError, *MALFORMED):  # what binascii raises is a ValueError too
        raise Broken("the server sent a message that is malformed") from None
    return ClientMessage(
        id=fields.id,
        channel=fields.channel,
        data=data,
        event=fields.event,
        time=fields.time,
        raw_data=raw,
        traceparent=fields.traceparent,
    )


def _read_data(data: bytes) -> Any:
    """Return the value of a message's JSON; its text, where no value of Python's can hold it."""
    try:
        return msgspec.json.decode(data)
    except MALFORMED:
        pass  # a number past a float's range, or very deep
    try:
        return json.loads(data)
    except MALFORMED:
        return data.decode("utf-8", "replace")


def parse_gap(text: bytes | str) -> Gap:
    """Read the JSON of a gap. Raises `Broken` where it is none."""
    try:
        return _read_gap(text)
    except MALFORMED:
        raise Broken("the server sent a gap that is malformed") from None

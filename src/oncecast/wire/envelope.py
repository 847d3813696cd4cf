"""The JSON that every transport and answer shares: a message, a gap, an error, a receipt, a poll's answer.

Invariant: the data of a JSON message goes out exactly as it came in (numbers keep their digits), binary data as base64
in `data64`, and a text as a JSON string. What clients send is read in `draft_fields.py` and `v1_frames.py`.

To add a field to what clients receive, edit the encoder here, then `spec/wire.md` and the vectors of `spec/vectors`.
"""

from __future__ import annotations

import base64

import msgspec

from ..errors import Refusal
from ..message import JSON, TEXT, Cursor, LogGap, Message, Receipt
from .traceparent import traceparent

DOCS_PATH = "/docs/errors#"  # where the error's explanation stands, relative to the server

_encode = msgspec.json.encode


def message_json(message: Message, epoch: str) -> bytes:
    """Return a message's JSON: `{"id", "channel", "data" | "data64", "event", "time", "traceparent"?}`."""
    data = message.data
    if message.kind is JSON:
        field = b'"data":' + data
    elif message.kind is TEXT:
        field = b'"data":' + _encode(data.decode())
    else:
        field = b'"data64":{"base64":"' + base64.b64encode(data) + b'"}'
    event = b"null" if message.event is None else _encode(message.event)
    end = b"}" if message.trace is None else b',"traceparent":"%s"}' % traceparent(message.trace).encode()
    return (
        b'{"id":"%s-%d","channel":"%s",' % (epoch.encode(), message.seq, message.channel.encode())
        + field
        + b',"event":%s,"time":%s' % (event, _encode(message.time))
        + end
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

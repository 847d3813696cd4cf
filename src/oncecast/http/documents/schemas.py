"""The JSON Schemas of both documents: of requests from the structs that read them, of answers as they are written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from ...errors import ERRORS
from ...message import CHANNEL_SCHEMA, CURSOR_SCHEMA, Reason
from ...wire import draft_fields, v1_frames
from .. import users
from ..overview import Overview

__all__ = ["FRAMES", "SCHEMAS", "Schema", "reference", "schema_of"]

Schema = dict[str, Any]


def reference(name: str) -> Schema:
    """Return a reference to one of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def schema_of(struct: type[msgspec.Struct]) -> Schema:
    """Return the schema of a struct that reads a request."""
    fields = msgspec.structs.fields(struct)
    properties: Schema = {field.encode_name: msgspec.json.schema(field.type) for field in fields}
    required = [field.encode_name for field in fields if field.required]
    config = struct.__struct_config__
    if config.tag is not None:
        properties = {str(config.tag_field): {"const": config.tag}, **properties}
        required = [str(config.tag_field), *required]
    found: Schema = {"type": "object", "properties": properties, "required": required}
    if config.forbid_unknown_fields:
        found["additionalProperties"] = False
    if "data64" in properties:
        found["oneOf"] = [{"required": ["data"]}, {"required": ["data64"]}]
    return {"description": inspect.cleandoc(struct.__doc__ or ""), **found}


def _object(description: str, optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": description, "properties": properties, "required": required}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


_TEXT: Schema = {"type": "string"}
_CHANNEL: Schema = {"type": "string", **CHANNEL_SCHEMA}
_CURSOR: Schema = {"type": "string", **CURSOR_SCHEMA}
_REF: Schema = {"type": ["string", "integer", "null"], "description": "The frame's own, as it was sent."}
_DURABILITY: Schema = {"enum": ["memory", "process", "broker", "fsync"]}
_CODE: Schema = {"enum": list(ERRORS)}

_message: Mapping[str, Schema] = {
    "id": {**_CURSOR, "description": "The cursor right after this message."},
    "channel": _CHANNEL,
    "data": {"description": "Any JSON; a text is a string."},
    "data64": _object("Binary data.", base64={"type": "string", "contentEncoding": "base64"}),
    "event": {"type": ["string", "null"]},
    "time": {"type": "number", "description": "When the broker appended it, in Unix seconds."},
    "traceparent": {"type": "string", "description": "The trace that it was published in: W3C Trace Context."},
}
_gap: Mapping[str, Schema] = {
    "channel": _CHANNEL,
    "reason": {"enum": [reason.value for reason in Reason]},
    "missed_from": _CURSOR,
    "missed_to": _or_null(_CURSOR),
    "cursor": {**_CURSOR, "description": "The place that the stream goes on from."},
}
_NOT_ALWAYS = ("data", "data64", "traceparent")


def _frame(kind: str, description: str, optional: tuple[str, ...] = (), /, **properties: Schema) -> Schema:
    return _object(description, optional, type={"const": kind}, **properties)


_, _overview = msgspec.json.schema_components((Overview,), ref_template="#/components/schemas/{name}")

SCHEMAS: Mapping[str, Schema] = {
    **_overview,
    "BatchLine": schema_of(draft_fields.BatchLine),
    "TicketRequest": schema_of(users.TicketRequest),
    "DisconnectRequest": schema_of(users.DisconnectRequest),
    "Message": _object("A message of a channel.", _NOT_ALWAYS, **_message),
    "Gap": _object("Messages of a channel that were missed.", **_gap),
    "PollAnswer": _object(
        "What there was after the place that was asked for.",
        ("gaps",),
        messages={"type": "array", "items": reference("Message")},
        cursor={**_CURSOR, "description": "The `after` of the next poll."},
        gap=_or_null(reference("Gap")),
        gaps={"type": "array", "items": reference("Gap"), "description": "With several channels: all the gaps."},
    ),
    "Receipt": _object("A message is in the log.", id=_CURSOR, durability=_DURABILITY),
    "Draining": _object("The node drains.", draining={"const": True}),
    "Ticket": _object("Stands for a token, once.", ticket=_TEXT, expires_in={"type": "integer"}),
    "Error": _object("Why a request was refused.", error=_object("The error.", code=_CODE, message=_TEXT, docs=_TEXT)),
}

FRAMES: Mapping[str, tuple[Schema, ...]] = {
    "received": tuple(
        schema_of(frame) for frame in (v1_frames.Subscribe, v1_frames.Unsubscribe, v1_frames.Publish, v1_frames.Auth)
    ),
    "sent": (
        _frame("subscribed", "A subscription begins after `cursor`.", channel=_CHANNEL, cursor=_CURSOR, ref=_REF),
        _frame("unsubscribed", "No message of this channel comes any more.", channel=_CHANNEL, ref=_REF),
        _frame("message", "A message.", _NOT_ALWAYS, **_message),
        _frame("gap", "Messages were missed.", **_gap),
        _frame("published", "The broker has acknowledged a message.", id=_CURSOR, durability=_DURABILITY, ref=_REF),
        _frame("error", "A frame was refused; the connection lives on.", code=_CODE, message=_TEXT, ref=_REF),
        _frame("cursor", "The heartbeat: holds for every channel of the connection.", cursor=_CURSOR),
        _frame(
            "authenticated",
            "The frames that follow are those of this user.",
            sub={"type": ["string", "null"]},
            expires={"type": ["number", "null"]},
            ref=_REF,
        ),
        _frame("expiring", "The token ends soon.", expires_in_ms={"type": "integer"}),
        _frame("drain", "The server stops: connect again.", retry_after_ms={"type": "integer"}),
    ),
}
"""The frames of `oncecast.v1`, by who reads or writes them: the server."""

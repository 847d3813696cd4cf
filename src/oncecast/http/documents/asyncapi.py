"""`/v1/asyncapi.json`: AsyncAPI 3, of the WebSockets and the event streams. A frame is added in `schemas.py`."""

from __future__ import annotations

from ... import __version__
from ...message import CHANNEL_SCHEMA, EXPIRING_EVENT, GAP_EVENT
from ...protocol.v1 import PROTOCOL
from ..routes import CHANNELS, CONNECT
from .schemas import FRAMES, SCHEMAS, Schema, reference

__all__ = ["ASYNCAPI", "asyncapi"]

ASYNCAPI = "/v1/asyncapi.json"


def asyncapi() -> Schema:
    """Return the document. It names no server: it is of the one that it came from."""
    received = {_kind(frame): _message(frame) for frame in FRAMES["received"]}
    sent = {_kind(frame): _message(frame) for frame in FRAMES["sent"]}
    events = {
        "event": {
            "summary": "A message. Its `id` is the cursor; with several channels or `envelope=1` the whole message.",
            "payload": {"anyOf": [reference("Message"), {"description": "The data alone."}]},
        },
        GAP_EVENT: {"summary": "An event of this name: messages were missed.", "payload": reference("Gap")},
        EXPIRING_EVENT: {
            "summary": "An event of this name without an id: the token ends soon.",
            "payload": {"type": "object", "properties": {"expires_in_ms": {"type": "integer"}}},
        },
        "refused": {
            "summary": "An event of the name `error` without an id: the stream ends.",
            "payload": reference("Error"),
        },
    }
    names = {"names": {"description": f"Channels with commas between, each of {CHANNEL_SCHEMA['pattern']}"}}
    address = f"{CHANNELS}{{names}}"
    socket = f"A WebSocket of the subprotocol `{PROTOCOL}`: JSON text frames with a `type`."
    channels: Schema = {
        "channels": _channel(address, f"{socket} It begins with these channels.", {**received, **sent}, names),
        "connect": _channel(CONNECT, f"{socket} It begins without a channel.", {**received, **sent}),
        "raw": _channel(
            address,
            "A WebSocket without a subprotocol: frames are data alone.",
            {"data": {"summary": "The data of one message, both ways.", "payload": {}}},
            names,
        ),
        "events": _channel(address, "GET with `Accept: text/event-stream`: Server-Sent Events.", events, names),
    }
    operations: Schema = {}
    for channel in ("channels", "connect"):
        operations[f"receiveFrom_{channel}"] = _operation("receive", channel, received)
        operations[f"sendTo_{channel}"] = _operation("send", channel, sent)
    operations["receiveRaw"] = _operation("receive", "raw", {"data": {}})
    operations["sendRaw"] = _operation("send", "raw", {"data": {}})
    operations["sendEvents"] = _operation("send", "events", events)
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Oncecast", "version": __version__, "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": dict(SCHEMAS)},
    }


def _kind(frame: Schema) -> str:
    return str(frame["properties"]["type"]["const"])


def _message(frame: Schema) -> Schema:
    return {"summary": frame["description"], "payload": frame}


def _channel(address: str, description: str, messages: Schema, parameters: Schema | None = None) -> Schema:
    found: Schema = {"address": address, "description": description, "messages": messages}
    return found if parameters is None else {**found, "parameters": parameters}


def _operation(action: str, channel: str, messages: Schema) -> Schema:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }

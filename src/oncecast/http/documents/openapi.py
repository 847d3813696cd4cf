"""`/v1/openapi.json`: OpenAPI 3.1. To add a path, add it to `_paths`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ... import __version__
from ...errors import ERRORS
from ...message import CHANNEL_SCHEMA, CURSOR_SCHEMA, EVENT_SCHEMA, KEY_SCHEMA
from ...protocol.query import FIELDS
from .. import overview, users
from ..operator import DRAIN, OVERVIEW
from ..publishing import BATCH_LINES, PUBLISH
from ..routes import CHANNELS, CONNECT
from .schemas import SCHEMAS, Schema, reference

__all__ = ["OPENAPI", "openapi"]

OPENAPI = "/v1/openapi.json"
_NAMES = {"type": "string", "pattern": f"^{CHANNEL_SCHEMA['pattern'][1:-1]}(,{CHANNEL_SCHEMA['pattern'][1:-1]})*$"}
_SPECIAL = {"upgrade_required", "gap", "slow", "frame_invalid"}  # of sockets and streams


def openapi() -> Schema:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Oncecast",
            "version": __version__,
            "summary": "Publish once; every listener gets it, by polling, Server-Sent Events or WebSocket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "..", "description": "The server that this document came from."}],
        "security": [{}, {"bearer": []}],
        "paths": _paths(),
        "components": {
            "schemas": dict(SCHEMAS),
            "responses": dict(_errors()),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "A JSON Web Token, or a server's key."}
            },
        },
    }


def _paths() -> Schema:
    traceparent = _parameter(
        "traceparent", "header", "The trace that it belongs to: W3C Trace Context.", {"type": "string"}
    )
    listening = {
        "parameters": [
            _parameter("names", "path", "A channel, or several with commas between.", _NAMES),
            *(_parameter(name, "query", text, dict(schema)) for name, (text, schema) in FIELDS.items()),
        ],
    }
    get = {
        "summary": "Listen: a poll, an event stream, or a WebSocket",
        "description": "An `Upgrade` makes it a WebSocket (`/v1/asyncapi.json`), `Accept: text/event-stream` an event "
        "stream, `wait` a long poll. Give one of `after`, `last` and `since` at most.",
        "parameters": [
            *listening["parameters"],
            _parameter("Last-Event-ID", "header", "Of a stream: wins over the query.", _cursor()),
            _parameter("If-None-Match", "header", "Cursors that the client has, as tags.", {"type": "string"}),
        ],
    }
    return {
        f"{CHANNELS}{{names}}": {
            "get": _operation(
                "listen",
                get,
                {
                    "101": {"description": "A WebSocket, of `oncecast.v1` or raw."},
                    "200": {
                        "description": "The messages; or an event stream.",
                        "content": {
                            "application/json": {"schema": reference("PollAnswer")},
                            "text/event-stream": {"schema": {"type": "string"}},
                        },
                    },
                    "304": {"description": "Nothing newer than `If-None-Match`."},
                },
                also=("upgrade_required",),
            ),
            "head": _operation(
                "look", {"summary": "The head of what GET answers", **listening}, {"200": {"description": "As GET."}}
            ),
            "post": _operation(
                "publish",
                {
                    "summary": "Publish a message",
                    "parameters": [
                        _parameter("names", "path", "One channel.", {"type": "string", **CHANNEL_SCHEMA}),
                        _parameter("Oncecast-Event", "header", "The event's name.", {"type": "string", **EVENT_SCHEMA}),
                        _parameter(
                            "Idempotency-Key",
                            "header",
                            "A repeated publish with the same key is one message.",
                            {"type": "string", **KEY_SCHEMA},
                        ),
                        traceparent,
                    ],
                    "requestBody": {
                        "description": "The data. Without a type it is what it can be: JSON, text or binary.",
                        "content": {
                            "application/json": {"schema": {}},
                            "text/plain": {"schema": {"type": "string"}},
                            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                        },
                    },
                },
                {"201": _json("The broker has acknowledged it.", "Receipt")},
            ),
        },
        PUBLISH: {
            "post": _operation(
                "publishBatch",
                {
                    "summary": "Publish many messages",
                    "parameters": [traceparent],
                    "requestBody": {
                        "required": True,
                        "description": f"At most {BATCH_LINES} lines, each a BatchLine, whatever the type says.",
                        "content": {
                            "application/x-ndjson": {"schema": reference("BatchLine")},
                            "application/json": {"schema": reference("BatchLine")},
                        },
                    },
                },
                {
                    "200": {
                        "description": "A line for each: a Receipt, or an Error.",
                        "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
                    }
                },
            )
        },
        CONNECT: {
            "get": _operation(
                "connect",
                {"summary": "Open a WebSocket of `oncecast.v1` without a channel"},
                {"101": {"description": "A WebSocket."}},
                also=("upgrade_required",),
            )
        },
        users.TICKET: {
            "post": _operation(
                "issueTicket",
                {
                    "summary": "Get a ticket for a token; a server may ask for a user's",
                    "requestBody": {"content": {"application/json": {"schema": reference("TicketRequest")}}},
                },
                {"201": _json("The ticket.", "Ticket")},
            )
        },
        users.DISCONNECT: {
            "post": _operation(
                "disconnect",
                {
                    "summary": "End a user's connections on every node, with a server's key",
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": reference("DisconnectRequest")}},
                    },
                },
                {"200": _json("It is said to every node.", "Receipt")},
            )
        },
        OVERVIEW: {
            "get": _operation(
                "overview",
                {
                    "summary": "See what the node does, with a server's key",
                    "description": "The figures of one node, all its workers together. On a server with `--dev` that "
                    "listens on loopback alone, no key is needed.",
                    "parameters": [
                        _parameter(name, "query", text, dict(schema))
                        for name, (text, schema) in overview.FIELDS.items()
                    ],
                },
                {"200": _json("The overview.", "Overview")},
            )
        },
        DRAIN: {
            "post": _operation(
                "drain",
                {
                    "summary": "Stop the node, with a server's key",
                    "description": "As SIGTERM does: it accepts no more connections, lets its listeners go to other "
                    "nodes, and ends. Whatever runs it may start it again.",
                },
                {"202": _json("It drains.", "Draining")},
            )
        },
    }


def _operation(name: str, what: Schema, answers: Schema, *, also: tuple[str, ...] = ()) -> Schema:
    return {"operationId": name, **what, "responses": answers | _refusals(also)}


def _refusals(also: Iterable[str]) -> Schema:
    codes = (code for code in ERRORS if code not in _SPECIAL or code in also)
    statuses = sorted({ERRORS[code].status for code in codes})
    return {str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses}


def _errors() -> Iterable[tuple[str, Schema]]:
    for status in sorted({row.status for row in ERRORS.values()}):
        rows = [row for row in ERRORS.values() if row.status == status]
        text = " ".join(f"`{row.code}`: {row.advice}" for row in rows)
        content: Schema = {"application/json": {"schema": reference("Error")}}
        yield f"Error{status}", {"description": text, "content": content}


def _parameter(name: str, place: str, text: str, schema: Any) -> Schema:
    return {"name": name, "in": place, "description": text, "required": place == "path", "schema": schema}


def _json(text: str, schema: str) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": reference(schema)}}}


def _cursor() -> Schema:
    return {"type": "string", **CURSOR_SCHEMA}

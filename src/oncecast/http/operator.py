"""`GET /v1/overview` and `POST /v1/drain`: what the operator of a server may see of it, and how to stop it.

A server's key opens them. A server with `--dev` that listens on loopback alone opens them to anybody who reaches it.
"""

from __future__ import annotations

from functools import partial
from urllib.parse import parse_qsl

import msgspec

from ..core.census import ORDERS
from ..errors import Refusal
from ..message import check_channel
from ..protocol.base import json_reply
from ..wire import http1
from .exchange import Exchange
from .overview import CHANNELS, FIELDS, LISTED, Overview, OverviewRequest
from .service import Service

__all__ = ["DRAIN", "OVERVIEW", "answer", "drain"]

OVERVIEW = "/v1/overview"
DRAIN = "/v1/drain"


def answer(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Answer 200 with the overview that the query asks for. Raises `Refusal`."""
    if service.overview is None:
        raise Refusal("not_found", "Only a server that `oncecast serve` runs has an overview.")
    _check(service, connection)
    service.overview(_parse(request.query), partial(_give, connection))
    connection.wait(request)


def drain(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Answer 202, and begin to drain all processes of this server, which then end. Raises `Refusal`."""
    if service.drain is None:
        raise Refusal("not_found", "Only a server that `oncecast serve` runs can be drained by a request.")
    _check(service, connection)
    identity = connection.identity
    who = f"the key {identity.subject}" if identity.kind == "server" else "a client, as the server runs with --dev"
    connection.reply(json_reply(202, b'{"draining":true}'))
    service.drain(f"{DRAIN} was asked for by {who}")


def _check(service: Service, connection: Exchange) -> None:
    if service.open or connection.identity.kind == "server":
        return
    if service.authenticator is None:
        raise Refusal(
            "not_found",
            "This needs a server's key: `oncecast key create` makes one for the setting server_keys.",
        )
    code = "unauthorized" if connection.identity.kind == "anybody" else "forbidden"
    raise Refusal(code, "Only a server's key may do this: send one as Authorization: Bearer.")


def _parse(query: str) -> OverviewRequest:
    try:
        fields = parse_qsl(query, errors="strict", keep_blank_values=True, max_num_fields=8)
    except ValueError:
        raise Refusal("request_invalid", "The query is not UTF-8 or has over 8 fields.") from None
    given = dict(fields)
    if len(given) < len(fields) or given.keys() - FIELDS:
        raise Refusal("request_invalid", "Give order, limit and channel, each once at most.")
    order, limit = given.get("order", "rate"), given.get("limit", str(LISTED))
    if order not in ORDERS:
        raise Refusal("request_invalid", f"order is one of {', '.join(ORDERS)}.")
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and int(limit) <= CHANNELS):
        raise Refusal("request_invalid", f"limit is a number from 0 to {CHANNELS}.")
    channel = given.get("channel")
    return OverviewRequest(order, int(limit), None if channel is None else check_channel(channel))


def _give(connection: Exchange, overview: Overview) -> None:
    connection.reply(json_reply(200, msgspec.json.encode(overview)))

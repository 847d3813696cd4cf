"""GET and HEAD of a channel, and the WebSocket handshakes: from a request to the transport that answers it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import ceil

from ..errors import Refusal
from ..message import LATEST, Start
from ..policy.identity import Identity
from ..policy.origin import Headers
from ..protocol.base import DRAIN_MS, HEARTBEAT_HEADER, Carrier, Duplex, Reply
from ..protocol.events import EventStream, parse_stream, retry_event, stream_headers
from ..protocol.polls import WaitingPoll, answer_poll, parse_wait
from ..protocol.query import Query, check_count, parse_query
from ..protocol.raw import RawSession
from ..protocol.v1 import PROTOCOL, V1Session
from ..wire import http1, ws_handshake
from ..wire.ws_deflate import Deflate
from .credentials import has_field, privacy_headers, public_query
from .exchange import Agreement, Exchange
from .memo import ANSWER_BYTES, KnownPoll, Memo
from .replies import encode, names
from .service import Service

DEFLATE = Deflate()  # no context is taken over: messages are shared, and an idle subscriber needs no inflater


SHORT_POLL, LONG_POLL, SSE, WEBSOCKET = "short-poll", "long-poll", "sse", "websocket"  # as the clients name them


def transport_of(request: http1.Request) -> str:
    """Return the transport that a request for a channel asks for, whether or not it gets it: for the metrics."""
    if "upgrade" in request.headers:
        return WEBSOCKET
    if _accepts_events(request.headers.get("accept", "")):
        return SSE
    return LONG_POLL if "wait=" in request.query else SHORT_POLL


def listen(service: Service, connection: Exchange, request: http1.Request, channels: tuple[str, ...]) -> None:
    """Answer GET or HEAD of channels by the transport that the headers and the query ask for. Raises `Refusal`."""
    headers = request.headers
    service.access.subscribe(connection.identity, channels)
    query = parse_query(public_query(request.query))
    if "upgrade" in headers and ws_handshake.wants_upgrade(headers):
        _upgrade(service, connection, request, channels, query)
    elif _accepts_events(headers.get("accept", "")):
        _stream(service, connection, request, channels, query)
    elif query.wait and request.method == "GET":
        _long_poll(service, connection, request, channels, query)
    else:
        parse_wait(service.settings, query)  # HEAD does not wait, and is refused what GET is
        version, memo = service.node.log.version, service.memo  # a reload gives another memo, with other rules
        answered = partial(_short_polled, service, connection, request, channels, version, memo, service.second)
        known = headers.get("if-none-match")
        service.counters.listens[SHORT_POLL] += 1
        answer_poll(service.node, service.settings, channels, query, known, answered, connection.may_read)
        connection.wait(request)


def _short_polled(
    service: Service,
    connection: Exchange,
    request: http1.Request,
    channels: tuple[str, ...],
    version: int,
    memo: Memo,
    second: int,
    reply: Reply | Refusal,
) -> None:
    late = service.node.log.version != version or service.second != second
    if late or isinstance(reply, Refusal) or len(reply.body) > ANSWER_BYTES or not service.ready:
        _answer_poll(service, connection, reply)
        return
    # None of these comes again, or it may not.
    if reply.status != 200 or not request.keep_alive or has_field(request.query, "ticket"):
        connection.reply(reply)
        return
    answer = encode(service, request, reply)
    public = service.access.is_public(channels)
    identity = None if service.authenticator is None else connection.identity
    memo.put(KnownPoll(request, channels, answer, version, public=public, identity=identity), second)
    connection.send(answer)


def _long_poll(
    service: Service, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query
) -> None:
    service.counters.listens[LONG_POLL] += 1
    known = request.headers.get("if-none-match")
    done = partial(_answer_poll, service, connection)
    expires = connection.identity.expires
    longest = math.inf if expires is None else expires - service.wall()
    poll = WaitingPoll(
        service.node,
        service.settings,
        connection,
        channels,
        query,
        known,
        done,
        connection.may_read,
        longest=longest,
        identity=connection.identity,
    )
    connection.wait(request, poll)


def _answer_poll(service: Service, connection: Exchange, reply: Reply | Refusal) -> None:
    connection.reply(_last_poll(reply) if isinstance(reply, Reply) and not service.ready else reply)


def _last_poll(reply: Reply) -> Reply:
    """Add `Retry-After`: the server is stopping, and the next poll goes to its successor."""
    return Reply(reply.status, (*reply.headers, ("Retry-After", str(ceil(DRAIN_MS / 1000)))), reply.body)


def _stream(
    service: Service, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query
) -> None:
    headers = stream_headers(service.settings.heartbeat_seconds)
    headers = (*headers, *service.cors_headers(request.headers, request.scheme), *privacy_headers(request))
    start = parse_stream(service.settings, channels, query, request.headers.get("last-event-id"))
    if request.method == "HEAD":  # RFC 9110 §9.3.2: what GET would say, so no length; and RFC 9112 §6.3: no body
        connection.answer_events(headers, b"")
        service.counters.requests[200] += 1
        return

    # A page takes `onopen` for the beginning. So the head waits for the place: what is published after it comes.
    late = False

    def resolved(found: Start | Refusal) -> None:
        if isinstance(found, Refusal) and late and found.error.retry:
            # An `EventSource` connects again after a stream that ends at once, and never after a 503.
            connection.answer_events(headers, retry_event(found))
            service.counters.requests[200] += 1
        else:
            _open_events(service, connection, headers, channels, query, found)

    service.node.resolve_start(channels, start, lambda found: connection.proceed(request, partial(resolved, found)))
    late = True
    connection.wait(request)


def _open_events(
    service: Service,
    connection: Exchange,
    headers: Headers,
    channels: tuple[str, ...],
    query: Query,
    start: Start | Refusal,
) -> None:
    if isinstance(start, Refusal):
        raise start
    placed = replace(query, start=start)

    def make(carrier: Carrier) -> EventStream:
        _check_again(service, connection.identity, channels)
        return EventStream(service.node, service.settings, carrier, channels, placed, None)

    connection.open_events(headers, make)
    service.counters.requests[200] += 1
    service.counters.listens[SSE] += 1


def _check_again(service: Service, identity: Identity, channels: tuple[str, ...]) -> None:
    """Check access once more: while the request waited, rules and keys may have changed, or a token been revoked."""
    service.check_counts(identity)
    service.access.subscribe(identity, channels)


def _upgrade(
    service: Service, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query
) -> None:
    try:
        upgrade = ws_handshake.parse_upgrade(request.method, request.version, request.headers)
        deflate = DEFLATE.accept(upgrade.extensions) if service.settings.deflate else None
        headers: Headers = ((HEARTBEAT_HEADER, f"{service.settings.heartbeat_seconds:g}"),)
        if PROTOCOL in upgrade.protocols:
            agreement = Agreement(upgrade, PROTOCOL, headers, deflate)
            _open(connection, agreement, partial(_v1, service, channels, query))
            return
        if upgrade.protocols or not channels:
            raise Refusal("request_invalid", f"Offer the subprotocol {PROTOCOL}, or, to a channel's URL, none.")
        check_count(channels, service.settings)
    except Refusal as refusal:
        connection.fail(refusal)  # frames may follow a failed handshake: what comes after it is no request
        return
    # No frame of a raw socket says where it begins. So the answer does: what is published after it comes.
    agreement = Agreement(upgrade, None, headers, deflate)
    resolved = partial(_open_raw, service, connection, agreement, channels, query)
    service.node.resolve_start(channels, query.start or LATEST, resolved)
    connection.wait(request)


def _open_raw(
    service: Service,
    connection: Exchange,
    agreement: Agreement,
    channels: tuple[str, ...],
    query: Query,
    start: Start | Refusal,
) -> None:
    if isinstance(start, Refusal):
        connection.fail(start)
    else:
        _open(connection, agreement, partial(_raw, service, channels, replace(query, start=start)))


def _open(connection: Exchange, agreement: Agreement, make: Callable[[Carrier], Duplex]) -> None:
    try:
        connection.open_websocket(agreement, make)
    except Refusal as refusal:
        connection.fail(refusal)


def _v1(service: Service, channels: tuple[str, ...], query: Query, carrier: Carrier) -> V1Session:
    session = V1Session(service.node, service.settings, carrier, channels, query)
    service.counters.requests[101] += 1
    service.counters.listens[WEBSOCKET] += 1
    return session


def _raw(service: Service, channels: tuple[str, ...], query: Query, carrier: Carrier) -> RawSession:
    _check_again(service, carrier.identity, channels)
    session = RawSession(service.node, service.settings, carrier, channels, query)
    service.counters.requests[101] += 1
    service.counters.listens[WEBSOCKET] += 1
    return session


def connect(service: Service, connection: Exchange, request: http1.Request) -> None:
    """Open an `oncecast.v1` WebSocket that has no channel yet. Raises `Refusal`."""
    if not ws_handshake.wants_upgrade(request.headers):
        version = ".".join(map(str, request.version))  # what a proxy speaks, which only the server sees
        raise Refusal(
            "upgrade_required",
            f"Only a WebSocket connects here: open one with the subprotocol {PROTOCOL}. This request came without "
            f"Upgrade, by HTTP/{version}.",
        )
    _upgrade(service, connection, request, (), parse_query(public_query(request.query)))


def _accepts_events(accept: str) -> bool:
    return "text/event-stream" in accept and names(accept, "text/event-stream")

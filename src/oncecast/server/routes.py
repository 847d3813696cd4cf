"""Which path and method does what. To add a path, add it to `handle`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from math import ceil

from ..brokers.base import Outcome
from ..errors import Refusal
from ..message import Draft, Kind, check_channel, check_event, check_key
from ..policy.origin import preflight
from ..protocol import short_poll
from ..protocol.base import DRAIN_MS, HEARTBEAT_HEADER, JSON_HEADERS, Query, Reply, parse_channels, parse_query
from ..protocol.events import SseStream, parse_stream, stream_headers
from ..protocol.long_poll import LongPoll, parse_wait
from ..protocol.websocket import DEFLATE, PROTOCOL, RawSocket, V1Socket
from ..wire import envelope, http1, ws_handshake
from .app import App
from .exchange import Exchange
from .metrics import CONTENT_TYPE as METRICS_TYPE
from .metrics import measure, render
from .replies import error_reply, text_reply

CHANNELS = "/v1/channels/"
PUBLISH = "/v1/publish"
CONNECT = "/v1/connect"

BATCH_LINES = 4000  # at 7 µs each, a batch holds up the loop for less than 30 ms

NDJSON_HEADERS = (("Content-Type", "application/x-ndjson"), ("Cache-Control", "no-store"))
PAGE_HEADERS = (
    ("Cache-Control", "no-cache"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self' ws: wss:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
)


def handle(app: App, connection: Exchange, request: http1.Request) -> None:
    """Answer a request, now or later. Raises `Refusal`."""
    if request.method == "GET" and app.ready:
        answer = app.memo.get(request, app.node.log.version, app.second)
        if answer is not None:
            app.counters.requests[200] += 1
            connection.send(answer)
            return
    path = request.path
    if not path.startswith("/v1/"):
        reply = _plain(app, request, path)
        if reply is not None:
            connection.reply(reply)
        elif app.collect is None:
            connection.reply(_metrics(render(measure(app))))
        else:
            app.collect(lambda text: connection.reply(_metrics(text)))
            connection.wait(request)
        return
    # Before anything is done: a page of another origin may neither read nor publish.
    origin = request.headers.get("origin")
    cors = app.origins.check(origin, request.headers.get("host"), app.scheme) if origin is not None else ()
    if path.startswith(CHANNELS):
        allow: tuple[str, ...] = ("GET", "HEAD", "POST", "OPTIONS")
        if request.method in ("GET", "HEAD"):
            _listen(app, connection, request, parse_channels(path[len(CHANNELS) :]))
            return
        if request.method == "POST":
            _publish(app, connection, request, _channel_of(path))
            return
    elif path == PUBLISH:
        allow = ("POST", "OPTIONS")
        if request.method == "POST":
            _publish_batch(app, connection, request)
            return
    elif path == CONNECT:
        allow = ("GET", "HEAD", "OPTIONS")
        if request.method in ("GET", "HEAD"):
            _connect(app, connection, request)
            return
    else:
        raise Refusal("not_found", f"There is nothing here: channels are at {CHANNELS}NAME.")
    if request.method != "OPTIONS":
        raise Refusal("method_not_allowed", f"Use one of {', '.join(allow)} here.", allow=allow)
    headers = preflight(()) if cors and "access-control-request-method" in request.headers else ()
    connection.reply(Reply(204, (("Allow", ", ".join(allow)), *headers), b""))


def encode(app: App, request: http1.Request | None, reply: Reply, *, close: bool = False) -> bytes:
    """Return the bytes of an answer; `request` is None where it could not be read. `close` says that none follows."""
    app.counters.requests[reply.status] += 1
    if request is None:
        return http1.response(reply.status, reply.headers, reply.body, keep_alive=False, date=app.date)
    if reply.status == 426:  # its Upgrade has to be named in Connection (RFC 9110 §7.8)
        after = "close" if close or not request.keep_alive else "keep-alive"
        framing = (("Connection", f"Upgrade, {after}"), ("Content-Length", str(len(reply.body))))
        head = http1.response_head(426, (*reply.headers, *framing, *_cors(app, request)), date=app.date)
        return head if request.method == "HEAD" else head + reply.body
    return http1.response(
        reply.status,
        reply.headers + _cors(app, request) if "origin" in request.headers else reply.headers,
        reply.body,
        keep_alive=request.keep_alive and not close,
        version=request.version,
        head_only=request.method == "HEAD",
        date=app.date,
    )


# -- listening


def _listen(app: App, connection: Exchange, request: http1.Request, channels: tuple[str, ...]) -> None:
    headers = request.headers
    query = parse_query(request.query)
    if "upgrade" in headers and ws_handshake.wants_upgrade(headers):
        _upgrade(app, connection, request, channels, query)
    elif _accepts_events(headers.get("accept", "")):
        _stream(app, connection, request, channels, query)
    elif query.wait and request.method == "GET":
        _long_poll(app, connection, request, channels, query)
    else:
        parse_wait(app.settings, query)  # HEAD does not wait, and is refused what GET is
        answered = partial(_short_polled, app, connection, request, app.node.log.version, app.second)
        short_poll.answer(app.node, app.settings, channels, query, headers.get("if-none-match"), answered)
        connection.wait(request)


def _short_polled(
    app: App, connection: Exchange, request: http1.Request, version: int, second: int, reply: Reply | Refusal
) -> None:
    late = app.node.log.version != version or app.second != second
    if late or isinstance(reply, Refusal) or not app.ready:
        _answer_poll(app, connection, reply)
        return
    answer = encode(app, request, reply)
    if reply.status == 200 and request.keep_alive:
        app.memo.put(request, answer)
    connection.send(answer)


def _long_poll(app: App, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query) -> None:
    known = request.headers.get("if-none-match")
    done = partial(_answer_poll, app, connection)
    poll = LongPoll(app.node, app.settings, connection, channels, query, known, done)
    connection.wait(request, poll)


def _answer_poll(app: App, connection: Exchange, reply: Reply | Refusal) -> None:
    connection.reply(_last_poll(reply) if isinstance(reply, Reply) and not app.ready else reply)


def _last_poll(reply: Reply) -> Reply:
    """Say when to ask again, as the server that answers is about to stop."""
    return Reply(reply.status, (*reply.headers, ("Retry-After", str(ceil(DRAIN_MS / 1000)))), reply.body)


def _stream(app: App, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query) -> None:
    chunked = request.version >= (1, 1)  # RFC 9112 §6.1: HTTP/1.0 knows no chunks; there the stream ends by closing
    goes_on = chunked and (request.method != "HEAD" or (request.keep_alive and app.ready))
    framing: tuple[tuple[str, str], ...] = (("Connection", "keep-alive" if goes_on else "close"),)
    if chunked:
        framing = (("Transfer-Encoding", "chunked"), *framing)

    def head(headers: tuple[tuple[str, str], ...]) -> bytes:
        app.counters.requests[200] += 1
        return http1.response_head(200, (*headers, *framing, *_cors(app, request)), date=app.date)

    last_event_id = request.headers.get("last-event-id")
    if request.method == "HEAD":  # RFC 9110 §9.3.2: what GET would say, so no length; and RFC 9112 §6.3: no body
        parse_stream(app.settings, channels, query, last_event_id)
        connection.send(head(stream_headers(app.settings.heartbeat_seconds)))
        if not goes_on:
            connection.end()
        return
    connection.stream(
        lambda: SseStream(
            app.node, app.settings, connection, channels, query, last_event_id, chunked=chunked, head=head
        )
    )


def _upgrade(app: App, connection: Exchange, request: http1.Request, channels: tuple[str, ...], query: Query) -> None:
    try:
        upgrade = ws_handshake.parse_upgrade(request.method, request.version, request.headers)
        deflate = DEFLATE.accept(upgrade.extensions) if app.settings.deflate else None
        extra: tuple[tuple[str, str], ...] = ((HEARTBEAT_HEADER, f"{app.settings.heartbeat_seconds:g}"),)
        if deflate is not None:
            extra += (("Sec-WebSocket-Extensions", str(deflate)),)
        if PROTOCOL in upgrade.protocols:
            kind: type[V1Socket | RawSocket] = V1Socket
            opening = ws_handshake.accept_response(upgrade, PROTOCOL, extra)
        elif upgrade.protocols or not channels:
            raise Refusal("request_invalid", f"Offer the subprotocol {PROTOCOL}, or, to a channel's URL, none.")
        else:
            kind = RawSocket
            opening = ws_handshake.accept_response(upgrade, None, extra)
        connection.stream(lambda: kind(app.node, app.settings, connection, channels, query, opening, deflate))
    except Refusal as refusal:
        connection.fail(refusal)  # frames may follow what was meant as a handshake: nothing after it is a request
        return
    app.counters.requests[101] += 1


def _connect(app: App, connection: Exchange, request: http1.Request) -> None:
    if not ws_handshake.wants_upgrade(request.headers):
        raise Refusal("upgrade_required", f"Only a WebSocket connects here: open one with the subprotocol {PROTOCOL}.")
    _upgrade(app, connection, request, (), parse_query(request.query))


def _accepts_events(accept: str) -> bool:
    return "text/event-stream" in accept and _names(accept, "text/event-stream")


@lru_cache(maxsize=256)
def _names(accept: str, wanted: str) -> bool:
    """Return whether an Accept or Accept-Encoding (RFC 9110 §12.5) names something, not with a weight of nothing."""
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name == wanted:
            return not any(p.startswith("q=") and p[2:].strip("0.") == "" for p in parameters)
    return False


# -- publishing


def _publish(app: App, connection: Exchange, request: http1.Request, channel: str) -> None:
    headers = request.headers
    event, key = headers.get("oncecast-event"), headers.get("idempotency-key")
    if event is not None:
        event = check_event(_utf8(event))
    if key is not None:
        check_key(key)
    if len(request.body) > app.settings.message_bytes:
        raise Refusal("body_too_large", f"A message is at most {app.settings.message_bytes} bytes.")
    data, kind = _typed(request.body, headers.get("content-type", ""))
    connection.spend_publishes(1)
    app.counters.publishes += 1
    app.node.publish((Draft(channel, data, kind, event, key),), partial(_published, connection))
    connection.wait(request)


@lru_cache(maxsize=1024)  # publishers repeat themselves
def _channel_of(path: str) -> str:
    return check_channel(path[len(CHANNELS) :])


def _utf8(value: str) -> str:
    """Read a header's value as UTF-8; the codec gave it as Latin-1, which keeps its bytes (RFC 9110 §5.5)."""
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise Refusal("event_invalid", "The event name is not UTF-8.") from None


def _published(connection: Exchange, outcomes: Sequence[Outcome]) -> None:
    outcome = outcomes[0]
    if isinstance(outcome, Refusal):
        connection.reply(outcome)
    else:
        connection.reply(Reply(201, JSON_HEADERS, envelope.receipt_json(outcome) + b"\n"))


def _publish_batch(app: App, connection: Exchange, request: http1.Request) -> None:
    if request.body.count(b"\n") > BATCH_LINES:
        raise Refusal("body_too_large", f"A batch has at most {BATCH_LINES} lines: send several.")
    lines = [line for line in request.body.split(b"\n") if line.strip()]
    if not lines:
        raise Refusal("request_invalid", 'Send JSON lines: {"channel": …, "data": …}, one for each message.')
    connection.spend_publishes(len(lines))
    results: list[Outcome | None] = []
    drafts = []
    for line in lines:
        try:
            drafts.append(_line(line, app.settings.message_bytes))
            results.append(None)
        except Refusal as refusal:
            results.append(refusal)
    app.counters.publishes += len(drafts)

    def done(outcomes: Sequence[Outcome]) -> None:
        published = iter(outcomes)
        answers = [next(published) if result is None else result for result in results]
        body = b"".join(
            (envelope.error_json(a) if isinstance(a, Refusal) else envelope.receipt_json(a)) + b"\n" for a in answers
        )
        connection.reply(Reply(200, NDJSON_HEADERS, body))

    app.node.publish(drafts, done)
    connection.wait(request)


def _line(line: bytes, message_bytes: int) -> Draft:
    draft = envelope.parse_line(line)
    if len(draft.data) > message_bytes:
        raise Refusal("body_too_large", f"A message is at most {message_bytes} bytes.")
    return draft


def _typed(body: bytes, content_type: str) -> tuple[bytes, Kind]:
    """Read a body by its Content-Type (RFC 9110 §8.3)."""
    media, charset = _media_type(content_type)
    if media == "application/json":
        return envelope.json_data(body), Kind.JSON
    if media.startswith("text/"):
        if charset not in ("", "utf-8", "utf8", "us-ascii"):
            raise Refusal("type_unsupported", f"Send text as UTF-8, not as {charset[:40]}.")
        return envelope.text_data(body), Kind.TEXT
    if media in ("", "application/x-www-form-urlencoded"):
        # No type, or the one that curl and urllib put on any body: the data itself is asked (RFC 9110 §8.3).
        return envelope.sniff(body)
    return body, Kind.BINARY


@lru_cache(maxsize=256)
def _media_type(content_type: str) -> tuple[str, str]:
    media, *parameters = content_type.split(";")
    charset = ""
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset


# -- everything else


def _metrics(text: bytes) -> Reply:
    return Reply(200, (("Content-Type", METRICS_TYPE), ("Cache-Control", "no-store")), text)


def _plain(app: App, request: http1.Request, path: str) -> Reply | None:
    """Return the answer to a request for what is no channel; None where it is for metrics."""
    if path == "*":  # RFC 9110 §9.3.7: about the server as a whole. No other method has this target
        return Reply(204, (("Allow", "GET, HEAD, POST, OPTIONS"),), b"")
    if request.method not in ("GET", "HEAD"):
        if path not in app.pages and path not in ("/healthz", "/readyz", "/metrics"):
            raise Refusal("not_found", f"There is nothing here: publish to {CHANNELS}NAME.")
        if request.method == "OPTIONS":
            return Reply(204, (("Allow", "GET, HEAD, OPTIONS"),), b"")
        raise Refusal("method_not_allowed", "Use GET or HEAD here.", allow=("GET", "HEAD", "OPTIONS"))
    if path == "/healthz":
        return text_reply(200, "ok")
    if path == "/readyz":
        if app.ready:
            return text_reply(200, "ready")
        return error_reply(Refusal("unavailable", "The server is stopping: use another.", retry_after=1))
    if path == "/metrics":
        return None
    page = app.pages.get(path)
    if page is None:
        raise Refusal("not_found", f"There is nothing here: channels are at {CHANNELS}NAME, the start page at /.")
    headers: tuple[tuple[str, str], ...] = PAGE_HEADERS
    body, etag = page.body, page.etag
    if page.gzipped:
        headers += (("Vary", "Accept-Encoding"),)
        if _names(request.headers.get("accept-encoding", ""), "gzip"):
            headers += (("Content-Encoding", "gzip"),)
            # A strong tag is of these very bytes (RFC 9110 §8.8.1), so the compressed ones have another.
            body, etag = page.gzipped, f'{etag[:-1]}-gzip"'
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in tags:
        return Reply(304, (("ETag", etag), *headers), b"")
    return Reply(200, (("Content-Type", page.content_type), ("ETag", etag), *headers), body)


def _cors(app: App, request: http1.Request) -> tuple[tuple[str, str], ...]:
    origin = request.headers.get("origin")
    if origin is None:
        return ()
    try:
        return app.origins.check(origin, request.headers.get("host"), app.scheme)
    except Refusal:
        return (("Vary", "Origin"),)

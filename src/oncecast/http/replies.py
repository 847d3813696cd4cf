"""From answers to bytes, and the answers that more than one route gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import ceil

from ..errors import Refusal
from ..policy.origin import Headers
from ..protocol.base import KEPT_CHARS, Reply, json_reply
from ..wire import envelope, http1, ws_handshake
from .credentials import privacy_headers
from .exchange import Agreement
from .service import Service

ACCEPTED = 100  # items of an Accept that are read: browsers send fewer than ten


def error_reply(refusal: Refusal) -> Reply:
    """Return the coded error as JSON, with the headers that its status asks for (RFC 9110 §15)."""
    headers: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after is not None:
        headers = (*headers, ("Retry-After", str(max(1, ceil(refusal.retry_after)))))
    if refusal.error.status == 401:
        headers = (*headers, ("WWW-Authenticate", "Bearer"))  # RFC 9110 §15.5.2, RFC 6750 §3
    if refusal.allow:
        headers = (*headers, ("Allow", ", ".join(refusal.allow)))
    if refusal.code == "upgrade_required":
        # RFC 9110 §15.5.22, RFC 6455 §4.4
        headers = (*headers, ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    return json_reply(refusal.error.status, envelope.error_json(refusal), *headers)


def text_reply(status: int, text: str) -> Reply:
    """Return one line of plain text."""
    return Reply(
        status, (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")), f"{text}\n".encode()
    )


def encode(
    service: Service, request: http1.Request, reply: Reply, *, close: bool = False, head_only: bool = False
) -> bytes:
    """Return the bytes of an answer, or of its head. `close` says that none follows on this connection."""
    service.counters.requests[reply.status] += 1
    headers = reply.headers
    if request.query or "origin" in request.headers:  # asked here too: of a publish it is a call less
        headers = headers_of(service, request, reply)
    keep_alive = request.keep_alive and not close
    if reply.status == 426:  # its Upgrade has to be named in Connection (RFC 9110 §7.8)
        connection = f"Upgrade, {'keep-alive' if keep_alive else 'close'}"
        framing = (("Connection", connection), ("Content-Length", str(len(reply.body))))
        head = http1.response_head(426, (*headers, *framing), date=service.date)
        return head if head_only or request.method == "HEAD" else head + reply.body
    return http1.response(
        reply.status,
        headers,
        reply.body,
        keep_alive=keep_alive,
        version=request.version,
        head_only=head_only or request.method == "HEAD",
        date=service.date,
    )


def headers_of(service: Service, request: http1.Request, reply: Reply) -> Headers:
    """Return the headers of an answer, without those that frame it."""
    headers = reply.headers
    if request.query:
        headers += privacy_headers(request)
    if "origin" in request.headers:
        headers += service.cors_headers(request.headers, request.scheme)
    return headers


@dataclass(frozen=True, slots=True)
class EventsHead:
    """The head of a stream as HTTP/1 has it. `chunked`: the body comes in chunks; else it ends with the connection.

    `goes_on` says whether another answer may follow an answer to HEAD.
    """

    data: bytes
    chunked: bool
    goes_on: bool

    def framed(self, events: bytes) -> bytes:
        """Return the head, and a body that is these events."""
        return self.data + (http1.chunk(events) + http1.LAST_CHUNK if self.chunked else events)


def events_head(service: Service, request: http1.Request, headers: Headers) -> EventsHead:
    """Return the head of a stream that answers a request."""
    chunked = request.version >= (1, 1)  # RFC 9112 §6.1: HTTP/1.0 knows no chunks; there the stream ends by closing
    goes_on = chunked and (request.method != "HEAD" or (request.keep_alive and service.ready))
    framing: Headers = (("Connection", "keep-alive" if goes_on else "close"),)
    if chunked:
        framing = (("Transfer-Encoding", "chunked"), *framing)
    return EventsHead(http1.response_head(200, (*headers, *framing), date=service.date), chunked, goes_on)


def socket_head(agreement: Agreement) -> bytes:
    """Return the answer that opens a WebSocket."""
    headers = agreement.headers
    if agreement.deflate is not None:
        headers += (("Sec-WebSocket-Extensions", str(agreement.deflate)),)
    return ws_handshake.accept_response(agreement.upgrade, agreement.protocol, headers)


def encode_fault(service: Service, headers: Mapping[str, str], refusal: Refusal) -> bytes:
    """Return the bytes of the last answer on a connection, to a request that could not be read.

    `headers` has what of its headers is known: with its `Origin` the page that sent it may read the error.
    """
    reply = error_reply(refusal)
    service.counters.requests[reply.status] += 1
    cors = service.cors_headers(headers)
    return http1.response(reply.status, reply.headers + cors, reply.body, keep_alive=False, date=service.date)


def names(accept: str, wanted: str) -> bool:
    """Return whether an Accept or Accept-Encoding (RFC 9110 §12.5) names something, not with a weight of nothing.

    What has come after its first ACCEPTED items is not read.
    """
    return (_known_names if len(accept) <= KEPT_CHARS else _names)(accept, wanted)


def _names(accept: str, wanted: str) -> bool:
    for item in accept.split(",", ACCEPTED)[:ACCEPTED]:
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name == wanted:
            return not any(p.startswith("q=") and p[2:].strip("0.") == "" for p in parameters)
    return False


_known_names = lru_cache(maxsize=256)(_names)

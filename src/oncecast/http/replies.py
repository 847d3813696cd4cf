"""From answers to bytes, and the answers that more than one route gives."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

from ..errors import Refusal
from ..protocol.base import Reply, json_reply
from ..wire import envelope, http1
from .service import Service


def error_reply(refusal: Refusal) -> Reply:
    """Return the coded error as JSON, with the headers that its status asks for (RFC 9110 §15)."""
    headers: tuple[tuple[str, str], ...] = ()
    if refusal.retry_after is not None:
        headers = (*headers, ("Retry-After", str(max(1, ceil(refusal.retry_after)))))
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


def encode(service: Service, request: http1.Request | None, reply: Reply, *, close: bool = False) -> bytes:
    """Return the bytes of an answer; `request` is None where it could not be read. `close` says that none follows."""
    service.counters.requests[reply.status] += 1
    if request is None:
        return http1.response(reply.status, reply.headers, reply.body, keep_alive=False, date=service.date)
    if reply.status == 426:  # its Upgrade has to be named in Connection (RFC 9110 §7.8)
        after = "close" if close or not request.keep_alive else "keep-alive"
        framing = (("Connection", f"Upgrade, {after}"), ("Content-Length", str(len(reply.body))))
        head = http1.response_head(426, (*reply.headers, *framing, *cors_headers(service, request)), date=service.date)
        return head if request.method == "HEAD" else head + reply.body
    return http1.response(
        reply.status,
        reply.headers + cors_headers(service, request) if "origin" in request.headers else reply.headers,
        reply.body,
        keep_alive=request.keep_alive and not close,
        version=request.version,
        head_only=request.method == "HEAD",
        date=service.date,
    )


def cors_headers(service: Service, request: http1.Request) -> tuple[tuple[str, str], ...]:
    """Return the CORS headers of any answer to this request; a refused origin gets `Vary` alone."""
    origin = request.headers.get("origin")
    if origin is None:
        return ()
    try:
        return service.origins.check(origin, request.headers.get("host"), service.scheme)
    except Refusal:
        return (("Vary", "Origin"),)


@lru_cache(maxsize=256)
def names(accept: str, wanted: str) -> bool:
    """Return whether an Accept or Accept-Encoding (RFC 9110 §12.5) names something, not with a weight of nothing."""
    for item in accept.split(","):
        name, *parameters = (part.strip().lower() for part in item.split(";"))
        if name == wanted:
            return not any(p.startswith("q=") and p[2:].strip("0.") == "" for p in parameters)
    return False

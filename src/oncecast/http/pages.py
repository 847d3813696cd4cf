"""Answers to requests for what is no channel: pages, probes and metrics."""

from __future__ import annotations

from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..errors import Refusal
from ..protocol.base import TAGS, Reply
from ..wire import http1
from .exchange import Exchange
from .replies import error_reply, names, text_reply
from .service import Service

PROBES = ("/healthz", "/readyz")  # a load balancer asks for these by the server's address, whatever `hosts` has
PAGE_HEADERS = (
    ("Cache-Control", "no-cache"),
    (
        # 'self' has the WebSockets of this origin too (CSP Level 3 §6.7.2.8), and no other's.
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Permissions-Policy", "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    (
        "Cross-Origin-Resource-Policy",
        "same-origin",
    ),  # a module of another origin is asked for with CORS
)


def answer(service: Service, connection: Exchange, request: http1.Request, path: str) -> None:
    """Answer a request for a page, a probe or a document; metrics may come later. Raises `Refusal`."""
    if path not in PROBES:
        service.hosts.check(request.headers.get("host"))
    if path == "/metrics" and request.method in ("GET", "HEAD") and service.collect is not None:
        service.collect(lambda text: connection.reply(_metrics_reply(text)))
        connection.wait(request)
    else:
        connection.reply(_plain(service, request, path))


def _metrics_reply(text: bytes) -> Reply:
    return Reply(200, (("Content-Type", CONTENT_TYPE_LATEST), ("Cache-Control", "no-store")), text)


def _plain(service: Service, request: http1.Request, path: str) -> Reply:
    if path == "*":  # RFC 9110 §9.3.7: the server as a whole; no other method has this target
        return Reply(204, (("Allow", "GET, HEAD, POST, OPTIONS"),), b"")
    if request.method not in ("GET", "HEAD"):
        if path not in service.pages and path not in (*PROBES, "/metrics"):
            raise Refusal("not_found", "There is nothing here: publish to /v1/channels/NAME.")
        if request.method == "OPTIONS":
            return Reply(204, (("Allow", "GET, HEAD, OPTIONS"),), b"")
        raise Refusal("method_not_allowed", "Use GET or HEAD here.", allow=("GET", "HEAD", "OPTIONS"))
    if path == "/healthz":
        return text_reply(200, "ok")
    if path == "/readyz":
        if (reason := service.unready) is not None:
            return error_reply(Refusal("unavailable", f"Not ready: {reason}.", retry_after=1))
        return text_reply(200, "ready")
    page = service.pages.get(path)
    if page is None:
        raise Refusal("not_found", "There is nothing here: channels are at /v1/channels/NAME, the start page at /.")
    headers: tuple[tuple[str, str], ...] = PAGE_HEADERS
    body, etag = page.body, page.etag
    if page.gzipped:
        headers += (("Vary", "Accept-Encoding"),)
        if names(request.headers.get("accept-encoding", ""), "gzip"):
            headers += (("Content-Encoding", "gzip"),)
            # A strong tag names exact bytes (RFC 9110 §8.8.1), so the compressed ones have another.
            body, etag = page.gzipped, f'{etag[:-1]}-gzip"'
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",", TAGS)]
    if etag in tags:
        return Reply(304, (("ETag", etag), *headers), b"")
    return Reply(200, (("Content-Type", page.content_type), ("ETag", etag), *headers), body)

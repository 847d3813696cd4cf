"""Which pages may connect: the `Origin` of a request (RFC 6454 §7) is compared with the settings.

A browser sends a WebSocket handshake, a plain POST and an EventSource's GET to any host without asking first; only the
Origin distinguishes our own pages from others. So a request with a foreign Origin is refused unless it is allowed.
Origins are compared as scheme, host and port, not as texts; a text outside of the grammar of origins is refused. A
request without one comes from no page, and is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ..errors import Refusal
from .authority import DEFAULT_PORTS, Origin, is_loopback, parse_authority, parse_origin

ALLOW_METHODS = "GET, HEAD, POST, OPTIONS"
ALLOW_HEADERS = (
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Oncecast-Event, "
    "Traceparent, Tracestate"  # which a page that is traced sends, and which would fail its publish
)
EXPOSE_HEADERS = "ETag, Oncecast-Heartbeat, Retry-After"
PREFLIGHT_SECONDS = 7200  # the most that Chromium keeps a preflight's answer

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins that may connect besides the server's own.

    `allowed` holds origins as `scheme://host[:port]`, and may hold `*`, which allows every origin and `null`.
    `loopback` allows every page of this machine, such as those of a front end's development server on another port.
    """

    allowed: frozenset[str] = frozenset()
    loopback: bool = False

    def check(self, origin: str | None, host: str | None, scheme: str) -> Headers:
        """Return the CORS headers for an answer to this origin. Raises `Refusal` (`origin_refused`).

        `host` is the request's `Host`, `scheme` what the server's own pages are reached by.
        """
        if origin is None:
            return ()
        page = parse_origin(origin)
        if page is not None and host is not None and _is_own(page, host, scheme):
            return ()
        if page is not None and (page in _parsed(self.allowed) or (self.loopback and is_loopback(page.host))):
            return (
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Credentials", "true"),
                ("Access-Control-Expose-Headers", EXPOSE_HEADERS),
                ("Vary", "Origin"),
            )
        # `null` is a sandboxed page's, a file's or a redirect's (RFC 6454 §6.2).
        if "*" in self.allowed and (page is not None or origin == "null"):
            # Never together with credentials: Fetch Standard, CORS protocol.
            return (("Access-Control-Allow-Origin", "*"), ("Access-Control-Expose-Headers", EXPOSE_HEADERS))
        raise Refusal(
            "origin_refused", f"Pages of {origin[:100]!a} may not connect here: add that origin to `origins`."
        )


def preflight(cors: Headers) -> Headers:
    """Return the headers that answer a CORS preflight."""
    return (
        *cors,
        ("Access-Control-Allow-Methods", ALLOW_METHODS),
        ("Access-Control-Allow-Headers", ALLOW_HEADERS),
        ("Access-Control-Max-Age", str(PREFLIGHT_SECONDS)),
    )


@lru_cache(maxsize=16)  # one for each `Origins`, of which a server has one
def _parsed(allowed: frozenset[str]) -> frozenset[Origin]:
    return frozenset(page for page in map(parse_origin, allowed) if page is not None)


def _is_own(page: Origin, host: str, scheme: str) -> bool:
    """Return whether a page was served by the host it now asks. A proxy may have ended TLS in front of this server."""
    own = parse_authority(host)
    if own is None or own.host != page.host or page.scheme not in (scheme, "https"):
        return False
    return (DEFAULT_PORTS[page.scheme] if own.port is None else own.port) == page.port

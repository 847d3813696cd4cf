"""Which pages may connect: the Origin of a request (RFC 6454 §7) against the settings.

A browser sends a WebSocket handshake, a plain POST and an EventSource's GET to any host without asking first; only the
Origin tells our own pages from others. So a request with a foreign Origin is refused unless that exact origin is
allowed. A request without one comes from no page and passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from ..errors import Refusal

LOOPBACK = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})

ALLOW_METHODS = "GET, HEAD, POST, OPTIONS"
ALLOW_HEADERS = (
    "Authorization, Cache-Control, Content-Type, Idempotency-Key, If-None-Match, Last-Event-ID, Oncecast-Event"
)
EXPOSE_HEADERS = "ETag, Oncecast-Heartbeat, Retry-After"
PREFLIGHT_SECONDS = 7200  # the most that Chromium keeps a preflight's answer

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Origins:
    """The origins that may connect besides the server's own.

    `allowed` holds exact origins, `scheme://host[:port]`, or `*`. `loopback` allows every page of this machine, as a
    front end's development server on another port is.
    """

    allowed: frozenset[str] = frozenset()
    loopback: bool = False

    def check(self, origin: str | None, host: str | None, scheme: str) -> Headers:
        """Return the CORS headers for an answer to this origin. Raises `Refusal` (`origin_refused`)."""
        if origin is None or (host is not None and _same(origin, host, scheme)):
            return ()
        if origin in self.allowed or (self.loopback and _hostname(origin) in LOOPBACK):
            return (
                ("Access-Control-Allow-Origin", origin),
                ("Access-Control-Allow-Credentials", "true"),
                ("Access-Control-Expose-Headers", EXPOSE_HEADERS),
                ("Vary", "Origin"),
            )
        if "*" in self.allowed:  # never together with credentials: Fetch Standard, CORS protocol
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


def _same(origin: str, host: str, scheme: str) -> bool:
    """Return whether a page of `origin` was served by the host it now asks. A proxy may have ended TLS before us."""
    default = {"http": ":80", "https": ":443"}
    for page_scheme in (scheme, "https"):
        page = origin.removeprefix(f"{page_scheme}://")
        if page != origin:
            port = default[page_scheme]
            return page.lower().removesuffix(port) == host.lower().removesuffix(port)
    return False


def _hostname(origin: str) -> str | None:
    try:
        return urlsplit(origin).hostname
    except ValueError:
        return None

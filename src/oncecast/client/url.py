"""The URLs that a client is given: the server's and a proxy's. Invariant: what is parsed can stand in a request."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ..errors import UsageError

__all__ = ["ProxyUrl", "ServerUrl"]

PORTS = {"http": 80, "https": 443}
API_PREFIX = "/v1"  # part of every request's path; a base URL may have it at its end, or leave it out


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """Where a server is: `http[s]://host[:port][/prefix][/v1]`. `prefix` is the path without `/v1`."""

    scheme: str
    host: str
    port: int
    prefix: str

    @classmethod
    def parse(cls, url: str) -> ServerUrl:
        """Read a URL. Raises `UsageError`, which says what a good one looks like."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        wrong = parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or parts.username
        if wrong or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError(f"{url!r} is not a server's URL: write http://host:port or https://host:port")
        assert parts.hostname is not None
        return cls(
            parts.scheme,
            parts.hostname,
            PORTS[parts.scheme] if port is None else port,
            parts.path.rstrip("/").removesuffix(API_PREFIX),
        )

    @property
    def authority(self) -> str:
        """The Host header (RFC 9110 §7.2): the port only where it is not the scheme's own."""
        return self.host_in_url if self.port == PORTS[self.scheme] else f"{self.host_in_url}:{self.port}"

    @property
    def host_in_url(self) -> str:
        """The host as a URL has it: an IPv6 address in brackets (RFC 3986 §3.2.2)."""
        return f"[{self.host}]" if ":" in self.host else self.host

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.prefix}"


@dataclass(frozen=True, slots=True)
class ProxyUrl:
    """An HTTP proxy that opens tunnels with CONNECT: `http://[user:password@]host[:port]`.

    `authorization` is the value of `Proxy-Authorization` (RFC 7617), `""` without a user.
    """

    host: str
    port: int
    authorization: str

    @classmethod
    def parse(cls, url: str) -> ProxyUrl:
        """Read a URL. Raises `UsageError`; its text has no password."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        wrong = parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query
        if wrong or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
            raise UsageError("proxy: write http://host:port or http://user:password@host:port")
        assert parts.hostname is not None
        authorization = ""
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            authorization = "Basic " + base64.b64encode(pair.encode()).decode()
        return cls(parts.hostname, PORTS["http"] if port is None else port, authorization)

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"

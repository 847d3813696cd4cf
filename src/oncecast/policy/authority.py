"""A host and a port as URLs, `Host` and `Origin` write them: RFC 3986 §3.2, RFC 9110 §7.2, RFC 6454 §6.2.

Two spellings of one host compare equal: letters are lower case, one trailing dot is gone, an IPv6 address has its
shortest form in brackets. A text that does not match the grammar gives None, never a guess.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

HOST_CHARS = 255  # RFC 1035 §2.3.4: no name in the DNS is longer
MAX_PORT = 65535
AUTHORITY_CHARS = HOST_CHARS + 6  # with a colon and a port
ORIGIN_CHARS = AUTHORITY_CHARS + 32  # with a scheme, of which the longest registered ones have some twenty
DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

# RFC 3986 §3.2.2, without the sub-delims and percent-encoding of a reg-name: no name in the DNS needs them. No user
# information (RFC 9110 §4.2.4), no zone of an address, which has no meaning outside of its own machine.
_AUTHORITY = re.compile(rf"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]{{1,{HOST_CHARS}}})(?::([0-9]{{0,5}}))?")
_ORIGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#@\\]+)")


@dataclass(frozen=True, slots=True)
class Authority:
    """A host in its one spelling, and the port, None where none is named."""

    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a page was loaded from (RFC 6454 §4); the port is never None for a scheme that has a default one."""

    scheme: str
    host: str
    port: int | None

    def __str__(self) -> str:
        """Return the origin as a browser writes it: without a default port (RFC 6454 §6.2)."""
        hidden = self.port is None or self.port == DEFAULT_PORTS.get(self.scheme)
        return f"{self.scheme}://{self.host}" if hidden else f"{self.scheme}://{self.host}:{self.port}"


def parse_authority(text: str) -> Authority | None:
    """Read `host[:port]`; None for anything else."""
    return _authority(text) if len(text) <= AUTHORITY_CHARS else None


@lru_cache(maxsize=1024)  # the clients of one server name few hosts
def _authority(text: str) -> Authority | None:
    match = _AUTHORITY.fullmatch(text)
    if match is None:
        return None
    host = _one_spelling(match[1])
    port = int(match[2]) if match[2] else None
    if host is None or (port is not None and port > MAX_PORT):
        return None
    return Authority(host, port)


def parse_origin(text: str) -> Origin | None:
    """Read `scheme://host[:port]`, as an `Origin` header has it; None for anything else, `null` too."""
    return _origin(text) if len(text) <= ORIGIN_CHARS else None


@lru_cache(maxsize=1024)
def _origin(text: str) -> Origin | None:
    match = _ORIGIN.fullmatch(text)
    authority = parse_authority(match[2]) if match is not None else None
    if match is None or authority is None:
        return None
    scheme = match[1].lower()
    return Origin(scheme, authority.host, DEFAULT_PORTS.get(scheme) if authority.port is None else authority.port)


def is_loopback(host: str) -> bool:
    """Return whether a host is `localhost`, `*.localhost`, of 127.0.0.0/8, or `[::1]`. `parse_authority` spells it."""
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761 §6.3
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


def parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Read an address, IPv6 with or without brackets; None for a name. IPv4 inside IPv6 comes out as IPv4."""
    try:
        address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _one_spelling(host: str) -> str | None:
    if host.startswith("["):
        try:
            return f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return None
    host = host.lower().removesuffix(".")
    return host if all(host.split(".")) else None  # no label of a name is empty (RFC 1034 §3.1)

"""The client's address of a request behind proxies: `Forwarded` (RFC 7239) and `X-Forwarded-For`.

Each proxy appends the address of its peer to the header. So the header is read from its end: while the address is a
trusted proxy's, the entry before it was written by that proxy. The first address that is no proxy's is the client's.
The client itself has written what stands before that, so it is not read.

Invariants: a header from an untrusted peer is ignored. Only the header that the settings name is read, as a proxy that
appends to one of the two passes the other on as the client sent it. An entry that names no address
(`unknown`, an obfuscated name, anything malformed) ends the search, at the last address that is known.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Literal

from ..errors import ConfigurationError
from .authority import parse_address

__all__ = ["MOST_HOPS", "ForwardedHeader", "TrustedProxies", "network_of", "parse_network"]

ForwardedHeader = Literal["x-forwarded-for", "forwarded"]
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST_HOPS = 32  # proxies in a row
CLIENTS = 1024  # headers whose client is remembered: parsing one takes as long as answering a short poll
KEPT_CHARS = 256  # of a header that is remembered
READ_CHARS = 4096  # of a header, from its end: what a client has put in front of that is not read
IPV6_PREFIX = 64  # a customer has at least this (RFC 6177), so an attacker can vary the rest at no cost

# RFC 7239 §4: a list of elements, each of pairs of a token and a token or quoted string (RFC 9110 §5.6.2, §5.6.4).
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105
_VALUE = rf'(?:{_TOKEN}|"(?:[^"\\]|\\.)*")'
_ELEMENT = re.compile(rf"[ \t]*{_TOKEN}={_VALUE}(?:[ \t]*;[ \t]*{_TOKEN}={_VALUE})*[ \t]*")
_PAIR = re.compile(rf"({_TOKEN})=({_VALUE})")  # one after the other, of what `_ELEMENT` matches
_PORT = r"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]+))?"  # RFC 7239 §6: of a node, perhaps obfuscated
_NODE = re.compile(rf"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)){_PORT}")


class TrustedProxies:
    """The networks whose addresses are proxies', and the header that these write.

    `networks` are addresses or networks in CIDR notation. Raises `ConfigurationError` for others.
    """

    __slots__ = ("_known", "_networks", "header")

    def __init__(self, networks: Iterable[str] = (), header: ForwardedHeader = "x-forwarded-for") -> None:
        self._networks = tuple(map(parse_network, networks))
        self.header = header
        self._known: dict[tuple[str, str], str] = {}  # by the peer and its header

    def __bool__(self) -> bool:
        """Return whether any address is a proxy's."""
        return bool(self._networks)

    def trusts(self, address: str) -> bool:
        """Return whether an address is a proxy's."""
        return bool(self._networks) and _is_within(self._networks, address)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of the client whose request came from `peer` with these headers."""
        value = headers.get(self.header)
        if value is None:
            return peer
        known = self._known.get((peer, value))
        if known is None:
            if not self.trusts(peer):
                return peer
            if len(self._known) >= CLIENTS:
                self._known.clear()
            known = self._read(peer, value)
            if len(value) <= KEPT_CHARS:
                self._known[peer, value] = known
        return known

    def _read(self, peer: str, value: str) -> str:
        if len(value) > READ_CHARS:
            value = value[-READ_CHARS:].partition(",")[2]  # the first entry may be a part of one
        entries = _elements(value) if self.header == "forwarded" else _addresses(value)
        known = peer
        for _, entry in zip(range(MOST_HOPS), entries, strict=False):
            if entry is None:
                break
            known = entry
            if not self.trusts(entry):
                break
        return known


def parse_network(text: str) -> IpNetwork:
    """Read an address or a network; one of IPv4 addresses in IPv6 comes out as IPv4, as `parse_address` does.

    Raises `ConfigurationError`, also for one with bits set behind its prefix.
    """
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ConfigurationError(
            f"{text[:100]!a} is no network: write an address, or a network as 10.0.0.0/8 or 2001:db8::/32"
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and (mapped := network.network_address.ipv4_mapped) is not None:
        return ipaddress.IPv4Network((int(mapped), network.prefixlen - 96))  # no shorter, as bits before are set
    return network


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Return what limits per address count: an IPv4 address, the /64 of an IPv6 one; "" for loopback and no address."""
    found = parse_address(address)
    if found is None or found.is_loopback:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(found), IPV6_PREFIX), strict=False))
    return str(found)


@lru_cache(maxsize=4096)
def _is_within(networks: tuple[IpNetwork, ...], address: str) -> bool:
    found = parse_address(address)
    return found is not None and any(found in network for network in networks)


def _addresses(value: str) -> Iterator[str | None]:
    """Yield the entries of an `X-Forwarded-For` from its end, None for one that is no address."""
    while True:
        value, comma, entry = value.rpartition(",")
        yield _address(entry.strip(" \t"))
        if not comma:
            return


def _elements(value: str) -> Iterator[str | None]:
    """Yield what the elements of a `Forwarded` name in `for` from its end, None where that is no address.

    An element ends the value, and begins behind the last comma from which on it is well formed. So whatever a client
    has left open, such as a quote, swallows nothing that a proxy has added.
    """
    while True:
        begin = len(value)
        for _ in range(MOST_HOPS):  # an element has few commas, which stand in quotes
            begin = value.rfind(",", 0, begin)
            if _ELEMENT.fullmatch(value, begin + 1):
                break
            if begin < 0:
                yield None
                return
        else:
            yield None
            return
        named = [text for name, text in _PAIR.findall(value, begin + 1) if name.lower() == "for"]
        yield _address(_unquoted(named[0])) if len(named) == 1 else None
        if begin < 0:
            return
        value = value[:begin]


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text


def _address(node: str) -> str | None:
    """Read an address, perhaps with a port, as text in its one spelling; an IPv4 address in an IPv6 one comes out."""
    if node.count(":") > 1 and not node.startswith("["):
        node = f"[{node}]"  # an IPv6 address without a port, as `X-Forwarded-For` has it
    match = _NODE.fullmatch(node)
    found = parse_address(match[1] or match[2]) if match is not None else None
    return None if found is None else str(found)

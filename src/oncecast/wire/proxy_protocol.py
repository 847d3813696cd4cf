"""The PROXY protocol, versions 1 and 2: a header before everything else on a connection, TLS too, in which a proxy says
whose connection it is.

<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>, cited by its sections. A fault is a `Refusal`, found at
the first byte that shows it; it is never answered, as no request has been read.

Invariant: the header's size does not depend on what follows it, and is at most `MOST_BYTES`.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from ..errors import Refusal

__all__ = ["MOST_BYTES", "ProxyHeader", "parse_proxy_header"]

V1_BYTES = 107  # §2.1: the longest line, with its CRLF
V2_BYTES = 4096  # of addresses and TLVs, which may hold a client's certificate; the protocol has room for 65,535
MOST_BYTES = 16 + V2_BYTES

_V1 = b"PROXY "
_V2 = b"\r\n\r\n\0\r\nQUIT\n"  # §2.2
_PORT = "(?:0|[1-9][0-9]{0,4})"
_LINE = re.compile(rf"PROXY (?:TCP4 ([0-9.]+) ([0-9.]+)|TCP6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+)) ({_PORT}) ({_PORT})")

# §2.2: the low nibble of the 13th byte, and the 14th: the family and the transport.
_LOCAL, _PROXY = 0, 1
_TCP4, _TCP6 = 0x11, 0x21
_ADDRESS_BYTES = {_TCP4: 12, _TCP6: 36}
_FAMILIES = frozenset({0x00, 0x11, 0x12, 0x21, 0x22, 0x31, 0x32})


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header of `size` bytes. `address` is the client's; None where the connection is the proxy's own (`LOCAL`,
    `UNKNOWN`, or a family that is not TCP's), and then the peer's address counts.
    """

    size: int
    address: str | None


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Read the header that `data` begins with; None where more bytes are needed. Raises `Refusal`."""
    if data.startswith(_V2[: len(data)]):
        return _parse_v2(data) if len(data) >= len(_V2) else None
    if data.startswith(_V1[: len(data)]):
        return _parse_v1(data) if len(data) >= len(_V1) else None
    raise _fault("This port takes connections of a proxy, which begin with a header of the PROXY protocol.")


def _parse_v1(data: bytes) -> ProxyHeader | None:
    """Read a line (§2.1)."""
    end = data.find(b"\r\n", 0, V1_BYTES)
    if end < 0:
        if len(data) >= V1_BYTES:
            raise _fault("The line of the PROXY protocol is longer than 107 bytes.")
        return None
    line = data[:end].decode("latin-1")
    if line == "PROXY UNKNOWN" or line.startswith("PROXY UNKNOWN "):  # what follows is to be ignored
        return ProxyHeader(end + 2, None)
    match = _LINE.fullmatch(line)
    if match is None or max(int(match[5]), int(match[6])) > 65535:
        raise _fault("The line of the PROXY protocol is malformed.")
    source, target = (match[1], match[2]) if match[1] is not None else (match[3], match[4])
    kind = ipaddress.IPv4Address if match[1] is not None else ipaddress.IPv6Address
    try:
        address, _ = kind(source), kind(target)
    except ValueError:
        raise _fault("The line of the PROXY protocol has no addresses of its family.") from None
    return ProxyHeader(end + 2, _spelled(address))


def _parse_v2(data: bytes) -> ProxyHeader | None:
    """Read a binary header (§2.2)."""
    if len(data) > 12 and data[12] not in (0x20 | _LOCAL, 0x20 | _PROXY):
        raise _fault("The header of the PROXY protocol has a version or a command that is not known.")
    if len(data) > 13 and data[13] not in _FAMILIES:
        raise _fault("The header of the PROXY protocol has a family that is not known.")
    if len(data) < 16:
        return None
    length = int.from_bytes(data[14:16])
    if length > V2_BYTES:
        raise _fault(f"The header of the PROXY protocol is longer than {V2_BYTES} bytes.")
    command, family = data[12] & 0x0F, data[13]
    if command == _PROXY and length < _ADDRESS_BYTES.get(family, 0):
        raise _fault("The header of the PROXY protocol is too short for its addresses.")
    size = 16 + length
    if len(data) < size:
        return None
    if command == _LOCAL or family not in _ADDRESS_BYTES:
        return ProxyHeader(size, None)
    if family == _TCP4:
        return ProxyHeader(size, _spelled(ipaddress.IPv4Address(data[16:20])))
    return ProxyHeader(size, _spelled(ipaddress.IPv6Address(data[16:32])))


def _spelled(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _fault(message: str) -> Refusal:
    return Refusal("request_invalid", message)

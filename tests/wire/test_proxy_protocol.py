"""The PROXY protocol: both versions whole, byte by byte and with bytes behind, and what is malformed in them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.wire.proxy_protocol import MOST_BYTES, V2_BYTES, ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 1, 10, 0, 0, 1]) + b"\x12\x34\x01\xbb"
SIX = ipaddress.IPv6Address("2001:db8::1").packed + ipaddress.IPv6Address("2001:db8::2").packed + b"\x12\x34\x01\xbb"
MAPPED = ipaddress.IPv6Address("::ffff:192.0.2.1").packed + SIX[16:]


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    """Return a binary header."""
    size = len(body) if length is None else length
    return SIGNATURE + bytes([0x20 | command, family]) + size.to_bytes(2) + body


HEADERS = {
    b"PROXY TCP4 192.0.2.1 10.0.0.1 56324 443\r\n": "192.0.2.1",
    b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n": "255.255.255.255",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 0 0\r\n": "192.0.2.1",
    b"PROXY TCP6 2001:DB8::1 2001:db8::2 1 2\r\n": "2001:db8::1",
    b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n": "192.0.2.1",
    b"PROXY TCP6 " + b"ffff:" * 7 + b"ffff " + b"ffff:" * 7 + b"ffff 65535 65535\r\n": ":".join(["ffff"] * 8),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 anything 1 2\r\n": None,
    b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n": None,
    v2(1, 0x11, FOUR): "192.0.2.1",
    v2(1, 0x11, FOUR + b"\x03\x00\x04abcd" + b"\x20\x00\x00"): "192.0.2.1",
    v2(1, 0x21, SIX): "2001:db8::1",
    v2(1, 0x21, MAPPED): "192.0.2.1",
    v2(1, 0x21, SIX + b"x" * (V2_BYTES - 36)): "2001:db8::1",
    v2(0, 0x00, b""): None,
    v2(0, 0x11, FOUR): None,
    v2(0, 0x21, b"short"): None,
    v2(1, 0x00, b"abc"): None,
    v2(1, 0x12, FOUR): None,
    v2(1, 0x31, b"/sock" + bytes(211)): None,
}


@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_header_whole_in_parts_and_with_more_behind(header: bytes) -> None:
    """Before its last byte more is needed, and its size does not depend on what follows."""
    expected = ProxyHeader(len(header), HEADERS[header])
    assert [None] * len(header) == [parse_proxy_header(header[:size]) for size in range(len(header))]
    for behind in (b"", b"G", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\r\n"):
        assert expected == parse_proxy_header(header + behind)
    assert len(header) <= MOST_BYTES


@pytest.mark.parametrize(
    "data, shown",
    [
        (b"GET / HTTP/1.1\r\n", 1),
        (b"\x16\x03\x01", 1),
        (b"PROXX", 5),
        (b"proxy ", 1),
        (b"\r\n\r\nX", 5),
        (b"PROXY\tTCP4", 6),
        (b"PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n", None),
        (b"PROXY  TCP4 192.0.2.1 10.0.0.1 1 2\r\n", None),
        (b"PROXY TCP4  192.0.2.1 10.0.0.1 1 2\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2 \r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 65536\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 01 2\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 -1 2\r\n", None),
        (b"PROXY TCP4 192.0.2.01 10.0.0.1 1 2\r\n", None),
        (b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n", None),
        (b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n", None),
        (b"PROXY TCP6 192.0.2.1 10.0.0.1 1 2\r\n", None),
        (b"PROXY TCP6 2001:db8::g ::1 1 2\r\n", None),
        (b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", None),
        (b"PROXY UNKNOWNX\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n\r\n", None),
        (b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\n", "more"),
        (b"PROXY UNKNOWN " + b"x" * 93, 107),
        (b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n", 107),
        (SIGNATURE + b"\x11", 13),
        (SIGNATURE + b"\x22", 13),
        (SIGNATURE + b"\x31", 13),
        (SIGNATURE + b"\x21\x41", 14),
        (SIGNATURE + b"\x21\x13", 14),
        (v2(1, 0x11, FOUR, length=11), 16),
        (v2(1, 0x21, SIX, length=35), 16),
        (v2(1, 0x11, b"", length=V2_BYTES + 1), 16),
        (v2(0, 0x11, b"", length=65535), 16),
    ],
    ids=repr,
)
def test_what_is_malformed(data: bytes, shown: int | str | None) -> None:
    """A malformed line is refused at the first byte that shows it, or once the line is whole."""
    if shown == "more":
        assert parse_proxy_header(data) is None
        return
    least = len(data) if shown is None else int(shown)
    assert [None] * least == [parse_proxy_header(data[:size]) for size in range(least)]
    for size in range(least, len(data) + 1):
        with pytest.raises(Refusal) as caught:
            parse_proxy_header(data[:size])
        assert "request_invalid" == caught.value.code


@given(st.binary(max_size=60), st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11\0"]))
@example(b"", SIGNATURE + b"\x21\x11\x00\x0c")
def test_whatever_comes_it_is_a_header_a_refusal_or_too_short(tail: bytes, begin: bytes) -> None:
    """More bytes do not change a header that was read."""
    data = begin + tail
    try:
        found = parse_proxy_header(data)
    except Refusal:
        with pytest.raises(Refusal):
            parse_proxy_header(data + b"x")
        return
    if found is not None:
        assert found.size <= len(data)
        assert found == parse_proxy_header(data[: found.size]) == parse_proxy_header(data + b"x")


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.integers(0, 65535), st.binary(max_size=300))
def test_every_address_comes_out_of_both_versions(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, extra: bytes
) -> None:
    """The address that the proxy was asked from, in its one spelling."""
    mapped = getattr(address, "ipv4_mapped", None)
    line = f"PROXY TCP{address.version} {address} {address} {port} 443\r\n".encode()
    packed = address.packed * 2 + port.to_bytes(2) + b"\x01\xbb" + extra
    for header in (line, v2(1, 0x11 if address.version == 4 else 0x21, packed)):
        assert ProxyHeader(len(header), str(mapped or address)) == parse_proxy_header(header + b"GET")

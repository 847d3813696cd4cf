"""Hosts, ports and origins by their grammar."""

from __future__ import annotations

import pytest

from oncecast.policy.authority import Authority, Origin, is_loopback, parse_address, parse_authority, parse_origin


@pytest.mark.parametrize(
    "text, authority",
    [
        ("a", Authority("a")),
        ("A.Example.:80", Authority("a.example", 80)),
        ("a:", Authority("a")),
        ("a:0", Authority("a", 0)),
        ("a:65535", Authority("a", 65535)),
        ("[0:0::1]:8", Authority("[::1]", 8)),
        ("_x-1~.b", Authority("_x-1~.b")),
        ("a" * 255, Authority("a" * 255)),
    ],
)
def test_authorities(text: str, authority: Authority) -> None:
    """A host comes out in its one spelling, with the port that was written."""
    assert authority == parse_authority(text)


@pytest.mark.parametrize(
    "text",
    [
        "", ":80", "a:65536", "a:-1", "a:1x", "a:\u0661", "é", "a b", "a/", "u@a", "[::g]", "[1.2.3.4]", "[]", ".",
        "a..", "a..b", ".a", "[::1%25lo]", "a" * 256, "a\n",
    ],
)  # fmt: skip
def test_no_authorities(text: str) -> None:
    """A text that does not match the grammar gives None."""
    assert parse_authority(text) is None


@pytest.mark.parametrize(
    "text, origin, written",
    [
        ("http://a", Origin("http", "a", 80), "http://a"),
        ("HTTPS://A.:443", Origin("https", "a", 443), "https://a"),
        ("https://a:80", Origin("https", "a", 80), "https://a:80"),
        ("capacitor://localhost", Origin("capacitor", "localhost", None), "capacitor://localhost"),
        ("app+x://a:1", Origin("app+x", "a", 1), "app+x://a:1"),
    ],
)
def test_origins(text: str, origin: Origin, written: str) -> None:
    """An origin has the default port of its scheme, and is written without it."""
    found = parse_origin(text)
    assert origin == found
    assert written == str(found)


@pytest.mark.parametrize("text", ["null", "", "a", "http:a", "http://", "1http://a", "http://a/", "http://u@a", "*"])
def test_no_origins(text: str) -> None:
    """An opaque origin is none that could be compared."""
    assert parse_origin(text) is None


def test_addresses() -> None:
    """An address of IPv4 inside IPv6 is the one of IPv4."""
    assert "127.0.0.1" == str(parse_address("[::ffff:127.0.0.1]"))
    assert parse_address("a") is None
    assert [True, True, True, False] == [is_loopback(host) for host in ("localhost", "b.localhost", "[::1]", "127.1")]

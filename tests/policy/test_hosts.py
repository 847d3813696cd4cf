"""Hosts: the names of this machine while nothing else is bound, those of the setting, and everything else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import ConfigurationError, Refusal
from oncecast.policy.hosts import VERDICTS, Hosts, check_pattern

LOOPBACK = Hosts((), ("127.0.0.1", "::1"), "localhost")


def refused(hosts: Hosts, host: str) -> Refusal:
    """Return the refusal of a host."""
    with pytest.raises(Refusal) as caught:
        hosts.check(host)
    assert ("host_refused", 421) == (caught.value.code, caught.value.error.status)
    return caught.value


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "localhost:8000", "LocalHost:1", "localhost.", "a.localhost:8000", "127.0.0.1:8000", "127.9.9.9",
        "[::1]:8000", "[0:0::1]", "[::ffff:127.0.0.1]", "localhost:", None,
    ],
)  # fmt: skip
def test_on_loopback_its_names_are_served(host: str | None) -> None:
    """Every name and address of this machine is, on any port; and a request of HTTP/1.0 may have no Host."""
    LOOPBACK.check(host)
    Hosts((), ("127.0.0.1",), "127.0.0.1").check(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example:8000", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evillocalhost",
        "192.0.2.1", "[2001:db8::1]:8000", "[::ffff:192.0.2.1]", "0.0.0.0", "127.1", "2130706433", "0x7f000001",
        "[::1", "[::1].evil.example", "localhost@evil.example", "localhost:65536", "a..localhost", ".localhost", ".",
        "", "localhost/", "localhost:80:80", "xn--loclhost-x1a",
    ],
)  # fmt: skip
def test_on_loopback_no_other_name_is_served(host: str) -> None:
    """A page may let its own name resolve to this machine; the name is not this machine's."""
    refused(LOOPBACK, host)
    refused(LOOPBACK, host)


def test_the_name_that_was_bound_is_served() -> None:
    """A name of this machine's own, such as one of /etc/hosts, is what the operator asked to listen on."""
    hosts = Hosts((), ("127.0.1.1",), "Build-Box.lan.")
    hosts.check("build-box.lan:8000")
    hosts.check("127.0.0.1")
    refused(hosts, "box.lan")


@pytest.mark.parametrize(
    "bound", [("0.0.0.0",), ("::",), ("127.0.0.1", "192.0.2.1"), ("fe80::1%eth0",), ("/run/oncecast",), ()]
)
def test_elsewhere_any_name_is_served(bound: tuple[str, ...]) -> None:
    """Other machines reach the server by names that it does not know."""
    Hosts((), bound, "0.0.0.0").check("evil.example")


def test_a_star_serves_any_name() -> None:
    """The guard can be taken away, for a proxy that has one."""
    Hosts(("*",), ("127.0.0.1",), "localhost").check("evil.example")


def test_named_hosts_are_served_and_no_others() -> None:
    """Names are compared without case, port and trailing dot; `*.` stands for all names below, not for the name."""
    hosts = Hosts(("Example.com", "*.example.org", "192.0.2.7", "::1"), ("127.0.0.1",), "localhost")
    for host in ("example.com", "EXAMPLE.com.:8443", "a.example.org", "a.b.example.org:1", "192.0.2.7:80", "[::1]"):
        hosts.check(host)
    for host in ("a.example.com", "example.org", "evilexample.org", "localhost", "127.0.0.1", "example.com.evil"):
        refused(hosts, host)


@pytest.mark.parametrize(
    "pattern, spelled",
    [
        ("*", "*"),
        ("A.b.", "a.b"),
        ("*.A.b", "*.a.b"),
        ("::1", "[::1]"),
        ("[0::1]", "[::1]"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_patterns(pattern: str, spelled: str) -> None:
    """A pattern comes out in its one spelling."""
    assert spelled == check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "a b",
        "a:80",
        "[::1]:80",
        "*a",
        "a.*",
        "*.*",
        "*.",
        "*.127.0.0.1",
        "*.127.0.0.1.",
        "http://a",
        "a/",
        "[::1",
        "a..b",
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    """A port, a path and a star elsewhere are mistakes that would never fit a host."""
    with pytest.raises(ConfigurationError, match="is not a host: write a name"):
        check_pattern(pattern)
    with pytest.raises(ConfigurationError):
        Hosts((pattern,))


@given(st.text(max_size=200))
def test_the_refusal_is_one_line_that_names_the_setting(host: str) -> None:
    """Whatever was sent, the text is printable and short."""
    assert re.fullmatch(r"[ -~]{1,1200}", refused(LOOPBACK, "?" + host).message)
    assert "`hosts`" in refused(LOOPBACK, "?" + host).message


def test_remembered_verdicts_are_bounded() -> None:
    """A peer that makes up hosts fills no memory, and changes no verdict."""
    hosts = Hosts((), ("127.0.0.1",), "localhost")
    for number in range(2 * VERDICTS):
        refused(hosts, f"h{number}.example")
        hosts.check(f"h{number}.localhost")
        assert len(hosts._verdicts) <= VERDICTS

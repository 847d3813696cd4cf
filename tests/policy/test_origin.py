"""Origins: our own pages, those that are allowed, a developer's, and everybody else's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncecast.errors import Refusal
from oncecast.policy.origin import ALLOW_HEADERS, ALLOW_METHODS, EXPOSE_HEADERS, PREFLIGHT_SECONDS, Origins, preflight

EXACT = Origins(frozenset({"https://app.example", "http://app.example:8080"}))


def refused(origins: Origins, origin: str, host: str | None = "api.example", scheme: str = "http") -> Refusal:
    """The refusal of a request."""
    with pytest.raises(Refusal) as caught:
        origins.check(origin, host, scheme)
    assert "origin_refused" == caught.value.code
    return caught.value


@pytest.mark.parametrize(
    "origin, host, scheme",
    [
        (None, "api.example", "http"),
        (None, None, "http"),
        ("http://api.example", "api.example", "http"),
        ("http://api.example", "api.example:80", "http"),
        ("http://api.example:80", "api.example", "http"),
        ("http://API.example", "api.EXAMPLE", "http"),
        ("http://api.example:8080", "api.example:8080", "http"),
        ("https://api.example", "api.example", "https"),
        ("https://api.example", "api.example:443", "https"),
        ("https://api.example:8443", "api.example:8443", "https"),
        ("https://api.example", "api.example", "http"),
        ("http://[::1]:8080", "[::1]:8080", "http"),
    ],
)
def test_our_own_pages_and_no_pages_need_no_leave(origin: str | None, host: str | None, scheme: str) -> None:
    """The same scheme, host and port, default ports written or not, also behind a proxy's TLS; or no Origin."""
    assert () == Origins().check(origin, host, scheme)


@pytest.mark.parametrize(
    "origin, host, scheme",
    [
        ("http://api.example", "api.example", "https"),
        ("http://api.example:8080", "api.example", "http"),
        ("http://api.example", "api.example:8080", "http"),
        ("http://api.example:443", "api.example", "http"),
        ("https://api.example:80", "api.example", "https"),
        ("http://evil.example", "api.example", "http"),
        ("http://api.example.evil.example", "api.example", "http"),
        ("http://evil-api.example", "api.example", "http"),
        ("http://api.example", None, "http"),
        ("ftp://api.example", "api.example", "http"),
        ("api.example", "api.example", "http"),
        ("//api.example", "api.example", "http"),
        ("http://api.example/", "api.example", "http"),
        ("http://api.example@evil.example", "api.example", "http"),
        ("null", "null", "http"),
        ("", "", "http"),
        ("http://", "api.example", "http"),
        ("http://[::1", "api.example", "http"),
        ("http://[::1].api.example", "api.example", "http"),
        ("http://api.example\\@evil.example", "api.example", "http"),
        ("http://api.example:99999", "api.example:99999", "http"),
        ("http://api.example http://evil.example", "api.example", "http"),
        ("http://api.example?", "api.example", "http"),
        ("http://api.example", "api.example:", "https"),
        ("http://localhost:3000", "api.example", "http"),
    ],
)
def test_another_origin_is_refused(origin: str, host: str | None, scheme: str) -> None:
    """A downgrade, another port or host, a near name, an opaque or a malformed origin is somebody else's page."""
    refused(Origins(), origin, host, scheme)
    refused(EXACT, origin, host, scheme)


@pytest.mark.parametrize("origin", ["https://app.example", "http://app.example:8080"])
def test_an_exact_origin_may_connect_and_read_with_credentials(origin: str) -> None:
    """An exact origin is named in the answer, and `Vary` says that the answer depends on it."""
    headers = dict(EXACT.check(origin, "api.example", "https"))
    assert {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": EXPOSE_HEADERS,
        "Vary": "Origin",
    } == headers


@pytest.mark.parametrize(
    "origin", ["http://app.example", "https://app.example:444", "https://app.example.evil", "https://a.app.example"]
)
def test_another_scheme_host_or_port_is_another_origin(origin: str) -> None:
    """An origin is allowed as a whole (RFC 6454 §5)."""
    refused(EXACT, origin)


@pytest.mark.parametrize("origin", ["https://app.example:443", "https://APP.example", "HTTPS://app.example"])
def test_another_spelling_is_the_same_origin(origin: str) -> None:
    """Scheme and host have no case, a default port may be left out; the answer repeats what was sent."""
    assert origin == dict(EXACT.check(origin, "api.example", "https"))["Access-Control-Allow-Origin"]


def test_a_star_lets_all_read_without_credentials() -> None:
    """Any page may connect, an opaque one too, but none with somebody's cookies."""
    for origin in ("http://evil.example", "null", "capacitor://localhost"):
        headers = dict(Origins(frozenset({"*"})).check(origin, "api.example", "http"))
        assert {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": EXPOSE_HEADERS} == headers


def test_an_exact_origin_beside_a_star_keeps_its_credentials() -> None:
    """The narrower rule wins."""
    headers = dict(Origins(frozenset({"*", "https://app.example"})).check("https://app.example", "api.example", "http"))
    assert ("https://app.example", "true") == (
        headers["Access-Control-Allow-Origin"],
        headers["Access-Control-Allow-Credentials"],
    )


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://127.0.0.1:5173",
        "https://[::1]:8443",
        "http://LOCALHOST",
        "http://localhost.",
        "http://app.localhost:5173",
        "http://127.8.9.10",
        "http://[0:0:0:0:0:0:0:1]",
        "http://[::ffff:127.0.0.1]",
    ],
)
def test_in_development_every_page_of_this_machine_may_connect(origin: str) -> None:
    """A front end's own server on another port is the usual case."""
    assert origin == dict(Origins(loopback=True).check(origin, "127.0.0.1:8000", "http"))["Access-Control-Allow-Origin"]


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost.evil.example",
        "http://localhost@evil.example",
        "http://evil.example/localhost",
        "http://127.0.0.1.evil.example",
        "http://[::1",
        "http://[::1].evil.com",
        "http://[::1]evil.com",
        "http://evil.com\\@localhost",
        "http://evil.com#@localhost",
        "http://user@localhost",
        "http://user:password@localhost",
        "http://localhost/",
        "http://localhost:65536",
        "http://localhost:0x50",
        "http://localhost:80:80",
        "http://local host",
        "http://localhost..",
        "http://.localhost",
        "http://127.1",
        "http://[::ffff:192.0.2.1]",
        "http://[fe80::1%25lo]",
        "http:localhost",
        "http:///localhost",
        "http://localhost, http://localhost",
        "null",
        "localhost",
    ],
)
def test_in_development_no_other_machine_may(origin: str) -> None:
    """A name that only looks like this machine is another one."""
    refused(Origins(loopback=True), origin)


@pytest.mark.parametrize("origin", ["", "x", "http://", "http://[::1].evil.com", "http://a/", "http://a b", "Null"])
def test_what_is_no_origin_is_refused_whatever_is_allowed(origin: str) -> None:
    """An origin outside of the grammar is refused even with `*` or development, except `null` with `*`."""
    refused(Origins(frozenset({"*"}), loopback=True), origin)


@given(st.text(max_size=200))
def test_whatever_stands_in_the_header_the_answer_is_safe(origin: str) -> None:
    """A bad origin is refused in one short line of printable ASCII that says what to do, and raises nothing else."""
    refusal = refused(EXACT, "?" + origin)
    assert re.fullmatch(r"[ -~]{1,1200}", refusal.message)
    assert "`origins`" in refusal.message


def test_a_preflight_says_what_may_be_asked() -> None:
    """The methods, headers and time stand after the origin's own headers."""
    cors = EXACT.check("https://app.example", "api.example", "https")
    headers = preflight(cors)
    assert cors == headers[: len(cors)]
    assert {
        "Access-Control-Allow-Methods": ALLOW_METHODS,
        "Access-Control-Allow-Headers": ALLOW_HEADERS,
        "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
    } == dict(headers[len(cors) :])
    assert {"Last-Event-ID", "Idempotency-Key", "Content-Type", "Authorization"} <= set(ALLOW_HEADERS.split(", "))

"""The URLs of servers and proxies."""

from __future__ import annotations

import pytest

from oncecast import UsageError
from oncecast.client.url import ProxyUrl, ServerUrl


@pytest.mark.parametrize(
    "url, expected, authority",
    [
        ("http://127.0.0.1:8000", ServerUrl("http", "127.0.0.1", 8000, ""), "127.0.0.1:8000"),
        ("https://a.example", ServerUrl("https", "a.example", 443, ""), "a.example"),
        ("http://A.example:80/x/", ServerUrl("http", "a.example", 80, "/x"), "a.example"),
        ("http://a/v1", ServerUrl("http", "a", 80, ""), "a"),
        ("http://a/v1/", ServerUrl("http", "a", 80, ""), "a"),
        ("http://a/x/v1", ServerUrl("http", "a", 80, "/x"), "a"),
        ("http://a/v10", ServerUrl("http", "a", 80, "/v10"), "a"),
        ("http://[::1]:9", ServerUrl("http", "::1", 9, ""), "[::1]:9"),
    ],
)
def test_server(url: str, expected: ServerUrl, authority: str) -> None:
    """A URL gives the address, the prefix and the Host header."""
    server = ServerUrl.parse(url)
    assert (expected, authority) == (server, server.authority)
    assert expected == ServerUrl.parse(str(server))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "a",
        "ftp://a",
        "http://",
        "http://a:x",
        "http://a:99999",
        "http://a?b",
        "http://a#b",
        "http://u@a",
        "http://[",
        "http://a/b c",
    ],
)
def test_server_refuses(url: str) -> None:
    """A text that is no server's URL is refused with a good one as an example."""
    with pytest.raises(UsageError, match="write http://host:port"):
        ServerUrl.parse(url)


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://p:3128", ProxyUrl("p", 3128, "")),
        ("http://p/", ProxyUrl("p", 80, "")),
        ("http://u:p%40ss@p:1", ProxyUrl("p", 1, "Basic dTpwQHNz")),
        ("http://u@p", ProxyUrl("p", 80, "Basic dTo=")),
    ],
)
def test_proxy(url: str, expected: ProxyUrl) -> None:
    """A URL gives the address and the authorization; its text has no password."""
    proxy = ProxyUrl.parse(url)
    assert expected == proxy
    assert f"http://{expected.host}:{expected.port}" == str(proxy)


@pytest.mark.parametrize(
    "url", ["", "p", "https://p", "socks5://p", "http://", "http://p/x", "http://p?q", "http://[", "http://é"]
)
def test_proxy_refuses(url: str) -> None:
    """A text that is no proxy's URL is refused and not repeated, as it may have a password."""
    with pytest.raises(UsageError, match=r"^proxy: write http://host:port"):
        ProxyUrl.parse(url)

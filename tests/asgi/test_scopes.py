"""From a scope to a request: where the application is mounted, and what no reader may understand in two ways."""

from __future__ import annotations

from typing import Any

import pytest

from oncecast.asgi.scopes import address_of, read_request, server_of, split_path
from oncecast.errors import Refusal
from oncecast.policy.limits import Limits
from tests.asgi.peers import http_scope, socket_scope

LIMITS = Limits()


@pytest.mark.parametrize(
    "path, root, expected",
    [
        ("/v1/x", "", "/v1/x"),
        ("/rt/v1/x", "/rt", "/v1/x"),  # Starlette: the whole path
        ("/v1/x", "/rt", "/v1/x"),  # a framework that has cut it already
        ("/rt/v1/x", "/api/rt", "/v1/x"),  # a proxy has cut /api, and the application says that it is there
        ("/api/rt/v1/x", "/api/rt", "/v1/x"),
        ("/rtx/v1", "/rt", "/rtx/v1"),
        ("/rt", "/rt", "/"),
        ("/rt/", "/rt/", "/"),
        ("", "/rt", "/"),
        ("/rt/rt/x", "/rt", "/rt/x"),
    ],
)
def test_paths_count_from_the_mount(path: str, root: str, expected: str) -> None:
    """Whatever a server, a proxy and a framework have done to the path."""
    assert expected == split_path(path, root)[1]
    assert expected == read_request(http_scope(path, root_path=root), LIMITS).path


@pytest.mark.parametrize(
    "path, raw, expected",
    [
        ("/rt/v1/channels/a:b", b"/rt/v1/channels/a%3Ab", "/v1/channels/a:b"),
        ("/rt/v1/channels/a:b", b"", "/v1/channels/a:b"),
        ("/rt/v1/channels/ä", None, "/v1/channels/ä"),
        ("/v1/channels/a/", b"/rt/v1/channels/a", "/v1/channels/a"),  # Litestar
        ("/rt/v1/x y", b"/other", "/v1/x y"),
        ("/rt/v1/x?y", b"/rt/v1/x%3Fy", "/v1/x?y"),
    ],
)
def test_the_path_is_that_which_was_decoded(path: str, raw: bytes | None, expected: str) -> None:
    """`path` counts, even if `raw_path` differs from it."""
    request = read_request(http_scope(path, root_path="/rt", raw_path=raw, query="q=1"), LIMITS)
    assert (expected, "q=1") == (request.path, request.query)


@pytest.mark.parametrize(
    "headers, code",
    [
        ((("authorization", "Bearer a"), ("authorization", "Bearer b")), "request_invalid"),
        ((("host", "b.example"),), "request_invalid"),
        ((("x", "a\r\ny: b"),), "request_invalid"),
        ((("x", "a\nb"),), "request_invalid"),
        ((("x y", "a"),), "request_invalid"),
        ((("content-encoding", "gzip"),), "type_unsupported"),
        (tuple((f"x{n}", "") for n in range(LIMITS.header_count + 1)), "headers_too_large"),
        ((("x", "a" * LIMITS.header_bytes),), "headers_too_large"),
    ],
)
def test_heads_are_read_as_by_the_server(headers: Any, code: str) -> None:
    """What the native server refuses is refused here."""
    with pytest.raises(Refusal) as refusal:
        read_request(http_scope("/v1/x", *headers), LIMITS)
    assert code == refusal.value.code
    with pytest.raises(Refusal) as refusal:
        read_request(http_scope("/v1/" + "x" * LIMITS.url_bytes), LIMITS)
    assert "url_too_long" == refusal.value.code


def test_what_is_of_the_connection_is_left_out() -> None:
    """Framing headers are dropped, the cookies of HTTP/2 are joined, and HTTP/1.0 may have no host."""
    headers = (("transfer-encoding", "chunked"), ("connection", "close"), ("cookie", "a=1"), ("cookie", "b=2"))
    request = read_request(http_scope("/v1/x", *headers), LIMITS)
    assert {"host": "app.example", "cookie": "a=1; b=2"} == dict(request.headers)
    assert not request.keep_alive
    assert "localhost" == read_request({**http_scope("/"), "headers": []}, LIMITS).headers["host"]


def test_a_handshake_of_any_server_is_one() -> None:
    """A scope of HTTP/2 has no key and no upgrade, and some servers list the subprotocols apart."""
    request = read_request(socket_scope("/v1/connect", protocols=("oncecast.v1",)), LIMITS)
    assert ("GET", "websocket", "oncecast.v1") == (
        request.method,
        request.headers["upgrade"],
        request.headers["sec-websocket-protocol"],
    )
    named = socket_scope("/", ("sec-websocket-protocol", "a, b"), ("sec-websocket-extensions", "permessage-deflate"))
    headers = read_request(named, LIMITS).headers
    assert ("a, b", False) == (headers["sec-websocket-protocol"], "sec-websocket-extensions" in headers)


@pytest.mark.parametrize("given, expected", [("http", "http"), ("ws", "http"), ("https", "https"), ("wss", "https")])
def test_the_scheme_is_that_of_the_scope(given: str, expected: str) -> None:
    """It is one of HTTP for sockets too; the server may not say it."""
    assert expected == read_request(http_scope("/", scheme=given), LIMITS).scheme
    scope = http_scope("/")
    del scope["scheme"]
    assert "" == read_request(scope, LIMITS).scheme


def test_addresses_may_be_unknown() -> None:
    """A Unix socket has none."""
    assert ("", "") == (address_of({"client": None}), server_of({"server": ("/run/app.sock", None)}))
    assert ("192.0.2.1", "192.0.2.2") == (address_of(http_scope("/")), server_of(http_scope("/")))

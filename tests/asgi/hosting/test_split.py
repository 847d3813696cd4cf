"""Whose a request is."""

from __future__ import annotations

import pytest

from oncecast.asgi.hosting.split import Split

SPLIT = Split(["/", "/favicon.ico", "/oncecast.js", "/docs/errors"])
NATIVE = [
    b"GET /v1/channels/a HTTP/1.1",
    b"POST /v1/publish HTTP/1.1",
    b"GET /v1/connect?ticket=x HTTP/1.1",
    b"OPTIONS /v1/channels/a HTTP/1.1",
    b"GET /oncecast.js HTTP/1.1",
    b"GET /healthz HTTP/1.1",
    b"GET /metrics HTTP/1.1",
    b"\r\n\r\nGET /v1/channels/a HTTP/1.1",
]
FOREIGN = [
    b"GET / HTTP/1.1",
    b"GET /favicon.ico HTTP/1.1",
    b"GET /v1/users HTTP/1.1",
    b"GET /v1/connected HTTP/1.1",
    b"GET /oncecast.json HTTP/1.1",
    b"GET /v1/channels HTTP/1.1",
    b"GET //v1/channels/a HTTP/1.1",
    b"OPTIONS * HTTP/1.1",
    b"GET http://localhost/v1/channels/a HTTP/1.1",
    b"\r\nPUT /docs HTTP/1.1",
]


@pytest.mark.parametrize("data", NATIVE)
def test_the_servers_requests_are_known_by_how_they_begin(data: bytes) -> None:
    """A request for a path of the server's is never the application's, however little of it has come."""
    assert SPLIT.begins_native(data)
    for size in range(len(data) + 1):
        assert not SPLIT.begins_foreign(data[:size])


@pytest.mark.parametrize("data", FOREIGN)
def test_the_applications_requests_are_known_by_how_they_begin(data: bytes) -> None:
    """A request for any other path is the application's, as soon as no path of the server's begins like it."""
    assert SPLIT.begins_foreign(data)
    decided = [SPLIT.begins_foreign(data[:size]) for size in range(len(data) + 1)]
    assert sorted(decided) == decided, "a verdict was taken back"
    assert not any(SPLIT.begins_native(data[:size]) for size in range(len(data) + 1))


def test_what_is_no_request_is_the_servers() -> None:
    """Bytes without a method stay with the server's parser, which refuses them."""
    assert not SPLIT.begins_foreign(b"\x16\x03\x01" + b"x" * 200)

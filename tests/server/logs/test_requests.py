"""What of a request a log may have: nothing that could be a secret."""

from __future__ import annotations

import pytest

from oncecast.server.logs.requests import PATH_CHARS, channels_of, shown_briefly, shown_method, shown_target
from oncecast.wire import http1
from oncecast.wire.http1_head import read_head

LIMIT = "&".join(f"last={n}" for n in range(9))


def request(target: str, method: str = "GET") -> http1.Request:
    """Return a request for a target."""
    return read_head(f"{method} {target} HTTP/1.1\r\nHost: a\r\n".encode("latin-1")).request


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/channels/a", "/v1/channels/a"),
        ("/v1/channels/a?", "/v1/channels/a"),
        ("/v1/channels/a?after=e1-5&wait=2.5", "/v1/channels/a?after=e1-5&wait=2.5"),
        ("/v1/channels/a?after=latest&envelope=1", "/v1/channels/a?after=latest&envelope=1"),
        ("/v1/channels/a?token=s", "/v1/channels/a?..."),
        ("/v1/channels/a?ticket=s&last=3", "/v1/channels/a?last=3&..."),
        ("/v1/channels/a?Token=s&t%6Fken=s&x=s", "/v1/channels/a?..."),
        ("/v1/channels/a?after=eyJh.eyJz.c2ln&limit=secret", "/v1/channels/a?..."),
        ("/v1/channels/a?since=1;token=s", "/v1/channels/a?..."),
        ("/v1/channels/a?last", "/v1/channels/a?..."),
        (f"/v1/channels/a?{LIMIT}", f"/v1/channels/a?{LIMIT[:-7]}&..."),
        ("/p%20a?last=2", "/p%20a?last=2"),
        ("/v1/channels/a%3Ftoken=s", "/v1/channels/a..."),
        ("/v1/channels/a%3ftoken%3Ds?last=2", "/v1/channels/a...?last=2"),
        ("/v1/channels/a;token=s", "/v1/channels/a..."),
        ("/v1/channels/a%26token%3ds", "/v1/channels/a..."),
        ("/v1/channels/a%3Btoken", "/v1/channels/a..."),
        ("/v1/channels/a%253Ftoken%25253Ds", "/v1/channels/a..."),
    ],
)
def test_target(target: str, shown: str) -> None:
    """The target of a line has the known fields whose values are no secrets by their grammar; `...` stands for the
    rest."""
    assert shown == shown_target(request(target))


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/channels/a", '"/v1/channels/a"'),
        ("/v1/channels/a?token=secret", '"/v1/channels/a"'),
        ("/v1/channels/a%3Ftoken=secret", '"/v1/channels/a..."'),
        ("/v1/channels/a%3ftoken%3dsecret", '"/v1/channels/a..."'),
        ("/v1/channels/a;token=secret", '"/v1/channels/a..."'),
        ("/v1/channels/a&token=secret", '"/v1/channels/a..."'),
        ("/token=secret", '"/token..."'),
        ("/a%0Ab%22%7F%C3%BC", r'"/a\nb\"\u007f\u00fc"'),
        ("/" + "x" * (PATH_CHARS - 1), '"/' + "x" * (PATH_CHARS - 1) + '"'),
        ("/" + "x" * 9999, '"/' + "x" * (PATH_CHARS - 1) + '..."'),
    ],
)
def test_briefly(target: str, shown: str) -> None:
    """A line about a defect has no field of a query, however its mark was sent, no line end, and a bounded path."""
    asked = request(target)
    assert f"GET {shown}" == shown_briefly(asked.method, asked.path)
    assert f"other {shown}" == shown_briefly("SECRET", asked.path)


def test_method() -> None:
    """A method may be any word: one that is not known is not repeated."""
    assert ("GET", "other") == (shown_method("GET"), shown_method("eyJhbGciOi"))


def test_channels() -> None:
    """The channel of a line is the path's, decoded, or none."""
    assert "a,b c" == channels_of(request("/v1/channels/a,b%20c?token=s"))
    assert channels_of(request("/metrics")) is None
    for wrong in ("a%3Ftoken=s", "a;token=s", "a%26token=s", "a%253Ftoken=s"):
        assert "a..." == channels_of(request(f"/v1/channels/{wrong}"))

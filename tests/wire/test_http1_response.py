"""Answers of HTTP/1.1: their bytes, what may not be put into them, and what other readers make of them."""

from __future__ import annotations

import email.utils
import http

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.errors import UsageError
from oncecast.wire.http1 import http_date, response, response_head
from oncecast.wire.http1_client import Body, End, ResponseHead, ResponseParser

DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"


def test_whole() -> None:
    """An answer is one block: status line, the caller's headers, length, date, body."""
    expected = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-A: \xe9\r\n"
        b"Content-Length: 5\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nhello"
    )
    headers = [("Content-Type", "text/plain"), ("X-A", "é")]
    assert expected == response(200, headers, b"hello", keep_alive=True, date=DATE)


@pytest.mark.parametrize(
    "keep_alive, version, line",
    [
        (True, (1, 1), b""),
        (False, (1, 1), b"Connection: close\r\n"),
        (True, (1, 0), b"Connection: keep-alive\r\n"),
        (False, (1, 0), b"Connection: close\r\n"),
    ],
)
def test_connection(keep_alive: bool, version: tuple[int, int], line: bytes) -> None:
    """`Connection` says what the version of the request doesn't imply."""
    expected = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" + line + b"\r\n"
    assert expected == response(404, [], b"", keep_alive=keep_alive, version=version)


@pytest.mark.parametrize("status", [100, 101, 199, 204, 304])
def test_no_content(status: int) -> None:
    """A status without content has neither length nor body, and may have headers."""
    head, _, rest = response(status, [("ETag", '"a"')], b"lost", keep_alive=True).partition(b"\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b'ETag: "a"\r\n\r\n' == rest


def test_head_only() -> None:
    """HEAD is answered with the length of what GET would get."""
    expected = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    assert expected == response(200, [], b"hello", keep_alive=True, head_only=True)


def test_response_head() -> None:
    """The head of a stream holds the caller's headers and the date alone."""
    expected = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    assert expected == response_head(101, [("Upgrade", "websocket"), ("Connection", "Upgrade")])
    expected = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: %b\r\n\r\n" % DATE
    assert expected == response_head(200, [("Transfer-Encoding", "chunked")], date=DATE)


def test_unnamed_status() -> None:
    """A status without a registered reason has an empty one, its space stays."""
    assert b"HTTP/1.1 599 \r\n\r\n" == response_head(599, [])


@pytest.mark.parametrize("status", [0, 99, 600, -200])
def test_no_status(status: int) -> None:
    """A number that is no status is the caller's fault."""
    with pytest.raises(UsageError, match="status"):
        response_head(status, [])
    with pytest.raises(UsageError, match="status"):
        response(status, [], b"", keep_alive=True)


@pytest.mark.parametrize(
    "name, value",
    [
        ("A", "b\r\nC: d"),
        ("A", "b\n"),
        ("A", "b\rc"),
        ("A", "b\0c"),
        ("A", "\x7f"),
        ("A", "€"),
        ("A\r\nB", "c"),
        ("A:", "b"),
        ("A b", "c"),
        ("", "b"),
        ("É", "b"),
    ],
)
def test_injection(name: str, value: str) -> None:
    """A value that would end its header and begin another is refused, and not sent."""
    with pytest.raises(UsageError):
        response(200, [(name, value)], b"", keep_alive=True)
    with pytest.raises(UsageError):
        response_head(200, [(name, value)])


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding"])
def test_length_is_written_here(name: str) -> None:
    """A second length can't come from the caller of a whole answer."""
    with pytest.raises(UsageError, match="codec"):
        response(200, [(name, "5")], b"hello", keep_alive=True)


@pytest.mark.parametrize(
    "seconds, expected",
    [
        (784111777, DATE),
        (784111777.999, DATE),
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (-0.5, b"Wed, 31 Dec 1969 23:59:59 GMT"),
        (1709164800, b"Thu, 29 Feb 2024 00:00:00 GMT"),
        (1764000000.123, b"Mon, 24 Nov 2025 16:00:00 GMT"),
    ],
)
def test_date(seconds: float, expected: bytes) -> None:
    """A date is written in RFC 9110's fixed form, rounded down."""
    assert expected == http_date(seconds)


@given(st.integers(0, 4_000_000_000))
def test_date_judged(seconds: int) -> None:
    """Another writer of dates writes the same."""
    assert email.utils.formatdate(seconds, usegmt=True).encode() == http_date(seconds)


NAMES = st.text("abcXYZ019-_.~", min_size=1, max_size=10).map(lambda name: "X-" + name)
VALUES = st.text(st.characters(codec="latin-1", min_codepoint=0x20, exclude_characters="\x7f"), max_size=20)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([s.value for s in http.HTTPStatus if s >= 200] + [299]),
    st.lists(st.tuples(NAMES, VALUES.map(str.strip)), max_size=5, unique_by=lambda field: field[0].lower()),
    st.binary(max_size=50),
    st.booleans(),
    st.booleans(),
)
def test_read_back(status: int, headers: list[tuple[str, str]], body: bytes, keep_alive: bool, head_only: bool) -> None:
    """Our own client and another reader read an answer back as it was meant."""
    data = response(status, headers, body, keep_alive=keep_alive, head_only=head_only, date=DATE)
    sent = b"" if head_only or status in (204, 304) else body

    head, *bodies, end = ResponseParser("HEAD" if head_only else "GET").receive(data)
    assert isinstance(head, ResponseHead)
    assert status == head.status
    assert {k.lower(): v for k, v in headers}.items() <= head.headers.items()
    assert ([Body(sent)] if sent else []) == bodies
    assert End(keep_alive, b"") == end

    judge = h11.Connection(h11.CLIENT)
    judge.send(h11.Request(method="HEAD" if head_only else "GET", target="/", headers=[("Host", "a")]))
    judge.send(h11.EndOfMessage())
    judge.receive_data(data)
    event = judge.next_event()
    assert isinstance(event, h11.Response)
    assert status == event.status_code
    received = {k.decode(): v.decode("latin-1") for k, v in event.headers}
    assert {k.lower(): v.strip(" \t") for k, v in headers}.items() <= received.items()
    content = b""
    while isinstance(event := judge.next_event(), h11.Data):
        content += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert sent == content
    assert (h11.DONE if keep_alive else h11.MUST_CLOSE) == judge.our_state

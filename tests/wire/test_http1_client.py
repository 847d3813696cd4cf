"""The client's side of HTTP/1.1: where a response ends, however its bytes are cut, and what is no response.

Every case runs whole, byte by byte, cut in two at every place, and with bytes behind it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oncecast.errors import OncecastError, UsageError
from oncecast.policy.limits import Limits
from oncecast.wire.http1 import LAST_CHUNK, RequestParser, chunk
from oncecast.wire.http1_client import (
    INTERIM_RESPONSES,
    Body,
    End,
    ResponseEvent,
    ResponseFailed,
    ResponseHead,
    ResponseParser,
    request,
)

Call: TypeAlias = Callable[[], list[ResponseEvent]]

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Response(NamedTuple):
    """What a parser made of some bytes: `rest` is what it left, `fault` whether it failed, or failed as cut off."""

    status: int = 0
    headers: dict[str, str] = {}
    body: bytes = b""
    keep_alive: bool | None = None
    rest: bytes = b""
    fault: str = ""


def run(pieces: list[bytes], method: str = "GET", *, eof: bool = False, max_head_bytes: int = 65536) -> Response:
    """Feed the pieces to a new parser until the response has ended, then the connection's end if `eof`."""
    parser = ResponseParser(method, max_head_bytes=max_head_bytes)
    seen = Response()
    try:
        for number, piece in enumerate(pieces):
            seen = merge(seen, parser.receive(piece))
            if seen.keep_alive is not None:
                return seen._replace(rest=seen.rest + b"".join(pieces[number + 1 :]))
        if eof:
            seen = merge(seen, parser.receive_eof())
    except ResponseFailed as failed:
        return seen._replace(fault="truncated" if failed.truncated else "malformed")
    return seen


def merge(seen: Response, events: list[ResponseEvent]) -> Response:
    """Add events to what was seen, in the one order that is legal."""
    for event in events:
        assert seen.keep_alive is None
        if isinstance(event, ResponseHead):
            assert 0 == seen.status
            seen = seen._replace(status=event.status, headers=dict(event.headers))
        elif isinstance(event, Body):
            assert 0 != seen.status
            assert b"" != event.data
            seen = seen._replace(body=seen.body + event.data)
        else:
            seen = seen._replace(keep_alive=event.keep_alive, rest=event.rest)
    return seen


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Cut `data` in every way that a case is run in."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in range(len(data) + 1):  # with an empty piece too
        yield [data[:at], data[at:]]


ENDED = {
    "length": (
        "GET",
        OK + b"Content-Length: 5\r\n\r\nhello",
        Response(200, {"content-length": "5"}, b"hello", True),
    ),
    "empty": ("GET", OK + b"Content-Length: 0\r\n\r\n", Response(200, {"content-length": "0"}, b"", True)),
    "chunks": (
        "GET",
        CHUNKED + b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
        Response(200, {"transfer-encoding": "chunked"}, b"hello!", True),
    ),
    "no chunks": ("GET", CHUNKED + LAST_CHUNK, Response(200, {"transfer-encoding": "chunked"}, b"", True)),
    "close": (
        "GET",
        OK + b"Content-Length: 1\r\nConnection: close\r\n\r\nx",
        Response(200, {"content-length": "1", "connection": "close"}, b"x", False),
    ),
    "1.0": (
        "GET",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx",
        Response(200, {"content-length": "1"}, b"x", False),
    ),
    "1.0 kept alive": (
        "GET",
        b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: Keep-Alive\r\n\r\nx",
        Response(200, {"content-length": "1", "connection": "Keep-Alive"}, b"x", True),
    ),
    "HEAD": ("HEAD", OK + b"Content-Length: 5\r\n\r\n", Response(200, {"content-length": "5"}, b"", True)),
    "HEAD of chunks": ("HEAD", CHUNKED, Response(200, {"transfer-encoding": "chunked"}, b"", True)),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", Response(204, {}, b"", True)),
    "304": (
        "GET",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        Response(304, {"content-length": "5"}, b"", True),
    ),
    "101": (
        "GET",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        Response(101, {"upgrade": "websocket"}, b"", False),
    ),
    "interim first": (
        "POST",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 \r\n\r\n",
        Response(204, {}, b"", True),
    ),
    "no reason": ("GET", b"HTTP/1.1 204\r\nA: b\r\na: c\r\n\r\n", Response(204, {"a": "b, c"}, b"", True)),
    "odd reason": ("GET", b"HTTP/1.1 204 \t\xe9 !\r\n\r\n", Response(204, {}, b"", True)),
    "unknown status": (
        "GET",
        b"HTTP/1.1 799 ?\r\nContent-Length: 0\r\n\r\n",
        Response(799, {"content-length": "0"}, b"", True),
    ),
}


@pytest.mark.parametrize("method, data, expected", ENDED.values(), ids=ENDED)
def test_ended(method: str, data: bytes, expected: Response) -> None:
    """A response with an end is read the same however it is cut, and what follows is left alone."""
    for pieces in cuts(data):
        assert expected == run(pieces, method)
    for pieces in cuts(data + b"\x81\x00HTTP"):
        assert expected._replace(rest=b"\x81\x00HTTP") == run(pieces, method)


@pytest.mark.parametrize("method, data, expected", ENDED.values(), ids=ENDED)
def test_truncated(method: str, data: bytes, expected: Response) -> None:
    """A response that is cut off anywhere before its end is never taken for a whole one."""
    for at in range(len(data)):
        assert "truncated" == run([data[:at]], method, eof=True).fault


@pytest.mark.parametrize("body", [b"", b"a", b"data: x\n\n"])
@pytest.mark.parametrize("start", [OK, b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n"])
def test_until_eof(start: bytes, body: bytes) -> None:
    """A response that says no length ends with its connection, which can't be used again."""
    for pieces in cuts(start + b"\r\n" + body):
        seen = run(pieces, eof=True)
        assert (200, body, False, "") == (seen.status, seen.body, seen.keep_alive, seen.fault)


MALFORMED = {
    "not HTTP": b"SSH-2.0-x\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "short status": b"HTTP/1.1 20 OK\r\n\r\n",
    "long status": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status of zero": b"HTTP/1.1 000 OK\r\n\r\n",
    "two spaces": b"HTTP/1.1  200 OK\r\n\r\n",
    "control in the reason": b"HTTP/1.1 200 \0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
    "space first": b" HTTP/1.1 200 OK\r\n\r\n",
    "header without colon": OK + b"A\r\n\r\n",
    "folded": OK + b"A: b\r\n c\r\n\r\n",
    "NUL": OK + b"A: \0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length and chunks": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nhello",
    "bad length": OK + b"Content-Length: -1\r\n\r\n",
    "other coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    "bad chunk size": CHUNKED + b"0x5\r\nhello\r\n",
    "chunk too long": CHUNKED + b"4\r\nhello\r\n",
    "bad trailer": CHUNKED + b"0\r\nA\r\n\r\n",
    "bad interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1\r\n\r\n",
    "endless interim": b"HTTP/1.1 102 \r\n\r\n" * (INTERIM_RESPONSES + 1),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed(data: bytes) -> None:
    """A response that readers could understand differently fails, and not as one that was cut off."""
    for pieces in cuts(data):
        assert "malformed" == run(pieces).fault


def test_interim_allowed() -> None:
    """As many interim responses as the bound says are passed over."""
    data = b"HTTP/1.1 102 \r\n\r\n" * INTERIM_RESPONSES + b"HTTP/1.1 204 \r\n\r\n"
    assert Response(204, {}, b"", True) == run([data])


def test_head_limit() -> None:
    """A head is held up to its limit, whole or not, and each one for itself."""
    head = b"HTTP/1.1 204 \r\nA: %b\r\n\r\n"
    limit = len(head % b"")
    assert Response(204, {"a": ""}, b"", True) == run([head % b""], max_head_bytes=limit)
    assert "malformed" == run([head % b"x"], max_head_bytes=limit).fault
    assert "malformed" == run([b"x" * (limit + 1)], max_head_bytes=limit).fault
    assert "" == run([b"x" * limit], max_head_bytes=limit).fault
    interim = b"HTTP/1.1 100 \r\n\r\n"
    assert Response(204, {"a": ""}, b"", True) == run([interim + head % b""], max_head_bytes=limit)


def test_stays_failed() -> None:
    """A parser that failed says the same for ever, at the connection's end too."""
    parser = ResponseParser("GET")
    calls: list[Call] = [lambda: parser.receive(b"?\r\n\r\n"), lambda: parser.receive(OK), parser.receive_eof]
    for call in calls:
        with pytest.raises(ResponseFailed, match=r"^malformed response: its first line") as failed:
            call()
        assert not failed.value.truncated
        assert isinstance(failed.value, OncecastError)


def test_stays_truncated() -> None:
    """A parser whose response was cut off says so for ever, whatever it is given."""
    parser = ResponseParser("GET")
    calls: list[Callable[[], list[ResponseEvent]]] = [
        parser.receive_eof,
        lambda: parser.receive(OK),
        parser.receive_eof,
    ]
    for call in calls:
        with pytest.raises(ResponseFailed, match="closed before the response's head") as failed:
            call()
        assert failed.value.truncated


def test_truncated_body_says_so() -> None:
    """The text of a cut response says that its body had begun."""
    parser = ResponseParser("GET")
    assert [ResponseHead(200, {"content-length": "5"}, (1, 1)), Body(b"he")] == parser.receive(
        OK + b"Content-Length: 5\r\n\r\nhe"
    )
    with pytest.raises(ResponseFailed, match="closed in the response's body"):
        parser.receive_eof()


def test_one_response_a_parser() -> None:
    """Bytes after the end are the next parser's; to give them to this one is a mistake, the connection's end is not."""
    parser = ResponseParser("GET")
    assert End(True, b"") == parser.receive(b"HTTP/1.1 204 \r\n\r\n")[-1]
    assert [] == parser.receive_eof()
    with pytest.raises(UsageError, match="one response"):
        parser.receive(b"HTTP/1.1 204 \r\n\r\n")


def test_nothing_is_held_back() -> None:
    """Each part of a body is returned as soon as it has arrived, in any framing."""
    for start, piece in ((OK + b"\r\n", b"abc"), (OK + b"Content-Length: 9\r\n\r\n", b"abc"), (CHUNKED, b"9\r\nabc")):
        parser = ResponseParser("GET")
        assert 1 == len(parser.receive(start))
        assert [Body(b"abc")] == parser.receive(piece)
        assert [] == parser.receive(b"")


# --- requests ---


def test_request() -> None:
    """A request is one block, with Host first, and a length where it has a body."""
    expected = b"GET /a?b HTTP/1.1\r\nHost: a:8\r\nAccept: x\r\n\r\n"
    assert expected == request("GET", "/a?b", "a:8", [("Accept", "x")], None)
    expected = b"POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 2\r\n\r\nhi"
    assert expected == request("POST", "/", "[::1]", [], b"hi")
    expected = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    assert expected == request("POST", "/", "a", [], b"")


@pytest.mark.parametrize(
    "method, target, host, headers",
    [
        ("GET / HTTP/1.1\r\n", "/", "a", []),
        ("", "/", "a", []),
        ("GÉT", "/", "a", []),
        ("GET", "", "a", []),
        ("GET", "a", "a", []),
        ("GET", "/ HTTP/1.1\r\nA: b", "a", []),
        ("GET", "/a b", "a", []),
        ("GET", "/\x7f", "a", []),
        ("GET", "/é", "a", []),
        ("GET", "/#a", "a", []),
        ("GET", "/", "", []),
        ("GET", "/", "a\r\nA: b", []),
        ("GET", "/", "a/b", []),
        ("GET", "/", "u@a", []),
        ("GET", "/", "a", [("A", "b\r\nC: d")]),
        ("GET", "/", "a", [("A: b\r\nC", "d")]),
        ("GET", "/", "a", [("Host", "b")]),
        ("GET", "/", "a", [("content-length", "5")]),
        ("GET", "/", "a", [("Transfer-Encoding", "chunked")]),
    ],
)
def test_request_refused(method: str, target: str, host: str, headers: list[tuple[str, str]]) -> None:
    """Arguments that would make more than one request are refused, and not sent."""
    with pytest.raises(UsageError):
        request(method, target, host, headers, None)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(["GET", "POST", "PUT", "X-Y"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#%"), max_size=20),
    st.lists(
        st.tuples(
            st.text("abAB-_09", min_size=1, max_size=8).map(lambda name: f"X-{name}"),
            st.text(st.characters(codec="latin-1", min_codepoint=0x20, exclude_characters="\x7f"), max_size=20),
        ),
        max_size=5,
        unique_by=lambda field: field[0].lower(),
    ),
    st.none() | st.binary(max_size=30),
)
def test_request_read_back(method: str, target: str, headers: list[tuple[str, str]], body: bytes | None) -> None:
    """Our server's side reads a request as it was meant."""
    parser = RequestParser(Limits())
    parser.feed(request(method, f"/{target}", "a", headers, body))
    read = parser.next()
    assert read is not None
    assert (method, f"/{target}", body or b"") == (read.method, read.target, read.body)
    assert {"host": "a"} | {k.lower(): v.strip(" \t") for k, v in headers} == {
        k: v for k, v in read.headers.items() if k != "content-length"
    }
    assert b"" == parser.take_rest()


# --- another writer as the judge ---


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["length", "chunked", "close"]),
    st.lists(st.binary(max_size=30), max_size=5),
    st.lists(st.integers(0, 300), max_size=5),
)
def test_judged(framing: str, parts: list[bytes], places: list[int]) -> None:
    """A response that h11 has written is read as it was meant, however it is cut."""
    judge = h11.Connection(h11.SERVER)
    judge.receive_data(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    judge.next_event()
    judge.next_event()
    body = b"".join(parts)
    headers = {
        "length": [("Content-Length", str(len(body)))],
        "chunked": [("Transfer-Encoding", "chunked")],
        "close": [("Connection", "close"), ("Content-Length", str(len(body)))],
    }[framing]
    data = b""
    events = (h11.Response(status_code=200, headers=headers), *(h11.Data(data=part) for part in parts))
    for event in (*events, h11.EndOfMessage()):
        data += judge.send(event) or b""
    at = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    seen = run([data[i:j] for i, j in itertools.pairwise(at)])
    assert (200, body, framing != "close", b"", "") == (seen.status, seen.body, seen.keep_alive, seen.rest, seen.fault)


@given(st.lists(st.binary(max_size=20)))
def test_chunks_read_back(parts: list[bytes]) -> None:
    """Chunks written one by one are read as what they carry, empty ones included."""
    data = CHUNKED + b"".join(map(chunk, parts)) + LAST_CHUNK
    assert (b"".join(parts), True) == (run([data]).body, run([data]).keep_alive)

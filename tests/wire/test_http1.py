"""The request side of HTTP/1.1: what is a request, what is refused and with which code, however the bytes are cut.

Every case runs whole, byte by byte, cut in two at every place, behind a good request and before one.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import NamedTuple

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from oncecast.errors import Refusal
from oncecast.policy.limits import Limits
from oncecast.wire import http1_base, http1_head
from oncecast.wire.http1 import CONTINUE, LAST_CHUNK, Request, RequestParser, Stage, chunk

SMALL = Limits(header_bytes=300, header_count=5, url_bytes=40, body_bytes=20)
NEXT = b"GET /next HTTP/1.1\r\nHost: other\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


class Outcome(NamedTuple):
    """What a parser made of some bytes."""

    requests: list[Request]
    refusal: str | None


def run(pieces: list[bytes], limits: Limits = SMALL) -> Outcome:
    """Feed the pieces to a new parser, taking requests after each."""
    parser = RequestParser(limits)
    requests = []
    for piece in pieces:
        parser.feed(piece)
        try:
            while (request := parser.next()) is not None:
                requests.append(request)
        except Refusal as refusal:
            with pytest.raises(Refusal) as again:
                parser.next()
            return Outcome(requests, refusal.code if again.value.code == refusal.code else "changed")
    return Outcome(requests, None)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Cut `data` in every way that a case is run in."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


def only(data: bytes, limits: Limits = SMALL) -> Request:
    """Return the one request that `data` holds."""
    (request,), refusal = run([data], limits)
    assert refusal is None
    return request


# --- requests ---

ACCEPTED = {
    "get": (GET + b"\r\n", Request("GET", "/", "/", headers={"host": "a"}, raw_path="/")),
    "query": (
        b"GET /a%20b/%E2%82%AC?x=%20?&y HTTP/1.1\r\nHost: a:80\r\n\r\n",
        Request(
            "GET",
            "/a%20b/%E2%82%AC?x=%20?&y",
            "/a b/€",
            "x=%20?&y",
            headers={"host": "a:80"},
            raw_path="/a%20b/%E2%82%AC",
        ),
    ),
    "encoded slash": (
        b"GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n",
        Request("GET", "/a%2Fb", "/a/b", headers={"host": "a"}, raw_path="/a%2Fb"),
    ),
    "length": (
        POST + b"Content-Length: 5\r\n\r\nhello",
        Request("POST", "/", "/", headers={"host": "a", "content-length": "5"}, body=b"hello", raw_path="/"),
    ),
    "length zero": (
        POST + b"Content-Length: 0\r\n\r\n",
        Request("POST", "/", "/", headers={"host": "a", "content-length": "0"}, raw_path="/"),
    ),
    "length with leading zeros": (
        POST + b"Content-Length: 0005\r\n\r\nhello",
        Request("POST", "/", "/", headers={"host": "a", "content-length": "0005"}, body=b"hello", raw_path="/"),
    ),
    "chunks": (
        CHUNKED + b'5\r\nhello\r\n00A;x="y z"\r\n, my world\r\n0\r\n\r\n',
        Request(
            "POST",
            "/",
            "/",
            headers={"host": "a", "transfer-encoding": "chunked"},
            body=b"hello, my world",
            raw_path="/",
        ),
    ),
    "chunks with trailers": (
        POST + b"Transfer-Encoding: Chunked\r\n\r\n1\r\n\n\r\n0;end\r\nA: b\r\nB: 3\r\n\r\n",
        Request("POST", "/", "/", headers={"host": "a", "transfer-encoding": "Chunked"}, body=b"\n", raw_path="/"),
    ),
    "repeated headers": (
        GET + b"A:1\r\na: \t2 \t\r\nCookie: x=1\r\ncookie: y=2\r\n\r\n",
        Request("GET", "/", "/", headers={"host": "a", "a": "1, 2", "cookie": "x=1; y=2"}, raw_path="/"),
    ),
    "odd but legal header": (
        GET + b"!#$%&'*+.^_`|~9:\r\nB: \xe9\t\x80:\r\n\r\n",
        Request("GET", "/", "/", headers={"host": "a", "!#$%&'*+.^_`|~9": "", "b": "é\t\x80:"}, raw_path="/"),
    ),
    "absolute form": (
        b"GET HTTP://b:8080?q HTTP/1.1\r\nHost: a\r\n\r\n",
        Request("GET", "HTTP://b:8080?q", "/", "q", headers={"host": "b:8080"}, raw_path="/"),
    ),
    "absolute form with path": (
        b"GET https://[::1]/p?q HTTP/1.1\r\nHost: a\r\n\r\n",
        Request("GET", "https://[::1]/p?q", "/p", "q", headers={"host": "[::1]"}, raw_path="/p"),
    ),
    "asterisk form": (
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        Request("OPTIONS", "*", "*", headers={"host": "a"}, raw_path="*"),
    ),
    "later minor version": (
        b"GET / HTTP/1.7\r\nHost: a\r\n\r\n",
        Request("GET", "/", "/", headers={"host": "a"}, raw_path="/"),
    ),
    "1.0": (
        b"GET / HTTP/1.0\r\n\r\n",
        Request("GET", "/", "/", version=(1, 0), keep_alive=False, raw_path="/"),
    ),
    "1.0 kept alive": (
        b"GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n",
        Request(
            "GET", "/", "/", version=(1, 0), headers={"connection": "x, Keep-Alive"}, keep_alive=True, raw_path="/"
        ),
    ),
    "close": (
        GET + b"Connection: Upgrade ,CLOSE\r\n\r\n",
        Request("GET", "/", "/", headers={"host": "a", "connection": "Upgrade ,CLOSE"}, keep_alive=False, raw_path="/"),
    ),
    "identity": (
        GET + b"Content-Encoding: Identity\r\n\r\n",
        Request("GET", "/", "/", headers={"host": "a", "content-encoding": "Identity"}, raw_path="/"),
    ),
    "expect": (
        POST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
        Request(
            "POST",
            "/",
            "/",
            headers={"host": "a", "expect": "100-Continue", "content-length": "1"},
            body=b"x",
            raw_path="/",
        ),
    ),
    "empty lines first": (b"\r\n\r\n" + GET + b"\r\n", Request("GET", "/", "/", headers={"host": "a"}, raw_path="/")),
}


@pytest.mark.parametrize("data, expected", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(data: bytes, expected: Request) -> None:
    """A good request is read the same however it is cut, and so is the one that follows it."""
    following = Request("GET", "/next", "/next", headers={"host": "other"}, raw_path="/next")
    for pieces in cuts(data):
        assert Outcome([expected], None) == run(pieces)
    for pieces in cuts(data + NEXT):
        assert Outcome([expected, following], None) == run(pieces)


@pytest.mark.parametrize("data, expected", ACCEPTED.values(), ids=ACCEPTED)
def test_unfinished(data: bytes, expected: Request) -> None:
    """Whatever lacks its last byte is no request yet."""
    assert Outcome([], None) == run([data[:-1]])


# --- refusals ---

BAD = "request_invalid"
REFUSED = {
    # RFC 9112 §3: the request line
    "no version": (b"GET /\r\nHost: a\r\n\r\n", BAD),
    "empty version": (b"GET / \r\nHost: a\r\n\r\n", BAD),
    "lower-case version": (b"GET / http/1.1\r\nHost: a\r\n\r\n", BAD),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", BAD),
    "long version": (b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", BAD),
    "version with a sign": (b"GET / HTTP/1.+1\r\nHost: a\r\n\r\n", BAD),
    "two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "space in the target": (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "space at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", BAD),
    "space first": (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "tab": (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no method": (b" / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "method of no token": (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "method not ASCII": (b"G\xc9T / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "long method": (b"G" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "no target": (b"GET HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "control in the target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "DEL in the target": (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "target not ASCII": (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "relative target": (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "query only": (b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "other scheme": (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "URL without host": (b"GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "URL with user": (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "asterisk and more": (b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "authority form": (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "CONNECT with a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "bad percent": (b"GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "bad percent digits": (b"GET /%G0 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "signed percent": (b"GET /%+1 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "encoded NUL": (b"GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "path not UTF-8": (b"GET /%C3 HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "overlong UTF-8": (b"GET /%C0%AF HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "three empty lines": (b"\r\n\r\n\r\n" + GET + b"\r\n", BAD),
    # RFC 9112 §2.2, §5: lines and fields
    "bare LF everywhere": (b"GET / HTTP/1.1\nHost: a\n\n", BAD),
    "bare LF after the request line": (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    "bare LF after a header": (GET + b"A: b\nC: d\r\n\r\n", BAD),
    "bare LF as the last line": (GET + b"\n", BAD),
    "bare LF first": (b"\n" + GET + b"\r\n", BAD),
    "bare CR in a value": (GET + b"A: b\rC: d\r\n\r\n", BAD),
    "bare CR in the request line": (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    "two CRs": (GET + b"A: b\r\r\n\r\n", BAD),
    "bare CR first": (b"\r" + GET + b"\r\n", BAD),
    "NUL in a value": (GET + b"A: b\0c\r\n\r\n", BAD),
    "NUL in a name": (GET + b"A\0: b\r\n\r\n", BAD),
    "control in a value": (GET + b"A: \x1b[0m\r\n\r\n", BAD),
    "form feed": (GET + b"A: \x0c\r\n\r\n", BAD),
    "DEL in a value": (GET + b"A: \x7f\r\n\r\n", BAD),
    "space before the colon": (GET + b"A : b\r\n\r\n", BAD),
    "tab before the colon": (GET + b"Content-Length\t: 5\r\n\r\n", BAD),
    "folded": (GET + b"A: b\r\n c\r\n\r\n", BAD),
    "folded with a tab": (GET + b"A: b\r\n\tc: d\r\n\r\n", BAD),
    "space before the first header": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", BAD),
    "no colon": (GET + b"A\r\n\r\n", BAD),
    "empty name": (GET + b": b\r\n\r\n", BAD),
    "name of no token": (GET + b"A(b): c\r\n\r\n", BAD),
    "name not ASCII": (GET + b"\xc9: c\r\n\r\n", BAD),
    # RFC 9112 §3.2: Host
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", BAD),
    "no Host in 1.2": (b"GET / HTTP/1.2\r\n\r\n", BAD),
    "no Host for a URL": (b"GET http://a/ HTTP/1.1\r\n\r\n", BAD),
    "two Hosts": (GET + b"Host: b\r\n\r\n", BAD),
    "two equal Hosts": (GET + b"host: a\r\n\r\n", BAD),
    "two Hosts in 1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", BAD),
    "empty Host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", BAD),
    "Host with a user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", BAD),
    "Host list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", BAD),
    "Host with a bad port": (b"GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", BAD),
    "Host not ASCII": (b"GET / HTTP/1.1\r\nHost: \xc9\r\n\r\n", BAD),
    # RFC 9112 §6: length
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", BAD),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", BAD),
    "two equal lengths": (POST + b"Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello", BAD),
    "length list": (POST + b"Content-Length: 5, 5\r\n\r\nhello", BAD),
    "length with a sign": (POST + b"Content-Length: +5\r\n\r\nhello", BAD),
    "negative length": (POST + b"Content-Length: -5\r\n\r\nhello", BAD),
    "empty length": (POST + b"Content-Length:\r\n\r\n", BAD),
    "hexadecimal length": (POST + b"Content-Length: 0x5\r\n\r\nhello", BAD),
    "length with an underscore": (POST + b"Content-Length: 1_0\r\n\r\nhello", BAD),
    "length in other digits": (POST + b"Content-Length: \xb2\r\n\r\nhello", BAD),
    "length with spaces": (POST + b"Content-Length: 1 0\r\n\r\nhello", BAD),
    "huge length": (POST + b"Content-Length: 9999999999999999999\r\n\r\nhello", BAD),
    "gzip and chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", BAD),
    "chunked twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    "coding identity": (POST + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n", BAD),
    "coding almost chunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD),
    "coding with a parameter": (POST + b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", BAD),
    "empty coding": (POST + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n", BAD),
    "chunks in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", BAD),
    # RFC 9112 §7.1: chunks
    "chunk size with a sign": (CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n", BAD),
    "negative chunk size": (CHUNKED + b"-1\r\nh\r\n0\r\n\r\n", BAD),
    "chunk size with 0x": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", BAD),
    "space before the chunk size": (CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n", BAD),
    "space after the chunk size": (CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n", BAD),
    "chunk size with an underscore": (CHUNKED + b"0_5\r\nhello\r\n0\r\n\r\n", BAD),
    "empty chunk size": (CHUNKED + b"\r\nhello\r\n0\r\n\r\n", BAD),
    "extension only": (CHUNKED + b";a\r\nhello\r\n0\r\n\r\n", BAD),
    "long chunk size": (CHUNKED + b"000000005\r\nhello\r\n0\r\n\r\n", BAD),
    "chunk size ended by LF": (CHUNKED + b"5\nhello\r\n0\r\n\r\n", BAD),
    "chunk size ended by CR": (CHUNKED + b"5\rhello\r\n0\r\n\r\n", BAD),
    "LF in an extension": (CHUNKED + b"5;a\nb\r\nhello\r\n0\r\n\r\n", BAD),
    "NUL in an extension": (CHUNKED + b"5;a\0b\r\nhello\r\n0\r\n\r\n", BAD),
    "long extension": (CHUNKED + b"5;" + b"a" * 257 + b"\r\nhello\r\n0\r\n\r\n", BAD),
    "chunk too long": (CHUNKED + b"4\r\nhello\r\n0\r\n\r\n", BAD),
    "chunk too short": (CHUNKED + b"6\r\nhello\r\n0\r\n\r\n", BAD),
    "chunk ended by LF": (CHUNKED + b"5\r\nhello\n0\r\n\r\n", BAD),
    "chunk ended by CR": (CHUNKED + b"5\r\nhello\r0\r\n\r\n", BAD),
    "trailer of no field": (CHUNKED + b"0\r\nA\r\n\r\n", BAD),
    "length in a trailer": (CHUNKED + b"0\r\nContent-Length:: 3\r\n\r\n", BAD),
    "coding in a trailer": (CHUNKED + b"0\r\ntransfer-encoding: chunked\r\n\r\n", BAD),
    "host in a trailer": (CHUNKED + b"0\r\nHOST: b\r\n\r\n", BAD),
    "folded trailer": (CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n", BAD),
    "trailer ended by LF": (CHUNKED + b"0\r\nA: b\n\r\n", BAD),
    "last line ended by LF": (CHUNKED + b"0\r\n\n", BAD),
    "chunks over the limit": (CHUNKED + b"9\r\n123456789\r\nc\r\n", "body_too_large"),
    "chunk over the limit": (CHUNKED + b"FFFFFFFF\r\n", "body_too_large"),
    # the rest
    "length over the limit": (POST + b"Content-Length: 21\r\n\r\n", "body_too_large"),
    "largest length": (POST + b"Content-Length: 999999999999999999\r\n\r\n", "body_too_large"),
    "gzip": (POST + b"Content-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", "type_unsupported"),
    "identity and gzip": (POST + b"Content-Encoding: identity, gzip\r\n\r\n", "type_unsupported"),
    "other expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 1\r\n\r\nx", BAD),
    "other expectation in 1.0": (b"POST / HTTP/1.0\r\nExpect: x\r\n\r\n", BAD),
    "long target": (b"GET /" + b"a" * 40 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "url_too_long"),
    "very long target": (b"GET /" + b"a" * 400 + b" HTTP/1.1\r\nHost: a\r\n\r\n", "url_too_long"),
    "many headers": (GET + b"A: b\r\n" * 5 + b"\r\n", "headers_too_large"),
    "large head": (GET + b"A: " + b"b" * 270 + b"\r\n\r\n", "headers_too_large"),
}


def test_a_body_too_large_is_refused_with_the_limit() -> None:
    """Both framings name the same limit in the same words."""
    for body in (b"Content-Length: 21\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\nc\r\n"):
        parser = RequestParser(Limits(body_bytes=20))
        parser.feed(POST + body)
        with pytest.raises(Refusal, match=r"^The body is over 20 bytes\.$"):
            parser.next()


@pytest.mark.parametrize("data, code", REFUSED.values(), ids=REFUSED)
def test_refused(data: bytes, code: str) -> None:
    """A bad request is refused with its code however it is cut and whatever follows, and none is made of it."""
    for pieces in cuts(data):
        assert Outcome([], code) == run(pieces)
    for pieces in cuts(data + NEXT):
        assert Outcome([], code) == run(pieces)


@pytest.mark.parametrize("data, code", REFUSED.values(), ids=REFUSED)
def test_refused_behind_another(data: bytes, code: str) -> None:
    """A bad request takes nothing from a good one before it."""
    first = Request("GET", "/next", "/next", headers={"host": "other"}, raw_path="/next")
    for pieces in cuts(NEXT + data):
        assert Outcome([first], code) == run(pieces)


EARLY = {
    "bare LF": (b"GET / HTTP/1.1\n", BAD),
    "bare CR": (b"GET / HTTP/1.1\rH", BAD),
    "NUL": (GET + b"\0", BAD),
    "TLS": (b"\x16", BAD),
    "no method": (b"x" * 34, BAD),
    "third empty line": (b"\r\n\r\n\r\n", BAD),
    "target": (b"GET /" + b"a" * 295, "url_too_long"),
    "line with a long target": (b"GET /" + b"a" * 40 + b" HTTP/1.1\r\nA: ".ljust(255, b"b"), "url_too_long"),
    "many headers": ((GET + b"A: b\r\n" * 50)[:300], "headers_too_large"),
    "large head": (GET + b"A: " + b"b" * (300 - len(GET) - 3), "headers_too_large"),
    "chunk size": (CHUNKED + b"g", BAD),
    "chunk too long": (CHUNKED + b"1\r\naa", BAD),
    "long extension": (CHUNKED + b"1;" + b"a" * 257, BAD),
    "long trailer": (CHUNKED + b"0\r\nA: " + b"a" * (http1_base.TRAILER_BYTES - 2), "headers_too_large"),
    "many trailers": (CHUNKED + b"0\r\n" + b"A:bcde\r\n" * (http1_base.TRAILER_BYTES // 8) + b"A", "headers_too_large"),
}


@pytest.mark.parametrize("data, code", EARLY.values(), ids=EARLY)
def test_refused_early(data: bytes, code: str) -> None:
    """Bytes that no more input can make good are refused at the byte that shows it."""
    bytewise = [data[i : i + 1] for i in range(len(data))]
    assert Outcome([], code) == run([data])
    assert Outcome([], code) == run(bytewise)
    assert Outcome([], None) == run(bytewise[:-1])


LONG = b"GET /" + b"a" * 40 + b" HTTP/1.1\r\n"
MANY = GET + b"A: b\r\n" * 5
NO_ORIGIN = {"host": "a"}
BOTH = {"host": "a", "origin": "https://b.example"}
ORIGIN = b"Origin: https://b.example\r\n"


@pytest.mark.parametrize(
    "data, code, headers",
    [
        (LONG + b"Host: a\r\n" + ORIGIN + b"\r\n", "url_too_long", BOTH),
        (LONG + b"hOST:a\r\nORIGIN:\t https://b.example \r\n\r\n", "url_too_long", BOTH),
        (LONG + b"Host: a\r\n\r\n" + ORIGIN, "url_too_long", NO_ORIGIN),
        (MANY + ORIGIN + b"\r\n", "headers_too_large", BOTH),
        (GET + ORIGIN + b"A: ".ljust(300, b"b"), "headers_too_large", BOTH),
        (GET + b"A: ".ljust(300, b"b") + b"\r\n" + ORIGIN, "headers_too_large", NO_ORIGIN),
        (GET + b"A: ".ljust(300 - len(GET) - 9, b"b") + b"\r\n" + ORIGIN, "headers_too_large", NO_ORIGIN),
        (GET + ORIGIN + b"Content-Length: x\r\n\r\n", BAD, BOTH),
        (GET + ORIGIN + ORIGIN + b"A b\r\n\r\n", BAD, NO_ORIGIN),
        (GET + b"X-Origin: https://b.example\r\nA b\r\n\r\n", BAD, NO_ORIGIN),
        (GET + b"Origin: https://b.example c\r\nA b\r\n\r\n", BAD, NO_ORIGIN),
        (GET + ORIGIN + b"Content-Encoding: gzip\r\n\r\n", "type_unsupported", BOTH),
        (POST + ORIGIN + b"Content-Length: 21\r\n\r\n", "body_too_large", {**BOTH, "content-length": "21"}),
        (
            POST + ORIGIN + b"Transfer-Encoding: chunked\r\n\r\n15\r\n",
            "body_too_large",
            {**BOTH, "transfer-encoding": "chunked"},
        ),
        (NEXT + GET + ORIGIN + b"A b\r\n\r\n", BAD, BOTH),
    ],
)
def test_headers_of_a_refused_request(data: bytes, code: str, headers: dict[str, str]) -> None:
    """The answer to a refused request depends on its page's origin, so that is read as far as it has come whole."""
    for pieces in cuts(data):
        parser = RequestParser(SMALL)
        refusal = None
        for piece in pieces:
            parser.feed(piece)
            try:
                while parser.next() is not None:
                    pass
            except Refusal as raised:
                refusal = raised
                break
        assert refusal is not None
        assert (code, headers) == (refusal.code, dict(parser.headers_read))
        parser.feed(NEXT)
        assert headers == dict(parser.headers_read)


def test_headers_of_an_unfinished_request() -> None:
    """A request that is too slow is answered too, from what has come of its head or from all of it."""
    parser = RequestParser(SMALL)
    assert {} == parser.headers_read
    parser.feed(GET + ORIGIN[:-1])
    assert parser.next() is None
    assert {"host": "a"} == parser.headers_read
    parser.feed(ORIGIN[-1:] + b"Content-Length: 2\r\n\r\nx")
    assert parser.next() is None
    assert {**BOTH, "content-length": "2"} == dict(parser.headers_read)


@pytest.mark.parametrize(
    "line, words",
    [
        (b" a: b", "folded"),
        (b"a: b\rc", "bare CR or LF"),
        (b"a", "no colon"),
        (b"a : b", "before its colon"),
        (b"\xe9: b", "no token"),
        (b"a: \x01", "control character"),
    ],
)
def test_explains(line: bytes, words: str) -> None:
    """A refused header line is named by its number and its fault, without what stands in it."""
    parser = RequestParser(Limits())
    parser.feed(GET + line + b"\r\n\r\n")
    with pytest.raises(Refusal, match=f"^Header line 2 .*{words}"):
        parser.next()


# --- limits ---


@pytest.mark.parametrize(
    "data",
    [
        b"GET /" + b"a" * 39 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"A: b\r\n" * 4 + b"\r\n",
        GET + b"A: " + b"b" * (300 - len(GET) - 7) + b"\r\n\r\n",
        b"\r\n\r\n" + GET + b"A: " + b"b" * (300 - len(GET) - 7) + b"\r\n\r\n",
        POST + b"Content-Length: 20\r\n\r\n" + b"b" * 20,
        CHUNKED + b"14\r\n" + b"b" * 20 + b"\r\n" + LAST_CHUNK,
        CHUNKED + b"13\r\n" + b"b" * 19 + b"\r\n" + chunk(b"b") + LAST_CHUNK,
        CHUNKED + b"1;" + b"a" * 256 + b"\r\nb\r\n0\r\nA:" + b"a" * (http1_base.TRAILER_BYTES - 6) + b"\r\n\r\n",
        b"M" * 32 + b" / HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
    ids=["url", "count", "head", "head after empty lines", "length", "chunk", "chunks", "ignored parts", "method"],
)
def test_limits_reached(data: bytes) -> None:
    """Input of exactly the limits is accepted, in one piece and byte by byte."""
    whole, _ = run([data])
    assert 1 == len(whole)
    assert Outcome(whole, None) == run([data[i : i + 1] for i in range(len(data))])


def test_large_head_leaves_binary_body_out() -> None:
    """A head over the limit is refused for its size, whatever bytes stand behind it."""
    data = GET + b"A: " + b"b" * 270 + b"\r\n\r\n\0\0\n\n"
    assert Outcome([], "headers_too_large") == run([data])


def test_unfinished_head_is_read_once() -> None:
    """A head that dribbles in costs time in proportion to its size; the bound is a hundred times too generous."""
    size = 1 << 20
    head = GET + b"A: " + b"b" * size
    parser = RequestParser(Limits(header_bytes=size * 2))
    started = time.process_time()
    for at in range(0, len(head), 64):
        parser.feed(head[at : at + 64])
        assert parser.next() is None
    assert time.process_time() - started < 5
    parser.feed(b"\r\n\r\n")
    request = parser.next()
    assert request is not None
    assert size == len(request.headers["a"])


# --- the parser's other faces ---


def test_stages() -> None:
    """The stage says what is waited for, so that each wait has its deadline."""
    parser = RequestParser(SMALL)
    seen = []
    for piece in (b"", b"\r\n", b"P", POST[1:] + b"Content-Length: 2\r\n\r", b"\n", b"x", b"yG"):
        parser.feed(piece)
        request = parser.next()
        seen.append((parser.stage, parser.buffered, request is not None))
    assert [
        (Stage.IDLE, 0, False),
        (Stage.IDLE, 0, False),
        (Stage.HEAD, 1, False),
        (Stage.HEAD, len(POST) + 20, False),
        (Stage.BODY, 0, False),
        (Stage.BODY, 1, False),
        (Stage.HEAD, 1, True),
    ] == seen


def test_buffered_counts_chunks() -> None:
    """The bytes of a chunked body count as buffered until its request is returned."""
    parser = RequestParser(SMALL)
    parser.feed(CHUNKED + b"5\r\nhello\r\n3")
    assert parser.next() is None
    assert 6 == parser.buffered
    parser.feed(b"\r\nyou\r\n0\r\n\r\n")
    assert parser.next() is not None
    assert 0 == parser.buffered


def test_dead_parser_holds_nothing() -> None:
    """After a refusal the parser keeps no bytes, takes no more, and says the same for ever."""
    parser = RequestParser(SMALL)
    parser.feed(POST + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert parser.next() is None
    parser.feed(b"x")
    for _ in range(3):
        with pytest.raises(Refusal, match="size"):
            parser.next()
        parser.feed(NEXT)
        assert (0, Stage.IDLE, False, b"") == (
            parser.buffered,
            parser.stage,
            parser.take_continue(),
            parser.take_rest(),
        )


def test_take_rest() -> None:
    """The bytes behind an upgrade's request are given to the other protocol, once."""
    parser = RequestParser(SMALL)
    parser.feed(GET + b"Upgrade: websocket\r\n\r\n\x81\x00")
    assert parser.next() is not None
    assert b"\x81\x00" == parser.take_rest()
    assert b"" == parser.take_rest()
    unfinished = GET + b"A: " + b"b" * len(NEXT)
    parser.feed(unfinished)
    assert parser.next() is None
    assert unfinished == parser.take_rest()
    parser.feed(NEXT)
    assert parser.next() is not None


def test_empty_lines_are_counted_for_each_request() -> None:
    """Each request may have empty lines before it, as some clients end a body with one."""
    requests, refusal = run([b"\r\n\r\n" + NEXT] * 3)
    assert (3, None) == (len(requests), refusal)


EXPECT = POST + b"Expect: 100-continue\r\n"


@pytest.mark.parametrize(
    "data, wanted",
    [
        (EXPECT + b"Content-Length: 5\r\n\r\n", True),
        (EXPECT + b"Transfer-Encoding: chunked\r\n\r\n", True),
        (EXPECT + b"Content-Length: 5\r\n\r\nh", False),
        (EXPECT + b"Content-Length: 5\r\n\r\nhello", False),
        (EXPECT + b"Content-Length: 0\r\n\r\n", False),
        (EXPECT + b"\r\n", False),
        (POST + b"Content-Length: 5\r\n\r\n", False),
        (b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n", False),
    ],
    ids=["length", "chunks", "body began", "body came", "empty body", "no body", "not asked", "1.0"],
)
def test_when_continue_is_wanted(data: bytes, wanted: bool) -> None:
    """100 is wanted only where a client of 1.1 asks for it, has a body, and holds it back."""
    parser = RequestParser(SMALL)
    parser.feed(data)
    parser.next()
    assert wanted is parser.take_continue()


def test_take_continue() -> None:
    """100 is sent once a request, and not after the body began on its own."""
    parser = RequestParser(SMALL)
    parser.feed(EXPECT + b"Content-Length: 2\r\n\r\n")
    assert parser.next() is None
    assert (True, False) == (parser.take_continue(), parser.take_continue())
    parser.feed(b"xy" + EXPECT + b"Content-Length: 2\r\n\r\n")
    request = parser.next()
    assert request is not None
    assert b"xy" == request.body
    assert parser.next() is None
    parser.feed(b"x")
    assert parser.next() is None
    assert not parser.take_continue()
    assert b"HTTP/1.1 100 Continue\r\n\r\n" == CONTINUE


def test_continue_not_sent_for_too_much() -> None:
    """A body over the limit is refused before it is asked for."""
    assert Outcome([], "body_too_large") == run([EXPECT + b"Content-Length: 21\r\n\r\n"])


def test_repeated_head_is_remembered() -> None:
    """Equal heads share one request, which nobody can change; large ones aren't kept."""
    data = GET + b"A: remembered\r\n\r\n"
    first, second = only(data), only(data)
    assert first is second
    with pytest.raises(TypeError):
        first.headers["a"] = "changed"  # type: ignore[index]
    large = GET + b"A: " + b"b" * http1_head.MEMO_BYTES + b"\r\n\r\n"
    assert only(large, Limits()) is not only(large, Limits())


def test_remembered_head_obeys_other_limits() -> None:
    """A head that one server's limits let into the memory is still refused under another's lower limits."""
    data = b"GET /" + b"a" * 30 + b" HTTP/1.1\r\nHost: a\r\nA: b\r\nContent-Length: 9\r\n\r\n"
    assert Outcome([], None) == run([data])
    assert Outcome([], "url_too_long") == run([data], replace(SMALL, url_bytes=30))
    assert Outcome([], "headers_too_large") == run([data], replace(SMALL, header_count=2))
    assert Outcome([], "headers_too_large") == run([data], replace(SMALL, header_bytes=len(data) - 1))
    assert Outcome([], "body_too_large") == run([data], replace(SMALL, body_bytes=8))


def test_bodies_of_equal_heads_stay_apart() -> None:
    """A remembered head brings no other request's body along."""
    head = POST + b"Content-Length: 1\r\n\r\n"
    requests, _ = run([head + b"x" + head + b"y"])
    assert [b"x", b"y"] == [request.body for request in requests]


def test_chunk() -> None:
    """A chunk carries its size in hexadecimal; nothing makes no chunk, for that would end the message."""
    assert b"10\r\n0123456789abcdef\r\n" == chunk(b"0123456789abcdef")
    assert b"" == chunk(b"")


# --- another reader as the judge ---


def judge(data: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """Read one request with h11."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    head = connection.next_event()
    assert isinstance(head, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return head.method, head.target, [(bytes(k), bytes(v)) for k, v in head.headers], body


def agree(data: bytes, request: Request) -> None:
    """Assert that h11 reads the same request from `data`."""
    method, target, fields, body = judge(data)
    headers: dict[str, str] = {}
    for key, value in fields:
        name, text = key.decode(), value.decode("latin-1")
        if name in headers:
            text = headers[name] + ("; " if name == "cookie" else ", ") + text
        headers[name] = text
    if not request.target.startswith(("/", "*")):
        headers["host"] = request.headers["host"]  # it doesn't apply RFC 9112 §3.2.2
    if "transfer-encoding" in headers:  # which it writes in lower case
        headers["transfer-encoding"] = request.headers["transfer-encoding"]
    assert (request.method, request.target) == (method.decode(), target.decode())
    assert (dict(request.headers), request.body) == (headers, body)


@pytest.mark.parametrize("name", [name for name in ACCEPTED if name != "empty lines first"])
def test_judged(name: str) -> None:
    """Another strict reader reads the accepted cases as we do; it has no empty lines before a request."""
    data, request = ACCEPTED[name]
    agree(data, request)


PARTS = (b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"0", b"5", b"+", b",", b";", b"\0", b"%", b"a", b"\xff", b"\x0b")
LINES = (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b" x\r\n", b"5\r\n", b"\r\n")
SEEDS = [data for data, _ in ACCEPTED.values()] + [data for data, _ in REFUSED.values() if len(data) < 200]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Draw a request with a few bytes cut out or put in."""
    data = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.sampled_from((b"", *PARTS, *LINES))) + data[at + draw(st.integers(0, 3)) :]
    return data


@settings(deadline=None, max_examples=600)
@given(damaged(), st.lists(st.integers(0, 200), max_size=6))
def test_damaged(data: bytes, places: list[int]) -> None:
    """A damaged request is read the same however it is cut, and what is accepted of it another reader reads alike."""
    whole = run([data])
    at = [0, *sorted(places), len(data)]
    for pieces in ([data[i:j] for i, j in itertools.pairwise(at)], [data[i : i + 1] for i in range(len(data))]):
        cut = run(pieces)
        assert whole.requests == cut.requests
        assert (whole.refusal is None) == (cut.refusal is None)
    if whole.requests and not data.startswith(b"\r\n"):
        agree(data, whole.requests[0])


TOKEN = st.text("!#$%&'*+-.^_`|~azAZ09", min_size=1, max_size=12)
VALUE = st.text(st.characters(codec="latin-1", min_codepoint=0x20, exclude_characters="\x7f"), max_size=20)


@settings(deadline=None, max_examples=200)
@given(
    TOKEN.filter(lambda method: method != "CONNECT"),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#%"), max_size=30),
    st.lists(st.tuples(TOKEN, VALUE), max_size=6),
    st.lists(st.binary(min_size=1, max_size=9)),
)
def test_made(method: str, path: str, fields: list[tuple[str, str]], parts: list[bytes]) -> None:
    """Any request that the grammar makes is accepted, and read as another reader does."""
    lines = [f"{method} /{path} HTTP/1.1", "Host: a", *(f"X-{k}: {v}" for k, v in fields)]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode("latin-1")
    data = head + b"".join(map(chunk, parts)) + LAST_CHUNK
    request = only(data, Limits())
    assert b"".join(parts) == request.body
    agree(data, request)

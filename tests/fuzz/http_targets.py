"""HTTP/1.1 under fuzzing: requests as the server reads them, responses as the client does, the handshake's head.

Oracles: the same requests or the same refusal however the bytes are cut; what is held stays within the limits; a
request that was read and is written again reads the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from oncecast.errors import ERRORS, Refusal
from oncecast.policy.limits import Limits
from oncecast.wire.http1 import Request, RequestParser
from oncecast.wire.http1_base import EXTENSION_BYTES, TRAILER_BYTES
from oncecast.wire.http1_client import Body, End, ResponseFailed, ResponseHead, ResponseParser, request
from oncecast.wire.ws_deflate import Deflate, Parameters
from oncecast.wire.ws_handshake import HandshakeFailed, accept_response, answered_extensions, parse_upgrade

from .pieces import opened, pieces

__all__ = ["handshake", "requests", "responses"]

LIMITS = (Limits(), Limits(header_bytes=300, header_count=5, url_bytes=40, body_bytes=20))
LINE_BYTES = max(TRAILER_BYTES, EXTENSION_BYTES + 16)  # of a chunk's size or a trailer, at most
HEAD_BYTES = 300  # of a response


def requests(data: bytes) -> None:
    """Read requests whole and cut."""
    variant, way, content = opened(data)
    limits = LIMITS[variant & 1]
    whole = _read([content], limits, content)
    assert whole == _read(pieces(content, way), limits, content)
    read, _ = whole
    at_once = RequestParser(limits).whole(content)
    if at_once is not None:
        assert [at_once] == read
    for each in read:
        _check_request(each, limits)


def _read(parts: Iterable[bytes], limits: Limits, content: bytes) -> tuple[list[Request], str | None]:
    parser, read = RequestParser(limits), []
    most = max(limits.header_bytes, limits.body_bytes + LINE_BYTES)
    for part in parts:
        parser.feed(part)
        try:
            while (found := parser.next()) is not None:
                read.append(found)
                parser.take_continue()
        except Refusal as refusal:
            assert refusal.code in ERRORS
            known = parser.headers_read
            assert {"host", "origin"} >= known.keys() or "host" in known or b"HTTP/1.0" in content
            assert 0 == parser.buffered
            return read, refusal.code
        assert parser.buffered <= most
    return read, None


def _check_request(read: Request, limits: Limits) -> None:
    assert len(read.body) <= limits.body_bytes
    assert len(read.target) <= limits.url_bytes
    assert read.raw_path == "*" or read.raw_path.startswith("/")
    assert "\0" not in read.path
    for name, value in read.headers.items():
        assert name == name.lower()
        assert value == value.strip(" \t") or value.endswith((", ", "; "))  # of a repeated field, the last one empty
        assert not {"\r", "\n", "\0"} & {*name, *value}
    framing = ("host", "content-length", "transfer-encoding", "connection", "expect")
    others = [(name, value) for name, value in read.headers.items() if name not in framing]
    host = read.headers.get("host", "")
    if not host or read.target == "*" or not read.target.startswith("/"):
        return
    parser = RequestParser(Limits(header_bytes=1 << 20))
    parser.feed(request(read.method, read.target, host, others, read.body))
    again = parser.next()
    assert again is not None
    assert (read.method, read.path, read.query, read.body) == (again.method, again.path, again.query, again.body)
    assert {name: value.rstrip(" ") for name, value in others} == {
        name: value for name, value in again.headers.items() if name not in framing
    }
    assert parser.empty


def responses(data: bytes) -> None:
    """Read a response whole and cut; with another method, without the end."""
    variant, way, content = opened(data)
    method, ends = ("HEAD" if variant & 1 else "GET"), bool(variant & 2)
    assert _response([content], method, ends) == _response(pieces(content, way), method, ends)


def _response(
    parts: Iterable[bytes], method: str, ends: bool
) -> tuple[ResponseHead | None, bytes, bool | None, bytes, bool | None]:
    """Return the head, the body, whether to keep the connection, what came after, and the fault (is it truncated?)."""
    parser = ResponseParser(method, max_head_bytes=HEAD_BYTES)
    head, body, keep, rest = None, b"", None, b""
    try:
        for part in parts:
            if keep is not None:
                rest += part
                continue
            for event in parser.receive(part):
                match event:
                    case ResponseHead():
                        assert head is None
                        head = event
                    case Body():
                        assert event.data
                        body += event.data
                    case End():
                        keep, rest = event.keep_alive, event.rest
            assert len(parser._buffer) <= HEAD_BYTES + LINE_BYTES
        if ends and keep is None:
            for event in parser.receive_eof():
                assert isinstance(event, End)
                keep = event.keep_alive
    except ResponseFailed as fault:
        # What came before the fault in the same piece is not given: how much that is depends on the cut.
        return None, b"", None, b"", fault.truncated
    return head, body, keep, rest, None


def handshake(data: bytes) -> None:
    """Answer the head of a request as a WebSocket's handshake; the answer is one head, and its extensions hold."""
    variant, _, content = opened(data)
    parser = RequestParser(Limits())
    parser.feed(content)
    try:
        read = parser.next()
        if read is None:
            return
        upgrade = parse_upgrade(read.method, read.version, read.headers)
    except Refusal as refusal:
        assert refusal.error.status >= 400
        return
    kinds = (Deflate(), Deflate(server_takeover=True, client_takeover=True), Deflate(server_bits=9, client_bits=8))
    agreed = kinds[variant % 3].accept(upgrade.extensions)
    extra = [] if agreed is None else [("Sec-WebSocket-Extensions", str(agreed))]
    protocol = upgrade.protocols[0] if upgrade.protocols else None
    answer = accept_response(upgrade, protocol, extra)
    client = ResponseParser("GET")
    head, end = client.receive(answer)
    assert isinstance(head, ResponseHead)
    assert isinstance(end, End)
    assert (101, b"") == (head.status, end.rest)
    if agreed is not None:
        _check_agreed(agreed, answered_extensions(head.headers))
        codec = agreed.server_codec(threshold=0)
        payload = codec.deflate(content)
        assert payload is not None
        assert content == b"".join(agreed.client_codec().inflate(payload, last=True))


def _check_agreed(agreed: Parameters, answer: object) -> None:
    """The widest offer takes any answer that the server gives, but windows that it can't use."""
    widest = Parameters(client_max_window_bits=15)
    try:
        assert widest.check(answer) is not None  # type: ignore[arg-type]
    except HandshakeFailed:
        assert agreed.client_max_window_bits == 8

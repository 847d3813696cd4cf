"""HTTP/1.1 as our own client writes and reads it: a request to bytes, bytes to the events of one response.

Owns: the form of a request, and where a response ends (RFC 9112 §6.3).
Invariant: the bodies of the events, joined, are the response's content, however the bytes were cut; a response that
broke off is never taken for a whole one.
To extend: what the server shares stands in `http1_base`.
"""

from __future__ import annotations

import enum
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

from ..errors import OncecastError, Refusal, UsageError
from .http1_base import (
    CHUNKED,
    TOKEN,
    ChunkReader,
    connection_options,
    encode_fields,
    is_authority,
    message_length,
    parse_fields,
)

__all__ = ["Body", "End", "ResponseEvent", "ResponseFailed", "ResponseHead", "ResponseParser", "request"]

INTERIM_RESPONSES = 16  # 100, 102, 103 before the answer; a server that sends more never answers
NO_CONTENT = frozenset({204, 304})

_METHOD = re.compile(f"{TOKEN}+")
_TARGET = re.compile(r"\*|(?:https?://|/)[\x21\x22\x24-\x7e]*")  # visible ASCII without `#`
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?\r\n")
_FRAMING = frozenset({"host", "content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """The final answer's head; `headers` has names in lower case, `version` is (1, 0) or (1, 1)."""

    status: int
    headers: Mapping[str, str]
    version: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Body:
    """Some bytes of the content, never none."""

    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """The response is whole. `rest` came after it: after 101 the first bytes of the other protocol.

    `keep_alive`: may the connection carry another request?
    """

    keep_alive: bool
    rest: bytes


ResponseEvent: TypeAlias = ResponseHead | Body | End


class ResponseFailed(OncecastError):
    """The response is malformed, or (`truncated`) the connection closed before its end.

    A stream that is cut is an ordinary thing for its listener, which resumes; a malformed answer is not.
    """

    def __init__(self, message: str, *, truncated: bool = False) -> None:
        super().__init__(message)
        self.truncated = truncated


def request(method: str, target: str, host: str, headers: Iterable[tuple[str, str]], body: bytes | None) -> bytes:
    """Write a request as one block: `Host` first, `Content-Length` where there is a body (an empty one too).

    Raises `UsageError` at whatever would not stay one request with these headers.
    """
    if _METHOD.fullmatch(method) is None:
        raise UsageError(f"{method!r} is not a method")
    if _TARGET.fullmatch(target) is None:
        raise UsageError("the request target is not a path or URL of visible ASCII without a fragment")
    if not is_authority(host):
        raise UsageError(f"{host!r} is not a host name with an optional port")
    start = f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n".encode()
    length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
    return b"".join((start, encode_fields(headers, reserved=_FRAMING), length, b"\r\n", body or b""))


class _ResponsePart(enum.Enum):
    HEAD = enum.auto()
    LENGTH = enum.auto()
    CHUNKS = enum.auto()
    UNTIL_EOF = enum.auto()
    ENDED = enum.auto()


class ResponseParser:
    """Reads the one response to a request of `method`: `receive` what comes, `receive_eof` at the connection's end.

    Interim responses (1xx) are passed over, but for 101, which ends HTTP on the connection. After a `ResponseFailed`
    each later call raises it too. Nothing is held back but a head (`max_head_bytes`) and a chunk's size line.
    """

    __slots__ = (
        "_buffer",
        "_checked",
        "_chunks",
        "_fault",
        "_interim",
        "_keep_alive",
        "_left",
        "_max_head",
        "_method",
        "_part",
    )

    def __init__(self, method: str, *, max_head_bytes: int = 65536) -> None:
        self._method = method
        self._max_head = max_head_bytes
        self._buffer = bytearray()
        self._checked = 0  # how far the end of the head was searched
        self._part = _ResponsePart.HEAD
        self._left = 0
        self._chunks = ChunkReader(sys.maxsize)  # a stream has no length to be held to
        self._keep_alive = False
        self._interim = 0
        self._fault: ResponseFailed | None = None

    def receive(self, data: bytes) -> list[ResponseEvent]:
        """Return the events that these bytes complete. Raises `ResponseFailed`; `UsageError` after the `End`."""
        if self._fault is not None:
            raise self._fault.with_traceback(None)
        if self._part is _ResponsePart.ENDED:
            raise UsageError("the response has ended: a parser reads one response")
        try:
            return self._read(data)
        except Refusal as malformed:
            self._fault = ResponseFailed(f"malformed response: {malformed.message}")
            raise self._fault from malformed

    def receive_eof(self) -> list[ResponseEvent]:
        """Say that the connection has ended. Raises `ResponseFailed` (`truncated`) where the response hasn't."""
        if self._fault is not None:
            raise self._fault.with_traceback(None)
        if self._part is _ResponsePart.ENDED:
            return []
        if self._part is _ResponsePart.UNTIL_EOF:
            self._part = _ResponsePart.ENDED
            return [End(False, b"")]
        where = "before the response's head was whole" if self._part is _ResponsePart.HEAD else "in the response's body"
        self._fault = ResponseFailed(f"the connection closed {where}", truncated=True)
        raise self._fault

    def _read(self, data: bytes) -> list[ResponseEvent]:
        events: list[ResponseEvent] = []
        if self._part is _ResponsePart.HEAD:
            self._buffer += data
            head = self._read_head()
            if head is None:
                return events
            events.append(head)
            self._part = self._start_body(head)
            data = bytes(self._buffer)
            self._buffer.clear()
        if self._part is _ResponsePart.CHUNKS:
            self._buffer += data
            if self._chunks.read(self._buffer):
                self._part = _ResponsePart.ENDED
            if self._chunks.data:
                events.append(Body(bytes(self._chunks.data)))
                self._chunks.data.clear()
            data = bytes(self._buffer)
        elif self._part is _ResponsePart.LENGTH:
            content, data = data[: self._left], data[self._left :]
            self._left -= len(content)
            if content:
                events.append(Body(content))
            if not self._left:
                self._part = _ResponsePart.ENDED
        elif self._part is _ResponsePart.UNTIL_EOF and data:
            events.append(Body(data))
        if self._part is _ResponsePart.ENDED:
            events.append(End(self._keep_alive, data))
        return events

    def _read_head(self) -> ResponseHead | None:
        """Take the final response's head from the buffer, and the interim ones before it; None: more is needed."""
        buffer = self._buffer
        while True:
            end = buffer.find(b"\r\n\r\n", max(self._checked - 3, 0))
            if (len(buffer) if end < 0 else end + 4) > self._max_head:
                raise Refusal("headers_too_large", f"its head is over {self._max_head} bytes")
            if end < 0:
                self._checked = len(buffer)
                return None
            head = _parse_head(bytes(buffer[: end + 2]))
            del buffer[: end + 4]
            self._checked = 0
            if head.status >= 200 or head.status == 101:
                return head
            self._interim += 1
            if self._interim > INTERIM_RESPONSES:
                raise Refusal("request_invalid", "there is no end to its interim responses")

    def _start_body(self, head: ResponseHead) -> _ResponsePart:
        """Find how the content ends. RFC 9112 §6.3, in its order."""
        length = message_length(head.headers)
        options = connection_options(head.headers)
        self._keep_alive = "close" not in options and (head.version == (1, 1) or "keep-alive" in options)
        if head.status == 101:
            self._keep_alive = False
            return _ResponsePart.ENDED
        if self._method == "HEAD" or head.status in NO_CONTENT or length == 0:
            return _ResponsePart.ENDED
        if length == CHUNKED:
            return _ResponsePart.CHUNKS
        if length is None:
            return _ResponsePart.UNTIL_EOF
        self._left = length
        return _ResponsePart.LENGTH


def _parse_head(head: bytes) -> ResponseHead:
    line = _STATUS_LINE.match(head)
    if line is None:
        raise Refusal("request_invalid", "its first line is not `HTTP/1.1 status reason`")
    version = (1, 0) if line[1] == b"0" else (1, 1)
    return ResponseHead(int(line[2]), MappingProxyType(parse_fields(head, line.end())), version)

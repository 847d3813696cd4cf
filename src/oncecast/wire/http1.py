"""HTTP/1.1 as a server reads and writes it: a connection's bytes to requests, and answers to bytes.

Owns: the limits of a request, and when it is whole. `Request` and the writing of answers are defined in the files named
below; this module exports them too, so that the server imports from one place.
Invariant: `RequestParser` gives the same requests, or a refusal, however the bytes were cut on their way; and it looks
at each byte of an unfinished head once.
To extend: a limit goes into `RequestLimits`, a check of a whole head into `http1_head.parse_head`; what the client
shares stands in `http1_base`, answers in `http1_response`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Protocol

from ..errors import Refusal
from .http1_base import CHUNKED, LAST_CHUNK, ChunkReader, chunk
from .http1_head import MEMO_BYTES, METHOD_BYTES, Head, Request, glimpse_fields, read_head
from .http1_response import CONTINUE, http_date, response, response_head

__all__ = [
    "CONTINUE",
    "EMPTY_LINES",
    "LAST_CHUNK",
    "MEMO_BYTES",
    "METHOD_BYTES",
    "Request",
    "RequestLimits",
    "RequestParser",
    "Stage",
    "chunk",
    "glimpse_fields",
    "http_date",
    "response",
    "response_head",
]

EMPTY_LINES = 2  # RFC 9112 §2.2: at least one CRLF before a request line is to be ignored

_END_OF_HEAD = b"\r\n\r\n"
_VERSION_BYTES = len(" HTTP/1.1")
# What no head may hold, wherever it stands. A CR at the end may still get its LF.
_NEVER_IN_HEAD = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")


class RequestLimits(Protocol):
    """How much of a request is read before it is refused; `policy.limits.Limits` declares the values.

    `header_bytes` bounds the whole head, request line and last empty line included; `url_bytes` the request target;
    `header_count` the fields of the head; `body_bytes` the content, without its chunks' framing.
    """

    @property
    def header_bytes(self) -> int: ...  # noqa: D102 - see above
    @property
    def header_count(self) -> int: ...  # noqa: D102
    @property
    def url_bytes(self) -> int: ...  # noqa: D102
    @property
    def body_bytes(self) -> int: ...  # noqa: D102


class Stage(enum.Enum):
    """Where a connection is in its current request; each stage has its own deadline."""

    IDLE = "idle"  # no byte of a request has come
    HEAD = "head"
    BODY = "body"


class RequestParser:
    """Reads the requests of one connection: `feed` bytes, then take requests with `next` until it returns None.

    After a `Refusal` the parser reads no more: where the next request begins is unknown (RFC 9112 §9.3). It holds at
    most a head, a body within the limits, and the rest of the last `feed`.
    """

    __slots__ = (
        "_buffer",
        "_checked",
        "_chunks",
        "_empty_lines",
        "_fault",
        "_head",
        "_limits",
        "_lines",
        "_read",
        "_wants_continue",
    )

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._buffer = bytearray()
        self._head: Head | None = None  # set while its body is awaited
        self._chunks: ChunkReader | None = None
        self._fault: Refusal | None = None
        self._read: Mapping[str, str] | None = None  # of the request that had the fault
        self._wants_continue = False
        self._checked = 0  # how far an unfinished head has been looked at,
        self._lines = 0  # how many of its lines have ended,
        self._empty_lines = 0  # and how many empty ones came before it

    def feed(self, data: bytes) -> None:
        """Add received bytes. After a fault they are dropped."""
        if self._fault is None:
            self._buffer += data

    def whole(self, data: bytes) -> Request | None:
        """Return the request if `data` is exactly one whole request and nothing is held; else None: `feed` it then.

        Most requests come in one piece, with a head that came before. The result equals that of `feed` and `next`,
        without their copies.
        """
        if self._buffer or self._head is not None or self._fault is not None:
            return None
        limits, end = self._limits, data.find(_END_OF_HEAD)
        if end < 0 or end + 4 > limits.header_bytes or end > MEMO_BYTES:
            return None
        try:
            head = read_head(data[: end + 2])
        except Refusal:
            return None
        length = len(data) - end - 4
        if (
            head.length != length
            or length > limits.body_bytes
            or head.fields > limits.header_count
            or len(head.request.target) > limits.url_bytes
        ):
            return None
        return head.with_body(data[end + 4 :]) if length else head.request

    def next(self) -> Request | None:
        """Return the next whole request, or None where more bytes are needed. After a `Refusal` each call raises it."""
        if self._fault is not None:
            raise self._fault.copy()
        try:
            head = self._head
            if head is None:
                head = self._read_head()
                if head is None:
                    return None
                if head.length == 0:
                    return head.request
                self._start_body(head)
            return self._read_body(head)
        except Refusal as fault:
            self._fault = fault.copy()
            self._read = self.headers_read
            self._buffer.clear()
            self._head = self._chunks = None
            self._wants_continue = False
            raise

    @property
    def headers_read(self) -> Mapping[str, str]:
        """The headers of the unfinished or refused request as far as they are read; of a head that is not whole, `host`
        and `origin` alone, each if it has come whole and once. Nothing but the answer to a fault may depend on them.
        """
        if self._fault is not None and self._read is not None:
            return self._read
        if self._head is not None:
            return self._head.request.headers
        return glimpse_fields(self._buffer, self._limits.header_bytes)

    def take_continue(self) -> bool:
        """Return, once, whether the client holds its body back until it is sent `CONTINUE` (RFC 9110 §10.1.1)."""
        wanted = self._wants_continue
        self._wants_continue = False
        return wanted

    @property
    def stage(self) -> Stage:
        """What is being waited for, as of the last call of `next`."""
        if self._head is not None:
            return Stage.BODY
        return Stage.HEAD if self._buffer else Stage.IDLE

    @property
    def buffered(self) -> int:
        """How many bytes are held that no returned request accounts for."""
        return len(self._buffer) + (len(self._chunks.data) if self._chunks is not None else 0)

    @property
    def empty(self) -> bool:
        """Whether no byte is held: the next request has not begun."""
        return not self._buffer and self._head is None

    @property
    def unread(self) -> bytes | bytearray:
        """What has come of the next request; nothing while a body is awaited."""
        return self._buffer if self._head is None else b""

    def take_rest(self) -> bytes:
        """Take the bytes that came after the last request: from there on the connection speaks another protocol."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._checked = self._lines = 0
        return rest

    def _read_head(self) -> Head | None:
        buffer, limits = self._buffer, self._limits
        if not buffer:
            return None
        if buffer[0] == 0x0D:
            self._skip_empty_lines()
        end = buffer.find(_END_OF_HEAD, max(self._checked - 3, 0))
        if end < 0 or end + 4 > limits.header_bytes:
            self._check_unfinished(len(buffer) if end < 0 else end + 4)
            return None
        text = bytes(buffer[: end + 2])
        if text.count(b"\n") - 1 > limits.header_count:
            # A worse fault has the answer that it gets where it comes in pieces.
            if _NEVER_IN_HEAD.search(text) is not None:
                raise _bad_byte()
            _check_method(buffer, end + 2)
            raise _too_many_headers(limits)
        head = read_head(text)
        if len(head.request.target) > limits.url_bytes:
            raise _url_too_long(limits)
        del buffer[: end + 4]
        self._checked = self._lines = self._empty_lines = 0
        return head

    def _skip_empty_lines(self) -> None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            self._empty_lines += 1
            if self._empty_lines > EMPTY_LINES:
                raise Refusal("request_invalid", "There are too many empty lines before the request line.")
            del buffer[:2]

    def _check_unfinished(self, size: int) -> None:
        """Refuse a head of which the first `size` bytes can't become a good one. Looks at each byte once."""
        buffer, limits, start = self._buffer, self._limits, self._checked
        size = min(size, limits.header_bytes)  # what comes behind is not looked at, however much comes at once
        if size == 0:
            return
        if _NEVER_IN_HEAD.search(buffer, start, size) is not None:
            raise _bad_byte()
        if self._lines == 0:
            _check_method(buffer, size)
        self._lines += buffer.count(b"\n", start, size)
        # A target or a list of fields that is too long is refused once the head is whole, as its Origin may come last.
        if size >= limits.header_bytes:
            line_bytes = buffer.find(b"\r\n", 0, size)
            target_bytes = (size if line_bytes < 0 else line_bytes) - buffer.find(b" ") - 1 - _VERSION_BYTES
            if target_bytes > limits.url_bytes:
                raise _url_too_long(limits)
            if self._lines - 1 > limits.header_count:
                raise _too_many_headers(limits)
            raise Refusal("headers_too_large", f"The head is over {limits.header_bytes} bytes.")
        self._checked = size - 1 if buffer[size - 1] == 0x0D else size

    def _start_body(self, head: Head) -> None:
        limit = self._limits.body_bytes
        self._head = head
        if head.length > limit:
            raise Refusal("body_too_large", f"The body is over {limit} bytes.")
        if head.length == CHUNKED:
            self._chunks = ChunkReader(limit)
        self._wants_continue = head.expects_continue

    def _read_body(self, head: Head) -> Request | None:
        buffer = self._buffer
        if buffer:
            self._wants_continue = False  # it didn't wait
        if self._chunks is None:
            if len(buffer) < head.length:
                return None
            body = bytes(memoryview(buffer)[: head.length])  # a slice of the buffer itself would be one copy more
            del buffer[: head.length]
        else:
            if not self._chunks.read(buffer):
                return None
            body = bytes(self._chunks.data)
            self._chunks = None
        self._head = None
        self._wants_continue = False
        return head.with_body(body)


def _check_method(buffer: bytearray, size: int) -> None:
    """Refuse what does not begin with a method, before all of it has come."""
    line_end = buffer.find(b"\n", 0, size)
    most = METHOD_BYTES + 1 if line_end < 0 else min(METHOD_BYTES + 1, line_end)
    if buffer.find(b" ", 0, most) < 0 and (line_end >= 0 or size > METHOD_BYTES + 1):
        raise Refusal("request_invalid", "The request does not begin with a method.")


def _bad_byte() -> Refusal:
    return Refusal("request_invalid", "The head has a bare CR or LF or another control character.")


def _too_many_headers(limits: RequestLimits) -> Refusal:
    return Refusal("headers_too_large", f"There are more than {limits.header_count} headers.")


def _url_too_long(limits: RequestLimits) -> Refusal:
    return Refusal("url_too_long", f"The request target is over {limits.url_bytes} bytes.")

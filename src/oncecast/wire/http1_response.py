"""Answers of HTTP/1.1: status, headers and body to bytes. RFC 9110 §15, RFC 9112 §4.

Owns: the form of an answer, its `Content-Length`, `Connection` and `Date`.
Invariant: what is written is one answer with these headers, whatever is in them, or `UsageError` is raised.
To extend: headers of every answer of the server belong to the caller; only framing is written here.
"""

from __future__ import annotations

import datetime
import http
from collections.abc import Iterable
from functools import lru_cache

from ..errors import UsageError
from .http1_base import encode_fields

__all__ = ["CONTINUE", "http_date", "response", "response_head"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def response_head(status: int, headers: Iterable[tuple[str, str]], *, date: bytes = b"") -> bytes:
    """Write the head of an answer whose body the caller frames: a stream, or 101. Only `date` is added.

    `date` comes from `http_date`. Raises `UsageError` at headers that would not stay one header each.
    """
    line = _STATUS_LINES.get(status) or _status_line(status)
    return b"".join((line, encode_fields(headers), b"Date: %b\r\n" % date if date else b"", b"\r\n"))


def response(
    status: int,
    headers: Iterable[tuple[str, str]],
    body: bytes,
    *,
    keep_alive: bool,
    version: tuple[int, int] = (1, 1),
    head_only: bool = False,
    date: bytes = b"",
) -> bytes:
    """Write a whole answer as one block, with its `Content-Length` and, where it is needed, `Connection`.

    `version` is the request's: an answer to HTTP/1.0 has to say that the connection stays open. `head_only`
    answers HEAD. A status that has no content (1xx, 204, 304) gets neither body nor length, whatever `body` is
    (RFC 9110 §8.6). Raises `UsageError` as `response_head` does.
    """
    if status < 200 or status == 204 or status == 304:
        head, body = _head(status, tuple(headers), None, keep_alive, version < (1, 1), date), b""
    else:
        head = _head(status, tuple(headers), len(body), keep_alive, version < (1, 1), date)
    return head if head_only else head + body


@lru_cache(maxsize=256)  # within a second most answers have the same head
def _head(
    status: int, headers: tuple[tuple[str, str], ...], length: int | None, keep_alive: bool, is_old: bool, date: bytes
) -> bytes:
    line = _STATUS_LINES.get(status) or _status_line(status)
    fields = encode_fields(headers, reserved=_FRAMING)
    framing = b"" if length is None else b"Content-Length: %d\r\n" % length
    connection = b""
    if not keep_alive:
        connection = b"Connection: close\r\n"
    elif is_old:
        connection = b"Connection: keep-alive\r\n"
    stamp = b"Date: %b\r\n" % date if date else b""
    return b"".join((line, fields, framing, connection, stamp, b"\r\n"))


def http_date(unix_seconds: float) -> bytes:
    """Write a time as an IMF-fixdate (RFC 9110 §5.6.7), rounded down to the second."""
    return _date(int(unix_seconds // 1))


@lru_cache(maxsize=4)  # all answers of a second share one
def _date(second: int) -> bytes:
    at = datetime.datetime.fromtimestamp(second, datetime.UTC)
    day, month = _DAYS[at.weekday()], _MONTHS[at.month - 1]  # strftime would write them in the locale's words
    return f"{day}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} GMT".encode()


_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FRAMING = frozenset({"content-length", "transfer-encoding"})
_STATUS_LINES = {status.value: f"HTTP/1.1 {status} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


def _status_line(status: int) -> bytes:
    if not 100 <= status <= 599:
        raise UsageError(f"{status} is no HTTP status")
    return b"HTTP/1.1 %d \r\n" % status  # the reason may be empty, its space may not (RFC 9112 §4)

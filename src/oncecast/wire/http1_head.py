"""The head of an HTTP/1.1 request: its bytes, whole, to a `Request`. RFC 9110, RFC 9112 §3.

Owns: the request line, the forms of a target, and what the fields of a request may say.
Invariant: `parse_head` is a pure function of the head's bytes, and refuses what two readers could understand
differently.
To extend: a new check of a head goes into `parse_head`; one that depends on the limits into `http1.RequestParser`.

Keep-alive clients send the same head again and again, so `read_head` remembers: a repeated one costs a dictionary
lookup, and its requests share what was parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import unquote_to_bytes

import msgspec

from ..errors import Refusal
from .http1_base import CHUNKED, TOKEN, connection_options, is_authority, message_length, parse_fields

__all__ = ["METHOD_BYTES", "Head", "Request", "glimpse_fields", "parse_head", "read_head"]

METHOD_BYTES = 32  # the longest registered method has 17; other protocols are refused at their 34th byte
MEMO_HEADS = 512  # with MEMO_BYTES: about 3 MiB at most, text and parsed form together
MEMO_BYTES = 2048  # browsers' heads are 400 to 1,500 bytes

_REQUEST_LINE = re.compile(rf"({TOKEN}{{1,{METHOD_BYTES}}}) ([\x21-\x7e]++) HTTP/([0-9])\.([0-9])\r\n".encode())
_ABSOLUTE_FORM = re.compile(r"https?://([^/?]*)(.*)", re.IGNORECASE)
# Each part is possessive: of a line of n spaces that ends badly, the two runs could be divided in n ways.
_GLIMPSED = {
    name: re.compile(rf"(?i:\r\n{name}:)[ \t]*+([\x21-\x7e]*+)[ \t]*+(?=\r\n)".encode()) for name in ("host", "origin")
}
# Fields of one value (RFC 9110 §5.3): joined by a comma, two of them would read as a third.
_SINGLE = frozenset({"authorization", "content-type", "idempotency-key", "last-event-id", "oncecast-event", "origin"})
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Request(msgspec.Struct, frozen=True):
    """A whole request. It may be shared between connections, so all of it is immutable.

    `target` is as it was sent, `raw_path` its path, `path` the path percent-decoded (UTF-8); `query` is what follows
    the first `?`, undecoded. `version` is (1, 0) or (1, 1). `headers` has names in lower case; for
    a target in absolute form its `host` is the target's (RFC 9112 §3.2.2). `keep_alive`: may the connection carry
    another request after this one? `scheme` is `http` or `https`, or "" for that of the server.
    """

    method: str
    target: str
    path: str
    query: str = ""
    version: tuple[int, int] = (1, 1)
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True
    raw_path: str = ""
    scheme: str = ""


class Head(msgspec.Struct, frozen=True):
    """A request without its body: the length of that (`CHUNKED`, or bytes), whether the client waits for 100 before it
    sends it, and the number of fields.
    """

    request: Request
    length: int
    expects_continue: bool
    fields: int

    def with_body(self, body: bytes) -> Request:
        """Return the whole request; the head's own stays as it is, for it may be shared."""
        r = self.request
        return Request(r.method, r.target, r.path, r.query, r.version, r.headers, body, r.keep_alive, r.raw_path)


def parse_head(head: bytes) -> Head:
    """Read a head that ends with its last line's CRLF. Raises `Refusal` at whatever is wrong with it."""
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise Refusal("request_invalid", "The first line is not `METHOD target HTTP/1.1`.")
    if line[3] != b"1":
        raise Refusal("request_invalid", "This is neither HTTP/1.1 nor HTTP/1.0, and no other version is spoken here.")
    method, target = line[1].decode(), line[2].decode()
    version = (1, 0) if line[4] == b"0" else (1, 1)  # RFC 9110 §2.5: 1.2 is read as the highest 1.x known
    fields = parse_fields(head, line.end(), _SINGLE)
    raw_path, query, authority = _split_target(method, target)
    _check_host(fields, version, authority)
    length = message_length(fields)
    if length == CHUNKED and version == (1, 0):
        # RFC 9112 §6.1: HTTP/1.0 has no chunks, so some readers on the way saw another length.
        raise Refusal("request_invalid", "HTTP/1.0 has no Transfer-Encoding.")
    expect = fields.get("expect")
    if expect is not None and expect.lower() != "100-continue":
        raise Refusal("request_invalid", "The only expectation that can be met is `100-continue`.")
    if fields.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("type_unsupported", "Content-Encoding is not supported: send the body as it is.")
    options = connection_options(fields)
    keep_alive = "close" not in options and (version == (1, 1) or "keep-alive" in options)  # RFC 9112 §9.3
    request = Request(
        method=method,
        target=target,
        path=_unquote(raw_path, "path"),
        query=query,
        version=version,
        headers=MappingProxyType(fields),
        keep_alive=keep_alive,
        raw_path=raw_path,
    )
    return Head(request, length or 0, expect is not None and version == (1, 1), head.count(b"\n") - 1)


@lru_cache(maxsize=MEMO_HEADS)
def _recall(head: bytes) -> Head:
    return parse_head(head)


def read_head(head: bytes) -> Head:
    """Return what `parse_head` does, from memory if the same head was parsed recently and has at most MEMO_BYTES."""
    return _recall(head) if len(head) <= MEMO_BYTES else parse_head(head)


def _split_target(method: str, target: str) -> tuple[str, str, str | None]:
    """Split a target (RFC 9112 §3.2) into path, query, and the authority of an absolute form."""
    authority = None
    if target == "*" and method == "OPTIONS":
        return "*", "", None
    if "#" in target:
        raise Refusal("request_invalid", "The request target has a fragment (`#`): leave it out.")
    rest = target
    if target[0] != "/" and (absolute := _ABSOLUTE_FORM.fullmatch(target)) is not None:
        authority, rest = absolute[1], absolute[2]
        if not rest.startswith("/"):
            rest = "/" + rest
    if rest[0] != "/" or method == "CONNECT":
        raise Refusal("request_invalid", "The request target is neither a path nor an http URL.")
    path, _, query = rest.partition("?")
    return path, query, authority


def _check_host(fields: dict[str, str], version: tuple[int, int], authority: str | None) -> None:
    host = fields.get("host")
    if host is None:
        if version == (1, 1):
            raise Refusal("request_invalid", "There is no Host header: HTTP/1.1 requires one.")
    elif not is_authority(host):
        raise Refusal("request_invalid", "The Host header is not a host name with an optional port.")
    if authority is not None:
        # A user name in it would be refused here too (RFC 9110 §4.2.4).
        if not is_authority(authority):
            raise Refusal("request_invalid", "The URL's host is not a host name with an optional port.")
        fields["host"] = authority  # RFC 9112 §3.2.2


def glimpse_fields(data: bytes | bytearray, size: int) -> dict[str, str]:
    """Return `host` and `origin` from the first `size` bytes of a head that is not whole or not well formed.

    A field is given only if its line is whole, and no other line of that name has come.
    """
    end = data.find(b"\r\n\r\n", 0, size)
    size = size if end < 0 else end + 2
    found: dict[str, str] = {}
    for name in ("host", "origin"):
        lines = _GLIMPSED[name].findall(data, 0, size)
        if len(lines) == 1:
            found[name] = lines[0].decode()
    return found


def _unquote(text: str, where: str) -> str:
    """Decode percent-encoded UTF-8, strictly. NUL is refused: it ends strings in what may stand behind us."""
    if "%" not in text:
        return text
    if _BAD_PERCENT.search(text) is not None or "%00" in text:
        raise Refusal("request_invalid", f"The {where} has a bad percent-encoding.")
    try:
        return unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        raise Refusal("request_invalid", f"The {where} is not percent-encoded UTF-8.") from None

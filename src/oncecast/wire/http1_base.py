"""What both ends of HTTP/1.1 share: the grammar of header fields, message lengths, and the chunked coding.

Owns: field lines (read and written), `Content-Length`, `Connection`, `chunked` (read and written).
Invariant: a message has one length on which every strict reader agrees. Whatever two readers could understand
differently (RFC 9112 §11.2, request smuggling) raises `Refusal`; nothing is repaired.
To extend: a new header needs nothing here, only one with a say in a message's length does.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ..errors import Refusal, UsageError
from ..message import NUMBER_DIGITS

__all__ = [
    "CHUNKED",
    "EXTENSION_BYTES",
    "LAST_CHUNK",
    "LENGTH_DIGITS",
    "TOKEN",
    "TRAILER_BYTES",
    "ChunkReader",
    "chunk",
    "connection_options",
    "encode_fields",
    "is_authority",
    "message_length",
    "parse_fields",
]

TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # noqa: S105 - RFC 9110 §5.6.2, a grammar rule and no secret
LENGTH_DIGITS = NUMBER_DIGITS  # every reader behind us can count it too
CHUNK_DIGITS = 8  # 4 GiB in one chunk; longer sizes are how readers' integers are made to overflow
EXTENSION_BYTES = 256  # extensions are ignored, and a reader must bound what it ignores (RFC 9112 §7.1.1)
TRAILER_BYTES = 4096  # trailers are checked and dropped
CHUNKED = -1  # the length of a message whose end stands in its chunks
LAST_CHUNK = b"0\r\n\r\n"

_TEXT = r"[\t\x20-\x7e\x80-\xff]"  # RFC 9110 §5.5: field-vchar, SP and HTAB; so no CR, LF, NUL or other control
_FIELDS = re.compile(rf"(?:{TOKEN}++:{_TEXT}*+\r\n)*+".encode())
_FIELD_NAME = re.compile(f"{TOKEN}+")
_FIELD_VALUE = re.compile(f"{_TEXT}*")
# RFC 3986 §3.2.2, without the sub-delims and percent-encoding of a reg-name: no name in the DNS needs them.
_AUTHORITY = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|[A-Za-z0-9._~-]+)(?::([0-9]{0,5}))?")
_LENGTH = re.compile(rf"[0-9]{{1,{LENGTH_DIGITS}}}")
_CHUNK_LINE = rf"([0-9A-Fa-f]{{1,{CHUNK_DIGITS}}})(?:;{_TEXT}{{0,{EXTENSION_BYTES}}})?"
_CHUNK_SIZE = re.compile(rf"{_CHUNK_LINE}\r\n".encode())
_CHUNK_SIZE_SO_FAR = re.compile(rf"(?:{_CHUNK_LINE}\r?)?".encode())
# Two of these are two answers to "whose request, and how long is it?" (RFC 9112 §3.2, §6.3).
_ONCE = frozenset({"host", "content-length"})
_NOT_IN_TRAILERS = frozenset({b"content-length", b"host", b"transfer-encoding"})


# --- fields, read ---


def parse_fields(head: bytes, start: int, once: frozenset[str] = frozenset()) -> dict[str, str]:
    r"""Read the field lines of `head` from `start` on, each ended by CRLF.

    Names come out in lower case, values are decoded as Latin-1 (RFC 9110 §5.5), repeated ones are joined by `", "`,
    cookies by `"; "` (RFC 6265 §5.4). Raises `Refusal` (`request_invalid`) at anything outside RFC 9112 §5, and where a
    field comes twice that frames the message or is named in `once`.
    """
    if _FIELDS.fullmatch(head, start) is None:
        raise Refusal("request_invalid", _explain_field(head[start:]))
    fields: dict[str, str] = {}
    for line in head[start:-2].decode("latin-1").split("\r\n") if start < len(head) else ():
        name, _, value = line.partition(":")
        name = name.lower()
        value = value.strip(" \t")
        if name in fields:
            if name in _ONCE or name in once:
                raise Refusal("request_invalid", f"There is more than one {name.title()} header: send one.")
            value = fields[name] + ("; " if name == "cookie" else ", ") + value
        fields[name] = value
    return fields


def _explain_field(block: bytes) -> str:
    """Say what is wrong with the first bad line; values may be secrets, so none is shown."""
    lines = block.split(b"\r\n")
    number = next(i for i, line in enumerate(lines) if _FIELDS.fullmatch(line + b"\r\n") is None)
    line = lines[number]
    name, colon, _ = line.partition(b":")
    what = f"Header line {number + 1}"
    if line[:1] in (b" ", b"\t"):
        return f"{what} starts with white space: folded headers are obsolete, send it on one line."
    if b"\r" in line or b"\n" in line:
        return f"{what} holds a bare CR or LF: end lines with CRLF."
    if not colon:
        return f"{what} has no colon."
    if name.endswith((b" ", b"\t")):
        return f"{what} has white space before its colon: remove it."
    if _FIELD_NAME.fullmatch(name.decode("latin-1")) is None:
        return f"{what} has a name that is no token: use letters, digits and hyphens."
    return f"{what} has a control character in its value: remove it."


def message_length(fields: Mapping[str, str]) -> int | None:
    """Say how many bytes of content the fields announce: a number, `CHUNKED`, or None where they say nothing.

    Raises `Refusal` (`request_invalid`) where they contradict each other or are malformed (RFC 9112 §6.3).
    """
    coding = fields.get("transfer-encoding")
    length = fields.get("content-length")
    if coding is not None:
        if length is not None:
            raise Refusal("request_invalid", "Content-Length and Transfer-Encoding exclude each other: send one.")
        if coding.lower() != "chunked":
            raise Refusal("request_invalid", "The only Transfer-Encoding understood is `chunked`, once and alone.")
        return CHUNKED
    if length is None:
        return None
    if _LENGTH.fullmatch(length) is None:
        raise Refusal(
            "request_invalid", f"Content-Length is not a number of at most {LENGTH_DIGITS} digits and nothing else."
        )
    return int(length)


def connection_options(fields: Mapping[str, str]) -> frozenset[str]:
    """Return the options of `Connection` in lower case (RFC 9110 §7.6.1)."""
    value = fields.get("connection")
    if value is None:
        return frozenset()
    return frozenset(option.strip(" \t").lower() for option in value.split(","))


def is_authority(text: str) -> bool:
    """Say whether `text` is `host[:port]` (RFC 9110 §7.2): a name, an IPv4 or a bracketed IPv6 address."""
    match = _AUTHORITY.fullmatch(text)
    if match is None or int(match[2] or 0) > 65535:
        return False
    if match[1] is None:
        return True
    try:
        ipaddress.IPv6Address(match[1])
    except ValueError:
        return False
    return True


# --- fields, written ---


def encode_fields(fields: Iterable[tuple[str, str]], *, reserved: frozenset[str] = frozenset()) -> bytes:
    """Write field lines, each ended by CRLF.

    Raises `UsageError` at what would not be one field (CR, LF, NUL and other controls, a name that is no token), and
    at a name in `reserved` (lower case), which the caller writes itself. Fields given as a tuple are remembered: most
    of a server's answers have the same ones.
    """
    if isinstance(fields, tuple):
        return _remembered_fields(fields, reserved)
    return _fields(fields, reserved)


def _fields(fields: Iterable[tuple[str, str]], reserved: frozenset[str]) -> bytes:
    lines = []
    for name, value in fields:
        if _FIELD_VALUE.fullmatch(value) is None:
            raise UsageError(f"the value of header {name!r} has a control character or one outside of Latin-1")
        lower, prefix = _field_prefix(name)
        if lower in reserved:
            raise UsageError(f"header {name!r} is written by the codec itself: leave it out")
        lines.append(f"{prefix}{value}\r\n")
    return "".join(lines).encode("latin-1")


@lru_cache(maxsize=256)
def _remembered_fields(fields: tuple[tuple[str, str], ...], reserved: frozenset[str]) -> bytes:
    return _fields(fields, reserved)


@lru_cache(maxsize=256)  # a program's header names are few; the bound is for one that makes them up
def _field_prefix(name: str) -> tuple[str, str]:
    if _FIELD_NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is not a header's name")
    return name.lower(), f"{name}: "


# --- the chunked coding (RFC 9112 §7.1) ---


def chunk(data: bytes) -> bytes:
    """Wrap `data` as one chunk. Of nothing it makes nothing: an empty chunk would end the message."""
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


class _ChunkPart(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILER = enum.auto()


class ChunkReader:
    """Takes chunks from the front of a buffer; what they carry collects in `data`, for the caller to take.

    `limit` bounds the bytes of the whole content; a chunk that would pass it is refused by its size line, before its
    data comes.
    """

    __slots__ = ("_left", "_limit", "_part", "_room", "_trailer_room", "data")

    def __init__(self, limit: int) -> None:
        self.data = bytearray()
        self._limit = self._room = limit
        self._part = _ChunkPart.SIZE
        self._left = 0
        self._trailer_room = TRAILER_BYTES

    def read(self, buffer: bytearray) -> bool:
        """Consume what is understood so far; True once the end of the message is consumed too.

        Raises `Refusal`: `request_invalid`, `body_too_large`, or `headers_too_large` for the trailers.
        """
        at = 0
        ended = False
        while not ended:
            if self._part is _ChunkPart.SIZE:
                match = _CHUNK_SIZE.match(buffer, at)
                if match is None:
                    if _CHUNK_SIZE_SO_FAR.fullmatch(buffer, at) is None:
                        raise _bad_chunk_size()
                    break
                at = match.end()
                size = int(match[1], 16)
                self._start_chunk(size)
                # A chunk that is here whole is taken in one step: a flood of tiny ones costs half as much.
                if size and buffer[at + size : at + size + 2] == b"\r\n":
                    self.data += buffer[at : at + size]
                    at += size + 2
                    self._part = _ChunkPart.SIZE
            elif self._part is _ChunkPart.DATA:
                piece = buffer[at : at + self._left]
                self.data += piece
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._part = _ChunkPart.DATA_END
            elif self._part is _ChunkPart.DATA_END:
                end = buffer[at : at + 2]
                if end != b"\r\n"[: len(end)]:
                    raise Refusal("request_invalid", "A chunk is longer or shorter than its size says.")
                if len(end) < 2:
                    break
                at += 2
                self._part = _ChunkPart.SIZE
            else:
                # Looking for LF alone shows a bare one at once; the check of the line then asks for CRLF.
                line_end = buffer.find(b"\n", at)
                line = bytes(buffer[at : line_end + 1 if line_end >= 0 else None])
                if len(line) > self._trailer_room:
                    raise Refusal("headers_too_large", f"The trailers are over {TRAILER_BYTES} bytes.")
                if line_end < 0:
                    break
                at = line_end + 1
                self._trailer_room -= len(line)
                ended = line == b"\r\n"
                if not ended:
                    _check_trailer(line)
        del buffer[:at]
        return ended

    def _start_chunk(self, size: int) -> None:
        if size > self._room:
            raise Refusal("body_too_large", f"The body is over {self._limit} bytes.")
        self._room -= size
        self._left = size
        self._part = _ChunkPart.DATA if size else _ChunkPart.TRAILER


def _check_trailer(line: bytes) -> None:
    """Refuse what is no field, and a field that says how a message is framed or routed (RFC 9110 §6.5.1)."""
    if _FIELDS.fullmatch(line) is None:
        raise Refusal("request_invalid", "A trailer is no header field.")
    if line.partition(b":")[0].lower() in _NOT_IN_TRAILERS:
        raise Refusal("request_invalid", "A trailer names a header that belongs before the body: send it there.")


def _bad_chunk_size() -> Refusal:
    return Refusal(
        "request_invalid",
        f"A chunk's size is not 1 to {CHUNK_DIGITS} hexadecimal digits and CRLF, with an extension of at most "
        f"{EXTENSION_BYTES} bytes between.",
    )

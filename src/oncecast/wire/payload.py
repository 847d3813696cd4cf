"""What a peer sends as a message's data, and the rules for any JSON of a peer.

Owns: what is JSON, text, binary; how deep JSON may nest; half surrogate pairs; fields that stand twice.
Invariant: data is kept as it came, or refused. The answer is the same for a body with its type, a body without one, a
line of a batch and a frame, and does not depend on how deep the call is.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
from itertools import islice

import msgspec

from ..errors import Refusal
from ..message import BINARY, JSON, TEXT, Kind

__all__ = [
    "MAX_DEPTH",
    "TOO_DEEP",
    "base64_data",
    "check_fields",
    "colons_around",
    "json_data",
    "json_value",
    "refuse_half_pair",
    "sniff",
    "text_data",
]

MAX_DEPTH = 512  # arrays and objects inside each other; with an envelope around, every client's decoder reads it still
TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} deep: send it flatter, or as text/plain."
HALF_PAIR = "The JSON has a surrogate (\\ud800 to \\udfff) without its other half, which no UTF-8 can hold: send both."
CUT_BYTES = 256  # of data: to read more of it, only to find the fields around it, costs more than to cut it out
NAMES = 8192  # of fields, by a rough count: a long token may have a third of that
_NAME = re.compile(rb'"[ \t\r\n]*:')
SLICE_BYTES = 64 << 10  # of data that is looked at as a text
FIND_BYTES = 16  # of it, to find where it stands: to search for more takes longer

LF, CR = b"\n\r"  # as numbers: a search for one takes a tenth of the time that one for a byte string takes

_JSON_SPACE = b" \t\n\r"  # RFC 8259 §2
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_HALF_PAIR = re.compile(  # everything that is none, in one pass, then a half of a pair
    rb"(?:[^\\]|\\[^u]|\\u(?![dD][89a-fA-F])|\\u[dD][89abAB]..\\u[dD][c-fC-F])*+\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)
_check_json = msgspec.json.Decoder(msgspec.Raw).decode
_utf8_decoder = codecs.getincrementaldecoder("utf-8")
# Objects as lists of pairs; numbers as texts, as the largest take long to read.
_read_pairs = json.JSONDecoder(object_pairs_hook=list, parse_int=str, parse_float=str, strict=False).decode

# For `_depth`: an opening bracket is the digit 1, a closing one 0, and quotes stay.
_BITS = bytes.maketrans(b"[{]}", b"1100")
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'[{]}"'))


def _climb(brackets: int) -> tuple[int, int]:
    """Return how much deeper eight brackets lead, and the deepest place on their way."""
    depth = deepest = 0
    for place in reversed(range(8)):
        depth += 1 if brackets >> place & 1 else -1
        deepest = max(deepest, depth)
    return depth, deepest


_CLIMBS = [_climb(brackets) for brackets in range(256)]


def json_data(data: bytes) -> bytes:
    """Check that `data` is one JSON text in UTF-8 (RFC 8259) and return it on one line. Raises `data_invalid`."""
    if len(data) > MAX_DEPTH:
        check_depth(data)
    if not data.isascii():
        _check_utf8("data", data)
    try:
        _check_json(data)
    except msgspec.DecodeError as error:
        refuse_half_pair("data_invalid", data)
        raise Refusal("data_invalid", f"The data is not JSON: {error}. Send valid JSON, or text/plain.") from None
    except RecursionError:  # the call itself is deep
        raise Refusal("data_invalid", TOO_DEEP) from None
    return _on_one_line(data) if LF in data or CR in data else data


def json_value(data: bytes) -> bytes:
    """Do as `json_data` does for a value inside of JSON that a decoder has read: that has checked its grammar."""
    if len(data) > MAX_DEPTH:
        check_depth(data)
    if not data.isascii():
        _check_utf8("data", data)
    return _on_one_line(data) if LF in data or CR in data else data


def text_data(data: bytes) -> bytes:
    """Check that `data` is UTF-8 and return it. Raises `data_invalid`."""
    if not data.isascii():
        _check_utf8("text", data)
    return data


def base64_data(text: str) -> bytes:
    """Decode the base64 (RFC 4648 §4) of a `data64` field. Raises `data_invalid`."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("data_invalid", "data64 is not base64 (RFC 4648 §4, with padding).") from None


def sniff(data: bytes) -> tuple[bytes, Kind]:
    """Classify data whose sender named no type: JSON if it parses, else text if it is UTF-8, else binary.

    Raises `data_invalid` where it begins as JSON and nests too deeply, as it would be refused with its type.
    """
    if len(data) > MAX_DEPTH and data.lstrip(_JSON_SPACE)[:1] in (b"[", b"{"):
        check_depth(data)
    try:
        return json_data(data), JSON
    except Refusal:
        pass
    try:
        return text_data(data), TEXT
    except Refusal:
        return data, BINARY


# -- rules for JSON


def check_depth(data: bytes) -> None:
    """Raise `data_invalid` for JSON that nests too deeply.

    The decoder has a bound of its own, but one that depends on how deep the call is. Almost all data has fewer brackets
    than the bound, which is quick to see.
    """
    if len(data) > MAX_DEPTH:
        # To split at a byte that is rare takes a quarter of the time that `count` takes.
        arrays, objects = data.split(b"[", MAX_DEPTH + 1), data.split(b"{", MAX_DEPTH + 1)
        if len(arrays) + len(objects) - 2 > MAX_DEPTH and _depth(data) > MAX_DEPTH:
            raise Refusal("data_invalid", TOO_DEEP)


def _depth(data: bytes) -> int:
    """Return how deep JSON nests, at some 2 to 20 ns a byte; of what is no JSON, some number."""
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    bits = data.translate(_BITS, _NOT_STRUCTURE).replace(b'""', b"")
    if b'"' in bits:  # there are strings with brackets: every second piece is inside of one
        bits = b"".join(bits.split(b'"')[::2])
    if not bits:
        return 0
    bits += -len(bits) % 8 * b"0"
    depth = deepest = 0
    for eight in int(bits, 2).to_bytes(len(bits) // 8, "big"):
        rise, peak = _CLIMBS[eight]
        if depth + peak > deepest:
            deepest = depth + peak
        depth += rise
    return deepest


def colons_around(raw: bytes, data: bytes) -> int:
    """Return how many colons `data` has outside of `raw`, which is a part of it.

    An object has at least one for each of its fields, so with no more than that no field can stand twice.
    """
    if len(raw) > CUT_BYTES:
        at = data.find(raw[:FIND_BYTES])
        if data.startswith(raw, at):
            return data.count(b":", 0, at) + data.count(b":", at + len(raw))
    return data.count(b":") - raw.count(b":")


def check_fields(code: str, what: str, data: bytes, raw: bytes, colons: int) -> None:
    """Refuse an object in which a field stands twice: its readers would not agree on which one counts (RFC 8259 §4).

    `raw` is the value of its field `data`, `colons` how many the object has beside those in `raw` if each field stands
    once and none is null. Where that is so there is nothing more to look at; else the object is read field by field.
    """
    rest = data
    if len(raw) > CUT_BYTES:
        rest, raw = _cut(data, raw), b"0"
    if b"\\" in rest and rest.count(b"\\") > raw.count(b"\\"):
        pass  # it may spell a name in another way, or a colon
    elif rest.count(b":") - raw.count(b":") == colons:
        return
    if sum(1 for _ in islice(_NAME.finditer(rest), NAMES + 1)) > NAMES:  # a list of them would be many times the text
        raise Refusal(code, f"A field of this {what} stands twice in it: give each once.")
    try:
        pairs = _read_pairs(rest.decode())
    except ValueError:  # the same text stood in another value, and was cut out there
        pairs = _read_pairs(data.decode())
    inner = [value for name, value in pairs if name == "data64" and isinstance(value, list)]
    for many in (pairs, *inner):
        if len({name for name, _ in many}) < len(many):
            raise Refusal(code, f"A field of this {what} stands twice in it: give each once.")


def _cut(data: bytes, raw: bytes) -> bytes:
    """Return `data` with `raw`, which is a part of it, replaced by one byte. To search for all of it takes long."""
    at = data.find(raw[:CUT_BYTES])
    if not data.startswith(raw, at):
        return data.replace(raw, b"0", 1)
    return b"%b0%b" % (data[:at], data[at + len(raw) :])


def _check_utf8(what: str, data: bytes) -> None:
    """Check it slice by slice: the text of the whole would take five times its bytes for a moment."""
    begun = 0  # where what the decoder looks at begins
    try:
        if len(data) <= SLICE_BYTES:
            data.decode()
            return
        decoder, view = _utf8_decoder(), memoryview(data)
        for at in range(0, len(data), SLICE_BYTES):
            begun = at - len(decoder.getstate()[0])
            decoder.decode(view[at : at + SLICE_BYTES])
        begun = len(data) - len(decoder.getstate()[0])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise Refusal("data_invalid", f"The {what} is not UTF-8: byte {begun + error.start} is wrong.") from None


def _on_one_line(data: bytes) -> bytes:
    """Return JSON without the line breaks between its parts, so that an envelope of it stays one line."""
    try:
        return msgspec.json.format(data, indent=-1)
    except RecursionError:  # the call itself is deep
        raise Refusal("data_invalid", TOO_DEEP) from None


def refuse_half_pair(code: str, data: bytes) -> None:
    """Name the one fault that the decoder describes as other ones. Its JSON would be well-formed (RFC 8259 §8.2)."""
    if _SURROGATE.search(data) is not None and _HALF_PAIR.match(data) is not None:
        raise Refusal(code, HALF_PAIR) from None

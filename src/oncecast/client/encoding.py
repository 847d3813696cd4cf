"""An application's data as the bytes of a message. Invariant: what is sent is read back equal, or nothing is sent.

JSON can't say everything that Python can. Where an encoder would send something else without a word (`NaN` as `null`, a
date or a UUID as text, the key `1` as `"1"`), this raises `Refused` with the code `data_invalid`.
"""

from __future__ import annotations

import base64
import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from ..errors import Refusal
from ..message import Kind, check_channel, check_event, check_key
from .failures import Refused, refused_here
from .trace import current_traceparent

__all__ = ["CONTENT_TYPES", "Content", "batch_line", "check_names", "content_of", "fits_header"]

CONTENT_TYPES = {
    Kind.JSON: "application/json",
    Kind.TEXT: "text/plain; charset=utf-8",
    Kind.BINARY: "application/octet-stream",
}
# RFC 9110 §5.5: a header's value loses the white space around it, and is ASCII to every reader on the way.
_HEADER_EXACT = re.compile(r"[!-~](?:[ -~]*[!-~])?", re.ASCII)
_SHOWN = 80  # characters of a path to a value, in an error


@dataclass(frozen=True, slots=True)
class Content:
    """A message's data: UTF-8 for JSON and text."""

    kind: Kind
    data: bytes


def content_of(data: Any) -> Content:
    """Return the bytes of a message: text for `str`, binary for bytes-like objects, JSON for anything else.

    `Content` is returned as it is: data that is encoded already, digit for digit.
    JSON takes `None`, `bool`, `int` (digit for digit, whatever its size), finite `float`, `str`, and lists, tuples,
    dicts with `str` keys, dataclasses and msgspec structs of these, and models of pydantic as they write themselves in
    JSON, by their aliases. Raises `Refused` (`data_invalid`) for all else.
    """
    if isinstance(data, Content):
        return data
    if isinstance(data, str):
        try:
            return Content(Kind.TEXT, data.encode())
        except UnicodeEncodeError as error:
            raise refused_here("data_invalid", f"the text can't be written as UTF-8: {error.reason}") from None
    if isinstance(data, bytes | bytearray | memoryview):
        return Content(Kind.BINARY, bytes(data))
    try:
        return Content(Kind.JSON, msgspec.json.encode(_plain(data, "$")))
    except RecursionError:
        raise refused_here("data_invalid", "the data is nested too deeply, or contains itself") from None
    except ValueError as error:  # an int with more digits than Python writes (sys.set_int_max_str_digits)
        raise refused_here("data_invalid", f"the data can't be written as JSON: {error}") from None


def check_names(channel: str, event: str | None, key: str | None) -> None:
    """Check what a message is sent with. Raises `Refused` with the code that the server would answer."""
    for name, value in (("channel", channel), ("event", event), ("key", key)):
        if not isinstance(value, str) and (value is not None or name == "channel"):
            raise refused_here("request_invalid", f"{name}: give a str, not {type(value).__name__}")
    try:
        check_channel(channel)
        if event is not None:
            check_event(event)
        if key is not None:
            check_key(key)
    except Refusal as refusal:
        raise refused_here(refusal.code, refusal.message) from None


def fits_header(value: str | None) -> bool:
    """Say whether a header carries this value unaltered; None is not sent at all."""
    return value is None or _HEADER_EXACT.fullmatch(value) is not None


def batch_line(channel: str, content: Content, event: str | None, key: str) -> bytes:
    """Return a message as a line of `POST /v1/publish`, with its line feed; it carries any event and key."""
    fields: dict[str, Any] = {"channel": channel}
    match content.kind:
        case Kind.JSON:
            if content.data.startswith(b'"'):
                raise refused_here("data_invalid", "a JSON string can't be sent in a batch: publish it as text")
            fields["data"] = msgspec.Raw(content.data)
        case Kind.TEXT:
            fields["data"] = content.data.decode()
        case Kind.BINARY:
            fields["data64"] = base64.b64encode(content.data).decode()
    if event is not None:
        fields["event"] = event
    fields["key"] = key
    if (trace := current_traceparent()) is not None:
        fields["traceparent"] = trace
    return msgspec.json.encode(fields) + b"\n"


def _plain(value: Any, path: str) -> Any:
    """Return a value made of what JSON says exactly. `path` is where it stands in the data."""
    kind = type(value)
    if kind is str:
        return _text(value, path)
    if kind is int or kind is bool or value is None:
        return value
    if kind is float:
        if not math.isfinite(value):
            raise _refused(path, f"JSON has no {value}")
        return value
    if kind is dict:
        return {_key(key, path): _plain(each, f"{path}.{key}") for key, each in value.items()}
    if kind is list or kind is tuple:
        return [_plain(each, f"{path}[{n}]") for n, each in enumerate(value)]
    return _plain(_base_of(value, path), path)


def _base_of(value: Any, path: str) -> Any:
    """Return the builtin value that an instance of a subclass, a dataclass or a struct stands for."""
    if isinstance(value, msgspec.Struct):
        return _fields_of(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(type(value), "__pydantic_serializer__") and hasattr(type(value), "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    raise _refused(path, f"JSON has no {type(value).__name__}: make a text, a number, a list or a dict of it")


def _fields_of(value: msgspec.Struct) -> dict[str, Any] | list[Any]:
    """Return a struct's fields as msgspec writes them: by their encoded names, with its tag, without what is unset."""
    config = value.__struct_config__
    names = zip(value.__struct_encode_fields__, value.__struct_fields__, strict=True)
    fields = {encoded: getattr(value, name) for encoded, name in names}
    if config.array_like:
        return [*([] if config.tag is None else [config.tag]), *fields.values()]
    tag = {} if config.tag is None or config.tag_field is None else {config.tag_field: config.tag}
    return tag | {name: each for name, each in fields.items() if each is not msgspec.UNSET}


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise _refused(path, f"the text can't be written as UTF-8: {error.reason}") from None
    return value


def _key(key: Any, path: str) -> str:
    if not isinstance(key, str):
        raise _refused(path, f"a key of a JSON object is a str, not {type(key).__name__}")
    return _text(str.__str__(key), path)


def _refused(path: str, reason: str) -> Refused:
    shown = path[:_SHOWN].encode("ascii", "backslashreplace").decode()
    return refused_here("data_invalid", f"the data can't be published: at {shown}, {reason}")

"""The lines of `oncecast broker export`: a head, one line for each message in the log's order, and an end.

* The head: `{"oncecast": "log", "version": 1, "epoch": "k3f9x2", "head": 17}`.
* A message: `{"seq": 17, "channel": "news", "kind": "json", "event": null, "time": 1764000000.123, "data": "[1, 2]"}`.
  `data` is the text that was published, of JSON and of plain text alike; of `binary` it is base64. Text that is not
  UTF-8, which only another program can have written into the broker, is exported as `binary`. A message that has the
  context of a trace has its `traceparent`, too.
* The end: `{"end": true, "messages": 17}`. A file without it was cut off.

Invariant: what `message_line` writes, `read_message` reads as the same channel, data, kind, event and trace.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Literal

import msgspec

from ..errors import Refusal
from ..message import Draft, Kind, Message, check_channel, check_event
from ..wire.payload import json_data
from ..wire.traceparent import parse_traceparent, traceparent

__all__ = ["LineError", "LogHead", "end_line", "head_line", "message_line", "read_end", "read_head", "read_message"]

VERSION = 1

Name = Literal["json", "text", "binary"]
_KINDS: Mapping[Kind, Name] = {Kind.JSON: "json", Kind.TEXT: "text", Kind.BINARY: "binary"}
_NAMES = {name: kind for kind, name in _KINDS.items()}


class LineError(Exception):
    """A line is not one of an export; the text says why."""


class LogHead(msgspec.Struct, frozen=True):
    """The first line. `head` is the number up to which the log was exported."""

    oncecast: Literal["log"]
    version: int
    epoch: str
    head: int


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    seq: int
    channel: str
    kind: Name
    event: str | None
    time: float
    data: str
    traceparent: str | None = None


class _End(msgspec.Struct, frozen=True):
    end: Literal[True]
    messages: int


def head_line(epoch: str, head: int) -> bytes:
    """Return the first line."""
    return msgspec.json.encode(LogHead("log", VERSION, epoch, head))


def message_line(message: Message) -> bytes:
    """Return the line of a message."""
    kind = message.kind
    try:
        data = "" if kind is Kind.BINARY else message.data.decode()
    except UnicodeDecodeError:
        kind = Kind.BINARY
    if kind is Kind.BINARY:
        data = base64.b64encode(message.data).decode()
    trace = None if message.trace is None else traceparent(message.trace)
    line = _Line(message.seq, message.channel, _KINDS[kind], message.event, message.time, data, trace)
    return msgspec.json.encode(line)


def end_line(messages: int) -> bytes:
    """Return the last line."""
    return msgspec.json.encode(_End(True, messages))


def read_head(line: bytes) -> LogHead:
    """Read the first line. Raises `LineError`."""
    try:
        head = msgspec.json.decode(line, type=LogHead)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise LineError("this is not an export of a log: give what `oncecast broker export` has printed") from None
    if head.version != VERSION:
        raise LineError(f"the export is of version {head.version}, and this release reads {VERSION}")
    return head


def read_end(line: bytes) -> int | None:
    """Return the number of messages if this is the last line, or None."""
    if not line.startswith(b'{"end"'):
        return None
    try:
        return msgspec.json.decode(line, type=_End).messages
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def read_message(line: bytes) -> Draft:
    """Read the line of a message. Raises `LineError`."""
    try:
        read = msgspec.json.decode(line, type=_Line)
        check_channel(read.channel)
        if read.event is not None:
            check_event(read.event)
        kind = _NAMES[read.kind]
        data = base64.b64decode(read.data, validate=True) if kind is Kind.BINARY else read.data.encode()
        if kind is Kind.JSON:
            json_data(data)
    except (msgspec.MsgspecError, UnicodeError, binascii.Error) as error:
        raise LineError(str(error)) from None
    except Refusal as refusal:
        raise LineError(refusal.message) from None
    return Draft(read.channel, data, kind, read.event, trace=parse_traceparent(read.traceparent))

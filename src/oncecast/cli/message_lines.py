"""A message or a gap as one line: for people, or as JSON.

Invariant: a line has no line end in it, and nothing that a terminal obeys; JSON keeps its value, digit for digit.
"""

from __future__ import annotations

import base64
import re

import msgspec

from ..client.values import ClientMessage, Gap
from .base import escaped

__all__ = ["envelope", "gap_line", "plain"]

# Between the tokens of a JSON text a line may end. In its strings, in UTF-8, may be what a terminal obeys (C1 controls,
# DEL) and what some readers take for the end of a line (U+2028, U+2029). Escaped, it is the same value.
_UNSAFE_JSON = re.compile(rb"[\x00-\x1f\x7f]|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def plain(message: ClientMessage, with_channel: bool) -> bytes:
    """Return the line for people: never more than a line, and nothing that a terminal would obey."""
    data = message.data
    if isinstance(data, bytes):
        line = base64.b64encode(data)
    elif message.raw_data.startswith(b'"'):
        line = escaped(data).encode()
    else:
        line = _one_line(message.raw_data)
    return message.channel.encode() + b": " + line if with_channel else line


def envelope(message: ClientMessage) -> bytes:
    """Return the message's JSON, the same over each transport, with the data as it stands on the wire."""
    data = message.data
    is_binary = isinstance(data, bytes)
    fields = {
        "id": message.id,
        "channel": message.channel,
        **(
            {"data64": {"base64": base64.b64encode(data).decode()}}
            if is_binary
            else {"data": msgspec.Raw(message.raw_data)}
        ),
        "event": message.event,
        "time": message.time,
    }
    return _one_line(msgspec.json.encode(fields))


def _one_line(text: bytes) -> bytes:
    """Return a JSON text that says the same, digit for digit, on one line and with nothing that a terminal obeys."""
    return _UNSAFE_JSON.sub(lambda found: _harmless(found[0].decode()), text)


def _harmless(character: str) -> bytes:
    return b" " if character in "\r\n\t" else f"\\u{ord(character):04x}".encode()


def gap_line(gap: Gap) -> str:
    """Return the line that reports a gap."""
    ends = f"{gap.missed_from or 'the beginning'} to {gap.missed_to or 'an unknown end'}"
    return f"gap in {escaped(gap.channel)}: missed {escaped(ends)} ({escaped(gap.reason)})"

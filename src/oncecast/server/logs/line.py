r"""One line of the access log or of the audit log: fields of one event, as text or as JSON.

As text a line begins as every line of the server's log does, and a value that is no plain word is a JSON string:

    2026-01-31T23:59:59.123Z [1] INFO oncecast.access: address=127.0.0.1 method=GET path="/?after=latest" status=200

Invariant: a line is ASCII, has one line end, which is its last byte, and at most `LINE_BYTES`, so that one write to a
pipe is never mixed with that of another process (pipe(7), PIPE_BUF). Whatever a peer has sent stands escaped in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, TypeAlias

__all__ = ["FIELD_CHARS", "LINE_BYTES", "Form", "Value", "begin", "render"]

LINE_BYTES = 4096  # PIPE_BUF of Linux
FIELD_CHARS = 1024  # of a plain value; one with characters that are escaped, up to 12 bytes each, keeps `ESCAPED_CHARS`
ESCAPED_CHARS = 64
MORE = "..."  # ends a value that was cut

Form: TypeAlias = Literal["text", "json"]
Value: TypeAlias = str | int | float

_PLAIN = re.compile(r"[A-Za-z0-9._:/@%+,*-]+", re.ASCII)
_QUOTED = re.compile(r'["\\]')


def begin(form: Form, name: str, worker: int | None, wall: float) -> str:
    """Return the begin of a line of the log `oncecast.NAME` at this time, in Unix seconds."""
    time = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if form == "json":
        return f'{{"time":"{time}","log":"{name}"' + ("" if worker is None else f',"worker":{worker}')
    whose = "" if worker is None else f"[{worker}] "
    return f"{time} {whose}INFO oncecast.{name}:"


def render(form: Form, beginning: str, fields: Mapping[str, Value]) -> bytes:
    """Return the line: `beginning`, which `begin` has made, and the fields in their order.

    A line that would be too long loses its last fields, and says so in `cut`.
    """
    line = beginning
    room = LINE_BYTES - 16  # for `cut` and the end
    cut = False
    for name, value in fields.items():
        text = _word(value) if form == "text" else _json(value)
        part = f" {name}={text}" if form == "text" else f',"{name}":{text}'
        if len(line) + len(part) > room:
            cut = True
            continue
        line += part
    if form == "text":
        return (line + (" cut=true" if cut else "") + "\n").encode("ascii")
    return (line + (',"cut":true' if cut else "") + "}\n").encode("ascii")


def _word(value: Value) -> str:
    return value if isinstance(value, str) and len(value) <= FIELD_CHARS and _PLAIN.fullmatch(value) else _json(value)


def _json(value: Value) -> str:
    if not isinstance(value, str):
        return str(value)
    chars = FIELD_CHARS if value.isascii() and value.isprintable() and not _QUOTED.search(value) else ESCAPED_CHARS
    if len(value) > chars:
        value = value[:chars] + MORE
    return json.dumps(value).replace("\x7f", "\\u007f")  # all else that is no printable ASCII is escaped already

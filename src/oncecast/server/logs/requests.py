"""What of a request a log may have: its method, its path, and the fields of its query that can be no secret.

Invariant: a field of the query stands in a log only where its name is in `FIELDS` and its value is of that field's
grammar, which no token has. Everything else is left out, and `...` says so: a secret may have any name. A path is cut
before what may be a field: a client that encodes `?token=` wrongly has sent it as a part of the path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from ...http.routes import CHANNELS
from ...message import CURSOR_PATTERN
from ...wire import http1

__all__ = ["FIELDS", "PATH_CHARS", "channels_of", "shown_briefly", "shown_method", "shown_path", "shown_target"]

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?", re.ASCII)
_START = re.compile(rf"latest|earliest|{CURSOR_PATTERN.pattern}", re.ASCII)
_SWITCH = re.compile(r"[01]|true|false", re.ASCII)

FIELDS: Mapping[str, re.Pattern[str]] = {
    "after": _START,
    "last": _NUMBER,
    "since": _NUMBER,
    "wait": _NUMBER,
    "limit": _NUMBER,
    "envelope": _SWITCH,
}

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
PATH_CHARS = 200  # of the line about a defect: a path may have as many bytes as `url_bytes` allows
# What a query has: as it is, encoded, or encoded several times.
_FIELD_MARK = re.compile(r"[?&;=]|%(?:25)*(?:3f|26|3b|3d)", re.IGNORECASE)
SHOWN_FIELDS = 8  # a query may have thousands


def shown_target(request: http1.Request) -> str:
    """Return the path as it was sent, and what may be shown of its query."""
    path = shown_path(request.raw_path or request.path)
    if not request.query:
        return path
    shown: list[str] = []
    left_out = False
    for field in request.query.split("&", SHOWN_FIELDS)[: SHOWN_FIELDS + 1]:
        name, _, value = field.partition("=")
        grammar = FIELDS.get(name)
        if grammar is not None and grammar.fullmatch(value) and len(shown) < SHOWN_FIELDS:
            shown.append(field)
        else:
            left_out = True
    return f"{path}?{'&'.join([*shown, '...'] if left_out else shown)}"


def shown_briefly(method: str, path: str) -> str:
    """Return a method and a decoded path for a line of text: escaped, and cut before what may be a field of a query."""
    quoted = json.dumps(shown_path(path, PATH_CHARS)).replace("\x7f", "\\u007f")
    return f"{shown_method(method)} {quoted}"


def shown_method(method: str) -> str:
    """Return a method that is known by its name, another as `other`."""
    return method if method in METHODS else "other"


def shown_path(path: str, most: int | None = None) -> str:
    """Return a path, decoded or not, up to what may be a field of a query and to `most` characters."""
    shown = _FIELD_MARK.split(path, maxsplit=1)[0][:most]
    return shown if len(shown) == len(path) else f"{shown}..."


def channels_of(request: http1.Request) -> str | None:
    """Return the channels that the path of a request names, as they stand there, up to what may be a field."""
    return shown_path(request.path[len(CHANNELS) :]) if request.path.startswith(CHANNELS) else None

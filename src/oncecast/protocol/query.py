"""The query of a subscription: its channels, where it starts, and how a poll waits.

Each function raises `Refusal` for what `spec/wire.md` does not allow. To add a field, read it in `parse_query` and add
it to `Query`; a start of a new kind goes into `parse_start`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from ..errors import Refusal
from ..message import (
    CURSOR_SCHEMA,
    EARLIEST,
    LATEST,
    MAX_NUMBER,
    NUMBER_DIGITS,
    Cursor,
    Start,
    StartKind,
    check_channel,
)
from .base import KEPT_CHARS, TransportSettings

__all__ = [
    "FIELDS",
    "QUERY_FIELDS",
    "Query",
    "after_cursor",
    "check_count",
    "parse_channels",
    "parse_query",
    "parse_start",
]

KEPT = 512  # paths, and queries, that are remembered: a path of KEPT_CHARS may have 128 channels
QUERY_FIELDS = 32  # a URL of 16 KiB could hold thousands of empty ones
# Not what `float` accepts, which differs between languages: 1_0, white space, 1e3, inf.
_SECONDS = re.compile(rf"[0-9]{{1,{NUMBER_DIGITS}}}(?:\.[0-9]{{1,{NUMBER_DIGITS}}})?")
_DIGITS = f"at most {NUMBER_DIGITS} digits"


_NUMBER = {"type": "integer", "minimum": 0, "maximum": MAX_NUMBER}
_TIME = {"type": "string", "pattern": f"^{_SECONDS.pattern}$"}
FIELDS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "after": (
        "A cursor, `latest` or `earliest`: the first message is the one behind it.",
        {"anyOf": [{"type": "string", "enum": ["latest", "earliest"]}, {"type": "string", **CURSOR_SCHEMA}]},
    ),
    "last": ("Begin with this number of the newest messages of each channel.", _NUMBER),
    "since": ("Begin with what was published at or after this time, in Unix seconds.", _TIME),
    "wait": ("Wait up to this number of seconds for a message: a long poll.", _TIME),
    "limit": ("The most messages of one answer to a poll.", {**_NUMBER, "minimum": 1}),
    "envelope": ("Events that carry the whole message, unless it is `0`, `false` or empty.", {"type": "string"}),
}
"""The fields of a query, each with what it means and its JSON Schema; unknown fields are ignored."""


@dataclass(frozen=True, slots=True)
class Query:
    """The query of a subscription's URL. `start` and `wait` (seconds) are None where the URL has none."""

    start: Start | None
    wait: float | None
    limit: int | None
    envelope: bool


def parse_channels(names: str) -> tuple[str, ...]:
    """Read the channels of a path: names separated by commas, each once, in the order given. Raises `Refusal`."""
    return (_known_channels if len(names) <= KEPT_CHARS else _channels)(names)


def parse_query(query: str) -> Query:
    """Read `after`, `last`, `since`, `wait`, `limit`, `envelope`; other fields are ignored. Raises `Refusal`."""
    return (_known_query if len(query) <= KEPT_CHARS else _query)(query)


def _channels(names: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(check_channel(name) for name in names.split(",")))


def _query(query: str) -> Query:
    try:
        fields = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=QUERY_FIELDS)
    except ValueError:
        raise Refusal("request_invalid", f"The query is not UTF-8 or has over {QUERY_FIELDS} fields.") from None
    known: dict[str, str] = {}
    for name, value in fields:
        if name in known:
            raise Refusal("request_invalid", f"{name} stands twice in the query: give it once.")
        if name in FIELDS:
            known[name] = value
    after = known.get("after")
    return Query(
        start=parse_start(after, _whole("last", known.get("last"), 0), _seconds("since", known.get("since"))),
        wait=_seconds("wait", known.get("wait")),
        limit=_whole("limit", known.get("limit"), 1),
        envelope=known.get("envelope", "0") not in ("0", "false", ""),
    )


# Clients repeat their URLs.
_known_channels = lru_cache(maxsize=KEPT)(_channels)
_known_query = lru_cache(maxsize=KEPT)(_query)


def parse_start(after: str | None, last: int | None, since: float | None) -> Start | None:
    """Turn one of `after`, `last`, `since` into a start; None where none is given. Raises `Refusal`."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise Refusal("request_invalid", "Give one of after, last and since, not several.")
    if last is not None:
        if not 0 <= last <= MAX_NUMBER:
            raise Refusal("request_invalid", f"last is a whole number of messages, 0 or more, of {_DIGITS}.")
        return Start(StartKind.LAST, number=last)
    if since is not None:
        if not 0 <= since <= MAX_NUMBER + 1:  # the largest number of these digits, as a float
            raise Refusal("request_invalid", f"since is a number of seconds, 0 or more, of {_DIGITS}.")
        return Start(StartKind.SINCE, number=since)
    match after:
        case None:
            return None
        case "latest":
            return LATEST
        case "earliest":
            return EARLIEST
        case _:
            return after_cursor(Cursor.parse(after))


def after_cursor(cursor: Cursor) -> Start:
    """Return the start that is right after a cursor."""
    return Start(StartKind.CURSOR, cursor)


def check_count(channels: Sequence[object], settings: TransportSettings) -> None:
    """Raise `Refusal` where there are more channels than a subscription may have."""
    limit = settings.channels_per_subscription
    if len(channels) > limit:
        settings.note_limited("channels_per_subscription")
        raise Refusal("request_invalid", f"A subscription has at most {limit} channels: open another for the rest.")


def _whole(name: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS and int(text) >= least):
        raise Refusal("request_invalid", f"{name} is a whole number, {least} or more, of {_DIGITS}.")
    return int(text)


def _seconds(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    if _SECONDS.fullmatch(text) is None:
        raise Refusal("request_invalid", f"{name} is a number of seconds, 0 or more, in digits: 25 or 0.5.")
    return float(text)

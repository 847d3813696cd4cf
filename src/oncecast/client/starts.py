"""Where an application wants to begin, checked: `after` a cursor, the `last` messages, or `since` a time."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from ..errors import Refusal, UsageError
from ..message import MAX_NUMBER, check_channel
from .base import StartQuery
from .failures import refused_here

__all__ = ["channels_of", "start_of"]

_CURSOR = re.compile(r"[A-Za-z0-9._~-]{1,1024}", re.ASCII)  # opaque to us, but it goes into a URL
MOST_SECONDS = 1e12  # Unix seconds; a later time, in the year 33658, is a mistake, such as milliseconds


def channels_of(given: Iterable[str | Sequence[str]]) -> tuple[str, ...]:
    """Return the channels of a call, which has names and lists of names. Raises `UsageError`, `Refused`."""
    names: list[str] = []
    for each in given:
        names += each if isinstance(each, Iterable) and not isinstance(each, str) else (each,)
    if not names:
        raise UsageError("a subscription needs a channel")
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"a channel is a str, not {type(name).__name__}")
        try:
            check_channel(name)
        except Refusal as refusal:
            raise refused_here(refusal.code, refusal.message) from None
    return tuple(dict.fromkeys(names))


def start_of(after: str | None, last: int | None, since: float | None, *, default: str = "latest") -> StartQuery:
    """Return where to begin; `after` the `default` where nothing is given. Raises `UsageError`."""
    if (after is not None) + (last is not None) + (since is not None) > 1:
        raise UsageError("give one of after, last and since")
    if last is not None:
        if not isinstance(last, int) or isinstance(last, bool) or not 0 <= last <= MAX_NUMBER:
            raise UsageError(f"last: give a number of messages, not below 0, not {last!r}")
        return StartQuery("last", str(int(last)))
    if since is not None:
        if not isinstance(since, int | float) or not math.isfinite(since) or not 0 <= since <= MOST_SECONDS:
            raise UsageError(f"since: give Unix seconds, not {since!r}")
        return StartQuery("since", f"{since:.3f}")
    if after is not None and (not isinstance(after, str) or _CURSOR.fullmatch(after) is None):
        raise UsageError(f"{after!r} is not a cursor: give a message's id, or latest, or earliest")
    return StartQuery("after", default if after is None else after)

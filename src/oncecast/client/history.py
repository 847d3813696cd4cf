"""`history`: what the log of some channels holds, read once, without a subscription.

Invariant: what is returned is bounded in messages and in bytes; its cursor goes on right after it.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import UsageError
from .base import CursorMoved, Received, StartQuery
from .http import HttpConnection
from .poll import PageReader
from .values import ClientMessage, Gap, History

__all__ = ["HISTORY_LIMIT", "HISTORY_MOST", "check_limit", "read_history"]

HISTORY_LIMIT = 1000  # messages, if the caller names no number
HISTORY_MOST = 100_000  # messages in one call: for more, call again after the cursor
HISTORY_BYTES = 64 * 1024 * 1024  # of JSON data, after which no further page is read


def check_limit(limit: int | None, last: int | None) -> int:
    """Return how many messages to read at most. Raises `UsageError`."""
    if limit is None:
        return max(1, min(last, HISTORY_MOST)) if last is not None else HISTORY_LIMIT
    if not isinstance(limit, int) or isinstance(limit, bool) or not 1 <= limit <= HISTORY_MOST:
        raise UsageError(f"limit: give a number of messages from 1 to {HISTORY_MOST}, not {limit!r}")
    return limit


async def read_history(connection: HttpConnection, starts: Mapping[str, StartQuery], limit: int) -> History:
    """Read pages until nothing is left, or `limit` messages are there. Raises `Broken` or `Refused`."""
    pages = PageReader(connection, starts)
    messages: list[ClientMessage] = []
    gaps: list[Gap] = []
    cursor, size = "", 0
    while True:
        known = len(messages)
        for event in await pages.page(limit=limit - known):
            if isinstance(event, Received):
                messages.append(event.message)
                size += len(event.message.raw_data or event.message.data)
            elif isinstance(event, Gap):
                gaps.append(event)
            elif isinstance(event, CursorMoved):
                cursor = event.cursor
        # A page that is not full may have met the server's limit of bytes: only an empty one is the end.
        if len(messages) == known or len(messages) >= limit or size > HISTORY_BYTES:
            return History(messages, gaps, cursor)

"""`oncecast sub --no-follow`: the messages that there are when it begins, read by polling.

Invariant: it ends, also while others go on publishing: at the place where the log ended at the first request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..client.attempts import Attempts
from ..client.backoff import Backoff
from ..client.base import CursorMoved, Received, StartQuery, TransportEvent
from ..client.credentials import Credentials
from ..client.dialing import Endpoint
from ..client.failures import Unreachable
from ..client.http import HttpConnection
from ..client.poll import PageReader
from ..client.timing import Timing
from ..client.url import ServerUrl
from ..client.values import ClientMessage, Gap
from ..message import Cursor
from .base import say, token_of
from .message_lines import gap_line
from .retrying import PATIENCE, RetryNotice, unreachable

__all__ = ["print_backlog"]

T = TypeVar("T")


async def print_backlog(
    server: ServerUrl, channels: Sequence[str], start: StartQuery, print_message: Callable[[ClientMessage], bool]
) -> None:
    """Print messages from `start` on, to the end or until `print_message` returns False.

    Raises `Failure` for a server that can't be reached; `Broken` or `Refused`.
    """
    notice = RetryNotice(server)
    credentials = Credentials(token_of())
    connection = HttpConnection(Endpoint(server), timing=Timing(), authorize=credentials.headers)
    attempts = Attempts(
        backoff=Backoff(rng=random.random, sleep=asyncio.sleep),
        credentials=credentials,
        serves=_serves,
        on_retry=notice.retry,
    )

    async def page(reader: PageReader) -> list[TransportEvent]:
        events = await attempts.run(reader.page, patience=PATIENCE)
        notice.answered()
        return events

    try:
        latest = dict.fromkeys(channels, StartQuery("after", "latest"))
        end = _cursor(await page(PageReader(connection, latest)))
        reader = PageReader(connection, dict.fromkeys(channels, start))
        while True:
            events = await page(reader)
            for event in events:
                if isinstance(event, Gap):
                    say(gap_line(event))
                elif isinstance(event, Received) and not print_message(event.message):
                    return
            if not any(isinstance(event, Received) for event in events) or _is_at(_cursor(events), end):
                return
    except Unreachable as error:
        raise (unreachable(server, error) if not notice.has_answered else error) from None
    finally:
        await connection.close()


def _cursor(events: Sequence[TransportEvent]) -> Cursor | None:
    return next((Cursor.parse(event.cursor) for event in events if isinstance(event, CursorMoved)), None)


def _is_at(place: Cursor | None, end: Cursor | None) -> bool:
    """Say whether a place is at the end or past it; where their epochs differ, only an empty page shows the end."""
    return place is not None and end is not None and place.epoch == end.epoch and place.seq >= end.seq


async def _serves() -> bool:
    return False  # a poll that fails alike again and again is tried for as long as the patience lasts

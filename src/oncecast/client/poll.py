"""What short and long polling and `history` share: one request for a page of messages, and what the page says.

Invariant: a page's cursor is moved to only after all of the page's messages, so a break between them repeats some
rather than lose one; the subscription drops what it has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from .backoff import pause_of
from .base import CursorMoved, Received, StartQuery, TransportEvent, common_start
from .failures import MALFORMED, Broken, failure_of_answer
from .http import HttpConnection
from .reading import parse_message
from .values import Gap

__all__ = ["POLL_LIMIT", "PageReader", "events_of", "target"]

POLL_LIMIT = 100  # messages in a page: with the largest, a page stays below what a client reads


class _Page(msgspec.Struct):
    messages: list[msgspec.Raw]
    cursor: str
    gap: Gap | None = None
    gaps: list[Gap] = []


class PageReader:
    """Asks for one page after another on one connection.

    `start` is where the next page begins. `full` says whether the last one had as many messages as fit, so that
    there is more to read at once. `pause` is for how many seconds a server that stops has asked to stay away.
    """

    def __init__(self, connection: HttpConnection, starts: Mapping[str, StartQuery]) -> None:
        self.start = common_start(starts)
        self.full = False
        self.pause = 0.0
        self._channels = sorted(starts)
        self._connection = connection
        self._etag: str | None = None

    async def page(self, *, wait: float = 0.0, limit: int | None = None) -> list[TransportEvent]:
        """Ask once, letting the server wait up to `wait` seconds for a message. Raises `Broken` or `Refused`.

        `limit` bounds the messages, and is `POLL_LIMIT` if it is not given.
        """
        limit = POLL_LIMIT if limit is None else min(limit, POLL_LIMIT)
        query = f"&limit={limit}" + (f"&wait={wait:g}" if wait else "")
        headers = [("Accept", "application/json")]
        if self._etag is not None and not wait:
            headers.append(("If-None-Match", self._etag))  # only ever sent with the URL that it came with
        path = target(self._channels, self.start) + query
        answer = await self._connection.request("GET", path, headers, wait=wait)
        self.full = False
        self.pause = pause_of(answer.retry_after)
        if answer.status == 304:
            return []
        if answer.status != 200:
            raise failure_of_answer(answer.status, answer.body, answer.retry_after, opening=True)
        page = _read(answer.body)
        start = StartQuery("after", page.cursor)
        self._etag = answer.headers.get("etag") if start == self.start else None
        self.start = start
        self.full = len(page.messages) >= limit
        return list(_events(page))


def target(channels: Iterable[str], start: StartQuery) -> str:
    """Return the path and query of a subscription. Names, cursors and numbers need no escapes (RFC 3986 §3.3, §3.4)."""
    return f"/v1/channels/{','.join(channels)}?{start.name}={start.value}"


def events_of(body: bytes) -> Iterator[TransportEvent]:
    """Yield what the body of an answer says. Raises `Broken` where it is none."""
    return _events(_read(body))


def _read(body: bytes) -> _Page:
    try:
        return msgspec.json.decode(body, type=_Page)
    except MALFORMED:
        raise Broken("the server's answer is not a page of messages") from None


def _events(page: _Page) -> Iterator[TransportEvent]:
    """Yield a page's gaps, which precede its messages, then these, then its cursor."""
    yield from page.gaps or ([page.gap] if page.gap is not None else [])
    for message in page.messages:
        yield Received(parse_message(bytes(message)))
    yield CursorMoved(page.cursor)

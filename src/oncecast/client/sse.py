"""Server-Sent Events: one GET that never ends.

Asks for the envelope (`envelope=1`) always, so that one channel's events say their kind and time as several's do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping

import msgspec

from ..wire import sse
from .base import (
    MESSAGE_BYTES,
    Authorize,
    Broken,
    CursorMoved,
    Event,
    Received,
    RetryHint,
    Start,
    Timing,
    Unsuited,
    anonymous,
    common_start,
    parse_gap,
    parse_message,
    refusal,
)
from .http import Connection, Server, retry_after
from .poll import target

__all__ = ["Sse"]


class Sse:
    """The transport."""

    def __init__(
        self,
        server: Server,
        *,
        timing: Timing,
        sleep: Callable[[float], Awaitable[object]],
        authorize: Authorize = anonymous,
    ) -> None:
        self._server = server
        self._timing = timing
        self._authorize = authorize

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = Connection(self._server, timing=self._timing, authorize=self._authorize)
        try:
            path = target(sorted(starts), common_start(starts)) + "&envelope=1"
            head = await connection.stream(
                "GET", path, [("Accept", "text/event-stream"), ("Cache-Control", "no-store")]
            )
            async with contextlib.aclosing(connection.body()) as body:
                if head.status != 200:
                    content = b"".join([piece async for piece in body])
                    raise refusal(head.status, content, retry_after(head.headers, time.time), opening=True)
                if head.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
                    raise Unsuited("the answer is not an event stream")
                parser = sse.EventParser(max_event_bytes=MESSAGE_BYTES)
                async for piece in body:
                    for event in _events(parser, piece):
                        yield event
            raise Broken("the server ended the stream")
        finally:
            await connection.close()


def _events(parser: sse.EventParser, piece: bytes) -> Iterator[Event]:
    """Yield what a piece of the stream completes. The cursor moves after the events that it follows."""
    place, retry_ms = parser.last_event_id, parser.retry_ms
    try:
        events = parser.receive(piece)
    except sse.StreamFailed as error:
        raise Broken(str(error)) from None
    if parser.retry_ms is not None and parser.retry_ms != retry_ms:
        yield RetryHint(parser.retry_ms / 1000)
    for event in events:
        # A message may be of an event that is called gap, too; but it has an id, and a gap has none.
        if event.event == "gap" and not _has_id(event.data):
            yield parse_gap(event.data)
        else:
            yield Received(parse_message(event.data))
    if parser.last_event_id != place:
        yield CursorMoved(parser.last_event_id)


class _Id(msgspec.Struct):
    id: str = ""


def _has_id(text: str) -> bool:
    try:
        return bool(msgspec.json.decode(text, type=_Id).id)
    except msgspec.MsgspecError:
        return False

"""Server-Sent Events: one GET that never ends.

Asks for the envelope (`envelope=1`) always, so that one channel's events say their kind and time as several's do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping

import msgspec

from ..wire import sse
from .base import (
    MALFORMED,
    MESSAGE_BYTES,
    Broken,
    CursorMoved,
    Event,
    Gap,
    Received,
    RetryHint,
    Start,
    Unsuited,
    common_start,
    parse_cursor,
    parse_gap,
    parse_message,
    refusal,
)
from .http import OverHttp, retry_after
from .poll import target

__all__ = ["Sse", "Stream"]


class Sse(OverHttp):
    """The transport."""

    async def __call__(self, starts: Mapping[str, Start], /) -> AsyncGenerator[Event, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = self._connection()
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
                stream = Stream()
                async for piece in body:
                    for event in stream.receive(piece):
                        yield event
            raise Broken("the server ended the stream")
        finally:
            await connection.close()


class Stream:
    """What the pieces of one stream mean.

    Of several gaps in a row only the last has the cursor that the stream goes on from; the others repeat where it was.
    They are held until that one comes, or anything else: cut off before, none has been told, and all are told again.
    """

    def __init__(self) -> None:
        self._parser = sse.EventParser(max_event_bytes=MESSAGE_BYTES)
        self._held: list[Gap] = []

    def receive(self, piece: bytes) -> Iterator[Event]:
        """Yield what a piece completes. The cursor moves after the events that it follows."""
        parser = self._parser
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
                gap = parse_gap(event.data)
                self._held.append(gap)
                if not _is_held(gap):
                    yield from self._told()
            else:
                yield from self._told()
                yield Received(parse_message(event.data))
        if parser.last_event_id != place:
            if self._held and parser.last_event_id != self._held[-1].cursor:
                yield from self._told()
            yield CursorMoved(parser.last_event_id)

    def _told(self) -> Iterator[Gap]:
        """Yield the gaps in a row, which the last one ends."""
        held, self._held = self._held, []
        for gap in held:
            yield msgspec.structs.replace(gap, cursor=held[-1].cursor)


def _is_held(gap: Gap) -> bool:
    """Say whether the cursor may be the one before the gap: before what was missed or, of what never was, inside."""
    here, first = parse_cursor(gap.cursor), parse_cursor(gap.missed_from)
    if here is None or first is None or here.epoch != first.epoch:
        return False
    return here.seq >= first.seq if gap.reason == "unknown" else here.seq < first.seq


class _Id(msgspec.Struct):
    id: str = ""


def _has_id(text: str) -> bool:
    try:
        return bool(msgspec.json.decode(text, type=_Id).id)
    except MALFORMED:
        return False

"""Server-Sent Events: one GET that never ends.

Asks for the envelope (`envelope=1`) always, so that one channel's events say their kind and time as several's do.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator, Mapping

import msgspec

from ..message import EXPIRING_EVENT, GAP_EVENT, STREAM_EVENTS
from ..wire import sse
from .base import CursorMoved, Expiring, Received, RetryHint, StartQuery, TransportEvent, common_start
from .failures import MALFORMED, Broken, Unsuited, failure_of_answer, failure_of_event, retry_after
from .http import OverHttp
from .poll import target
from .reading import MESSAGE_BYTES, parse_cursor, parse_gap, parse_message
from .timing import heartbeat_of
from .values import Gap

__all__ = ["EventReader", "SseTransport"]

HELD_GAPS = 1024  # in a row; a server sends one for each channel, and allows fewer channels than this


class SseTransport(OverHttp):
    """The transport."""

    async def __call__(self, starts: Mapping[str, StartQuery], /) -> AsyncGenerator[TransportEvent, None]:
        """Yield events from `starts` on. Raises `Broken` or `Refused`."""
        connection = self._connection()
        try:
            path = target(sorted(starts), common_start(starts)) + "&envelope=1"
            head = await connection.stream(
                "GET", path, [("Accept", "text/event-stream"), ("Cache-Control", "no-store")]
            )
            if head.status != 200:
                content = await connection.whole_body()
                raise failure_of_answer(head.status, content, retry_after(head.headers, time.time()), opening=True)
            idle = self._timing.idle_for(heartbeat_of(head.headers))
            async with contextlib.aclosing(connection.body(idle)) as body:
                if head.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
                    raise Unsuited("the answer is not an event stream")
                stream = EventReader()
                async for piece in body:
                    for event in stream.receive(piece):
                        yield event
            raise Broken("the server ended the stream")
        finally:
            await connection.close()


class EventReader:
    """What the pieces of one stream mean.

    Of several gaps in a row only the last has the cursor that the stream goes on from; the others repeat where it was.
    They are held until that one comes, or any other event: a stream that is cut before has reported none of them,
    and the next one repeats them all.
    """

    def __init__(self) -> None:
        self._parser = sse.EventParser(max_event_bytes=MESSAGE_BYTES)
        self._held: list[Gap] = []

    def receive(self, piece: bytes) -> Iterator[TransportEvent]:
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
            # A message's event name may be one of these too; but a message has an id, and what the stream says none.
            if event.event in STREAM_EVENTS and event.event != GAP_EVENT and not _has_id(event.data):
                yield from self._release()
                yield from _said_by_the_stream(event.event, event.data)
            elif event.event == GAP_EVENT and not _has_id(event.data):
                gap = parse_gap(event.data)
                self._held.append(gap)
                if len(self._held) > HELD_GAPS:
                    raise Broken("the server sent more gaps in a row than it has channels")
                if not _is_held(gap):
                    yield from self._release()
            else:
                yield from self._release()
                yield Received(parse_message(event.data))
        if parser.last_event_id != place:
            if self._held and parser.last_event_id != self._held[-1].cursor:
                yield from self._release()
            if not self._held:  # else the place would move past gaps that are not out yet
                yield CursorMoved(parser.last_event_id)

    def _release(self) -> Iterator[Gap]:
        """Yield the gaps that were held, with the cursor of the last one."""
        held, self._held = self._held, []
        for gap in held:
            yield msgspec.structs.replace(gap, cursor=held[-1].cursor)


def _said_by_the_stream(name: str, data: str) -> Iterator[TransportEvent]:
    """Yield that the token ends soon, or raise why the stream ends."""
    if name == EXPIRING_EVENT:
        yield Expiring()
        return
    raise failure_of_event(data.encode())


def _is_held(gap: Gap) -> bool:
    """Say whether the cursor is the one before the gap: below the missing range or, with `unknown`, in it.

    An `unknown` gap that ends above its range is the last one of a hole in the log.
    """
    here, first, last = parse_cursor(gap.cursor), parse_cursor(gap.missed_from), parse_cursor(gap.missed_to)
    if here is None or first is None or here.epoch != first.epoch:
        return False
    if gap.reason != "unknown":
        return here.seq < first.seq
    return here.seq >= first.seq and (last is None or last.epoch != here.epoch or here.seq <= last.seq)


class _Id(msgspec.Struct):
    id: str = ""


def _has_id(text: str) -> bool:
    try:
        return bool(msgspec.json.decode(text, type=_Id).id)
    except MALFORMED:
        return False

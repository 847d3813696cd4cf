r"""Server-Sent Events, both ways: a message to the bytes of its event, and bytes to events.

HTML Living Standard §9.2 (https://html.spec.whatwg.org/multipage/server-sent-events.html).

Owns: the fields of an event stream and its line ends.
Invariant: no id, event name or data can end its field and begin another; what `encode` writes, `EventParser` and every
browser read back, with all line ends of the data turned into LF. The parser's events do not depend on where the bytes
were cut, and it looks at each byte a bounded number of times.
To extend: a new field is one more name in `EventParser._take_field`, and one more line in `encode`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import OncecastError, UsageError

__all__ = ["MAX_EVENT_BYTES", "EventParser", "SseEvent", "StreamFailed", "comment", "encode"]

MAX_EVENT_BYTES = 4 << 20  # four times a message's default limit: room for its JSON, escaped
RETRY_DIGITS = 15  # thirty thousand years in milliseconds; a longer number is no time to wait

_BOM = b"\xef\xbb\xbf"
_BREAKS_FIELD = re.compile("[\r\n\0\ud800-\udfff]")
_LINE_END = re.compile(r"\r\n|\r|\n")


# --- writing ---


def encode(
    data: bytes | None,
    *,
    id: str | None = None,  # noqa: A002 - the field's name in the standard
    event: str | None = None,
    retry_ms: int | None = None,
) -> bytes:
    r"""Write one event, its blank line included; the fields stand in the order id, event, retry, data.

    `data` is UTF-8; CR, LF and CRLF each end a line of it, and each line gets its own `data:`, so a reader has all
    lines back, joined by LF. `b""` is one empty line and fires an event with empty data; None writes no data, so that
    an id alone moves the reader's `lastEventId` and fires nothing. Raises `UsageError` at an id or event with CR, LF
    or NUL, and at a negative `retry_ms`.
    """
    head = ""
    if id is not None:
        head = f"id: {_check(id)}\n"
    if event is not None:
        head += f"event: {_check(event)}\n"
    if retry_ms is not None:
        if retry_ms < 0:
            raise UsageError("retry_ms is negative")
        head += f"retry: {retry_ms}\n"
    if data is None:
        return head.encode() + b"\n"
    if b"\n" in data or b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    return b"%bdata: %b\n\n" % (head.encode(), data)


def comment(text: str) -> bytes:
    """Write a comment, one line for each line of `text`. It fires nothing and may stand before an `encode`d event."""
    return "".join(f": {line}\n" for line in _LINE_END.split(text)).encode("utf-8", "replace")


def _check(text: str) -> str:
    # Printable text has no control characters, and `isprintable` is faster than a search.
    if not text.isprintable() and _BREAKS_FIELD.search(text) is not None:
        raise UsageError("an id or event name has CR, LF, NUL or a lone surrogate: it would not stay one field")
    return text


# --- reading ---


@dataclass(frozen=True, slots=True)
class SseEvent:
    """An event as its listener sees it. `id` is the last event id at its dispatch, its own or an earlier one's."""

    data: str
    event: str = "message"
    id: str = ""


class StreamFailed(OncecastError):
    """The event stream can't be read on: one event is larger than its reader allows."""


class EventParser:
    """Reads one event stream. An event that its stream's end cuts off is not dispatched (§9.2.6).

    `last_event_id` is where to resume: that of the last blank line, which commits an id without data too. Give a new
    parser the old one's, as the id lives on across reconnects. `retry_ms` is what the server last asked for.
    `max_event_bytes` bounds one line, and the data lines of one event together.
    """

    __slots__ = (
        "_after_cr",
        "_at_start",
        "_data",
        "_event",
        "_failed",
        "_id",
        "_line",
        "_max",
        "_size",
        "last_event_id",
        "retry_ms",
    )

    def __init__(self, *, last_event_id: str = "", max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._id = last_event_id
        self._event = ""
        self._data: list[str] = []
        self._size = 0  # of the data lines, in bytes
        self._line = bytearray()  # that has not ended
        self._max = max_event_bytes
        self._at_start = True  # a BOM may come
        self._after_cr = False  # an LF would belong to it
        self._failed = False

    def receive(self, data: bytes) -> list[SseEvent]:
        """Return the events that these bytes complete.

        Raises `StreamFailed`, and so does each later call. Events before the fault are returned first and the next call
        raises, so that `last_event_id` is never beyond what was returned.
        """
        events: list[SseEvent] = []
        if not self._failed:
            self._take(data, events)
        if self._failed and not events:
            raise StreamFailed(f"an event of the stream is over {self._max} bytes")
        return events

    def _take(self, data: bytes, events: list[SseEvent]) -> None:
        if not data:
            return
        if self._after_cr and data[0] == 0x0A:
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data[-1] == 0x0D
        if b"\r" in data:
            # A CR at the very end is a line's end at once: to wait for a possible LF would delay the event.
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        for line in lines:
            if self._at_start:
                self._at_start = False
                line = line.removeprefix(_BOM)
            if line:
                self._take_field(line)
                if self._failed:
                    return
            else:
                self._dispatch(events)
        self._line += rest
        # A BOM is not part of the line, so a line is not refused for it.
        if len(self._line) > self._max - self._size + (3 if self._at_start else 0):
            self._failed = True

    def _take_field(self, line: bytes) -> None:
        if len(line) > self._max - self._size:
            self._failed = True
            return
        name, _, value = line.partition(b":")
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._size += len(line)
            # Line ends are ASCII, so a line never cuts a character; bad bytes become U+FFFD one by one line.
            self._data.append(value.decode("utf-8", "replace"))
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= RETRY_DIGITS:
            self.retry_ms = int(value)
        # A comment has an empty name; other names are ignored.

    def _dispatch(self, events: list[SseEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            events.append(SseEvent("\n".join(self._data), self._event or "message", self._id))
            self._data = []
            self._size = 0
        self._event = ""

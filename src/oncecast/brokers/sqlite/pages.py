"""The pages of the history that are read from the file, each in steps of bounded work.

A step looks at one channel, or builds the page. What a page costs is bounded by its limits and the number of its
channels: places are found through the index, and a message's data is read only once it is known to be on the page. What
`last=N` costs is bounded by what is kept of each channel, which may be much, so each channel is a step of its own.

Invariant: `STEP_SECONDS` ends a statement that takes longer, with `sqlite3.OperationalError`.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Generator, Iterator, Sequence

from ...message import MAX_SEQ, Mark, Message, Page, Start, StartKind
from .file import MESSAGE, File, Row

STEP_SECONDS = 2.0
STEP_INSTRUCTIONS = 100_000  # of SQLite's virtual machine, between two looks at the clock: about a millisecond

_FIRST = "SELECT min(seq) FROM messages WHERE channel = ?"
_NEWEST = "SELECT min(seq) FROM (SELECT seq FROM messages WHERE channel = ? ORDER BY seq DESC LIMIT ?)"
# The index ends with the row's number, so this reads on in order, without a look at the rows.
_NUMBERS = "SELECT seq FROM messages WHERE channel = ? AND seq > ? ORDER BY seq"

Steps = Generator[None, None, Page]


class Pages:
    """What is read through one connection."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._db = file.db
        self._until = 0.0
        self._db.set_progress_handler(self._is_late, STEP_INSTRUCTIONS)

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Page:
        """Read a page in one go, as `Broker.read` says."""
        steps = self.steps(channels, start, limit, max_bytes)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                page: Page = stop.value
                return page

    def steps(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int) -> Steps:
        """Read a page, and yield after each step. Between two steps no transaction is open."""
        floors: dict[str, int] = {}
        if start.kind is StartKind.LAST:
            for name in channels:
                floors[name] = self._floor(name, start.number)
                yield
        self._begin_step()
        with self._file.reading():
            head, _ = self._file.head()
            ids, marks = self._look_up(channels)
            after = min(floors.values()) if floors else self._place(ids, start, head, marks)
            above = floors or dict(zip(channels, start.floors, strict=False))
            places = {channel: max(after, above.get(name, 0)) for name, channel in ids.items()}
            messages, more = self._page(places, limit, max_bytes)
        upto = (messages[-1].seq if messages else after) if more else max(head, after)
        return Page(after, messages, upto if limit else after, marks, floors)

    def _look_up(self, channels: Sequence[str]) -> tuple[dict[str, int], dict[str, Mark]]:
        floor = Mark(*self._db.execute("SELECT floor_seq, floor_time FROM log").fetchone())
        ids: dict[str, int] = {}
        marks: dict[str, Mark] = {}
        for name in channels:
            row = self._db.execute("SELECT id, mark_seq, mark_time FROM channels WHERE name = ?", (name,)).fetchone()
            if row is None:
                marks[name] = floor
            else:
                ids[name] = row[0]
                marks[name] = Mark(row[1], row[2])
        return ids, marks

    def _floor(self, name: str, count: float) -> int:
        """Return the number above which a channel's newest messages stand, `count` of them."""
        self._begin_step()
        with self._file.reading():
            row = self._db.execute("SELECT id FROM channels WHERE name = ?", (name,)).fetchone()
            if row is not None and count > 0:
                # SQLite counts to 2**63 - 1, and no log has more messages.
                row = self._db.execute(_NEWEST, (row[0], int(min(count, MAX_SEQ)))).fetchone()
                if row[0] is not None:
                    return int(row[0]) - 1
            return self._file.head()[0]

    def _place(self, ids: dict[str, int], start: Start, head: int, marks: dict[str, Mark]) -> int:
        match start.kind:
            case StartKind.CURSOR:
                assert start.cursor is not None
                return min(start.cursor.seq, head)
            case StartKind.EARLIEST:
                rows = [self._db.execute(_FIRST, (channel,)).fetchone() for channel in ids.values()]
                first = min((row[0] for row in rows if row[0] is not None), default=None)
                return head if first is None else int(first) - 1
            case StartKind.SINCE:
                trimmed = [mark.seq for mark in marks.values() if mark.seq and mark.time >= start.number]
                return min([self._file.first_since(start.number, head), *trimmed]) - 1
            case _:  # LATEST, and LAST of no channels
                return head

    def _page(self, places: dict[int, int], limit: int, max_bytes: int) -> tuple[list[Message], bool]:
        """Return the next messages of channels, each after a number, and whether a bound was met before their end."""
        messages: list[Message] = []
        size = 0
        for row in self._rows(places):
            size += len(row[2])
            if len(messages) >= limit or (messages and size > max_bytes):
                return messages, True
            if (message := self._file.message(row)) is not None:
                messages.append(message)
        return messages, False

    def _rows(self, places: dict[int, int]) -> Iterator[Row]:
        if len(places) == 1:
            return self._db.execute(f"{MESSAGE} WHERE m.channel = ? AND m.seq > ? ORDER BY m.seq", *places.items())
        # To merge the rows themselves would read one of each channel, with its data, for a page that may hold one.
        numbers = heapq.merge(*(self._db.execute(_NUMBERS, place) for place in places.items()))
        return (self._db.execute(f"{MESSAGE} WHERE m.seq = ?", number).fetchone() for number in numbers)

    def _begin_step(self) -> None:
        self._until = time.monotonic() + STEP_SECONDS

    def _is_late(self) -> bool:
        return bool(self._until) and time.monotonic() > self._until

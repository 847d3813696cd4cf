"""A place in the log: how a start becomes a place, and the gaps between a place and the messages that are held.

Invariant: from a place a reader gets each message of its channels above it, except those at or below the channel's
floor, or a gap that names what is trimmed.

To add a way to start reading, add it to `Start` and to `locate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import assert_never

import msgspec

from ..message import MAX_SEQ, Cursor, LogGap, Mark, Page, Reason, Start, StartKind
from .log import Log


class Place(msgspec.Struct):
    """Where a subscription stands: it has everything of its channels up to and including `seq`.

    `announced` is the cursor that its subscriber is sent before `gaps`: if the connection is lost between the two, the
    subscriber comes back with that cursor and gets the gaps again. `reported` has, by channel, the trimmed mark up to
    which no gap is due: one was sent, or the start did not ask for those messages. With `skip_trimmed` the first read
    sets `reported` to all that is trimmed by then. `floors` has a number for each channel, in their order: messages at
    or below it are left out. It is empty where `seq` has passed all of them. `pending` are gaps of a hole or of another
    log, which the hub sends before it serves the place: until then its subscriber stands at `announced`.
    """

    seq: int
    announced: Cursor
    gaps: list[LogGap] = msgspec.field(default_factory=list)
    reported: dict[str, int] = msgspec.field(default_factory=dict)
    skip_trimmed: bool = False
    floors: tuple[int, ...] = ()
    pending: list[LogGap] = msgspec.field(default_factory=list)

    def advance(self, seq: int) -> None:
        """Move on to `seq`."""
        self.seq = seq
        if self.floors and seq >= max(self.floors):
            self.floors = ()


def chain_gaps(gaps: list[LogGap], here: Cursor) -> list[LogGap]:
    """Return the gaps with `here` as the cursor of all but the last.

    They follow each other in a stream that has one cursor. A subscriber that is cut off between two of them comes back
    with `here` and gets all of them again; a cursor past the first would leave out the others.
    """
    return [msgspec.structs.replace(gap, cursor=here) for gap in gaps[:-1]] + gaps[-1:]


def resolve(log: Log, channels: Sequence[str], start: Start) -> Place:
    """Turn a start into a place, with the gaps that it implies, where the window is the whole log."""
    place = locate(log, channels, start)
    assert place is not None
    return place


def locate(log: Log, channels: Sequence[str], start: Start) -> Place | None:
    """Turn a start into a place, with the gaps that it implies. Returns None where only the history knows it."""
    match start.kind:
        case StartKind.LATEST:
            return _latest(log, channels)
        case StartKind.CURSOR:
            assert start.cursor is not None
            return _resume(log, channels, start.cursor)
        case StartKind.SINCE:
            return _since(log, channels, start.number)
        case StartKind.EARLIEST:
            return _earliest(log, channels)
        case StartKind.LAST:
            return _newest(log, channels, int(start.number))
        case kind:
            assert_never(kind)


def place_of(log: Log, channels: Sequence[str], start: Start, page: Page) -> Place:
    """Turn a start into a place, by what the history answered."""
    if start.cursor is not None and page.after < start.cursor.seq:
        return _unknown(log, channels, start.cursor, page.after)
    place = Place(page.after, log.cursor(page.after))
    marks = {name: mark.seq for name, mark in page.marks.items()}
    match start.kind:
        case StartKind.SINCE:
            place.reported = _not_asked_for(page.marks, start.number)
        case StartKind.LAST if page.floors:
            place = _above(log, channels, page.after, [page.floors[name] for name in channels], marks)
        case StartKind.EARLIEST | StartKind.LATEST | StartKind.LAST:
            place.reported = marks
        case StartKind.CURSOR:
            pass
        case kind:
            assert_never(kind)
    return place


def above_floors(page: Page, channels: Sequence[str], floors: Sequence[int]) -> Page:
    """Return the page without the messages at or below the floor of their channel."""
    if not floors:
        return page
    floor_of = dict(zip(channels, floors, strict=True))
    messages = [message for message in page.messages if message.seq > floor_of[message.channel]]
    return msgspec.structs.replace(page, messages=messages)


def pass_gaps(
    log: Log, channels: Sequence[str], place: Place, reason: Reason, page: Page | None = None
) -> list[LogGap]:
    """Move a place past what is trimmed ahead of it, and return the gaps that are due for it.

    What is trimmed is taken from `page`, which begins at the place; without one from the window, which must be the
    whole log or cover the place.
    """
    marks = {name: (log.mark(name) if page is None else page.marks[name]).seq for name in channels}
    if place.skip_trimmed:
        place.skip_trimmed = False
        place.reported = marks
    seq = place.seq
    missed = [(name, mark) for name, mark in marks.items() if mark > seq and mark > place.reported.get(name, 0)]
    if not missed:
        return []
    # With several channels the others may still hold messages inside the range that this one has missed.
    if page is None:
        place.advance(log.before_first(channels, seq, place.floors))
    else:
        place.advance(max(seq, page.messages[0].seq - 1 if page.messages else page.upto))
    gaps = []
    for name, last in missed:
        first = max(seq, place.reported.get(name, 0)) + 1
        place.reported[name] = last
        gaps.append(LogGap(name, reason, log.cursor(first), log.cursor(last), log.cursor(place.seq)))
    return gaps


# -- one function for each start


def _latest(log: Log, channels: Sequence[str]) -> Place | None:
    """Return the head, where this node is delivered the channels: else messages above it may be acknowledged by now."""
    return None if log.unwanted(channels) else Place(log.head, log.cursor(log.head))


def _resume(log: Log, channels: Sequence[str], cursor: Cursor) -> Place | None:
    if cursor.epoch != log.epoch:
        seq = 0 if log.history else log.before_first(channels, 0)
        missed_from = Cursor(cursor.epoch, min(cursor.seq + 1, MAX_SEQ))
        gaps = [LogGap(name, Reason.EPOCH, missed_from, None, log.cursor(seq)) for name in channels]
        if log.history:
            return Place(seq, cursor, gaps, skip_trimmed=True)
        return Place(seq, cursor, gaps, {name: log.mark(name).seq for name in channels})
    if log.history and cursor.seq > log.head:
        return None  # another node may have sent it, and this one may be behind
    last = log.last_given(cursor.seq)
    if cursor.seq > last:
        if log.next_hole(last) is not None:
            return Place(last, cursor)  # the hole comes next, with its gap
        return _unknown(log, channels, cursor, last)
    place = Place(cursor.seq, cursor)
    if not log.history:
        place.gaps = pass_gaps(log, channels, place, Reason.EXPIRED)
    return place


def hole_gaps(log: Log, channels: Sequence[str], hole: tuple[int, int]) -> list[LogGap]:
    """Return the gaps of a reader that passes a hole: what was acknowledged in it may be lost."""
    before, after = hole
    first, last, here = log.cursor(before + 1), log.cursor(after - 1), log.cursor(after)
    return [LogGap(name, Reason.UNKNOWN, first, last, here) for name in channels]


def cut_page(page: Page, hole: tuple[int, int] | None) -> Page:
    """Return a page that ends where a hole begins."""
    if hole is None or page.upto <= hole[0]:
        return page
    messages = [message for message in page.messages if message.seq <= hole[0]]
    return msgspec.structs.replace(page, messages=messages, upto=hole[0])


def _unknown(log: Log, channels: Sequence[str], cursor: Cursor, last: int) -> Place:
    missed_from, here = log.cursor(last + 1), log.cursor(last)
    return Place(last, cursor, [LogGap(name, Reason.UNKNOWN, missed_from, cursor, here) for name in channels])


def _since(log: Log, channels: Sequence[str], time: float) -> Place | None:
    if log.history and any((mark := log.mark(name)).seq and mark.time >= time for name in channels):
        return None
    # Times do not decrease along the numbers, so what was trimmed and is older than the time is before the place.
    seq = log.head
    for name in channels:
        if (window := log.window(name)) and (entry := window.since(time)):
            seq = min(seq, entry.seq - 1)
        mark = log.mark(name)
        if mark.seq and mark.time >= time:
            seq = min(seq, mark.seq - 1)
    reported = _not_asked_for({name: log.mark(name) for name in channels}, time)
    place = Place(seq, log.cursor(seq), reported=reported)
    if not log.history:
        place.gaps = pass_gaps(log, channels, place, Reason.EXPIRED)
    return place


def _not_asked_for(marks: Mapping[str, Mark], time: float) -> dict[str, int]:
    """Return, by channel, the trimmed number up to which a start at `time` is due no gap.

    Of what is trimmed only the last message of a channel has a time that is known. So its gap is of that one alone,
    also where another channel puts the place before it.
    """
    return {name: mark.seq if mark.time < time else max(0, mark.seq - 1) for name, mark in marks.items()}


def _earliest(log: Log, channels: Sequence[str]) -> Place | None:
    if log.history and not log.covers(channels, 0):
        return None
    seq = log.before_first(channels, 0)
    return Place(seq, log.cursor(seq), reported={name: log.mark(name).seq for name in channels})


def _newest(log: Log, channels: Sequence[str], count: int) -> Place | None:
    """Return the place from which the `count` newest messages of each channel come."""
    if count <= 0:
        return _latest(log, channels)
    floors = []
    marks = {}
    for name in channels:
        window = log.window(name)
        marks[name] = log.mark(name).seq
        if log.history and marks[name] and (window is None or len(window) < count):
            return None  # the history has older ones
        before = None if window is None else window.before_newest(count)
        floors.append(log.head if before is None else before)
    return _above(log, channels, min(floors), floors, marks)


def _above(log: Log, channels: Sequence[str], seq: int, floors: Sequence[int], marks: dict[str, int]) -> Place:
    """Return a place with floors. What is trimmed by now, and what is below the floors, was not asked for."""
    reported = {name: max(marks[name], floor) for name, floor in zip(channels, floors, strict=True)}
    place = Place(seq, log.cursor(seq), reported=reported, floors=tuple(floors))
    place.advance(seq)
    return place

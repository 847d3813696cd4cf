"""The polls of a node: what each finds, in the window or in the history, and the cursor that it is given.

Invariant: a poll is answered once. What was read before another log took the place of this one, or before a hole, is
read again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from ..errors import Refusal
from ..message import Cursor, LogGap, Page, Reason, Start, StartKind
from .bulk import LARGE_BYTES, LARGE_MESSAGES
from .entry import Entry, loose_entry
from .history import BrokerHistory
from .hub import Hub
from .log import Log
from .place import Place, above_floors, cut_page, hole_gaps, locate, pass_gaps, place_of

MayRead = Callable[[], Refusal | None]  # counts a page of history; a returned refusal is the answer

POLL_BYTES = 1 << 20  # the data in one poll's answer; a client that is behind by more asks again


class Poll(msgspec.Struct, frozen=True):
    """What a poll found: `entries`, the cursor after them, and the gaps before them."""

    entries: list[Entry]
    cursor: Cursor
    gaps: list[LogGap]

    @property
    def is_large(self) -> bool:
        """Whether its answer is work for `Bulk`."""
        entries = self.entries
        return len(entries) >= LARGE_MESSAGES or sum([len(entry.message.data) for entry in entries]) >= LARGE_BYTES


@dataclass(frozen=True, slots=True)
class _Asked:
    """A poll as it was asked."""

    channels: tuple[str, ...]
    start: Start
    limit: int
    done: Callable[[Poll | Refusal], None]
    may_read: MayRead | None


class Polls:
    """`history` is what the broker keeps, or None."""

    def __init__(self, log: Log, hub: Hub, history: BrokerHistory | None) -> None:
        self._log = log
        self._hub = hub
        self._history = history

    def poll(
        self,
        channels: tuple[str, ...],
        start: Start,
        limit: int,
        done: Callable[[Poll | Refusal], None],
        may_read: MayRead | None = None,
    ) -> None:
        """Read what there is after a start, as `Node.poll` says."""
        self._begin(_Asked(channels, start, limit, done, may_read))

    def _begin(self, asked: _Asked) -> None:
        log, channels = self._log, asked.channels
        place = locate(log, channels, asked.start)
        if place is None:
            self._read(asked, asked.start, None)
        elif self._history is None or log.covers(channels, place.seq, place.floors):
            asked.done(self._poll(channels, place, asked.limit))
        else:
            self._read(asked, Start(StartKind.CURSOR, log.cursor(place.seq), floors=place.floors), place)

    def _poll(self, channels: tuple[str, ...], place: Place, limit: int) -> Poll:
        log = self._log
        entries = log.read_after(channels, place.seq, limit, POLL_BYTES, place.floors)
        last = entries[-1].seq if entries else place.seq
        cut = last < log.newest(channels)
        # Where nothing is left behind, the cursor goes to the head: the fresher it is, the later it expires.
        seq = last if cut else max(place.seq, log.head)
        return Poll(entries, log.cursor(seq), place.gaps)

    def _read(self, asked: _Asked, start: Start, place: Place | None) -> None:
        assert self._history is not None
        refusal = asked.may_read() if asked.may_read is not None else None
        if refusal is not None:
            asked.done(refusal)
            return
        found = partial(self._found, asked, start, place, self._log.life)
        self._history.read(asked.channels, start, asked.limit, POLL_BYTES, found)

    def _found(self, asked: _Asked, start: Start, place: Place | None, life: int, page: Page | Refusal) -> None:
        log = self._log
        if isinstance(page, Refusal):
            asked.done(page)
            return
        if life != log.life:
            self._begin(asked)
            return
        if self._hub.is_ahead(page):
            self._hub.wait_for(page, partial(self._read_again, asked, start, place, life), asked.done)
            return
        log.drop_trimmed(page)
        place = place or place_of(log, asked.channels, start, page)
        gaps = place.gaps
        hole = log.next_hole(place.seq)
        if hole is not None and hole[0] == place.seq:
            gaps = [*gaps, *hole_gaps(log, asked.channels, hole)]
            place.advance(hole[1])
            hole = log.next_hole(place.seq)
        page = cut_page(page, hole)
        above = above_floors(page, asked.channels, place.floors)
        gaps = gaps + pass_gaps(log, asked.channels, place, Reason.EXPIRED, above)
        entries = [loose_entry(message) for message in above.messages]
        if hole is not None and page.upto == hole[0] and not entries and not gaps:
            # A poll without news is answered with 304, and the client would ask from the same place for ever.
            self._begin(replace(asked, start=Start(StartKind.CURSOR, log.cursor(hole[0]))))
            return
        asked.done(Poll(entries, log.cursor(max(place.seq, page.upto)), gaps))

    def _read_again(self, asked: _Asked, start: Start, place: Place | None, life: int) -> None:
        if life == self._log.life:
            self._read(asked, start, place)
        else:
            self._begin(asked)

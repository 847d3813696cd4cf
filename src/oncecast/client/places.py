"""Where a subscription stands in each of its channels, and what of an event is news to it.

Invariant: each channel's messages come out once and in order, or a `Gap` says what is missing. A place moves only past
what came out; what a server repeats is dropped; only a gap or a message changes the epoch.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..errors import Refusal
from ..message import Cursor
from .base import ClientMessage, CursorMoved, Gap, Received, Start

__all__ = ["Places"]


class Places:
    """The places of some channels. They all begin at `start`."""

    def __init__(self, channels: Sequence[str], start: Start) -> None:
        self._starts = dict.fromkeys(channels, start)  # in the order in which they last moved
        self._told: dict[str, Gap] = {}  # per channel the last gap, while no message has come after it
        self._held: set[str] = set()  # a gap was told whose cursor follows in a bare one

    @property
    def starts(self) -> dict[str, Start]:
        """Where each channel would be read from next, in the order in which these places last moved."""
        return dict(self._starts)

    @property
    def attached(self) -> bool:
        """Whether every channel has a cursor, from which it can be resumed."""
        return all(start.cursor is not None for start in self._starts.values())

    def take(self, event: Received | Gap | CursorMoved) -> ClientMessage | Gap | None:
        """Move the places by an event; return what of it is news."""
        match event:
            case Received(message) if self._is_new(message.channel, message.id):
                self._told.pop(message.channel, None)
                self._held.discard(message.channel)
                self._move(message.channel, message.id)
                return message
            case Gap(channel=channel) if channel in self._starts:
                return self._gap(event)
            case CursorMoved(cursor, channel):
                for name in list(self._starts) if channel is None else [channel]:
                    if self._may_skip_to(name, cursor):
                        self._move(name, cursor)
                if channel is None:
                    self._held.clear()
        return None

    def _gap(self, gap: Gap) -> Gap | None:
        """Move past a gap; return the part of it that is news."""
        here, there = self._starts[gap.channel].cursor, _parse(gap.cursor)
        first, last = _parse(gap.missed_from), _parse(gap.missed_to)
        if gap.reason != "unknown" and here and there and here.epoch == there.epoch:
            # "unknown" goes back behind the place on purpose. Any other that ends at the place is about what came out
            # or was told already: the stream began further back, for the sake of another channel.
            end = last if last and last.epoch == here.epoch else there
            if max(end.seq, there.seq) < here.seq or (last and last.epoch == here.epoch and last.seq <= here.seq):
                return None
            if first and first.epoch == here.epoch and first.seq <= here.seq:
                gap = msgspec.structs.replace(gap, missed_from=str(Cursor(here.epoch, here.seq + 1)))
            there = max(end, there, key=lambda cursor: cursor.seq)
        if self._starts[gap.channel] == Start("after", gap.cursor):
            # Of several gaps in a stream with one cursor, only the last one's moves on; then a bare one follows.
            self._held.add(gap.channel)
        told, self._told[gap.channel] = self._told.get(gap.channel), gap
        self._move(gap.channel, gap.cursor if there is None else str(there))
        repeated = told and (told.reason, told.missed_from, told.missed_to) == (
            gap.reason,
            gap.missed_from,
            gap.missed_to,
        )
        return None if repeated else gap

    def _is_new(self, channel: str, cursor: str) -> bool:
        """Say whether a message is of ours and not a repeat."""
        place = self._starts.get(channel)
        if place is None or place == Start("after", cursor):
            return False
        here, there = place.cursor, _parse(cursor)
        return here is None or there is None or here.epoch != there.epoch or here.seq < there.seq

    def _may_skip_to(self, channel: str, cursor: str) -> bool:
        """Say whether a cursor without a message moves the place: never back, and never past the gap of a new epoch."""
        place = self._starts.get(channel)
        if place is None:
            return False
        here, there = place.cursor, _parse(cursor)
        if here is None or there is None:
            return True
        return here.seq < there.seq if here.epoch == there.epoch else channel in self._held

    def _move(self, channel: str, cursor: str) -> None:
        del self._starts[channel]
        self._starts[channel] = Start("after", cursor)


def _parse(cursor: str | None) -> Cursor | None:
    try:
        return None if cursor is None else Cursor.parse(cursor)
    except Refusal:
        return None

"""Where a subscription stands in each of its channels, and what of an event is news to it.

Invariant: each channel's messages come out once and in order, or a `Gap` says what is missing. A place moves only past
what came out; what a server repeats is dropped. An epoch may end without a gap, as when a durable log is reopened:
places in two epochs can't be compared, so the order of arrival decides there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ..message import Cursor
from .base import CursorMoved, Received, StartQuery
from .failures import Broken
from .reading import parse_cursor
from .values import ClientMessage, Gap

__all__ = ["Places"]

_PLACE = re.compile(r"[!-~]{1,256}")  # a cursor is opaque, but goes into URLs: nothing else may be a place


class Places:
    """The places of some channels. They all begin at `start`."""

    def __init__(self, channels: Sequence[str], start: StartQuery) -> None:
        self._starts = dict.fromkeys(channels, start)  # in the order in which they last moved

    @property
    def starts(self) -> dict[str, StartQuery]:
        """Where each channel would be read from next, in the order in which these places last moved."""
        return dict(self._starts)

    @property
    def attached(self) -> bool:
        """Whether every channel has a cursor, from which it can be resumed."""
        return all(start.cursor is not None for start in self._starts.values())

    def take(self, event: Received | Gap | CursorMoved) -> ClientMessage | Gap | None:
        """Move the places by an event; return what of it is news. Raises `Broken` where it names no place."""
        match event:
            case Received(message) if self._is_new(message.channel, message.id):
                self._move(message.channel, message.id)
                return message
            case Gap(channel=channel) if channel in self._starts:
                return self._gap(event)
            case CursorMoved(cursor, channel):
                for name in list(self._starts) if channel is None else [channel]:
                    if self._may_skip_to(name, cursor):
                        self._move(name, cursor)
        return None

    def _gap(self, gap: Gap) -> Gap | None:
        """Move past a gap; return the part of it that is news."""
        here, there = self._starts[gap.channel].cursor, parse_cursor(gap.cursor)
        first, last = parse_cursor(gap.missed_from), parse_cursor(gap.missed_to)
        if here and last and here.epoch == last.epoch and here.seq > last.seq:
            return None  # a repeat: the stream began further back, where another channel's place is
        # "unknown" goes back behind the place on purpose. Any other gap that ends at the place is a repeat: the stream
        # began further back, where another channel's place is.
        if gap.reason != "unknown" and here and there:
            end = last if last and last.epoch == here.epoch else there
            if end.epoch == here.epoch and end.seq <= here.seq:
                return None
            if first and first.epoch == here.epoch and first.seq <= here.seq:
                gap = msgspec.structs.replace(gap, missed_from=str(Cursor(here.epoch, here.seq + 1)))
            if end.epoch == there.epoch and end.seq > there.seq:  # another channel of the stream begins further back
                there = end
        self._move(gap.channel, gap.cursor if there is None else str(there))
        return gap

    def _is_new(self, channel: str, cursor: str) -> bool:
        """Say whether a message is of ours and not a repeat."""
        place = self._starts.get(channel)
        if place is None or place == StartQuery("after", cursor):
            return False
        here, there = place.cursor, parse_cursor(cursor)
        return here is None or there is None or here.epoch != there.epoch or here.seq < there.seq

    def _may_skip_to(self, channel: str, cursor: str) -> bool:
        """Say whether a cursor without a message moves the place: never back.

        One of another epoch does: a server announces no cursor beyond what it has sent or reported in a gap.
        """
        place = self._starts.get(channel)
        if place is None:
            return False
        here, there = place.cursor, parse_cursor(cursor)
        if here is None or there is None:
            return True
        return here.epoch != there.epoch or here.seq < there.seq

    def _move(self, channel: str, cursor: str) -> None:
        if not _PLACE.fullmatch(cursor):
            raise Broken("the server sent a cursor that is malformed")
        del self._starts[channel]
        self._starts[channel] = StartQuery("after", cursor)

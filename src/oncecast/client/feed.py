"""What one subscription has received and its application has not taken yet, and where it stands.

Invariant: the buffer holds at most `limit` items; what does not fit is not taken, so the place stays before it and it
is read again from there. `turn` counts how often it left its connection: events of an earlier turn are dropped.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias

from .base import CursorMoved, Received, StartQuery
from .places import Places
from .values import ClientMessage, Gap

__all__ = ["FEED_MOVES", "Feed", "FeedState"]


class FeedState(enum.Enum):
    """Whether a feed is on its connection."""

    ACTIVE = "active"
    PARKED = "parked"  # off the connection, as its application is slow; it comes back when the buffer has drained
    ENDED = "ended"


FeedEvent: TypeAlias = Literal[
    "filled",  # the buffer is full, and the connection goes on without the feed
    "drained",  # half of the buffer has been taken out
    "ended",  # the application has closed the subscription, or the feed has failed
]

FEED_MOVES: Mapping[FeedState, Mapping[FeedEvent, FeedState]] = {
    FeedState.ACTIVE: {"filled": FeedState.PARKED, "ended": FeedState.ENDED},
    FeedState.PARKED: {"drained": FeedState.ACTIVE, "ended": FeedState.ENDED},
    FeedState.ENDED: {},
}


class Feed:
    """One subscription's channels, places and buffer. `on_change` is called when it joins or leaves its connection."""

    def __init__(
        self, channels: Sequence[str], start: StartQuery, *, limit: int, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.channels = tuple(dict.fromkeys(channels))
        self.places = Places(self.channels, start)
        self.state = FeedState.ACTIVE
        self.turn = 0
        self.near = False  # its places are near those of its connection: one request for all of them wastes little
        self.on_change = on_change
        self.error: Exception | None = None
        self._limit = limit
        self._items: deque[ClientMessage | Gap] = deque()
        self._handed: dict[str, str] = {}
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._attached = asyncio.Event()

    # For the connection

    @property
    def full(self) -> bool:
        """Whether nothing more fits."""
        return len(self._items) >= self._limit

    def take(self, event: Received | Gap | CursorMoved) -> None:
        """Move the places; buffer the event if it is news."""
        if not isinstance(event, CursorMoved):
            self._note(event.message.channel if isinstance(event, Received) else event.channel)
        if news := self.places.take(event):
            self._items.append(news)
            self._ready.set()
            if self.full:
                self._room.clear()
        if not self._attached.is_set() and self.places.attached:
            self._attached.set()

    async def room(self) -> None:
        """Wait until something more fits, or the feed has ended."""
        await self._room.wait()

    def park(self) -> None:
        """Leave the connection until half of the full buffer has been taken out: `pop` brings the feed back."""
        assert self.full
        self._move("filled")
        self.turn += 1
        self.near = False

    def fail(self, error: Exception) -> None:
        """End with an error, which the application sees after what it has not taken yet."""
        if self.state is not FeedState.ENDED:
            self.error = error
            self.end()

    def end(self) -> None:
        """End, once."""
        if self.state is not FeedState.ENDED:
            self._move("ended")
            self._ready.set()
            self._room.set()
            self._attached.set()

    # For the application

    @property
    def ended(self) -> bool:
        """Whether nothing more will come than what is in the buffer."""
        return self.state is FeedState.ENDED

    @property
    def cursors(self) -> dict[str, str]:
        """For each channel that has a place, the cursor after what has been taken out."""
        starts = self.places.starts
        waiting = {item.channel for item in self._items}
        found = {}
        for channel in self.channels:
            if channel not in waiting and starts[channel].cursor is not None:
                found[channel] = starts[channel].value
            elif channel in self._handed:
                found[channel] = self._handed[channel]
        return found

    async def attached(self) -> None:
        """Wait until each channel has a place. Raises what the feed has failed with."""
        await self._attached.wait()
        if self.error is not None and not self._items:
            raise self.error

    async def wait(self) -> None:
        """Wait until there is something to take out, or the feed has ended.

        Another task may take it out first: look at what `pop` returns.
        """
        await self._ready.wait()

    def pop(self, limit: int) -> list[ClientMessage | Gap]:
        """Take out up to `limit` items; an empty list where none is there now.

        Raises what the feed has failed with, once everything before it has been taken out.
        """
        items = [self._items.popleft() for _ in range(min(limit, len(self._items)))]
        for item in items:
            self._handed[item.channel] = item.id if isinstance(item, ClientMessage) else item.cursor
        if not self.full:
            self._room.set()
        if self.state is FeedState.PARKED and len(self._items) * 2 <= self._limit:
            self._move("drained")
        if not self._items and self.state is not FeedState.ENDED:
            self._ready.clear()
        if not items and self.error is not None:
            raise self.error
        return items

    def _note(self, channel: str) -> None:
        """Keep where a channel began, before the first of its items is buffered."""
        if channel not in self._handed and channel in self.channels and (start := self.places.starts[channel]).cursor:
            self._handed[channel] = start.value

    def _move(self, event: FeedEvent) -> None:
        state = FEED_MOVES[self.state].get(event)
        assert state is not None, f"a feed that is {self.state.value} can't be {event}"
        self.state = state
        self.on_change()

"""A session: one attempt to listen for many subscriptions over one transport, until it breaks or has to be restarted.

Gives each message to its feed, and parks a slow feed when others wait behind it. Invariants:
* `on` says which feed each channel belongs to, and in which turn of it: an event of another turn is dropped, so that
  an event that was in flight when a feed was parked cannot move its place.
* Between taking an event from the transport and giving it to its feed nothing is lost: the place moves with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from .base import (
    Adjustable,
    Authorize,
    ChannelRefused,
    CursorMoved,
    Expiring,
    Received,
    RetryHint,
    StartQuery,
    Transport,
    TransportEvent,
)
from .dialing import Endpoint
from .failures import Refused, Unsuited
from .feed import Feed, FeedState
from .http import HttpConnection
from .poll import PageReader
from .timing import Timing
from .values import Gap

__all__ = ["Context", "Feeds", "ListenSession"]

logger = logging.getLogger("oncecast.client")

ROUNDS = 2  # of reads that bring channels into one epoch; a server that restarts more often is listened to all the same
SLICE_SECONDS = 0.25  # of a wait, so that time in which the application holds the event loop is not counted

On = dict[str, tuple[Feed, int]]  # per channel of a session: its feed, and the turn of that


class Feeds:
    """The feeds of one connection."""

    def __init__(self) -> None:
        self.all: list[Feed] = []

    def prune(self) -> None:
        """Forget those that have ended."""
        self.all = [feed for feed in self.all if feed.state is not FeedState.ENDED]

    def wanted(self) -> On:
        """The channels to listen to, each with its feed."""
        return {
            channel: (feed, feed.turn)
            for feed in self.all
            if feed.state is FeedState.ACTIVE
            for channel in feed.channels
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What the sessions of one connection are given.

    `may_renew` says whether a refusal is answered with another token; `on_attach` is called at the first event,
    `on_progress` when the server has shown that it serves, and `on_expiring` when the token ends soon.
    """

    endpoint: Endpoint
    authorize: Authorize
    timing: Timing
    may_renew: Callable[[Refused], bool]
    on_attach: Callable[[], None]
    on_progress: Callable[[], None]
    on_expiring: Callable[[], None]


class ListenSession:
    """One attempt. `hurried`: the first sign of life must come soon. `alone`: ask for each feed by itself first.

    `hint` is how many seconds the server wants a client to stay away for. `held_up` says whether a slow application
    kept the session from reading: then the end of the connection says nothing about the transport.
    """

    def __init__(self, transport: Transport, feeds: Feeds, context: Context, *, hurried: bool, alone: bool) -> None:
        self.hint: float | None = None
        self.held_up = False
        self._transport = transport
        self._feeds = feeds
        self._context = context
        self._timing = context.timing
        self._hurried = hurried
        self._alone = alone
        self._on: On = {}

    async def adjust(self) -> bool:
        """Change to the channels that are wanted now; say whether that is possible."""
        self._feeds.prune()
        wanted, on = self._feeds.wanted(), self._on
        if wanted == on:
            return True
        if not isinstance(self._transport, Adjustable) or not self._feeds.all:
            return False
        leave = [channel for channel in on if wanted.get(channel) != on[channel]]
        starts = _starts(wanted)
        join = {channel: starts[channel] for channel in wanted if wanted[channel] != on.get(channel)}
        self._on = wanted
        await self._transport.adjust(join, leave)
        return True

    async def listen(self) -> None:
        """Listen. Returns where nothing is left to listen to. Raises `Broken` or `Refused`."""
        self._on = self._feeds.wanted()
        if not isinstance(self._transport, Adjustable):
            await self._meet()
            if not self._on:
                return
        async with contextlib.aclosing(self._transport(_starts(self._on))) as events:
            seen, event = 0, await self._first(events)
            while True:
                if isinstance(event, RetryHint):
                    self.hint = event.seconds
                elif isinstance(event, Expiring):
                    self._context.on_expiring()
                else:
                    seen += 1
                    if seen == 1:
                        for feed, _ in self._on.values():
                            feed.near = True
                        self._context.on_attach()
                    # A server that ends each connection right after it has attached is not asked again at once.
                    if isinstance(event, Received) or seen > len(self._on):
                        self._context.on_progress()
                    await self._dispatch(event)
                event = await anext(events)

    async def _first(self, events: AsyncGenerator[TransportEvent, None]) -> TransportEvent:
        """Return the first event, which must come soon while there is another transport to turn to.

        The wait is cut into slices, each of which counts for no more than its length: while the application holds the
        event loop, nothing could be read.
        """
        if not self._hurried:
            return await anext(events)
        loop = asyncio.get_running_loop()
        first = asyncio.ensure_future(anext(events))
        left = self._timing.attach
        try:
            while left > 0:
                seconds = min(left, SLICE_SECONDS)
                began = loop.time()
                await asyncio.wait({first}, timeout=seconds)
                if first.done():
                    return first.result()
                if loop.time() - began < 2 * seconds:  # else it was the application's time
                    left -= seconds
            raise Unsuited(f"nothing came within {self._timing.attach:g} s")
        finally:
            if not first.done():
                first.cancel()
                await asyncio.wait({first})
            if not first.cancelled():
                first.exception()  # asyncio logs what nobody takes: a break as it is cancelled

    async def _dispatch(self, event: TransportEvent) -> None:
        """Give an event to its feed, or a cursor to all."""
        match event:
            case Received(message):
                await self._offer(message.channel, event)
            case Gap(channel=channel):
                await self._offer(channel, event)
            case ChannelRefused(channel, error):
                if channel in self._on:
                    if self._context.may_renew(error):
                        raise error
                    self._on[channel][0].fail(error)
            case CursorMoved(channel=None):
                for feed, turn in dict.fromkeys(self._on.values()):
                    if feed.turn == turn:
                        feed.take(event)
            case CursorMoved(channel=str(channel)) if channel in self._on:
                feed, turn = self._on[channel]
                if feed.turn == turn:
                    feed.take(event)

    async def _offer(self, channel: str, event: Received | Gap) -> None:
        """Give an event to its feed once there is room; past the grace, park the feed if others wait behind it."""
        while (entry := self._on.get(channel)) and entry[0].turn == entry[1]:
            feed = entry[0]
            if feed.state is FeedState.ENDED:
                return
            if not feed.full:
                feed.take(event)
                return
            self.held_up = True
            try:
                async with asyncio.timeout(self._timing.grace):
                    await feed.room()
            except TimeoutError:
                # Room may have been made in this very turn of the loop: a feed that is not full would never come back.
                others = any(other is not feed and other.state is FeedState.ACTIVE for other in self._feeds.all)
                if others and feed.full and feed.state is FeedState.ACTIVE:
                    logger.info("%s: leaves the connection, as its application is slow", ", ".join(feed.channels))
                    feed.park()

    # Before one request for all

    async def _meet(self) -> None:
        """Read each feed that stands elsewhere up to where one request for all of them can begin.

        One request has one start. A feed that is new, or was parked, is read by polls first: else the others would be
        repeated from its place on, or it would lose what it asks for.
        """
        starts = _starts(self._on)
        if len(set(starts.values())) == 1 and not self._alone:
            start = next(iter(starts.values()))
            if start.name != "last" or len(starts) == 1:
                return
        await self._read_all(all_feeds=_epochs(starts) > 1)
        # A new epoch may have begun in between. Places in two of them have no common start that repeats nothing.
        for _ in range(ROUNDS):
            if _epochs(_starts(self._on)) > 1:
                await self._read_all(all_feeds=True)

    async def _read_all(self, *, all_feeds: bool) -> None:
        """Read each feed that is not near the others, or with `all_feeds` each; leave out those that are refused."""
        for feed, _ in dict.fromkeys(self._on.values()):
            if all_feeds or not feed.near or not feed.places.attached:
                try:
                    await self._read(feed)
                except Unsuited:
                    raise
                except Refused as error:
                    if self._context.may_renew(error):
                        raise
                    feed.fail(error)
        self._on = {channel: entry for channel, entry in self._on.items() if entry in self._feeds.wanted().values()}

    async def _read(self, feed: Feed) -> None:
        """Poll a feed's channels until nothing is left."""
        connection = HttpConnection(self._context.endpoint, timing=self._timing, authorize=self._context.authorize)
        turn = feed.turn
        try:
            starts = feed.places.starts
            # One request has one start: channels without a cursor, or in several epochs, have none in common.
            mixed = _epochs(starts) > 1
            alone = [{channel: start} for channel, start in starts.items() if start.cursor is None or mixed]
            for each in [*alone, None]:
                poll = PageReader(connection, feed.places.starts if each is None else each)
                poll.full = True
                while poll.full and feed.turn == turn:
                    for event in await poll.page():
                        if isinstance(event, CursorMoved) and each is not None:
                            event = CursorMoved(event.cursor, next(iter(each)))
                        await self._give(feed, turn, event)
            feed.near = feed.turn == turn
        finally:
            await connection.close()

    async def _give(self, feed: Feed, turn: int, event: TransportEvent) -> None:
        """Give an event of a poll to the feed that asked."""
        if isinstance(event, Received):
            await self._offer(event.message.channel, event)
        elif isinstance(event, Gap):
            await self._offer(event.channel, event)
        elif isinstance(event, CursorMoved) and feed.turn == turn:
            feed.take(event)


def _epochs(starts: Mapping[str, StartQuery]) -> int:
    """Say in how many epochs some channels are."""
    return len({start.cursor.epoch for start in starts.values() if start.cursor})


def _starts(on: On) -> dict[str, StartQuery]:
    """Return where each channel of a session begins, the places of a feed in the order in which they last moved."""
    starts: dict[str, StartQuery] = {}
    for feed, _ in dict.fromkeys(on.values()):
        starts.update({channel: start for channel, start in feed.places.starts.items() if channel in on})
    return starts

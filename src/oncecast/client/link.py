"""One connection for many subscriptions: it listens, falls back, comes back, and gives each message to its feed.

Owns one task for as long as it has feeds. Invariants:
* `_on` says which feed each channel of the running session belongs to, and in which turn of it: an event of another
  turn is dropped, so that what was in flight when a feed was parked cannot move its place.
* Between taking an event from the transport and giving it to its feed nothing is lost: the place moves with it.

`LINK_MOVES` is the table of its states; each move is told to `on_state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass

from .base import (
    UNREACHABLE_CAP_SECONDS,
    Adjustable,
    Authorize,
    Backoff,
    Broken,
    ChannelRefused,
    CursorMoved,
    Drained,
    Event,
    Gap,
    Received,
    Refused,
    RetryHint,
    Start,
    Timing,
    Transport,
    Unreachable,
    Unsuited,
)
from .credentials import Credentials
from .feed import Feed, FeedState
from .http import Connection, Server
from .ladder import Ladder
from .poll import Poll

__all__ = ["LINK_CHANNELS", "LINK_MOVES", "Link", "LinkState", "StateChanged"]

logger = logging.getLogger("oncecast.client")

LINK_CHANNELS = 64  # on one connection: what a server allows unless it is told otherwise


class LinkState(enum.Enum):
    """What a connection is doing."""

    IDLE = "idle"  # nobody subscribes
    CONNECTING = "connecting"
    LISTENING = "listening"
    WAITING = "waiting"  # it broke, and the next attempt is not yet due
    CLOSED = "closed"


LINK_MOVES: Mapping[LinkState, frozenset[LinkState]] = {
    LinkState.IDLE: frozenset({LinkState.CONNECTING, LinkState.CLOSED}),
    LinkState.CONNECTING: frozenset({LinkState.LISTENING, LinkState.WAITING, LinkState.IDLE, LinkState.CLOSED}),
    LinkState.LISTENING: frozenset({LinkState.CONNECTING, LinkState.WAITING, LinkState.IDLE, LinkState.CLOSED}),
    LinkState.WAITING: frozenset({LinkState.CONNECTING, LinkState.IDLE, LinkState.CLOSED}),
    LinkState.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A connection went from one state to another. `seconds` is how long it waits, where it does."""

    before: LinkState
    after: LinkState
    reason: str = ""
    seconds: float = 0.0


_On = dict[str, tuple[Feed, int]]  # per channel of a session: whose it is, in which turn


class Link:
    """One connection. `transports` are its own; the ladder and the credentials are shared by a client's links."""

    def __init__(
        self,
        server: Server,
        transports: Mapping[str, Transport],
        ladder: Ladder,
        credentials: Credentials,
        *,
        timing: Timing,
        backoff: Backoff,
        clock: Callable[[], float],
        on_state: Callable[[StateChanged], None],
    ) -> None:
        self.feeds: list[Feed] = []
        self.state = LinkState.IDLE
        self._server = server
        self._transports = transports
        self._ladder = ladder
        self._credentials = credentials
        self._authorize: Authorize = credentials.headers
        self._timing = timing
        self._backoff = backoff
        self._clock = clock
        self._on_state = on_state
        self._on: _On = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._attached_at: float | None = None  # in the running session
        self._hint: float | None = None
        self._renewed_at: float | None = None  # the token, after a 401
        self._alone = False  # feeds are asked for one by one, to find the one that is refused

    # For the client

    @property
    def channels(self) -> set[str]:
        """The channels of all its feeds that have not ended."""
        return {channel for feed in self.feeds if feed.state is not FeedState.ENDED for channel in feed.channels}

    def add(self, feed: Feed) -> None:
        """Carry a feed, whose channels it does not carry yet."""
        feed.on_change = self._changed.set
        self.feeds.append(feed)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """Look again: the ladder has moved."""
        self._changed.set()

    async def close(self) -> None:
        """End the task and all feeds."""
        for feed in self.feeds:
            feed.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        if self.state is not LinkState.CLOSED:
            self._move(LinkState.CLOSED)

    # The task

    async def _run(self) -> None:
        try:
            while True:
                self._prune()
                if self._wanted():
                    await self._attempt()
                else:
                    if self.state is not LinkState.IDLE:
                        self._move(LinkState.IDLE)
                    self._changed.clear()
                    await self._changed.wait()
        except Exception as error:
            logger.exception("the client has failed: this is a defect of it")
            self._fail(error)

    async def _attempt(self) -> None:
        """Listen once, and see to how it ended."""
        name = self._ladder.current
        if self.state is not LinkState.CONNECTING:
            self._move(LinkState.CONNECTING, name)
        try:
            await self._session(name, self._transports[name])
            if self._attached_at is not None:
                self._backoff.reset()
        except Unsuited as error:
            if not self._ladder.unsuited(name, str(error)):
                self._fail(error)
        except Refused as error:
            self._refused(error)
        except Broken as error:
            wait = self._hint if error.retry_after is None else error.retry_after
            if error.retry_after is None and not isinstance(error, Unreachable | Drained):
                lived = None if self._attached_at is None else self._clock() - self._attached_at
                self._ladder.broke(name, lived, str(error))
            cap = UNREACHABLE_CAP_SECONDS if isinstance(error, Unreachable) else math.inf
            delay = self._backoff.next_delay(wait, cap=cap)
            self._move(LinkState.WAITING, str(error), delay)
            await self._backoff.sleep(delay)

    def _refused(self, error: Refused) -> None:
        """See whether a new token helps, or whether one feed only is refused; else end all of them."""
        if self._may_renew(error):
            self._renewed_at = self._clock()
            self._credentials.expire()
        elif len(self.feeds) > 1 and not self._alone:
            self._alone = True
            for feed in self.feeds:
                feed.near = False
        else:
            self._fail(error)

    def _may_renew(self, error: Refused) -> bool:
        """Whether a new token may help: not if the last one is new already."""
        if error.code != "unauthorized" or not self._credentials.renewable:
            return False
        return self._renewed_at is None or self._clock() - self._renewed_at > self._timing.proof

    def _fail(self, error: Exception) -> None:
        for feed in self.feeds:
            feed.fail(error)

    # A session

    async def _session(self, name: str, transport: Transport) -> None:
        """Listen over one transport. Returns when to begin anew at once; raises how it broke."""
        self._attached_at, self._hint = None, None
        listener = asyncio.create_task(self._listen(name, transport))
        try:
            while True:
                changed = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait({listener, changed}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    changed.cancel()
                if listener.done():
                    listener.result()
                    return
                self._changed.clear()
                if self._ladder.current != name or not await self._adjust(transport):
                    return
        finally:
            listener.cancel()
            await asyncio.wait({listener})
            if not listener.cancelled():
                listener.exception()  # it may have broken just now: that is no news any more

    async def _adjust(self, transport: Transport) -> bool:
        """Change the channels of the running session; say whether that is possible."""
        self._prune()
        wanted, on = self._wanted(), self._on
        if wanted == on:
            return True
        if not isinstance(transport, Adjustable) or not self.feeds:
            return False
        leave = [channel for channel in on if wanted.get(channel) != on[channel]]
        starts = _starts(wanted)
        join = {channel: starts[channel] for channel in wanted if wanted[channel] != on.get(channel)}
        self._on = wanted
        await transport.adjust(join, leave)
        return True

    async def _listen(self, name: str, transport: Transport) -> None:
        self._on = self._wanted()
        if not isinstance(transport, Adjustable):
            await self._meet()
            if not self._on:
                return
        async with contextlib.aclosing(transport(_starts(self._on))) as events:
            seen, event = 0, await self._first(name, events)
            while True:
                if isinstance(event, RetryHint):
                    self._hint = event.seconds
                else:
                    seen += 1
                    if seen == 1:
                        self._attached(name)
                    # A server that lets go of everyone who has just attached is not asked again at once.
                    if isinstance(event, Received) or seen > len(self._on):
                        self._backoff.reset()
                    await self._dispatch(event)
                event = await anext(events)

    def _attached(self, name: str) -> None:
        self._attached_at = self._clock()
        self._alone = False
        for feed, _ in self._on.values():
            feed.near = True
        self._move(LinkState.LISTENING, name)

    async def _first(self, name: str, events: AsyncGenerator[Event, None]) -> Event:
        """Return the first event, which must come soon while there is another transport to turn to."""
        seconds = None if self._ladder.is_last else self._timing.attach
        try:
            async with asyncio.timeout(seconds):
                return await anext(events)
        except TimeoutError:
            raise Unsuited(f"nothing came over {name} within {seconds:g} s") from None

    async def _dispatch(self, event: Event) -> None:
        """Give an event to its feed, or a cursor to all."""
        match event:
            case Received(message):
                await self._offer(message.channel, event)
            case Gap(channel=channel):
                await self._offer(channel, event)
            case ChannelRefused(channel, error):
                if channel in self._on:
                    if self._may_renew(error):
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
            try:
                async with asyncio.timeout(self._timing.grace):
                    await feed.room()
            except TimeoutError:
                # Room may have been made in this very turn of the loop: a feed that is not full would never come back.
                others = any(other is not feed and other.state is FeedState.ACTIVE for other in self.feeds)
                if others and feed.full and feed.state is FeedState.ACTIVE:
                    logger.debug("%s: its application is slow, so it leaves the connection", ", ".join(feed.channels))
                    feed.park()

    # Before one request for all

    async def _meet(self) -> None:
        """Read each feed that stands elsewhere on to where one request for all of them can begin.

        One request has one start. A feed that is new, or was parked, is read by polls first: else it would have the
        others repeated from its place on, or lose what it asks for.
        """
        starts = _starts(self._on)
        if len(set(starts.values())) == 1 and not self._alone:
            start = next(iter(starts.values()))
            if start.name != "last" or len(starts) == 1:
                return
        epochs = {start.cursor.epoch for start in starts.values() if start.cursor}
        feeds = [feed for feed, _ in dict.fromkeys(self._on.values())]
        for feed in feeds:
            if not feed.near or not feed.places.attached or len(epochs) > 1:
                try:
                    await self._read(feed)
                except Unsuited:
                    raise
                except Refused as error:
                    if self._may_renew(error):
                        raise
                    feed.fail(error)
        self._on = {channel: entry for channel, entry in self._on.items() if entry in self._wanted().values()}

    async def _read(self, feed: Feed) -> None:
        """Poll a feed's channels until nothing is left."""
        connection = Connection(self._server, timing=self._timing, authorize=self._authorize)
        turn = feed.turn
        try:
            starts = feed.places.starts
            # One request has one start; what no cursor says, or cursors of several lives, has none in common.
            mixed = len({start.cursor.epoch for start in starts.values() if start.cursor}) > 1
            alone = [{channel: start} for channel, start in starts.items() if start.cursor is None or mixed]
            for each in [*alone, None]:
                poll = Poll(connection, feed.places.starts if each is None else each)
                poll.full = True
                while poll.full and feed.turn == turn:
                    for event in await poll.page():
                        if isinstance(event, CursorMoved) and each is not None:
                            event = CursorMoved(event.cursor, next(iter(each)))
                        await self._give(feed, turn, event)
            feed.near = feed.turn == turn
        finally:
            await connection.close()

    async def _give(self, feed: Feed, turn: int, event: Event) -> None:
        """Give an event of a poll to the feed that asked."""
        if isinstance(event, Received):
            await self._offer(event.message.channel, event)
        elif isinstance(event, Gap):
            await self._offer(event.channel, event)
        elif isinstance(event, CursorMoved) and feed.turn == turn:
            feed.take(event)

    # Helpers

    def _prune(self) -> None:
        self.feeds = [feed for feed in self.feeds if feed.state is not FeedState.ENDED]

    def _wanted(self) -> _On:
        """Which channels to listen to, and for whom."""
        return {
            channel: (feed, feed.turn)
            for feed in self.feeds
            if feed.state is FeedState.ACTIVE
            for channel in feed.channels
        }

    def _move(self, state: LinkState, reason: str = "", seconds: float = 0.0) -> None:
        assert state in LINK_MOVES[self.state], (self.state, state)
        before, self.state = self.state, state
        self._on_state(StateChanged(before, state, reason, seconds))


def _starts(on: _On) -> dict[str, Start]:
    """Return where each channel of a session begins, the places of a feed in the order in which they last moved."""
    starts: dict[str, Start] = {}
    for feed, _ in dict.fromkeys(on.values()):
        starts.update({channel: start for channel, start in feed.places.starts.items() if channel in on})
    return starts

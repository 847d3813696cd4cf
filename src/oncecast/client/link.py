"""One connection for many subscriptions, for as long as there are some: it connects, falls back, and comes back.

Owns one task, which runs one `ListenSession` after another. `LINK_MOVES` is the table of its states; each move is
reported to `on_state`. Invariant: while there is a feed that has not ended, the task runs; where it fails, or is
cancelled from outside, its feeds end with an error, and the next feed starts another task.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .backoff import UNREACHABLE_CAP_SECONDS, Backoff
from .base import Renewable, StartQuery, Transport
from .credentials import Credentials
from .dialing import Endpoint
from .failures import Broken, ClientFailed, Drained, Refused, Unreachable, Unsuited
from .feed import Feed
from .http import HttpConnection
from .ladder import Ladder
from .poll import PageReader
from .session import Context, Feeds, ListenSession
from .timing import Timing

__all__ = ["LINK_CHANNELS", "LINK_MOVES", "ClientLink", "LinkState", "StateChanged"]

logger = logging.getLogger("oncecast.client")

WARNED_SECONDS = 1.0  # between renewals that a warning causes: a service may hand out tokens that end at once
RENEWED_SECONDS = 1.0  # before a connection with another token, where tokens are refused one after the other

LINK_CHANNELS = 64  # on one connection: what a server allows by default


class LinkState(enum.Enum):
    """What a connection is doing."""

    IDLE = "idle"  # there is no subscription
    CONNECTING = "connecting"
    LISTENING = "listening"
    WAITING = "waiting"  # it broke, and the next attempt is not yet due
    CLOSED = "closed"


LinkEvent: TypeAlias = Literal[
    "attempt",  # a session begins, with the transport of the ladder
    "attached",  # the server has answered: each channel has a place
    "broken",  # the session failed, or was refused soon after a renewal of the token
    "unused",  # no subscription is left, or they have ended with an error
    "close",  # the application closes the client
]

_IDLE, _CONNECTING, _LISTENING, _WAITING, _CLOSED = LinkState
LINK_MOVES: Mapping[LinkState, Mapping[LinkEvent, LinkState]] = {
    _IDLE: {"attempt": _CONNECTING, "close": _CLOSED},
    _CONNECTING: {"attached": _LISTENING, "broken": _WAITING, "unused": _IDLE, "close": _CLOSED},
    _LISTENING: {"attempt": _CONNECTING, "broken": _WAITING, "unused": _IDLE, "close": _CLOSED},
    _WAITING: {"attempt": _CONNECTING, "unused": _IDLE, "close": _CLOSED},
    _CLOSED: {},
}


@dataclass(frozen=True, slots=True)
class StateChanged:
    """A connection went from one state to another. `seconds` is how long it waits, where it does."""

    before: LinkState
    after: LinkState
    reason: str = ""
    seconds: float = 0.0


class ClientLink:
    """One connection. `transports` are its own; the ladder and the credentials are shared by a client's links."""

    def __init__(
        self,
        endpoint: Endpoint,
        transports: Mapping[str, Transport],
        ladder: Ladder,
        credentials: Credentials,
        *,
        timing: Timing,
        backoff: Backoff,
        clock: Callable[[], float],
        on_state: Callable[[StateChanged], None],
    ) -> None:
        self._endpoint = endpoint
        self._feeds = Feeds()
        self.state = LinkState.IDLE
        self._transports = transports
        self._ladder = ladder
        self._credentials = credentials
        self._timing = timing
        self._backoff = backoff
        self._clock = clock
        self._on_state = on_state
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._name = ""  # of the running session's transport
        self._attached_at: float | None = None  # in the running session
        self._renewed_at: float | None = None  # the token, after a 401 that no message has followed
        self._last_renewal = -math.inf  # after any 401
        self._warned_at = -math.inf  # of the token's end
        self._renewal: asyncio.Task[None] | None = None  # gets another token, before that end
        self._restart = False  # the transport, to begin with the other token
        self._alone = False  # ask for feeds one by one, to find the one that is refused
        self._context = Context(
            endpoint=endpoint,
            authorize=credentials.headers,
            timing=timing,
            may_renew=self._may_renew,
            on_attach=self._attached,
            on_progress=self._progressed,
            on_expiring=self._expiring,
        )

    # For the client

    @property
    def channels(self) -> set[str]:
        """The channels of all its feeds that have not ended."""
        self._feeds.prune()
        return {channel for feed in self._feeds.all for channel in feed.channels}

    def add(self, feed: Feed) -> None:
        """Carry a feed, whose channels it does not carry yet."""
        feed.on_change = self._changed.set
        self._feeds.all.append(feed)
        self._changed.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(self._ended)

    def wake(self) -> None:
        """Look again: the ladder has moved."""
        self._changed.set()

    async def close(self) -> None:
        """End the task and all feeds."""
        for feed in self._feeds.all:
            feed.end()
        if self.state is not LinkState.CLOSED:
            self._move("close")
        tasks = {task for task in (self._task, self._renewal) if task is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # The task

    async def _run(self) -> None:
        while True:
            try:
                self._feeds.prune()
                if self._feeds.wanted():
                    await self._attempt()
                    continue
                if self.state is not LinkState.IDLE:
                    self._move("unused")
                self._changed.clear()
                await self._changed.wait()
            except Exception as error:
                logger.exception("the client has failed, which is a defect of it: its subscriptions end")
                failure = ClientFailed(f"the client has failed: {error!r}")
                failure.__cause__ = error
                self._fail(failure)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Note the task's end, which only `close` may cause."""
        if self.state is LinkState.CLOSED:
            return
        self._task = None
        self._fail(ClientFailed("the client's task was cancelled from outside: subscribe again"))
        if self.state is not LinkState.IDLE:
            self._move("unused")

    async def _attempt(self) -> None:
        """Listen once, and act on how it ended."""
        name = self._ladder.current
        if self.state is not LinkState.CONNECTING:
            self._move("attempt", name)
        self._name, self._attached_at = name, None
        session = ListenSession(
            self._transports[name], self._feeds, self._context, hurried=not self._ladder.is_last, alone=self._alone
        )
        try:
            await self._run_session(session)
        except Unsuited as error:
            if not self._ladder.unsuited(name, str(error)):
                self._fail(error)
        except Refused as error:
            soon = self._clock() - self._last_renewal < RENEWED_SECONDS and self._may_renew(error)
            self._refused(error)
            if soon:
                self._move("broken", str(error), RENEWED_SECONDS)
                await self._backoff.sleep(RENEWED_SECONDS)
        except Broken as error:
            wait = session.hint if error.retry_after is None else error.retry_after
            lived = None if self._attached_at is None else self._clock() - self._attached_at
            if not session.held_up and await self._is_the_transports(error):
                self._ladder.broke(name, lived, str(error))
            cap = UNREACHABLE_CAP_SECONDS if isinstance(error, Unreachable) else math.inf
            delay = self._backoff.next_delay(wait, cap=cap)
            self._move("broken", str(error), delay)
            await self._backoff.sleep(delay)

    async def _is_the_transports(self, error: Broken) -> bool:
        """Say whether a failure speaks against the transport: not where the server is away, restarts or is overloaded.

        A connection that is cut, or an answer like 502, may be about the server or about the transport: a poll, which
        passes everywhere, shows which.
        """
        if self._ladder.is_last or error.retry_after is not None or isinstance(error, Unreachable | Drained):
            return False
        return await self._serves()

    async def _serves(self) -> bool:
        """Say whether the server answers a poll now."""
        channel = next(iter(self._feeds.wanted()), None)
        if channel is None:
            return False
        connection = HttpConnection(self._endpoint, timing=self._timing, authorize=self._credentials.headers)
        try:
            await PageReader(connection, {channel: StartQuery("after", "latest")}).page(limit=1)
        except Refused as error:
            return not isinstance(error, Unsuited)
        except Broken:
            return False
        finally:
            await connection.close()
        return True

    def _refused(self, error: Refused) -> None:
        """Renew the token where that may help; else find the feed that is refused, or end all of them."""
        if self._may_renew(error):
            self._renewed_at = self._last_renewal = self._clock()
            self._credentials.expire()
        elif len(self._feeds.all) > 1 and not self._alone:
            self._alone = True
            for feed in self._feeds.all:
                feed.near = False
        else:
            self._fail(error)

    def _may_renew(self, error: Refused) -> bool:
        """Whether a new token may help: not if the last one is new already."""
        if error.code != "unauthorized" or not self._credentials.renewable:
            return False
        return self._renewed_at is None or self._clock() - self._renewed_at > self._timing.proof

    def _progressed(self) -> None:
        self._backoff.reset()
        self._renewed_at = None

    def _expiring(self) -> None:
        """Get another token while the connection goes on."""
        now = self._clock()
        running = self._renewal is not None and not self._renewal.done()
        if self._credentials.renewable and not running and now - self._warned_at > WARNED_SECONDS:
            self._warned_at = now
            self._renewal = asyncio.create_task(self._renew())

    async def _renew(self) -> None:
        """Hand another token to the transport, or begin again with it. Without one, the server will refuse the old."""
        name = self._name
        try:
            if not await self._credentials.renew():
                return
            transport = self._transports[name]
            if isinstance(transport, Renewable):
                await transport.renew()
            elif name == self._name:
                self._restart = True
                self._changed.set()
        except Exception:  # a task's edge: the connection goes on until its token ends
            logger.exception("the token could not be renewed")

    def _fail(self, error: Exception) -> None:
        for feed in self._feeds.all:
            feed.fail(error)

    async def _run_session(self, session: ListenSession) -> None:
        """Let a session listen until it has to be restarted. Raises how it broke."""
        listener = asyncio.create_task(session.listen())
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
                if self._restart or self._ladder.current != self._name or not await session.adjust():
                    self._restart = False
                    return
        finally:
            listener.cancel()
            await asyncio.wait({listener})
            if not listener.cancelled():
                listener.exception()  # it may have broken just now, which no longer matters

    def _attached(self) -> None:
        self._attached_at = self._clock()
        self._alone = False
        self._move("attached", self._name)

    def _move(self, event: LinkEvent, reason: str = "", seconds: float = 0.0) -> None:
        if self.state is LinkState.CLOSED:  # what is under way comes to nothing
            return
        before, after = self.state, LINK_MOVES[self.state].get(event)
        assert after is not None, f"a connection that is {before.value} can't be moved by {event!r}"
        self.state = after
        self._on_state(StateChanged(before, after, reason, seconds))

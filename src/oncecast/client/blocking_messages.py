"""A subscription of a blocking client: an iterator for one thread or several.

Invariants: a timeout holds whatever other threads do; an exception in a wait, as by Ctrl-C, loses no item; a forked
child waits for nothing of its parent's.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

from ..errors import UsageError
from .engine import WAIT_SECONDS, Engine
from .failures import Broken, SubscriptionEnded
from .gaps import GapWatch, OnGap
from .inbox import Inbox
from .messages import Messages
from .values import ClientMessage, Gap

__all__ = ["BlockingMessages"]

LOOK_SECONDS = 1.0  # for the client's thread to say what has arrived; it needs some microseconds


class BlockingMessages:
    """A subscription: an iterator of messages, in order, each once. It ends when it or its client is closed.

    Several threads may iterate: each message goes to one of them. `with` waits until every channel has its place.
    `on_gap` is called with each `Gap`, by the thread that iterates; `events()` yields gaps between the messages.
    Without either each gap is a warning in the log `oncecast.client`; with `on_gap="raise"` it is a `GapError`.
    """

    def __init__(self, client: object, engine: Engine, messages: Messages, gaps: GapWatch) -> None:
        self._client = client  # which would be closed if nothing referred to it
        self._engine = engine
        self._messages = messages
        self._gaps = gaps
        self._lock = threading.Lock()  # held for some instructions, never while waiting
        self._inbox = Inbox()
        self._fetch: concurrent.futures.Future[bool] | None = None

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels, each once."""
        return self._messages.channels

    @property
    def cursors(self) -> dict[str, str]:
        """For each channel that has a place, the cursor after the last message that was handed out."""
        if not self._inbox.items and self._engine.usable:
            with contextlib.suppress(Broken):  # it has just been closed
                return self._engine.call(self._look())
        return dict(self._inbox.cursors)

    @property
    def on_gap(self) -> OnGap:
        """A function that is called with each gap, `"raise"`, or None. Setting another raises `UsageError`."""
        return self._gaps.on_gap

    @on_gap.setter
    def on_gap(self, on_gap: OnGap) -> None:
        self._gaps.on_gap = on_gap

    @property
    def gap_count(self) -> int:
        """How many gaps were handed out so far."""
        return self._gaps.count

    @property
    def last_gap(self) -> Gap | None:
        """The last gap that was handed out."""
        return self._gaps.last

    def receive(self, timeout: float | None = None) -> ClientMessage:
        """Return the next message, waiting up to `timeout` seconds; with 0 only if one has arrived already.

        Raises `TimeoutError`; `SubscriptionEnded` at the end; `Refused` where the server refuses the subscription.
        """
        if timeout is not None and not (isinstance(timeout, int | float) and timeout >= 0):
            raise UsageError(f"timeout: give seconds from 0 on, or None, not {timeout!r}")
        until = None if timeout is None or math.isinf(timeout) else time.monotonic() + timeout
        while True:
            item = self._next(until)
            if isinstance(item, ClientMessage):
                return item
            self._gaps.skipped(item)

    def events(self) -> Iterator[ClientMessage | Gap]:
        """Iterate over messages and gaps, in order, until the subscription is closed."""
        return _BlockingEvents(lambda: self._next(None))

    def close(self) -> None:
        """End the subscription."""
        if self._engine.usable:
            with contextlib.suppress(Broken):  # the client is being closed, which ends it too
                self._engine.call(self._messages.close())

    def __iter__(self) -> BlockingMessages:
        return self

    def __next__(self) -> ClientMessage:
        try:
            return self.receive()
        except SubscriptionEnded:
            raise StopIteration from None

    def __enter__(self) -> BlockingMessages:
        self._engine.call(self._messages.__aenter__())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _next(self, until: float | None) -> ClientMessage | Gap:
        """Return the next item; `until` is a moment of the monotonic clock."""
        while True:
            if self._engine.forked:  # the parent's: it hands out the items, and another thread of it may hold the lock
                raise SubscriptionEnded("this subscription is another process's: subscribe again in this one")
            with self._lock:
                item = self._pop()
                fetch = None if item is not None else self._fetching(until)
            if item is not None:
                if isinstance(item, Gap):
                    self._gaps.taken(item)
                return item
            if fetch is None:
                self._look_once()
                continue
            left = WAIT_SECONDS if until is None else min(WAIT_SECONDS, max(0.0, until - time.monotonic()))
            done, _ = concurrent.futures.wait((fetch,), left)
            if done:
                self._conclude(fetch)
            elif not self._engine.usable:
                raise SubscriptionEnded("the client was closed")

    def _pop(self) -> ClientMessage | Gap | None:
        if not self._inbox.items:
            return None
        item = self._inbox.items.popleft()
        self._inbox.cursors[item.channel] = item.id if isinstance(item, ClientMessage) else item.cursor
        return item

    def _fetching(self, until: float | None) -> concurrent.futures.Future[bool] | None:
        """Return the fetch to wait for, one for all threads; None where the time is over."""
        if until is not None and time.monotonic() >= until:
            return None
        if self._fetch is None or self._fetch.done():
            try:
                self._fetch = self._engine.submit(self._inbox.fill(self._messages))
            except Broken:
                raise SubscriptionEnded("the client was closed") from None
        return self._fetch

    def _look_once(self) -> None:
        """Fetch what has arrived. Raises `TimeoutError` where that is nothing, and as `_conclude`."""
        try:
            goes_on = self._engine.call(self._inbox.look(self._messages), timeout=LOOK_SECONDS)
        except Broken:
            goes_on = False
        if not goes_on:
            raise SubscriptionEnded("the subscription was closed")
        if not self._inbox.items:
            raise TimeoutError("no message has arrived in time")

    def _conclude(self, fetch: concurrent.futures.Future[bool]) -> None:
        """Raise how a fetch ended, if it brought nothing: `SubscriptionEnded`, or what the subscription failed with."""
        if fetch.cancelled():
            raise SubscriptionEnded("the client was closed")
        if not fetch.result() and not self._inbox.items:
            raise SubscriptionEnded("the subscription was closed")

    async def _look(self) -> dict[str, str]:
        return self._messages.cursors


class _BlockingEvents:
    """The iterator of `BlockingMessages.events`: no generator, which an exception from a wait would end."""

    def __init__(self, take: Callable[[], ClientMessage | Gap]) -> None:
        self._take = take

    def __iter__(self) -> _BlockingEvents:
        return self

    def __next__(self) -> ClientMessage | Gap:
        try:
            return self._take()
        except SubscriptionEnded:
            raise StopIteration from None
